"""What every journal promises, shown on each of them: SQLite embedded and PostgreSQL replicated."""

import sqlite3
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from postgres_cluster import PostgresCluster

from sequencer.journal import (
    GENESIS_HASH,
    Appended,
    Fenced,
    Head,
    Journal,
    JournalRefused,
    chain_hash,
    open_journal,
)
from sequencer.journal.aside import ChainCheck
from sequencer.journal.records import SOUGHT

databases = count(1)


@pytest.fixture(scope="module")
def cluster(postgres_bin: Path) -> Iterator[PostgresCluster]:
    with PostgresCluster(postgres_bin) as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty journal may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "journal.db")
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    name = f"journal{next(databases)}"
    with psycopg.connect(cluster.url("n1", "postgres"), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return cluster.url(database=name)


@pytest.fixture
def opened(location: str) -> Iterator[Callable[[], Journal]]:
    """Opens the journal again and again; what is open is closed at the end."""
    journals: list[Journal] = []

    def again() -> Journal:
        for journal in journals:
            journal.close()
        journals.append(open_journal(location))
        return journals[-1]

    yield again
    for journal in journals:
        journal.close()


def fill(journal: Journal, records: int, epoch: int) -> None:
    first = journal.head().sequence + 1
    entries = [(1_000 + at, f"payload {at}".encode()) for at in range(first, first + records)]
    assert isinstance(journal.append(entries, first, epoch), Appended)


def test_chain_and_positions(opened: Callable[[], Journal]) -> None:
    """Records count from 1, each hash covers the one before, and the head is the newest."""
    journal = opened()
    assert journal.head() == Head(0, 0, GENESIS_HASH)
    outcome = journal.append([(5, b"one"), (6, b"\x00two")], 1, journal.take_epoch())
    first = chain_hash(GENESIS_HASH, 1, 5, b"one")
    second = chain_hash(first, 2, 6, b"\x00two")
    assert outcome == Appended(1, (first, second))
    assert journal.head() == Head(2, 6, second)
    assert [record.payload for record in journal.read()] == [b"one", b"\x00two"]
    assert [record.sequence for record in journal.read(2)] == [2]
    assert journal.record(1).hash == first
    with pytest.raises(KeyError):
        journal.record(3)


def test_reopened_journal_goes_on(opened: Callable[[], Journal]) -> None:
    """Pages of records come back in order, and the chain continues."""
    journal = opened()
    fill(journal, 4_500, journal.take_epoch())
    head = journal.head()
    journal = opened()
    assert journal.head() == head
    fill(journal, 1, journal.take_epoch())
    assert [record.sequence for record in journal.read()] == list(range(1, 4_502))
    journal.check_chain(4_501)
    with pytest.raises(JournalRefused, match="ends before record 4502"):
        journal.check_chain(4_502)


@pytest.mark.safety("G12", "sequencer")
def test_older_epoch_and_moved_head_are_fenced(opened: Callable[[], Journal]) -> None:
    """Nothing is written by an owner that was overtaken, nor at a place that is not next; the owner goes on."""
    journal = opened()
    old = journal.take_epoch()
    fill(journal, 3, old)
    new = journal.take_epoch()
    assert new > old
    assert journal.append([(9_999, b"late")], 4, old) == Fenced(new, 3)
    assert journal.append([(9_999, b"gap")], 5, new) == Fenced(new, 3)
    assert journal.append([(9_999, b"again")], 3, new) == Fenced(new, 3)
    assert journal.head().sequence == 3
    fill(journal, 1, new)


@pytest.mark.safety("G26", "sequencer")
@pytest.mark.parametrize("statement", ["UPDATE {} SET stamp_ms = 1", "DELETE FROM {}"])
def test_records_are_final(opened: Callable[[], Journal], location: str, statement: str) -> None:
    """Not even SQL changes or removes a record."""
    journal = opened()
    fill(journal, 2, journal.take_epoch())
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="append-only"):
        execute(location, statement)
    assert sum(1 for _ in journal.read()) == 2


