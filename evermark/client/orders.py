"""Placing, amending and cancelling orders. Slots, sequences and expiries take care of themselves."""

from typing import Any

import msgspec

from evermark.client.errors import NotFound, OutcomeUnknown, Refused
from evermark.client.models import Cancelled, OrderStatus
from evermark.client.money import MoneyVerbs
from evermark.client.session import ATTEMPTS, given
from evermark.client.units import Human, to_lots, to_ticks
from evermark.protocol.markets import Market
from evermark.protocol.orders import (
    MAX_EXPIRY_S,
    NO_ADDRESS,
    TRIGGER_TEXT,
    Cancel,
    Order,
    Side,
    TimeInForce,
    Trigger,
)
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div

IMMEDIATE_EXPIRY_S = 30  # orders that never rest stop being valid soon, whatever happens to their answer
RESTING_EXPIRY_S = 30 * 86_400
MARKET_ORDER_SLIPPAGE_PPM = 10_000
TWAP_INTERVAL_S = 30


class OrderVerbs(MoneyVerbs):
    """Orders that meet the book at once."""

    async def place_limit(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        price: Human | None = None,
        *,
        size_lots: int | None = None,
        price_ticks: int | None = None,
        time_in_force: TimeInForce | str = TimeInForce.GTC,
        post_only: bool = False,
        reduce_only: bool = False,
        expires_in_s: int | None = None,
        max_fee_ppm: int | None = None,
        builder: bytes = NO_ADDRESS,
        builder_fee_ppm: int = 0,
        display_size_lots: int = 0,
        twap_interval_s: int = 0,
        client_id: str = "",
    ) -> OrderStatus:
        """Sign and send a limit order; the answer comes after it is durable and matched. A builder, whose account must exist,
        gets its fee beside the exchange's. An iceberg shows `display_size_lots` at a time.

        Raises NotRepresentable (off tick, off lot), OutOfRange (raw integers), Refused, Unreachable.
        """
        terms = await self.market(market)
        lots = size_lots if size_lots is not None else to_lots(terms, given(size, "size"))
        ticks = price_ticks if price_ticks is not None else to_ticks(terms, given(price, "price"))
        kind = time_in_force if isinstance(time_in_force, TimeInForce) else TimeInForce[time_in_force]
        await self._hear_time()
        draft = Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=market,
            side=side_of(side),
            size=lots,
            limit_price=ticks,
            max_fee_ppm=max(terms.maker_fee_ppm, terms.taker_fee_ppm, 0)
            if max_fee_ppm is None
            else max_fee_ppm,
            slot=0,
            sequence=0,
            expiry=self._expiry(kind, expires_in_s),
            time_in_force=kind,
            post_only=post_only,
            reduce_only=reduce_only,
            builder=builder,
            max_builder_fee_ppm=builder_fee_ppm,
            display_size=display_size_lots,
            twap_interval=twap_interval_s,
        )
        return await self._place(draft, client_id)

    async def place_market(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        *,
        size_lots: int | None = None,
        slippage_ppm: int = MARKET_ORDER_SLIPPAGE_PPM,
        reduce_only: bool = False,
        client_id: str = "",
    ) -> OrderStatus:
        """An IOC order at a worst price: the best opposite price (else the mark), moved by `slippage_ppm`."""
        terms, side = await self.market(market), side_of(side)
        worst = await self._worst_price(terms, side, slippage_ppm)
        return await self.place_limit(
            market,
            side,
            size,
            size_lots=size_lots,
            price_ticks=worst,
            time_in_force=TimeInForce.IOC,
            reduce_only=reduce_only,
            client_id=client_id,
        )

    async def place_twap(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        price: Human | None = None,
        *,
        duration_s: int,
        interval_s: int = TWAP_INTERVAL_S,
        size_lots: int | None = None,
        price_ticks: int | None = None,
        reduce_only: bool = False,
        client_id: str = "",
    ) -> OrderStatus:
        """Spread a size over `duration_s`, one slice each `interval_s`; `price` is the worst that any slice may trade at.

        Raises as `place_limit`.
        """
        return await self.place_limit(
            market,
            side,
            size,
            price,
            size_lots=size_lots,
            price_ticks=price_ticks,
            time_in_force=TimeInForce.IOC,
            reduce_only=reduce_only,
            expires_in_s=duration_s,
            twap_interval_s=interval_s,
            client_id=client_id,
        )

    async def amend(
        self,
        order: OrderStatus | str,
        *,
        size: Human | None = None,
        price: Human | None = None,
        size_lots: int | None = None,
        price_ticks: int | None = None,
        expires_in_s: int | None = None,
        client_id: str = "",
    ) -> OrderStatus:
        """Replace an open order in its slot; what has filled carries over, and the size means the new total. An
        untriggered order keeps its trigger.
        """
        old = await self._resting(order)
        terms = await self.market(old.market)
        lots = size_lots if size_lots is not None else old.size if size is None else to_lots(terms, size)
        ticks = (
            price_ticks
            if price_ticks is not None
            else old.limit_price
            if price is None
            else to_ticks(terms, price)
        )
        await self._hear_time()
        new = Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=old.market,
            side=side_of(old.side),
            size=lots,
            limit_price=ticks,
            max_fee_ppm=max(terms.maker_fee_ppm, terms.taker_fee_ppm, 0),
            slot=old.slot,
            sequence=self.clock.next_sequence(old.sequence),
            expiry=self._expiry(TimeInForce.GTC, expires_in_s),
            time_in_force=TimeInForce[old.time_in_force or "GTC"],
            post_only=old.post_only,
            reduce_only=old.reduce_only,
            amend=True,
            bracket_link=old.bracket_link,
            display_size=old.display_size,
            twap_interval=old.twap_interval,
            builder=bytes.fromhex(old.builder[2:]) if old.builder else NO_ADDRESS,
            max_builder_fee_ppm=old.max_builder_fee_ppm,
            **_condition(old),
        )
        answer = await self.place_order(new, client_id or old.client_id)
        self._slots.answered(old.slot, answer.is_open)
        return answer

    async def place_order(self, order: Order, client_id: str = "") -> OrderStatus:
        """Sign and send exactly this order. A repetition of the same order gets the first answer again."""
        body = await self._signed(order)
        if client_id:
            body["client_id"] = client_id
        return msgspec.convert(await self._send("order", "/v1/orders", body, True), OrderStatus, strict=False)

    async def cancel(self, order: OrderStatus | str) -> tuple[str, ...]:
        """Cancel one resting order; the hashes of what left the book. Raises Refused (UNKNOWN_ORDER)."""
        target = await self._resting(order)
        cancelled = await self._cancel(False, target.slot, target.sequence)
        self._slots.release(target.slot)
        return cancelled

    async def cancel_all(self) -> tuple[str, ...]:
        """Cancel everything that this account has in the books and void what it signed before."""
        await self._hear_time()
        cancelled = await self._cancel(True, 0, self.clock.next_sequence())
        self._slots.refresh(())
        return cancelled

    async def _place(self, draft: Order, client_id: str) -> OrderStatus:
        """Give the draft a slot and a sequence and send it; take another one when another session was
        first.
        """
        immediate = draft.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        rests = not immediate or draft.trigger is not Trigger.NONE or draft.twap_interval > 0
        if rests:
            await self._know_slots()
        above = 0
        for attempt in range(ATTEMPTS):
            slot = self._slots.take() if rests else 0
            order = msgspec.structs.replace(draft, slot=slot, sequence=self.clock.next_sequence(above))
            is_open = False
            try:
                answer = await self.place_order(order, client_id)
                is_open = answer.is_open
                return answer
            except OutcomeUnknown:
                is_open = True  # it may rest; the next refresh tells
                raise
            except Refused as refused:
                is_open = refused.name == "SLOT_OCCUPIED"
                if refused.name not in ("SLOT_OCCUPIED", "STALE_SEQUENCE") or attempt == ATTEMPTS - 1:
                    raise
                above = int(refused.details.get("seen", 0))
            finally:
                self._slots.answered(slot, is_open)
        raise LookupError("unreachable: the last attempt returns or raises")

    async def _know_slots(self) -> None:
        """Read which slots hold live orders, when that was long ago."""
        if self._slots.wants_refresh:
            self._slots.refresh([order.slot for order in await self.open_orders()])

    async def _cancel(self, all_slots: bool, slot: int, sequence: int) -> tuple[str, ...]:
        message = Cancel(
            owner=self.owner,
            sub_account=self.sub_account,
            all_slots=all_slots,
            slot=slot,
            sequence=sequence,
            deadline=await self._deadline(),
        )
        answer = await self._send("cancel", "/v1/cancels", await self._signed(message), True)
        return msgspec.convert(answer, Cancelled).cancelled

    async def _resting(self, order: OrderStatus | str) -> OrderStatus:
        found = await self.order_status(order) if isinstance(order, str) else order
        if found.status == "never_seen":
            raise NotFound(f"the exchange has never seen order {order}")
        return found

    async def _worst_price(self, market: Market, side: Side, slippage_ppm: int) -> int:
        book = await self.book(market.symbol, depth=1)
        levels = book.asks if side is Side.BUY else book.bids
        best = levels[0][0] if levels else int((await self.status())["markets"][market.symbol]["mark"])
        moved = ceil_div(best * (PPM + side.sign * slippage_ppm), PPM)
        return max(1, min(MAX_PRICE_TICKS, moved))

    def _expiry(self, kind: TimeInForce, expires_in_s: int | None) -> int:
        # A replayed tape may run far faster than the machine; five machine seconds are the least that a trip
        # needs.
        least = max(IMMEDIATE_EXPIRY_S, int(5 * self.clock.pace))
        default = least if kind in (TimeInForce.IOC, TimeInForce.FOK) else RESTING_EXPIRY_S
        return min(MAX_EXPIRY_S, self.clock.now_s() + (default if expires_in_s is None else expires_in_s))


def _condition(old: OrderStatus) -> dict[str, Any]:
    """Trigger fields of an order that still waits for its price; one that woke amends to a plain order."""
    if old.status != "untriggered":
        return {}
    return {
        "trigger": Trigger(TRIGGER_TEXT.index(old.trigger)),
        "trigger_price": old.trigger_price,
        "trailing_offset": old.trailing_offset,
    }


def side_of(side: Side | str) -> Side:
    """A side, or its name in any case. Raises KeyError."""
    return side if isinstance(side, Side) else Side[side.upper()]
