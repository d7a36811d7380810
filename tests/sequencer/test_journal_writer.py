"""The journal's writer thread: what it does with a fence and with an outcome that it did not learn."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sequencer.journal import (
    Appended,
    Fenced,
    Head,
    JournalRefused,
    JournalWriter,
    Record,
    SqliteJournal,
    Unknown,
)


class LossyJournal:
    """A real journal behind a line that loses answers: `lose` says what happens to each append."""

    def __init__(self, journal: SqliteJournal, lose: list[str]) -> None:
        self.journal = journal
        self.lose = lose

    def append(
        self, entries: Sequence[tuple[int, bytes]], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        what = self.lose.pop(0) if self.lose else ""
        if what == "request":
            return Unknown("request lost")
        outcome = self.journal.append(entries, expected_sequence, epoch)
        return Unknown("answer lost") if what == "answer" else outcome

    def read(self, from_sequence: int = 1) -> Iterator[Record]:
        return self.journal.read(from_sequence)

    def head(self) -> Head:
        return self.journal.head()

    def take_epoch(self) -> int:
        return self.journal.take_epoch()

    def close(self) -> None:
        self.journal.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(tmp_path / "journal.db")
    yield opened
    opened.close()


async def test_appends_are_durable_when_they_return(journal: SqliteJournal) -> None:
    """The awaited append gives sequences and hashes, and moves the head."""
    writer = JournalWriter(journal, journal.take_epoch())
    appended = await writer.append([(1, b"a"), (2, b"b")])
    assert appended.first_sequence == 1
    assert writer.head == journal.head() == Head(2, 2, appended.hashes[1])
    writer.close()


@pytest.mark.safety("G13", "sequencer")
@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_unknown_outcome_leaves_exactly_one_copy(journal: SqliteJournal, lost: str) -> None:
    """Whether the request or the answer was lost, the head decides and the record exists once."""
    writer = JournalWriter(LossyJournal(journal, [lost]), journal.take_epoch())
    await writer.append([(1, b"a")])
    await writer.append([(2, b"b")])
    assert [record.payload for record in journal.read()] == [b"a", b"b"]
    assert writer.head == journal.head()
    writer.close()


async def test_unknown_twice_stops(journal: SqliteJournal) -> None:
    """A journal that stays silent is not guessed about."""
    writer = JournalWriter(LossyJournal(journal, ["request", "answer"]), journal.take_epoch())
    with pytest.raises(JournalRefused, match="unknown twice"):
        await writer.append([(1, b"a")])
    writer.close()


@pytest.mark.safety("G12", "sequencer")
async def test_fence_is_fatal(journal: SqliteJournal) -> None:
    """A writer whose epoch was overtaken never appends again, however often it is asked."""
    writer = JournalWriter(journal, journal.take_epoch())
    await writer.append([(1, b"a")])
    successor = JournalWriter(journal, journal.take_epoch())
    await successor.append([(2, b"b")])
    for _ in range(2):
        with pytest.raises(JournalRefused, match="fenced: epoch 2 owns it with head 2, this is epoch 1 at 1"):
            await writer.append([(3, b"c")])
    assert journal.head().sequence == 2
    writer.close()
    successor.close()


@pytest.mark.safety("G13", "sequencer")
async def test_unknown_outcome_under_another_owner_is_fenced(journal: SqliteJournal) -> None:
    """If somebody else moved the head meanwhile, an unknown append counts as refused."""
    epoch = journal.take_epoch()
    writer = JournalWriter(LossyJournal(journal, ["request"]), epoch)
    journal.append([(1, b"other")], 1, epoch)
    with pytest.raises(JournalRefused, match="fenced"):
        await asyncio.wait_for(writer.append([(1, b"mine")]), 5)
    writer.close()
