"""Groups of any size become records of the embedded journal, whole and in order, whatever statements it takes to write them."""

from pathlib import Path

import pytest

from sequencer.journal import Appended, Fenced, Head, SqliteJournal
from sequencer.journal.records import GENESIS_HASH, Entry, chained

SIZES = (1, 2, 3, 20, 127, 128, 129, 256, 257)


def entries(count: int, first: int) -> list[Entry]:
    return [(1_000 + at, b"%d" % at) for at in range(first, first + count)]


def test_every_size_of_group_is_written_in_order(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    epoch = journal.take_epoch()
    every: list[Entry] = []
    for size in SIZES:
        group = entries(size, len(every) + 1)
        appended = journal.append(group, len(every) + 1, epoch)
        assert isinstance(appended, Appended)
        assert (appended.first_sequence, len(appended.hashes)) == (len(every) + 1, size)
        every += group
    expected = chained(Head(0, 0, GENESIS_HASH), every)
    written = [(one.sequence, one.stamp_ms, one.payload, one.hash) for one in journal.read()]
    assert written == expected
    journal.close()


@pytest.mark.safety("G05", "sequencer")
def test_a_group_for_another_place_or_by_an_earlier_owner_writes_nothing(tmp_path: Path) -> None:
    """On an empty journal too, which has no newest record to compare with."""
    journal = SqliteJournal(tmp_path / "journal.db")
    early = journal.take_epoch()
    assert journal.append(entries(20, 1), 2, early) == Fenced(early, 0)
    assert isinstance(journal.append(entries(20, 1), 1, early), Appended)
    owner = journal.take_epoch()
    assert journal.append(entries(20, 21), 21, early) == Fenced(owner, 20)
    assert journal.append(entries(20, 22), 22, owner) == Fenced(owner, 20)
    assert len(list(journal.read())) == 20
    journal.close()
