"""A small exchange in memory with the client's verbs: slots, amends, price-time matching, no margin.

It stands in for the gateway where only an actor's own behaviour is in question.
"""

from typing import Any

from evermark.client.errors import Refused
from evermark.client.models import AccountInfo, ExchangeInfo, OrderStatus, Position, WithdrawReceipt
from evermark.client.slots import ChainClock
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import SIDE_TEXT, Order, Side, TimeInForce

MARKETS = load_markets()
NOW_S = 1_760_129_400


def refused(name: str, **details: int) -> Refused:
    """A refusal as the gateway words it."""
    return Refused({"code": 1, "name": name, "message": name.lower(), "details": details})


class SmallExchange:
    """Books by market and slots by account; every price is `marks`."""

    def __init__(self) -> None:
        self.marks = {market.symbol: 1_200_000 for market in MARKETS}
        self.age_s = 1
        self.now_s = NOW_S
        self.resting: dict[tuple[int, int], tuple[Order, int]] = {}  # (account, slot) -> order, filled
        self.sequences: dict[tuple[int, int], int] = {}
        self.positions: dict[tuple[int, str], int] = {}
        self.collateral: dict[int, int] = {}
        self.placed: list[Order] = []
        self.refusals: list[Refused] = []  # for the next orders

    def place(self, account: int, order: Order) -> OrderStatus:
        """Match, then rest or cancel."""
        if self.refusals:
            raise self.refusals.pop(0)
        self._check(account, order)
        self.placed.append(order)
        key = (account, order.slot)
        self.sequences[key] = order.sequence
        _, filled = self.resting.pop(key, (None, 0)) if order.amend else (None, 0)
        filled += self._match(account, order, order.size - filled)
        remaining = order.size - filled
        rests = order.time_in_force is TimeInForce.GTC and remaining > 0
        if rests:
            self.resting[key] = (order, filled)
        return status_of(order, filled, "open" if rests else "filled" if not remaining else "cancelled")

    def _check(self, account: int, order: Order) -> None:
        key = (account, order.slot)
        if order.sequence <= self.sequences.get(key, 0):
            raise refused("STALE_SEQUENCE", stored=self.sequences[key])
        if order.slot and key in self.resting and not order.amend:
            raise refused("SLOT_OCCUPIED")
        if order.amend and key not in self.resting:
            raise refused("NOTHING_TO_AMEND")
        if order.post_only and self._facing(account, order):
            raise refused("POST_ONLY_WOULD_CROSS")

    def _facing(self, account: int, order: Order) -> list[tuple[tuple[int, int], Order, int]]:
        found = [
            (key, resting, filled)
            for key, (resting, filled) in self.resting.items()
            if resting.market == order.market
            and resting.side is not order.side
            and (order.limit_price - resting.limit_price) * order.side.sign >= 0
            and key[0] != account
        ]
        return sorted(found, key=lambda one: one[1].limit_price * order.side.sign)

    def _match(self, account: int, order: Order, size: int) -> int:
        done = 0
        for key, maker, filled in self._facing(account, order):
            take = min(size - done, maker.size - filled)
            if not take:
                break
            done += take
            self._move(account, order.market, order.side.sign * take)
            self._move(key[0], order.market, -order.side.sign * take)
            if filled + take == maker.size:
                del self.resting[key]
            else:
                self.resting[key] = (maker, filled + take)
        return done

    def _move(self, account: int, market: str, lots: int) -> None:
        held = self.positions.get((account, market), 0) + lots
        self.positions[account, market] = held