@pytest.mark.safety("G05", "sequencer")
@pytest.mark.parametrize("statement", ["UPDATE {} SET stamp_ms = 7", "DELETE FROM {}"])
def test_changed_or_missing_record_is_refused(
    opened: Callable[[], Journal], location: str, statement: str
) -> None:
    """Whoever gets around that is found out by the chain, at the record."""
    journal = opened()
    fill(journal, 100, journal.take_epoch())
    if location.startswith("postgresql"):
        execute(location, "ALTER TABLE {} DISABLE TRIGGER record_is_final")
    else:
        execute(location, "DROP TRIGGER record_is_final")
        execute(location, "DROP TRIGGER record_stays")
    execute(location, statement + " WHERE sequence = 50")
    with pytest.raises(JournalRefused, match="record 50"):
        list(opened().read())


def execute(location: str, statement: str) -> None:
    if location.startswith("postgresql"):
        with psycopg.connect(location, autocommit=True) as db:
            db.execute(statement.format("evermark_record"))
    else:
        with sqlite3.connect(location, isolation_level=None) as plain:
            plain.execute(statement.format("record"))


def test_sought_records_are_found_by_an_index(opened: Callable[[], Journal], location: str) -> None:
    """Reversals, which a replay has to know of before it comes to them, are found without reading the rest; also in a journal
    from before there was an index, which its next owner gets."""
    journal = opened()
    epoch = journal.take_epoch()
    payloads = [SOUGHT + b"}", b'{"kind":"PlaceOrder"}', SOUGHT + b',"after":1}', b"x" + SOUGHT]
    assert isinstance(journal.append([(1, payload) for payload in payloads], 1, epoch), Appended)
    assert [record.sequence for record in journal.beginning_with(SOUGHT)] == [1, 3]
    assert journal.beginning_with(SOUGHT, after=1) == [journal.record(3)]
    assert [record.sequence for record in journal.beginning_with(b'{"kind":"PlaceOrder"')] == [2]
    execute(location, "DROP INDEX {}_sought")
    reader = open_journal(location, read_only=not location.startswith("postgresql"))
    assert [record.sequence for record in reader.beginning_with(SOUGHT)] == [1, 3]
    reader.close()
    journal = opened()
    assert [record.sequence for record in journal.beginning_with(SOUGHT)] == [1, 3]
    assert uses_index(location)


def uses_index(location: str) -> bool:
    """Whether the database looks for reversals by the index, as far as it tells."""
    if location.startswith("postgresql"):
        with psycopg.connect(location) as db:
            return bool(
                db.execute("SELECT to_regclass('evermark_record_sought') IS NOT NULL").fetchall()[0][0]
            )
    with sqlite3.connect(location) as plain:
        query = f"SELECT sequence FROM record WHERE substr(payload, 1, {len(SOUGHT)}) = x'{SOUGHT.hex()}'"
        plan = plain.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        return "USING INDEX record_sought" in plan[0][3] or "COVERING INDEX record_sought" in plan[0][3]


@pytest.mark.safety("G05", "sequencer")
def test_chain_is_checked_by_another_process(opened: Callable[[], Journal], location: str) -> None:
    """A long journal's chain is checked beside the start; a changed record is found there as here, and a check that goes on
    beyond what it was begun for is done here."""
    journal = opened()
    fill(journal, 60, journal.take_epoch())
    with ChainCheck(journal, 1_000, least_records=10) as check:
        assert check._process is not None
        check.wait(40)
        with pytest.raises(JournalRefused, match="ends before record 61"):
            check.wait(61)
    if location.startswith("postgresql"):
        execute(location, "ALTER TABLE {} DISABLE TRIGGER record_is_final")
    else:
        execute(location, "DROP TRIGGER record_is_final")
    execute(location, "UPDATE {} SET stamp_ms = 7 WHERE sequence = 50")
    for least_records in (10, 1_000):
        with ChainCheck(journal, 60, least_records=least_records) as check:
            with pytest.raises(JournalRefused, match="record 50 does not match its hash"):
                check.wait(60)
