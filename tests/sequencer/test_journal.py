"""The SQLite journal: durable appends, the hash chain, single ownership, and refusal of anything damaged."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.journal import (
    GENESIS_HASH,
    Appended,
    Fenced,
    Head,
    JournalRefused,
    SqliteJournal,
    chain_hash,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(path)
    yield opened
    opened.close()


def fill(journal: SqliteJournal, count: int, epoch: int) -> None:
    first = journal.head().sequence + 1
    entries = [(1_000 + at, f"payload {at}".encode()) for at in range(first, first + count)]
    assert isinstance(journal.append(entries, first, epoch), Appended)


def tamper(path: Path, statement: str, *values: object) -> None:
    """Change the file behind the journal's back, as a bad disk or a bad person would."""
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER IF EXISTS record_is_final")
    db.execute("DROP TRIGGER IF EXISTS record_stays")
    db.execute(statement, values)
    db.commit()
    db.close()


def test_empty_journal_has_a_zero_head(journal: SqliteJournal) -> None:
    """Before the first record the head is all zero and nothing is read."""
    assert journal.head() == Head(0, 0, GENESIS_HASH)
    assert list(journal.read()) == []


def test_append_returns_the_hashes_of_the_chain(journal: SqliteJournal) -> None:
    """Each record's hash covers its predecessor's hash, its sequence, its stamp and its payload."""
    epoch = journal.take_epoch()
    outcome = journal.append([(5, b"one"), (6, b"two")], 1, epoch)
    first = chain_hash(GENESIS_HASH, 1, 5, b"one")
    assert outcome == Appended(1, (first, chain_hash(first, 2, 6, b"two")))
    assert [record.payload for record in journal.read()] == [b"one", b"two"]
    assert [record.sequence for record in journal.read(2)] == [2]
    assert journal.record(2).hash == journal.head().hash


def test_reopened_journal_continues(path: Path) -> None:
    """What was appended is there after closing, and the chain goes on from the old head."""
    journal = SqliteJournal(path)
    fill(journal, 5_000, journal.take_epoch())
    head = journal.head()
    journal.close()
    journal = SqliteJournal(path)
    assert journal.head() == head
    fill(journal, 1, journal.take_epoch())
    assert [record.sequence for record in journal.read()] == list(range(1, 5_002))
    journal.close()


@pytest.mark.safety("G12", "sequencer")
def test_older_epoch_is_fenced(journal: SqliteJournal) -> None:
    """After a take-over the earlier owner's append writes nothing and says who owns the journal."""
    old = journal.take_epoch()
    fill(journal, 3, old)
    new = journal.take_epoch()
    assert journal.append([(9_999, b"late")], 4, old) == Fenced(new, 3)
    assert journal.head().sequence == 3
    fill(journal, 1, new)


def test_moved_head_is_fenced(journal: SqliteJournal) -> None:
    """An append that expects another position than the head's writes nothing."""
    epoch = journal.take_epoch()
    fill(journal, 3, epoch)
    assert journal.append([(9_999, b"gap")], 5, epoch) == Fenced(epoch, 3)
    assert journal.append([(9_999, b"again")], 3, epoch) == Fenced(epoch, 3)


OPENER = """
import sys
from pathlib import Path
from sequencer.journal import SqliteJournal
SqliteJournal(Path(sys.argv[1]))
"""


def test_second_process_is_refused(path: Path, journal: SqliteJournal) -> None:
    """While one process holds the journal another one cannot open it, and says so in one line."""
    command = [sys.executable, "-c", OPENER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith(
        "is in use by another sequencer; one at a time: stop it first"
    )


def test_reader_looks_on_while_the_owner_writes(path: Path, journal: SqliteJournal) -> None:
    """A read-only journal needs no lock, sees new records and cannot append."""
    epoch = journal.take_epoch()
    fill(journal, 2, epoch)
    reader = SqliteJournal(path, read_only=True)
    fill(journal, 1, epoch)
    assert reader.head() == journal.head()
    assert [record.sequence for record in reader.read()] == [1, 2, 3]
    with pytest.raises(JournalRefused, match="could not be written"):
        reader.append([(1, b"no")], 4, epoch)
    reader.close()


@pytest.mark.parametrize("statement", ["UPDATE record SET payload = x'00'", "DELETE FROM record"])
def test_records_are_final(path: Path, journal: SqliteJournal, statement: str) -> None:
    """SQL on the open file cannot change or remove a record."""
    fill(journal, 2, journal.take_epoch())
    db = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement)
    db.close()


