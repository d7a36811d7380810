"""What one command works with: the state, its place in the journal, and the events it causes."""

from evermark.protocol.orders import Side
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.events import CommandRejected, Event, LevelChanged
from sequencer.engine.state import EngineState


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
        self.filled_links: list[tuple[int, int]] = []  # (account, slot) that a filled order cancels
        self.levels: dict[tuple[int, Side, int], None] = {}  # touched (market, side, price), in order

    def emit(self, event: Event) -> None:
        """Add to what the command did."""
        self.events.append(event)

    def refuse(self, reject: Reject, account: int = 0, order_hash: bytes = b"", client_id: str = "") -> None:
        """Say why the command changed nothing."""
        self.refused = True
        self.events.append(
            CommandRejected(account=account, reject=reject, order_hash=order_hash, client_id=client_id)
        )

    def touch_level(self, market_id: int, side: Side, price: int) -> None:
        """The size at this price may have changed."""
        self.levels[market_id, side, price] = None

    def publish_levels(self) -> None:
        """Tell the final size of every level that the command touched."""
        for market_id, side, price in self.levels:
            level = self.state.markets[market_id].book.side(side).levels.get(price)
            size = level.total if level is not None else 0
            self.events.append(LevelChanged(market_id=market_id, side=side, price=price, size=size))


def no(code: RejectCode, message: str, field: str = "", **details: int | str) -> Reject:
    """A refusal with the numbers that decided it."""
    return Reject(code=code, message=message, field=field, details=details)
