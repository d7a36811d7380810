"""Orders that wait for a price: stops, take-profits, trailing stops, and brackets of a stop and a take-profit."""

from evermark.client.errors import Refused
from evermark.client.models import OrderStatus
from evermark.client.orders import OrderVerbs, side_of
from evermark.client.session import given
from evermark.client.signed import check_ranges
from evermark.client.units import Human, to_lots, to_ticks
from evermark.protocol.markets import Market
from evermark.protocol.orders import Order, Side, TimeInForce, Trigger
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div

STOP_SLIPPAGE_PPM = 30_000  # how far beyond its trigger a stop at market may trade
BY_MARK = {True: Trigger.MARK_ABOVE, False: Trigger.MARK_BELOW}
BY_LAST = {True: Trigger.LAST_ABOVE, False: Trigger.LAST_BELOW}


class ConditionalVerbs(OrderVerbs):
    """A stop wakes when the price moves against its side's holder, a take-profit when it moves in favour. `on` is "mark",
    which the vault enforces, or "last", which the exchange promises.
    """

    async def place_stop(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        trigger: Human | None = None,
        *,
        price: Human | None = None,
        trailing: Human | None = None,
        on: str = "mark",
        reduce_only: bool = True,
        size_lots: int | None = None,
        trigger_ticks: int | None = None,
        price_ticks: int | None = None,
        slippage_ppm: int = STOP_SLIPPAGE_PPM,
        expires_in_s: int | None = None,
        client_id: str = "",
    ) -> OrderStatus:
        """Sell below, or buy above, the trigger: at `price` when given, else at market within `slippage_ppm` of the
        trigger. With `trailing`, a distance in quote, the trigger follows the last price; it begins that far from the mark
        unless given.
        """
        terms = await self.market(market)
        side = side_of(side)
        offset = 0 if trailing is None else to_ticks(terms, trailing)
        ticks = trigger_ticks
        if ticks is None and trigger is not None:
            ticks = to_ticks(terms, trigger)
        if ticks is None and offset:
            mark = int((await self.status())["markets"][market]["mark"])
            ticks = mark + side.sign * offset
        if ticks is None:
            raise TypeError("pass trigger, trigger_ticks or trailing")
        draft = await self._waiting(
            terms,
            side,
            size_lots if size_lots is not None else to_lots(terms, given(size, "size")),
            BY_LAST[side is Side.BUY] if offset or on == "last" else BY_MARK[side is Side.BUY],
            ticks,
            price_ticks if price is None else to_ticks(terms, price),
            slippage_ppm,
            reduce_only,
            expires_in_s,
            offset,
        )
        return await self._place(draft, client_id)

    async def place_take_profit(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        trigger: Human | None = None,
        *,
        price: Human | None = None,
        on: str = "mark",
        reduce_only: bool = True,
        size_lots: int | None = None,
        trigger_ticks: int | None = None,
        price_ticks: int | None = None,
        slippage_ppm: int = STOP_SLIPPAGE_PPM,
        expires_in_s: int | None = None,
        client_id: str = "",
    ) -> OrderStatus:
        """Sell above, or buy below, the trigger."""
        terms = await self.market(market)
        side = side_of(side)
        upward = side is Side.SELL
        draft = await self._waiting(
            terms,
            side,
            size_lots if size_lots is not None else to_lots(terms, given(size, "size")),
            BY_LAST[upward] if on == "last" else BY_MARK[upward],
            trigger_ticks if trigger_ticks is not None else to_ticks(terms, given(trigger, "trigger")),
            price_ticks if price is None else to_ticks(terms, price),
            slippage_ppm,
            reduce_only,
            expires_in_s,
        )
        return await self._place(draft, client_id)

    async def place_bracket(
        self,
        market: str,
        side: Side | str,
        size: Human | None = None,
        *,
        stop: Human | None = None,
        take_profit: Human | None = None,
        size_lots: int | None = None,
        stop_ticks: int | None = None,
        take_profit_ticks: int | None = None,
        slippage_ppm: int = STOP_SLIPPAGE_PPM,
        expires_in_s: int | None = None,
    ) -> tuple[OrderStatus, OrderStatus]:
        """A stop and a take-profit on the closing `side`, each of which cancels the other once it is filled."""
        terms = await self.market(market)
        side = side_of(side)
        lots = size_lots if size_lots is not None else to_lots(terms, given(size, "size"))
        triggers = (
            stop_ticks if stop_ticks is not None else to_ticks(terms, given(stop, "stop")),
            take_profit_ticks
            if take_profit_ticks is not None
            else to_ticks(terms, given(take_profit, "take_profit")),
        )
        kinds = (BY_MARK[side is Side.BUY], BY_MARK[side is Side.SELL])
        await self._know_slots()
        slots = (self._slots.take(), self._slots.take())
        answers: list[OrderStatus] = []
        try:
            drafts = [
                await self._waiting(
                    terms, side, lots, kind, ticks, None, slippage_ppm, True, expires_in_s, 0, slot, other
                )
                for slot, other, kind, ticks in zip(slots, reversed(slots), kinds, triggers, strict=True)
            ]
            for draft in drafts:
                check_ranges(draft)  # neither is sent without the other
            for draft in drafts:
                answers.append(await self.place_order(draft))
        except Refused:
            for placed in answers:
                await self.cancel(placed)
            raise
        finally:
            for at, slot in enumerate(slots):
                self._slots.answered(slot, at < len(answers) and answers[at].is_open)
        return answers[0], answers[1]

    async def _waiting(
        self,
        terms: Market,
        side: Side,
        lots: int,
        trigger: Trigger,
        ticks: int,
        limit: int | None,
        slippage_ppm: int,
        reduce_only: bool,
        expires_in_s: int | None,
        trailing_offset: int = 0,
        slot: int = 0,
        bracket_link: int = 0,
    ) -> Order:
        """The order as signed, but for slot and sequence unless its slot is chosen."""
        await self._hear_time()
        moved = ceil_div(ticks * (PPM + side.sign * slippage_ppm), PPM)
        return Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=terms.symbol,
            side=side,
            size=lots,
            limit_price=max(1, min(MAX_PRICE_TICKS, moved)) if limit is None else limit,
            max_fee_ppm=max(terms.maker_fee_ppm, terms.taker_fee_ppm, 0),
            slot=slot,
            sequence=self.clock.next_sequence() if slot else 0,
            expiry=self._expiry(TimeInForce.GTC, expires_in_s),
            time_in_force=TimeInForce.IOC if limit is None else TimeInForce.GTC,
            reduce_only=reduce_only,
            trigger=trigger,
            trigger_price=ticks,
            trailing_offset=trailing_offset,
            bracket_link=bracket_link,
        )
