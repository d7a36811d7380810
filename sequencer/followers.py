"""The parts that follow the engine through the journal: history, market data, settlement backlog, reports.

What they remember beyond the engine's state goes into a snapshot, so that a start need not replay everything for
their sake. The history is the exception: it keeps its own database, and says how far that reaches.
"""

from collections.abc import Sequence

import msgspec

from sequencer.engine.commands import AnyCommand, Genesis
from sequencer.engine.events import Event
from sequencer.engine.state import EngineState
from sequencer.garbage import without_collector
from sequencer.history import History
from sequencer.journal import Journal, JournalRefused, decode_command
from sequencer.market_data import MarketData, MarketDataMemory
from sequencer.replay import Subscriber, replay
from sequencer.reports import ReportCollector, ReportsMemory
from sequencer.settlement.backlog import Backlog, BacklogMemory
from sequencer.snapshots import Snapshot, SnapshotUnusable, make_snapshot


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the followers know after one record."""

    backlog: BacklogMemory
    market_data: MarketDataMemory
    reports: ReportsMemory


def decode_memory(data: bytes) -> Memory:
    """The memory that `Followers.encode_memory` gave. Raises SnapshotUnusable."""
    try:
        return msgspec.json.decode(data, type=Memory)
    except msgspec.MsgspecError as error:
        raise SnapshotUnusable(f"its memory has another layout: {error}") from None


def snapshot_of(journal: Journal, observe: Subscriber) -> Snapshot:
    """A snapshot of the journal's head, made by replaying it from nothing with this version of the code.

    `observe` hears of each record. Needs nothing but the journal, so it may run beside a sequencer.
    """
    first, state = journal.record(1), EngineState()
    genesis = decode_command(first.payload, 1)
    if not isinstance(genesis, Genesis):
        raise JournalRefused(f"journal: {journal.name} does not begin with a genesis")
    market_data, backlog = MarketData(state), Backlog(journal.record)
    reports = ReportCollector(genesis, _nobody, lambda: 0)
    with without_collector():
        head = replay(journal, state, [market_data.observe, backlog.observe, reports.observe, observe])
    return make_snapshot(state, head, first.hash, _encoded(backlog, market_data, reports))


def _encoded(backlog: Backlog, market_data: MarketData, reports: ReportCollector) -> bytes:
    return msgspec.json.encode(Memory(backlog.memory(), market_data.memory(), reports.memory()))


async def _nobody(command: AnyCommand) -> list[Event]:
    raise JournalRefused("journal: nothing is submitted in a replay")


class Followers:
    """All of them, in the order in which they hear of a command."""

    def __init__(
        self, history: History, market_data: MarketData, backlog: Backlog, reports: ReportCollector
    ) -> None:
        self.history = history
        self.market_data = market_data
        self.backlog = backlog
        self.reports = reports

    @property
    def subscribers(self) -> Sequence[Subscriber]:
        """What the pipeline and a replay call."""
        return (self.history.observe, self.market_data.observe, self.backlog.observe, self.reports.observe)

    def encode_memory(self) -> bytes:
        """Everything that `recall` needs, as JSON: it holds integers beyond 64 bits."""
        return _encoded(self.backlog, self.market_data, self.reports)

    def recall(self, genesis: Genesis, memory: Memory) -> None:
        """Go on where the memory was taken. The engine's state has to be of the same record; `genesis` is what is in force."""
        self.history.list_markets(genesis)
        self.backlog.recall(memory.backlog)
        self.market_data.recall(memory.market_data)
        self.reports.recall(memory.reports, genesis)
