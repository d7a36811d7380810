"""An order as history follows it, from its command to its end, and the rows that tell of everything."""

from typing import Any

import msgspec

from evermark.protocol.orders import NO_ADDRESS, SIDE_TEXT, TIME_IN_FORCE_TEXT, TRIGGER_TEXT, Order
from evermark.protocol.reject import Reject
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.events import CollateralChanged
from sequencer.replay import Applied

OPEN_STATES = ("open", "untriggered", "triggered")
AVERAGE_DECIMALS = 6  # of an average price in ticks, rounded down; for display
REFUSAL_START = b'{"error"'  # no progress begins so

Row = tuple[Any, ...]  # a table's columns in their order, as SQLite takes them: quote amounts as text


class OrderView(msgspec.Struct, frozen=True, gc=False):
    """The wire form ORDER of the API reference, field by field."""

    order_hash: str
    client_id: str
    account: int
    market: str
    side: str
    size: int | str
    limit_price: int
    slot: int
    sequence: int
    time_in_force: str
    post_only: bool
    reduce_only: bool
    expiry: int
    trigger: str
    trigger_price: int  # as signed; a trailing order's follows the market
    trailing_offset: int
    bracket_link: int
    display_size: int | str
    twap_interval: int
    builder: str
    max_builder_fee_ppm: int
    builder_fee: int | str  # paid so far, beside `fee`
    status: str
    filled: int | str
    remaining: int | str
    average_price: str | None
    reason: str
    fee: int | str
    time_ms: int
    journal_sequence: int


class Progress(msgspec.Struct, array_like=True, gc=False):
    """What becomes of an order; `lot_ticks` is the sum of size x price of its own fills, `traded` the sum of sizes.

    `filled` may be larger than `traded`: an amended order carries its predecessor's fills over.
    """

    status: str = "rejected"
    filled: int = 0
    traded: int = 0
    lot_ticks: int = 0
    fee: int = 0
    builder_fee: int = 0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """True while it waits, in the book or for its trigger."""
        return self.status in OPEN_STATES

    @property
    def average_price(self) -> str | None:
        """Average price of its own fills in decimal ticks, rounded down; None without one."""
        if not self.traded:
            return None
        whole, rest = divmod(self.lot_ticks, self.traded)
        digits = str(rest * 10**AVERAGE_DECIMALS // self.traded).rjust(AVERAGE_DECIMALS, "0").rstrip("0")
        return f"{whole}.{digits}" if digits else str(whole)


class OrderRecord(Progress, kw_only=True, gc=False):
    """One row of `orders`. `first` is what its sender was told: its progress then, or the refusal as JSON."""

    order: Order
    order_hash: bytes
    client_id: str
    account: int
    time_ms: int
    journal_sequence: int
    first: Progress | bytes = b""

    @classmethod
    def stored(cls, row: Row) -> "OrderRecord":
        """What `row` gave."""
        lot_ticks, fee, builder_fee = (int(text) for text in row[6:9])
        return cls(
            order_hash=row[0],
            client_id=row[1],
            account=row[2],
            status=row[3],
            filled=row[4],
            traded=row[5],
            lot_ticks=lot_ticks,
            fee=fee,
            builder_fee=builder_fee,
            reason=row[9],
            time_ms=row[10],
            journal_sequence=row[11],
            order=Order(**msgspec.structs.asdict(_terms.decode(row[12]))),
            first=row[13] if row[13].startswith(REFUSAL_START) else _progress.decode(row[13]),
        )

    def row(self) -> Row:
        """For the table `orders`."""
        return (
            self.order_hash,
            self.client_id,
            self.account,
            self.status,
            self.filled,
            self.traded,
            str(self.lot_ticks),
            str(self.fee),
            str(self.builder_fee),
            self.reason,
            self.time_ms,
            self.journal_sequence,
            _packed.encode(msgspec.structs.astuple(self.order)),
            self.first if isinstance(self.first, bytes) else _json.encode(self.first),
        )

    def answer(self, reject: Reject | None = None) -> None:
        """Its sender is told now how it stands, or that it is refused."""
        if reject is None:
            money = self.lot_ticks, self.fee, self.builder_fee
            self.first = Progress(self.status, self.filled, self.traded, *money, self.reason)
        else:
            refusal = {"error": reject.to_json(), "order_hash": "0x" + self.order_hash.hex()}
            self.first = _json.encode(refusal)

    @property
    def first_answer(self) -> bytes:
        """What its sender is told, the first time and on every repetition."""
        return self.first if isinstance(self.first, bytes) else _json.encode(self.view(self.first))

    def take_off(self, fill: dict[str, Any]) -> None:
        """A row of `fills` is void."""
        self.filled -= fill["size"]
        self.traded -= fill["size"]
        self.lot_ticks -= fill["size"] * fill["price"]
        self.fee -= fill["fee"]
        self.builder_fee -= fill["builder_fee"]

    def view(self, progress: Progress | None = None) -> OrderView:
        """As people see it now, or saw it with that progress. By position: names cost four times as much, and every order is
        answered with one."""
        order, at = self.order, progress or self
        return OrderView(
            "0x" + self.order_hash.hex(),
            self.client_id,
            self.account,
            order.market,
            SIDE_TEXT[order.side],
            wire_int(order.size),
            order.limit_price,
            order.slot,
            order.sequence,
            TIME_IN_FORCE_TEXT[order.time_in_force],
            order.post_only,
            order.reduce_only,
            order.expiry,
            TRIGGER_TEXT[order.trigger],
            order.trigger_price,
            order.trailing_offset,
            order.bracket_link,
            wire_int(order.display_size),
            order.twap_interval,
            "" if order.builder == NO_ADDRESS else "0x" + order.builder.hex(),
            order.max_builder_fee_ppm,
            wire_int(at.builder_fee),
            at.status,
            wire_int(at.filled),
            wire_int(order.size - at.filled) if at.is_open else 0,
            at.average_price,
            at.reason,
            wire_int(at.fee),
            self.time_ms,
            self.journal_sequence,
        )


class _Terms(Order, frozen=True, kw_only=True, array_like=True, gc=False):
    """An order as its row holds it: what was signed, without the names."""


_json = msgspec.json.Encoder()
_progress = msgspec.json.Decoder(Progress)
_packed = msgspec.msgpack.Encoder()
_terms = msgspec.msgpack.Decoder(_Terms)


def new_record(command: PlaceOrder, journal_sequence: int, stamp_ms: int) -> OrderRecord:
    """The record of an order before its events are counted."""
    return OrderRecord(
        order=command.order,
        order_hash=command.order_hash,
        client_id=command.client_id,
        account=command.account,
        time_ms=stamp_ms,
        journal_sequence=journal_sequence,
    )


def ledger_row(event: CollateralChanged, applied: Applied, line: int) -> Row:
    """A row of `ledger`: a change of collateral that is no trade."""
    amount, collateral = str(event.delta), str(event.collateral)
    return (
        applied.sequence, line, event.account, event.cause, amount, collateral, applied.stamp_ms, False,
    )  # fmt: skip


def wire_int(value: int) -> int | str:
    """An integer as JSON carries it without loss: as text above 2^53."""
    return value if abs(value) <= 2**53 else str(value)
