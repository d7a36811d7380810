"""The asynchronous client: sign, trade, withdraw, subscribe. Slots, sequences and expiries take care of
themselves.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from evermark.client.errors import NotFound, OutcomeUnknown, Refused
from evermark.client.models import AgentReceipt, Cancelled, OrderStatus, WithdrawReceipt
from evermark.client.reads import PublicReads
from evermark.client.signed import Domain, parse_address
from evermark.client.slots import SlotAllocator
from evermark.client.stream import Stream
from evermark.client.units import Human, to_lots, to_quote_units, to_ticks
from evermark.protocol.markets import Market
from evermark.protocol.orders import MAX_EXPIRY_S, ApproveAgent, Cancel, Order, Side, TimeInForce, Withdraw
from evermark.protocol.signing import Signer
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div

IMMEDIATE_EXPIRY_S = 30  # orders that never rest stop being valid soon, whatever happens to their answer
RESTING_EXPIRY_S = 30 * 86_400
ACTION_DEADLINE_S = 600
CLOCK_AGE_S = 10.0
MARKET_ORDER_SLIPPAGE_PPM = 10_000
WITHDRAW_MAX_FEE = 1_000_000  # one USDC
CREDIT_POLL_S = 0.2
ATTEMPTS = 8  # a slot held by another session, or a sequence it raised, costs one attempt each


class EvermarkClient(PublicReads):
    """One account on one exchange. Use as `async with EvermarkClient(url, signer) as client`.

    `signer` is the owner's key, or an agent's with `owner` naming the account's owner. Sizes, prices and
    amounts are human units (Decimal, str or int); `*_lots`, `*_ticks` and `*_units` arguments take raw
    integers instead.
    """

    def __init__(
        self,
        url: str,
        signer: Signer | bytes | str,
        sub_account: int = 0,
        *,
        owner: bytes | str | None = None,
        order_entry: str = "http",
        rpc_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._private_key = None if isinstance(signer, Signer) else _key(signer)  # transactions need it
        self.signer = signer if isinstance(signer, Signer) else Signer(_key(signer))
        if order_entry not in ("http", "websocket"):
            raise ValueError(f"order_entry is {order_entry!r}, not 'http' or 'websocket'")
        owner_bytes = parse_address(owner) if isinstance(owner, str) else owner or self.signer.address
        super().__init__(url, owner_bytes, sub_account, timeout_s)
        self.order_entry, self.rpc_url = order_entry, rpc_url
        self._timeout_s = timeout_s
        self._slots = SlotAllocator()
        self._domain: Domain | None = None
        self._stream: Stream | None = None

    async def __aenter__(self) -> "EvermarkClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._stream is not None:
            await self._stream.close()
        await self.transport.close()

    @property
    def stream(self) -> Stream:
        """The WebSocket, opened on first use."""
        if self._stream is None:
            url = "ws" + self.transport.url.removeprefix("http") + "/v1/ws"
            self._stream = Stream(self.transport.session, url, self._timeout_s)
        return self._stream

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
        client_id: str = "",
    ) -> OrderStatus:
        """Sign and send a limit order; the answer comes after it is durable and matched.

        Raises NotRepresentable (off tick, off lot), Refused, Unreachable.
        """
        terms = await self.market(market)
        lots = size_lots if size_lots is not None else to_lots(terms, _given(size, "size"))
        ticks = price_ticks if price_ticks is not None else to_ticks(terms, _given(price, "price"))
        kind = time_in_force if isinstance(time_in_force, TimeInForce) else TimeInForce[time_in_force]
        await self._hear_time()
        draft = Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=market,
            side=_side(side),
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
        terms, side = await self.market(market), _side(side)
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
        """Replace a resting order in its slot; what has filled carries over, and the size means the new
        total.
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
            side=_side(old.side),
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

    async def withdraw(
        self,
        amount: Human | None = None,
        *,
        amount_units: int | None = None,
        max_fee_units: int = WITHDRAW_MAX_FEE,
    ) -> WithdrawReceipt:
        """Withdraw collateral to the owner's address on-chain; only the owner's key may. Raises Refused."""
        units = amount_units if amount_units is not None else to_quote_units(_given(amount, "amount"))
        message = Withdraw(
            owner=self.owner,
            sub_account=self.sub_account,
            amount=units,
            max_fee=min(max_fee_units, units),
            action_sequence=(await self.account()).action_sequence + 1,
            deadline=await self._deadline(),
        )
        answer = await self._send("withdraw", "/v1/withdrawals", await self._signed(message), False)
        return msgspec.convert(answer, WithdrawReceipt, strict=False)

    async def deposit(
        self, amount: Human | None = None, *, amount_units: int | None = None, credit_timeout_s: float = 60.0
    ) -> int:
        """Deposit USDC on-chain and wait until the exchange has credited it; the inbox entry's id.

        Needs `rpc_url` and the owner's raw key. Raises ChainRefused; TimeoutError when mined and not
        credited in time.
        """
        if self.rpc_url is None or self._private_key is None:
            raise ValueError("a deposit needs rpc_url and a raw private key instead of a Signer")
        from evermark.client.deposits import deposit_on_chain  # web3 takes a second to load

        units = amount_units if amount_units is not None else to_quote_units(_given(amount, "amount"))
        before = await self.last_deposit()
        info = await self.exchange()
        entry = await deposit_on_chain(self.rpc_url, info, self._private_key, units, self.sub_account)
        async with asyncio.timeout(credit_timeout_s):
            while True:
                if await self.last_deposit() > before:
                    return entry
                await asyncio.sleep(CREDIT_POLL_S)

    async def approve_agent(
        self, agent: bytes | str, expires_in_s: int = 30 * 86_400, transfer_cap_units: int = 0
    ) -> AgentReceipt:
        """Let `agent` trade for this account; only the owner's key may. `expires_in_s` 0 revokes."""
        await self._hear_time()
        message = ApproveAgent(
            owner=self.owner,
            sub_account=self.sub_account,
            agent=parse_address(agent) if isinstance(agent, str) else agent,
            agent_expiry=self.clock.now_s() + expires_in_s if expires_in_s else 0,
            transfer_cap=transfer_cap_units,
            action_sequence=(await self.account()).action_sequence + 1,
            deadline=await self._deadline(),
        )
        answer = await self._send("agent", "/v1/agents", await self._signed(message), False)
        return msgspec.convert(answer, AgentReceipt, strict=False)

    async def subscribe(self, channel: str, market: str = "") -> AsyncIterator[dict[str, Any]]:
        """Messages of `book`, `trades`, `prices`, `status` or `account` (this one), for ever, across
        reconnects.

        After a reconnect a {"type": "reconnected"} message precedes the new snapshot; a gap in the book's
        sequence leads to a new snapshot by itself.
        """
        owner = self.owner_text if channel == "account" else ""
        subscription = await self.stream.subscribe(channel, market, owner, self.sub_account)
        try:
            async for message in subscription:
                yield message
        finally:
            await self.stream.unsubscribe(subscription)

    async def _place(self, draft: Order, client_id: str) -> OrderStatus:
        """Give the draft a slot and a sequence and send it; take another one when another session was
        first.
        """
        rests = draft.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)
        if rests and self._slots.wants_refresh:
            self._slots.refresh([order.slot for order in await self.open_orders()])
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

    async def _send(self, op: str, path: str, body: dict[str, Any], idempotent: bool) -> Any:
        if self.order_entry == "http":
            return msgspec.json.decode(await self.transport.post(path, body, idempotent))
        for _ in range(ATTEMPTS if idempotent else 0):
            try:
                return await self.stream.request(op, body)
            except OutcomeUnknown:
                continue  # the same signed message again: the exchange answers as it did the first time
        return await self.stream.request(op, body)

    async def _signed(self, message: Order | Cancel | Withdraw | ApproveAgent) -> dict[str, Any]:
        if self._domain is None:
            self._domain = Domain(await self.exchange())
        return self._domain.body(message, self.signer)

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

    async def _hear_time(self) -> None:
        if self.clock.age_s > CLOCK_AGE_S:
            await self.status()

    async def _deadline(self) -> int:
        await self._hear_time()
        return self.clock.now_s() + ACTION_DEADLINE_S

    def _expiry(self, kind: TimeInForce, expires_in_s: int | None) -> int:
        # A replayed tape may run far faster than the machine; five machine seconds are the least that a trip
        # needs.
        least = max(IMMEDIATE_EXPIRY_S, int(5 * self.clock.pace))
        default = least if kind in (TimeInForce.IOC, TimeInForce.FOK) else RESTING_EXPIRY_S
        return min(MAX_EXPIRY_S, self.clock.now_s() + (default if expires_in_s is None else expires_in_s))


def _given(value: Human | None, name: str) -> Human:
    if value is None:
        raise TypeError(f"pass {name}, or its raw integer")
    return value


def _key(key: bytes | str) -> bytes:
    return bytes.fromhex(key.removeprefix("0x")) if isinstance(key, str) else key


def _side(side: Side | str) -> Side:
    return side if isinstance(side, Side) else Side[side.upper()]
