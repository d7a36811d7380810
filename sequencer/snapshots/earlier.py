"""Earlier states of the exchange, for reversals: the nearest snapshot, and the journal from there."""

import structlog

from evermark.protocol.units import check
from sequencer.engine.state import EngineState
from sequencer.journal import Journal
from sequencer.replay import replay
from sequencer.snapshots.files import SnapshotFiles, SnapshotUnusable

log = structlog.get_logger("earlier")


class EarlierStates:
    """A `StateAt`. `prepare` does the work beforehand, in a thread, for the one call that follows."""

    def __init__(self, journal: Journal, files: SnapshotFiles | None = None) -> None:
        """`journal` is a connection that nothing else uses at the same time."""
        self.journal = journal
        self._files = files
        self._prepared: EngineState | None = None

    def __call__(self, sequence: int) -> EngineState:
        state, self._prepared = self._prepared, None
        return state if state is not None and state.sequence == sequence else self.make(sequence)

    def prepare(self, sequence: int) -> None:
        """Have this state ready. It may take as long as a start."""
        self._prepared = self.make(sequence)

    def make(self, sequence: int) -> EngineState:
        """A new state, right after a record. Raises JournalRefused for a broken journal."""
        state = self._nearest(sequence)
        replay(self.journal, state, after=state.sequence, until=sequence, state_at=self.make)
        check(state.sequence == sequence, f"journal: it has no record {sequence} to go back to")
        return state

    def _nearest(self, sequence: int) -> EngineState:
        if self._files is None:
            return EngineState()
        genesis_hash = self.journal.record(1).hash
        for path in self._files.newest_first():
            try:
                found = self._files.read(path)
                if found.sequence <= sequence and found.genesis_hash == genesis_hash:
                    return found.engine_state()
            except SnapshotUnusable as error:
                log.warning("snapshot passed over", path=str(path), reason=str(error))
        return EngineState()
