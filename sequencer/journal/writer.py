"""The journal's own thread: the event loop hands entries over and awaits their durability.

An owner appends strictly in order, so the writer knows the next sequence; an unknown outcome is settled by
reading the head, and a fence is fatal.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sequencer.journal.records import (
    Appended,
    Entry,
    Fenced,
    Head,
    Journal,
    JournalRefused,
    Unknown,
    chain_hash,
)


class JournalWriter:
    """Appends for one epoch. Every failure leaves as JournalRefused; the pipeline stops on it."""

    def __init__(self, journal: Journal, epoch: int) -> None:
        self.epoch = epoch
        self._journal = journal
        self._head = journal.head()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @property
    def head(self) -> Head:
        """The newest record known to be durable."""
        return self._head

    async def append(self, entries: Sequence[Entry]) -> Appended:
        """Durable when it returns. One call at a time. Raises JournalRefused when fenced or the disk
        fails."""
        loop = asyncio.get_running_loop()
        appended = await loop.run_in_executor(self._thread, self._append, entries)
        if entries:
            last = appended.first_sequence + len(entries) - 1
            self._head = Head(last, entries[-1][0], appended.hashes[-1])
        return appended

    async def beat(self) -> None:
        """Tell whoever stands by that this owner lives. Raises JournalRefused when it owns the journal no more."""
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._thread, self._journal.beat, self.epoch):
            raise JournalRefused(f"journal: fenced: epoch {self.epoch} does not own it any more")

    def close(self) -> None:
        """Wait for the thread to end; what was handed over is written."""
        self._thread.shutdown(wait=True)

    def _append(self, entries: Sequence[Entry]) -> Appended:
        expected = self._head.sequence + 1
        outcome = self._journal.append(entries, expected, self.epoch)
        if isinstance(outcome, Unknown):
            outcome = self._resolve(entries, outcome)
        if isinstance(outcome, Fenced):
            raise JournalRefused(
                f"journal: fenced: epoch {outcome.epoch} owns it with head {outcome.head_sequence}, "
                f"this is epoch {self.epoch} at {expected - 1}"
            )
        return outcome

    def _resolve(self, entries: Sequence[Entry], unknown: Unknown) -> Appended | Fenced:
        """Read the head before anything else: the append happened entirely, or not at all, or we lost
        ownership."""
        head = self._journal.head()
        hashes, previous = [], self._head.hash
        for offset, (stamp_ms, payload) in enumerate(entries, start=1):
            previous = chain_hash(previous, self._head.sequence + offset, stamp_ms, payload)
            hashes.append(previous)
        if head.sequence == self._head.sequence + len(entries) and head.hash == previous:
            return Appended(self._head.sequence + 1, tuple(hashes))
        if head != self._head:
            return Fenced(self.epoch, head.sequence)
        again = self._journal.append(entries, head.sequence + 1, self.epoch)
        if isinstance(again, Unknown):
            raise JournalRefused(f"journal: outcome unknown twice: {unknown.reason}; {again.reason}")
        return again
