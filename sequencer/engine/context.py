"""What one command works with: the state, its place in the journal, and the events it causes."""

from typing import Final

from mypy_extensions import mypyc_attr

from evermark.protocol.orders import Side
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_PRICE_TICKS
from sequencer.engine.events import CommandRejected, Event, LevelChanged
from sequencer.engine.order_book import Level
from sequencer.engine.state import EngineState

SIDES: Final = (Side.BUY, Side.SELL)


@mypyc_attr(acyclic=True)
class Context:
    """Lives for one command."""

    __slots__ = (
        "ends_batch",
        "events",
        "filled_links",
        "levels",
        "past",
        "refused",
        "sequence",
        "stamp_ms",
        "state",
    )

    def __init__(
        self, state: EngineState, sequence: int, stamp_ms: int, past: EngineState | None = None
    ) -> None:
        self.state = state
        self.past = past  # the state that a reversal goes back to
        self.sequence = sequence
        self.stamp_ms = stamp_ms
        self.events: list[Event] = []
        self.refused = False
        self.ends_batch = (
            False  # the open batch ends with all that this command does, orders that wake included
        )
        # (account, slot) that a filled order cancels; a list once there is one
        self.filled_links: list[tuple[int, int]] | None = None
        self.levels: dict[int, Level | None] = {}  # touched ones in order, see `touch_level`

    def refuse(self, reject: Reject, account: int = 0, order_hash: bytes = b"", client_id: str = "") -> None:
        """Say why the command changed nothing."""
        self.refused = True
        self.events.append(
            CommandRejected(account=account, reject=reject, order_hash=order_hash, client_id=client_id)
        )

    def touch_level(self, market_id: int, sign: int, price: int, level: Level | None) -> None:
        """The size at this price of the buyers' side (`sign` +1), or the sellers', may have changed; `level` is there now, or
        was and is empty."""
        self.levels[market_id << 33 | (0 if sign > 0 else 1 << 32) | price] = level

    def publish_levels(self) -> None:
        """Tell the final size of every level that the command touched."""
        for key, level in self.levels.items():
            side, price = SIDES[key >> 32 & 1], key & MAX_PRICE_TICKS
            size = 0 if level is None else level.total
            self.events.append(LevelChanged(market_id=key >> 33, side=side, price=price, size=size))


def no(code: RejectCode, message: str, field: str = "", **details: int | str) -> Reject:
    """A refusal with the numbers that decided it."""
    return Reject(code=code, message=message, field=field, details=details)
