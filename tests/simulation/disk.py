"""The journal's disk: what was made durable stays through every death, and an append can fail in every way that a database knows.

A `Disk` outlives processes; a `SimulatedJournal` is one process's handle on it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random

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
from sequencer.journal.postgres import Pulse
from sequencer.journal.records import Entry

# How an append can go: what happens on the disk, and what the process hears of it.
FINE = "fine"
LOST_ANSWER = "lost answer"  # it is durable, and nobody says so
LOST_WRITE = "lost write"
LATE = "late"  # nobody says anything; it arrives later, if it may still
TWICE = "twice"  # it is durable and confirmed; a copy of it arrives later
HELD = "held"  # nobody says anything; it arrives just before the next owner comes, or never
FULL = "full"

LATEST_S = 5.0  # how much later something arrives, at most


class Disk:
    """Durable records, the epoch of their owner, and what is still on its way to it."""

    def __init__(self, rng: Random) -> None:
        self.records: list[Record] = []
        self.epoch = 0
        self.beats = 0
        self.held: list[tuple[Sequence[Entry], int, int]] = []  # of a process that nobody answers any more
        self.late = 0  # appends that took effect after nobody had heard of them
        self._rng = rng
        self._on_the_way: list[tuple[Sequence[Entry], int, int]] = []

    def head(self) -> Head:
        """The newest durable record."""
        if not self.records:
            return Head(0, 0, GENESIS_HASH)
        last = self.records[-1]
        return Head(last.sequence, last.stamp_ms, last.hash)

    def write(self, entries: Sequence[Entry], expected_sequence: int, epoch: int) -> Appended | Fenced:
        """All or nothing; owner and head are checked in the same transaction."""
        head = self.head()
        if epoch != self.epoch or head.sequence + 1 != expected_sequence:
            return Fenced(self.epoch, head.sequence)
        hashes, previous, sequence = [], head.hash, head.sequence
        for stamp_ms, payload in entries:
            sequence += 1
            previous = chain_hash(previous, sequence, stamp_ms, payload)
            self.records.append(Record(sequence, stamp_ms, payload, previous))
            hashes.append(previous)
        return Appended(expected_sequence, tuple(hashes))

    def send_later(self, entries: Sequence[Entry], expected_sequence: int, epoch: int) -> None:
        """It arrives by itself after a while, or just before the next append does."""
        item = entries, expected_sequence, epoch
        self._on_the_way.append(item)
        asyncio.get_running_loop().call_later(self._rng.uniform(0.0, LATEST_S), self._arrive, item)

    def let_some_arrive(self) -> None:
        """Another statement comes: those on the way may have come first."""
        for item in list(self._on_the_way):
            if self._rng.random() < 0.5:
                self._arrive(item)

    def let_last_words_arrive(self) -> None:
        """Somebody takes the journal over: what its owner sent last has come in time, or not."""
        for item in self.held:
            if self._rng.random() < 0.7:
                self.late += isinstance(self.write(*item), Appended)
        self.held = []

    def _arrive(self, item: tuple[Sequence[Entry], int, int]) -> None:
        if item in self._on_the_way:
            self._on_the_way.remove(item)
            self.late += isinstance(self.write(*item), Appended)


class SimulatedJournal:
    """The `Journal` protocol over a `Disk`; `fate` is asked before each append."""

    name = "the simulated disk"

    def __init__(self, disk: Disk, fate: Callable[[], str] = lambda: FINE) -> None:
        self.disk = disk
        self._fate = fate

    def hang(self) -> None:
        """From now on nobody answers this process; what it sends arrives at the last moment when it may, or never."""
        self._fate = lambda: HELD

    def append(
        self, entries: Sequence[Entry], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        """All or nothing, owner and head checked first."""
        fate = self._fate()
        self.disk.let_some_arrive()
        if fate == FULL:
            raise JournalRefused("journal: disk is full")
        if fate == LOST_WRITE:
            return Unknown("connection lost before the commit")
        if fate == HELD:
            self.disk.held = [(entries, expected_sequence, epoch)]
            return Unknown("no answer in time")
        if fate == LATE:
            self.disk.send_later(entries, expected_sequence, epoch)
            return Unknown("no answer in time")
        outcome = self.disk.write(entries, expected_sequence, epoch)
        if fate == TWICE:
            self.disk.send_later(entries, expected_sequence, epoch)
        if fate == LOST_ANSWER and isinstance(outcome, Appended):
            return Unknown("connection lost after the commit")
        return outcome

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

    def check_chain(self, until: int) -> None:
        """Every read checks it."""
        for record in self.read():
            if record.sequence >= until:
                return

    def head(self) -> Head:
        """The newest durable record."""
        return self.disk.head()

    def take_epoch(self) -> int:
        """Become the owner."""
        self.disk.let_some_arrive()
        self.disk.let_last_words_arrive()
        self.disk.epoch += 1
        return self.disk.epoch

    def beat(self, epoch: int) -> bool:
        """The owner lives; False when somebody else owns the journal."""
        if epoch != self.disk.epoch:
            return False
        self.disk.beats += 1
        return True

    def pulse(self) -> Pulse:
        """What changes while an owner lives."""
        return Pulse(self.disk.epoch, self.disk.beats, self.disk.head().sequence)

    def close(self) -> None:
        """Nothing to release."""
