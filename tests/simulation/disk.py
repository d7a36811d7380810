"""The journal's disk: what was made durable stays through every death, and an append can fail in every way.

A `Disk` outlives processes; a `SimulatedJournal` is one process's handle on it.
"""

from collections.abc import Callable, Iterator, Sequence

from sequencer.journal import (
    GENESIS_HASH,
    Appended,
    Fenced,
    Head,
    JournalRefused,
    Record,
    Unknown,
    chain_hash,
)
from sequencer.journal.records import Entry

# How an append can go: what happens on the disk, and what the process hears of it.
FINE, LOST_ANSWER, LOST_WRITE, FULL = "fine", "lost answer", "lost write", "full"


class Disk:
    """Durable records and the epoch of their owner."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = 0

    def head(self) -> Head:
        """The newest durable record."""
        if not self.records:
            return Head(0, 0, GENESIS_HASH)
        last = self.records[-1]
        return Head(last.sequence, last.stamp_ms, last.hash)


class SimulatedJournal:
    """The `Journal` protocol over a `Disk`; `fate` is asked before each append."""

    def __init__(self, disk: Disk, fate: Callable[[], str]) -> None:
        self.disk = disk
        self._fate = fate

    def append(
        self, entries: Sequence[Entry], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        """All or nothing, owner and head checked first."""
        fate = self._fate()
        if fate == FULL:
            raise JournalRefused("journal: disk is full")
        head = self.disk.head()
        if epoch != self.disk.epoch or head.sequence + 1 != expected_sequence:
            return Fenced(self.disk.epoch, head.sequence)
        if fate == LOST_WRITE:
            return Unknown("connection lost before the commit")
        hashes, previous, sequence = [], head.hash, head.sequence
        for stamp_ms, payload in entries:
            sequence += 1
            previous = chain_hash(previous, sequence, stamp_ms, payload)
            self.disk.records.append(Record(sequence, stamp_ms, payload, previous))
            hashes.append(previous)
        if fate == LOST_ANSWER:
            return Unknown("connection lost after the commit")
        return Appended(expected_sequence, tuple(hashes))

    def read(self, from_sequence: int = 1) -> Iterator[Record]:
        """Records in order, each checked against the chain."""
        previous = self.disk.records[from_sequence - 2].hash if from_sequence > 1 else GENESIS_HASH
        for record in self.disk.records[from_sequence - 1 :]:
            expected = chain_hash(previous, record.sequence, record.stamp_ms, record.payload)
            if record.hash != expected:
                raise JournalRefused(f"journal: record {record.sequence} does not match its hash")
            yield record
            previous = record.hash

    def record(self, sequence: int) -> Record:
        """One record. Raises KeyError beyond the head."""
        if not 0 < sequence <= len(self.disk.records):
            raise KeyError(sequence)
        return self.disk.records[sequence - 1]

    def beginning_with(self, prefix: bytes, after: int = 0) -> list[Record]:
        """Records after `after` whose payload begins with `prefix`."""
        return [record for record in self.disk.records[after:] if record.payload.startswith(prefix)]

    def head(self) -> Head:
        """The newest durable record."""
        return self.disk.head()

    def take_epoch(self) -> int:
        """Become the owner."""
        self.disk.epoch += 1
        return self.disk.epoch

    def close(self) -> None:
        """Nothing to release."""
