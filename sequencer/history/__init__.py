"""The query projection: orders, fills, funding, ledger, trades and candles, kept in a database that the
journal can rebuild at any time."""

from sequencer.history.projection import History
from sequencer.history.records import OrderRecord
from sequencer.history.store import HistoryGap, Store

__all__ = ["History", "HistoryGap", "OrderRecord", "Store"]
