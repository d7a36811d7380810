"""Start-up: the newest good snapshot, then the journal's tail; without one, the whole journal.

Whichever way, the hash chain is checked from record 1 on, so a damaged record refuses the start even when a
snapshot would make it unnecessary to apply.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from sequencer.engine.state import EngineState
from sequencer.garbage import without_collector
from sequencer.journal import Journal, JournalRefused
from sequencer.snapshots.files import Snapshot, SnapshotFiles, SnapshotUnusable

log = structlog.get_logger("recovery")

Memory = TypeVar("Memory")


class Recovered(Generic[Memory]):
    """Where a replay begins: after record `sequence`, with this state; zero and empty without a snapshot."""

    def __init__(self, state: EngineState, sequence: int, memory: Memory | None) -> None:
        self.state = state
        self.sequence = sequence
        self.memory = memory


def recover(
    files: SnapshotFiles,
    journal: Journal,
    genesis_hash: bytes,
    history_sequence: int,
    decode: Callable[[bytes], Memory],
    check_chain: Callable[[int], None],
) -> Recovered[Memory]:
    """The newest snapshot that belongs to `journal` and that the history reaches up to, or an empty state. `check_chain` has to
    find the records up to it whole.

    Raises JournalRefused when the journal is damaged, or has lost records that a snapshot was made of.
    """
    for path in files.newest_first():
        try:
            found = files.read(path)
            _check_origin(found, journal, genesis_hash)
            if found.sequence > history_sequence:
                raise SnapshotUnusable(f"the history ends at record {history_sequence}, before it")
            with without_collector():
                recovered = Recovered(found.engine_state(), found.sequence, decode(found.memory))
        except SnapshotUnusable as error:
            log.warning("snapshot passed over", path=str(path), reason=str(error))
            continue
        check_chain(found.sequence)
        log.info("snapshot loaded", path=str(path), sequence=found.sequence)
        return recovered
    log.info("no snapshot to start from: the whole journal is replayed")
    return Recovered(EngineState(), 0, None)


def _check_origin(found: Snapshot, journal: Journal, genesis_hash: bytes) -> None:
    """A snapshot of this journal that the journal no longer leads to means that the journal has lost
    something."""
    if found.genesis_hash != genesis_hash:
        raise SnapshotUnusable("it is of another journal")
    head = journal.head()
    if found.sequence > head.sequence:
        raise JournalRefused(
            f"journal: it ends at record {head.sequence}, but a snapshot was taken of its record "
            f"{found.sequence}: records are lost. Restore the journal from a backup or a replica; to go on "
            f"without them, move the snapshots and the history away"
        )
    if journal.record(found.sequence).hash != found.head_hash:
        raise JournalRefused(
            f"journal: record {found.sequence} is not the one that a snapshot was taken of: the journal was "
            f"rewritten. Restore it from a backup or a replica"
        )
