"""An order as history follows it, from its command to its end."""

from typing import Any

import msgspec

from evermark.protocol.orders import NO_ADDRESS, SIDE_TEXT, TIME_IN_FORCE_TEXT, TRIGGER_TEXT
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.events import CollateralChanged
from sequencer.replay import Applied

OPEN_STATES = ("open", "untriggered", "triggered")
AVERAGE_DECIMALS = 6  # of an average price in ticks, rounded down; for display


class OrderRecord(msgspec.Struct, kw_only=True, gc=False):
    """One row of `orders`; `lot_ticks` is the sum of size x price of its own fills, `traded` the sum of
    sizes.

    `filled` may be larger than `traded`: an amended order carries its predecessor's fills over.
    """

    order_hash: bytes
    client_id: str
    account: int
    market: str
    side: str
    size: int
    limit_price: int
    slot: int
    sequence: int
    time_in_force: str
    post_only: bool
    reduce_only: bool
    expiry: int
    time_ms: int
    journal_sequence: int
    trigger: str = "none"
    trigger_price: int = 0  # as signed; a trailing order's follows the market
    trailing_offset: int = 0
    bracket_link: int = 0
    display_size: int = 0
    twap_interval: int = 0
    builder: str = ""
    max_builder_fee_ppm: int = 0
    builder_fee: int = 0  # paid so far, beside `fee`
    status: str = "rejected"
    filled: int = 0
    traded: int = 0
    lot_ticks: int = 0
    fee: int = 0
    reason: str = ""
    first_answer: bytes = b""

    @property
    def is_open(self) -> bool:
        """True while it waits, in the book or for its trigger."""
        return self.status in OPEN_STATES

    def take_off(self, fill: dict[str, Any]) -> None:
        """A row of `fills` is void."""
        self.filled -= fill["size"]
        self.traded -= fill["size"]
        self.lot_ticks -= fill["size"] * fill["price"]
        self.fee -= fill["fee"]
        self.builder_fee -= fill["builder_fee"]

    @property
    def average_price(self) -> str | None:
        """Average price of its own fills in decimal ticks, rounded down; None without one."""
        if not self.traded:
            return None
        whole, rest = divmod(self.lot_ticks, self.traded)
        digits = str(rest * 10**AVERAGE_DECIMALS // self.traded).rjust(AVERAGE_DECIMALS, "0").rstrip("0")
        return f"{whole}.{digits}" if digits else str(whole)

    def to_json(self) -> dict[str, Any]:
        """The wire form ORDER of the API reference."""
        return {
            "order_hash": "0x" + self.order_hash.hex(),
            "client_id": self.client_id,
            "account": self.account,
            "market": self.market,
            "side": self.side,
            "size": wire_int(self.size),
            "limit_price": self.limit_price,
            "slot": self.slot,
            "sequence": self.sequence,
            "time_in_force": self.time_in_force,
            "post_only": self.post_only,
            "reduce_only": self.reduce_only,
            "expiry": self.expiry,
            "trigger": self.trigger,
            "trigger_price": self.trigger_price,
            "trailing_offset": self.trailing_offset,
            "bracket_link": self.bracket_link,
            "display_size": wire_int(self.display_size),
            "twap_interval": self.twap_interval,
            "builder": self.builder,
            "max_builder_fee_ppm": self.max_builder_fee_ppm,
            "builder_fee": wire_int(self.builder_fee),
            "status": self.status,
            "filled": wire_int(self.filled),
            "remaining": wire_int(self.size - self.filled) if self.is_open else 0,
            "average_price": self.average_price,
            "reason": self.reason,
            "fee": wire_int(self.fee),
            "time_ms": self.time_ms,
            "journal_sequence": self.journal_sequence,
        }


def new_record(command: PlaceOrder, journal_sequence: int, stamp_ms: int) -> OrderRecord:
    """The record of an order before its events are counted."""
    order = command.order
    return OrderRecord(
        order_hash=command.order_hash,
        client_id=command.client_id,
        account=command.account,
        market=order.market,
        side=SIDE_TEXT[order.side],
        size=order.size,
        limit_price=order.limit_price,
        slot=order.slot,
        sequence=order.sequence,
        time_in_force=TIME_IN_FORCE_TEXT[order.time_in_force],
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        expiry=order.expiry,
        trigger=TRIGGER_TEXT[order.trigger],
        trigger_price=order.trigger_price,
        trailing_offset=order.trailing_offset,
        bracket_link=order.bracket_link,
        display_size=order.display_size,
        twap_interval=order.twap_interval,
        builder="" if order.builder == NO_ADDRESS else "0x" + order.builder.hex(),
        max_builder_fee_ppm=order.max_builder_fee_ppm,
        time_ms=stamp_ms,
        journal_sequence=journal_sequence,
    )


def ledger_row(event: CollateralChanged, applied: Applied, line: int) -> dict[str, Any]:
    """A row of `ledger`: a change of collateral that is no trade."""
    return {
        "journal_sequence": applied.sequence,
        "line": line,
        "account": event.account,
        "cause": event.cause,
        "amount": event.delta,
        "collateral": event.collateral,
        "time_ms": applied.stamp_ms,
        "voided": False,
    }


def wire_int(value: int) -> int | str:
    """An integer as JSON carries it without loss: as text above 2^53."""
    return value if abs(value) <= 2**53 else str(value)
