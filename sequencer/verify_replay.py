"""The replay of a verification: every record applied from nothing, every sealed batch held against the one settled, and every
batch of somebody else that the journal follows against what is on the chain. What a reversal voids was never to settle.

With a directory for checkpoints a verification that was interrupted goes on where it was, as long as journal and code
are the same; what it had found until then is part of the checkpoint.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec
from eth_hash.auto import keccak

from evermark.protocol.batch import encode_batch
from sequencer.engine.commands import ForeignBatch
from sequencer.engine.events import BatchSealed, ForeignBatchApplied
from sequencer.engine.snapshot import restore, snapshot
from sequencer.engine.state import EngineState
from sequencer.journal import Head, Journal, Record
from sequencer.replay import Applied, KeptStates, Reversal, apply_record, reversals
from sequencer.settlement.backlog import Backlog, BacklogMemory, trades_of
from sequencer.snapshots import SnapshotFiles, SnapshotUnusable, make_snapshot, recover
from sequencer.snapshots.earlier import EarlierStates
from sequencer.verify_chain import SettledBatch

CHECKPOINT_EVERY = 50_000  # records between two checkpoints
PROGRESS_EVERY = 1_000

Progress = Callable[[str, int, int], None]  # what is being done, done, in all


class Difference(msgspec.Struct, frozen=True):
    """One place where the two sides disagree."""

    where: str
    expected: str  # journal and engine
    found: str  # chain


class Findings(msgspec.Struct):
    """What the replay has found so far."""

    batches_sealed: int = 0
    fills_settled: int = 0
    foreign_batches: int = 0
    fills_voided: int = 0
    difference_count: int = 0
    differences: list[Difference] = []


class _Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    findings: Findings
    backlog: BacklogMemory


class VerifyReplay:
    """One pass over a journal."""

    def __init__(
        self, journal: Journal, settled: Iterable[SettledBatch], boundary: int, keep: SnapshotFiles | None
    ) -> None:
        """`boundary` is the record that the last settled batch ends with; `keep` where checkpoints go."""
        self._journal = journal
        self._settled: Mapping[int, SettledBatch] = {batch.batch_id: batch for batch in settled}
        self._boundary = boundary
        self._keep = keep
        self._backlog = Backlog(journal.record)
        self._state = EngineState()
        self.findings = Findings()
        self.head = Head(0, 0, b"")
        self.at_boundary = EngineState()  # the state right after the last settled batch
        self.resumed_at = 0
        self.reversals: list[Reversal] = []

    def run(self, progress: Progress) -> None:
        """Replay to the head. Raises JournalRefused for a broken journal."""
        self._resume()
        ahead = reversals(self._journal, self.head.sequence)
        self.reversals = reversals(self._journal) if self.head.sequence else ahead
        self._states = KeptStates(ahead, EarlierStates(self._journal, self._keep).make)
        self._states.pass_by(self.head.sequence, self._state)
        total = self._journal.head().sequence
        for record in self._journal.read(self.head.sequence + 1):
            self._apply(record)
            if record.sequence % PROGRESS_EVERY == 0:
                progress("replaying", record.sequence, total)
        progress("replaying", total, total)

    def never_sealed(self) -> list[int]:
        """Batches that the chain has and this journal did not make."""
        return [batch_id for batch_id in self._settled if batch_id > self._backlog.last_sealed]

    def _apply(self, record: Record) -> None:
        applied = apply_record(record, self._state, (self._backlog.observe,), self._states)
        for event in applied.events:
            if isinstance(event, BatchSealed) and not self._is_void(event.batch.journal_sequence):
                self._compare(event.batch.batch_id)
            elif isinstance(event, ForeignBatchApplied):
                self.findings.fills_settled += event.fills
                self._compare_foreign(applied)
        self._states.pass_by(record.sequence, self._state)
        self.findings.fills_voided = self._backlog.fills_voided
        self.head = Head(record.sequence, record.stamp_ms, record.hash)
        if record.sequence == self._boundary:
            self.at_boundary = restore(snapshot(self._state))
        if self._keep and record.sequence % CHECKPOINT_EVERY == 0 and record.sequence < self._boundary:
            self._checkpoint(self._keep)

    def _is_void(self, sequence: int) -> bool:
        return any(reversal.voids(sequence) for reversal in self.reversals)

    def _compare_foreign(self, applied: Applied) -> None:
        command = applied.command
        if isinstance(command, ForeignBatch):
            self.findings.foreign_batches += 1
            found = self._settled.get(command.batch_id)
            if found is not None:
                where = f"batch {command.batch_id} of somebody else"
                differ(self.findings, f"{where} calldata", command.calldata, found.calldata)

    def _compare(self, batch_id: int) -> None:
        self.findings.batches_sealed += 1
        sealed, found = self._backlog.sealed(batch_id), self._settled.get(batch_id)
        if sealed is None or found is None:
            return
        self.findings.fills_settled += trades_of(sealed.batch)
        encoded, where = encode_batch(sealed.batch), f"batch {batch_id}"
        differ(self.findings, f"{where} hash", keccak(encoded), found.batch_hash)
        differ(self.findings, f"{where} calldata", encoded, found.calldata)
        differ(self.findings, f"{where} journal hash", sealed.batch.journal_hash, found.journal_hash)

    def _resume(self) -> None:
        if self._keep is None:
            return
        genesis_hash, last = self._journal.record(1).hash, self._boundary - 1
        recovered = recover(self._keep, self._journal, genesis_hash, last, _decode, self._journal.check_chain)
        if recovered.memory is not None:
            record = self._journal.record(recovered.sequence)
            self._state, self.resumed_at = recovered.state, recovered.sequence
            self._backlog.recall(recovered.memory.backlog)
            self.findings = recovered.memory.findings
            self.head = Head(record.sequence, record.stamp_ms, record.hash)

    def _checkpoint(self, keep: SnapshotFiles) -> None:
        memory = msgspec.json.encode(_Memory(self.findings, self._backlog.memory()))
        keep.write(make_snapshot(self._state, self.head, self._journal.record(1).hash, memory))


def differ(findings: Findings, where: str, expected: object, found: object, most: int = 100) -> None:
    """Note a disagreement, if it is one; `most` are named, more are only counted."""
    if expected == found:
        return
    findings.difference_count += 1
    if findings.difference_count <= most:
        findings.differences.append(Difference(where, _shown(expected), _shown(found)))


def _decode(data: bytes) -> _Memory:
    try:
        return msgspec.json.decode(data, type=_Memory)
    except msgspec.MsgspecError as error:
        raise SnapshotUnusable(f"its memory has another layout: {error}") from None


def _shown(value: object) -> str:
    text = "0x" + value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."