@pytest.mark.safety("G05", "sequencer")
@pytest.mark.parametrize("column", ["payload", "stamp_ms", "hash"])
def test_changed_record_is_refused(path: Path, column: str) -> None:
    """One changed field in the middle is found when the chain is read, and named."""
    journal = SqliteJournal(path)
    fill(journal, 100, journal.take_epoch())
    journal.close()
    value: object = 7 if column == "stamp_ms" else b"other"
    tamper(path, f"UPDATE record SET {column} = ? WHERE sequence = 50", value)
    journal = SqliteJournal(path)
    with pytest.raises(JournalRefused, match="record 50 does not match its hash"):
        list(journal.read())
    journal.close()


@pytest.mark.safety("G05", "sequencer")
def test_missing_record_is_refused(path: Path) -> None:
    """A record cut out of the middle is named, never skipped."""
    journal = SqliteJournal(path)
    fill(journal, 100, journal.take_epoch())
    journal.close()
    tamper(path, "DELETE FROM record WHERE sequence = 50")
    journal = SqliteJournal(path)
    with pytest.raises(JournalRefused, match="record 50 is missing"):
        list(journal.read())
    journal.close()


@pytest.mark.safety("G05", "sequencer")
def test_flipped_bit_in_the_file_is_refused(path: Path) -> None:
    """A single bit flipped inside a stored payload on the disk is found."""
    journal = SqliteJournal(path)
    fill(journal, 500, journal.take_epoch())
    journal.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"payload 250")] ^= 1
    path.write_bytes(bytes(data))
    journal = SqliteJournal(path)
    with pytest.raises(JournalRefused, match="record 250 does not match its hash"):
        list(journal.read())
    journal.close()


@pytest.mark.safety("G04", "sequencer")
@pytest.mark.parametrize("cut", [1, 300, 5_000])
def test_torn_tail_is_cut_at_the_last_whole_commit(path: Path, tmp_path: Path, cut: int) -> None:
    """A write-ahead log that ends in the middle of a commit opens with the commits before it, chain whole."""
    journal = SqliteJournal(path)
    epoch = journal.take_epoch()
    for _ in range(20):
        fill(journal, 10, epoch)
    torn = tmp_path / "torn.db"
    shutil.copy(path, torn)
    log = path.with_name(path.name + "-wal").read_bytes()
    torn.with_name("torn.db-wal").write_bytes(log[:-cut])
    journal.close()
    opened = SqliteJournal(torn)
    sequences = [record.sequence for record in opened.read()]
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) % 10 == 0
    assert len(sequences) < 200
    opened.close()


def test_other_format_is_refused(path: Path) -> None:
    """A file of another layout is named with both format numbers and left as it is."""
    SqliteJournal(path).close()
    tamper(path, "PRAGMA user_version=99")
    with pytest.raises(JournalRefused, match="has format 99, this version reads 1"):
        SqliteJournal(path)


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    """Foreign content gives one clear line."""
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(JournalRefused, match="cannot be opened"):
        SqliteJournal(path)


APPENDER = """
import resource, signal, sys
from pathlib import Path
from sequencer.journal import SqliteJournal, JournalRefused
journal = SqliteJournal(Path(sys.argv[1]))
epoch = journal.take_epoch()
if sys.argv[2:]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
at = journal.head().sequence
while True:
    journal.append([(at + i, bytes(600)) for i in range(1, 8)], at + 1, epoch)
    at += 7
    print(at, flush=True)
"""


@pytest.mark.safety("G06", "sequencer")
def test_disk_that_refuses_ends_the_owner(path: Path) -> None:
    """When the disk takes no more bytes the append raises, nothing after it is acknowledged, and the rest
    is whole."""
    command = [sys.executable, "-c", APPENDER, str(path), "400000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "could not be written" in done.stderr.splitlines()[-1]
    acknowledged = int(done.stdout.split()[-1])
    journal = SqliteJournal(path)
    assert journal.head().sequence >= acknowledged
    assert sum(1 for _ in journal.read()) == journal.head().sequence
    journal.close()


@pytest.mark.safety("G02", "sequencer")
def test_killed_owner_loses_nothing_acknowledged(path: Path) -> None:
    """kill -9 between any two system calls: every acknowledged record is there, groups are whole."""
    acknowledged = 0
    for _ in range(4):
        command = [sys.executable, "-c", APPENDER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(40):
                acknowledged = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
        journal = SqliteJournal(path)
        head = journal.head().sequence
        assert acknowledged <= head <= acknowledged + 7
        assert head % 7 == 0
        assert sum(1 for _ in journal.read()) == head
        journal.close()
