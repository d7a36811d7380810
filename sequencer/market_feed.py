"""What the public is told of one market: its book's changes that wait to be sent, and its last trades."""

from collections import deque
from typing import Any

import msgspec

from evermark.protocol.orders import Side
from sequencer.history.records import wire_int

TRADES_KEPT = 1_000  # per market, for snapshots and the common question


class Tick(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A trade as everybody sees it."""

    trade_id: int
    price: int
    size: int | str
    side: str
    time_ms: int
    liquidation: bool


class Feed:
    """One market: level changes and trades that wait to be sent, and the last trades."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.sequence = 0  # of the last book message
        self.newest = 0  # of the last level change counted
        self.levels: dict[tuple[Side, int], int] = {}
        self.trades: list[Tick] = []
        self.voided: tuple[int, int] | None = None
        self.ring: deque[Tick] = deque(maxlen=TRADES_KEPT)

    def take_delta(self) -> dict[str, Any] | None:
        """The book's changes since the last call as one message, None without any."""
        if not self.levels:
            return None
        changed = {Side.BUY: list[list[Any]](), Side.SELL: list[list[Any]]()}
        for (side, price), size in self.levels.items():
            changed[side].append([price, wire_int(size)])
        previous, self.sequence = self.sequence, self.newest
        self.levels = {}
        return {
            "channel": "book",
            "market": self.symbol,
            "type": "delta",
            "sequence": self.sequence,
            "previous": previous,
            "bids": changed[Side.BUY],
            "asks": changed[Side.SELL],
        }