class SmallClient:
    """One account; the methods of `EvermarkClient` that actors use."""

    def __init__(self, exchange: SmallExchange, account: int) -> None:
        self.exchange_, self.number = exchange, account
        self.owner, self.sub_account = bytes([account]) * 20, account
        self.clock = ChainClock()
        self.clock.heard(NOW_S * 1000)

    async def exchange(self) -> ExchangeInfo:
        addresses = dict.fromkeys(("vault", "oracle", "inbox", "token"), "0x")
        return ExchangeInfo(chain_id=1, round_seconds=2, markets=MARKETS, **addresses)

    async def status(self) -> dict[str, Any]:
        marks, age_s = self.exchange_.marks, self.exchange_.age_s
        markets = {name: {"index": mark, "mark": mark, "price_age_s": age_s} for name, mark in marks.items()}
        return {"chain_time": self.exchange_.now_s, "markets": markets}

    async def account(self) -> AccountInfo:
        collateral = self.exchange_.collateral.get(self.number, 0)
        positions = tuple(
            Position(
                market=market,
                size=size,
                entry_price="1",
                mark=1,
                notional=1,
                unrealized_pnl=0,
                funding_owed=0,
            )
            for (account, market), size in self.exchange_.positions.items()
            if account == self.number and size
        )
        zeros = dict.fromkeys(("initial_margin", "maintenance_margin", "withdrawable", "action_sequence"), 0)
        return AccountInfo(
            account=self.number,
            owner="0x",
            sub_account=self.number,
            collateral=collateral,
            equity=collateral,
            positions=positions,
            **zeros,
        )

    async def positions(self) -> tuple[Position, ...]:
        return (await self.account()).positions

    async def open_orders(self) -> list[OrderStatus]:
        held = self.exchange_.resting.items()
        return [
            status_of(order, filled, "open")
            for (account, _), (order, filled) in held
            if account == self.number
        ]

    async def place_order(self, order: Order, client_id: str = "") -> OrderStatus:
        return self.exchange_.place(self.number, order)

    async def place_limit(self, market: str, side: Side, **terms: Any) -> OrderStatus:
        order = Order(
            owner=self.owner,
            sub_account=self.sub_account,
            market=market,
            side=side,
            size=terms["size_lots"],
            limit_price=terms["price_ticks"],
            max_fee_ppm=400,
            slot=0,
            sequence=self.clock.next_sequence(),
            expiry=NOW_S + 30,
            time_in_force=terms["time_in_force"],
        )
        return self.exchange_.place(self.number, order)

    async def place_market(
        self, market: str, side: Side, *, size_lots: int, reduce_only: bool = False
    ) -> OrderStatus:
        worst = self.exchange_.marks[market] * (100 + side.sign) // 100
        return await self.place_limit(
            market, side, size_lots=size_lots, price_ticks=worst, time_in_force=TimeInForce.IOC
        )

    async def cancel(self, order: OrderStatus) -> tuple[str, ...]:
        if self.exchange_.resting.pop((self.number, order.slot), None) is None:
            raise refused("UNKNOWN_ORDER")
        return (order.order_hash,)

    async def withdraw(self, *, amount_units: int) -> WithdrawReceipt:
        if self.exchange_.refusals:
            raise self.exchange_.refusals.pop(0)
        self.exchange_.collateral[self.number] -= amount_units
        return WithdrawReceipt(account=self.number, amount=amount_units, fee=0, batch=1)


class SmallBank:
    """Money on request."""

    def __init__(self, client: SmallClient) -> None:
        self._client = client
        self.paid = 0

    async def __aenter__(self) -> "SmallBank":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ensure(self, usdc: int) -> None:
        self._client.exchange_.collateral[self._client.number] = usdc * 10**6

    async def tokens(self) -> int:
        self.paid += 10**12  # whatever was withdrawn arrives
        return self.paid


def status_of(order: Order, filled: int, status: str) -> OrderStatus:
    """An order as the gateway shows it."""
    return OrderStatus(
        status=status,
        order_hash=f"{order.slot}-{order.sequence}",
        market=order.market,
        side=SIDE_TEXT[order.side],
        size=order.size,
        limit_price=order.limit_price,
        slot=order.slot,
        sequence=order.sequence,
        filled=filled,
        remaining=order.size - filled if status == "open" else 0,
    )
