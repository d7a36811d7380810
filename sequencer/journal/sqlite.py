"""The embedded journal: one SQLite file in WAL mode with synchronous=FULL, so a commit that returned is on
disk.

Single ownership stands on two legs: an exclusive lock on a file beside it (refuses a second process on this
machine at once) and an epoch row checked inside every append (fences an owner that lost the file and did not
notice). SQLite's own frame checksums cut a torn tail; the hash chain refuses a changed byte anywhere else.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import starmap
from pathlib import Path

import structlog

from sequencer.crash_points import reached
from sequencer.journal.records import (
    GENESIS_HASH,
    SOUGHT,
    Appended,
    Entry,
    Fenced,
    Head,
    JournalRefused,
    Record,
    Row,
    Unknown,
    chained,
    check_rows,
)
from sequencer.journal.wal import inspect_wal

FORMAT = 1  # PRAGMA user_version; another layout gets another number and an explicit migration
APPLICATION = 0x45564D4A  # PRAGMA application_id, "EVMJ": the file is a journal and nothing else
PAGE_RECORDS = 2_000  # records fetched at once by a reader
COLUMNS = "SELECT sequence, stamp_ms, payload, hash FROM record"
OWNER_AND_HEAD = (
    "SELECT epoch, sequence, stamp_ms, payload, hash FROM owner "
    "LEFT JOIN record ON sequence = (SELECT max(sequence) FROM record)"
)
MOST_AT_ONCE = 128  # records of one statement

SCHEMA = """
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY, stamp_ms INTEGER NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
INSERT INTO owner VALUES (1, 0);
CREATE TRIGGER record_is_final BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'journal: append-only'); END;
CREATE TRIGGER record_stays BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'journal: append-only'); END;
"""


log = structlog.get_logger("journal")


class SqliteJournal:
    """The `Journal` protocol on one SQLite file. Use one instance from one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool = False, busy_timeout_s: float = 5.0) -> None:
        """Open or create. Raises JournalRefused when another process owns it or it is no journal of this
        format."""
        self.path = path
        self.name = self.location = str(path)
        self.read_only = read_only
        self._lock_file = None if read_only else _lock(path)
        try:
            tail = None if read_only else inspect_wal(path)
            self._db = self._connect(busy_timeout_s)
            self._head = self._stored_head()
        except sqlite3.Error as error:
            self._unlock()
            raise JournalRefused(f"journal: {path} cannot be opened: {error}") from error
        except JournalRefused:
            self._unlock()
            raise
        if tail is not None and tail.torn_bytes:
            log.warning(
                "torn tail cut: a commit that was never acknowledged",
                path=str(path),
                bytes=tail.torn_bytes,
                head=self._head.sequence,
            )

    def append(
        self, entries: Sequence[Entry], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        """One transaction: check the epoch and the head, insert, commit with fsync.

        A disk that refuses (full, I/O error) raises JournalRefused and is not tried again: after a failed
        fsync nobody knows what is on disk, and only a restart reads it back.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            owner, head = self._owner_and_head()
            if owner != epoch or head.sequence + 1 != expected_sequence:
                self._db.execute("ROLLBACK")
                return Fenced(owner, head.sequence)
            records = chained(head, entries)
            reached("journal: transaction begun")
            self._insert(records)
            reached("journal: records written")
            self._db.execute("COMMIT")
            reached("journal: committed")
        except sqlite3.Error as error:
            raise JournalRefused(f"journal: {self.path} could not be written: {error}") from error
        hashes = tuple(record[3] for record in records)
        if records:
            self._head = Head(records[-1][0], records[-1][1], records[-1][3])
        return Appended(expected_sequence, hashes)

    def read(self, from_sequence: int = 1) -> Iterator[Record]:
        """Records from `from_sequence` to the head, each checked. Raises JournalRefused at the first broken
        one."""
        previous, last = self._hash_before(from_sequence), self.head().sequence
        at = from_sequence
        while True:
            rows = self._query(f"{COLUMNS} WHERE sequence >= ? ORDER BY sequence LIMIT ?", (at, PAGE_RECORDS))
            previous = check_rows(rows, at, previous).hash
            yield from starmap(Record, rows)
            at += len(rows)
            if len(rows) < PAGE_RECORDS:
                break
        if at <= last:
            raise JournalRefused(f"journal: record {at} is missing, the head is {last}")

    def check_chain(self, until: int) -> None:
        """Read and check records 1 to `until`. Raises JournalRefused at the first broken one."""
        try:
            rows = self._db.execute(f"{COLUMNS} WHERE sequence <= ? ORDER BY sequence", (until,))
            checked = check_rows(rows, 1, GENESIS_HASH)
        except sqlite3.Error as error:
            raise JournalRefused(f"journal: {self.path} cannot be read: {error}") from error
        if checked.sequence < until:
            raise JournalRefused(f"journal: it ends before record {until}")

    def record(self, sequence: int) -> Record:
        """One record by its sequence. Raises KeyError beyond the head."""
        rows = self._query(f"{COLUMNS} WHERE sequence = ?", (sequence,))
        if not rows:
            raise KeyError(sequence)
        return _record(rows[0])

    def beginning_with(self, prefix: bytes, after: int = 0) -> list[Record]:
        """Records after `after` whose payload begins with `prefix`, as stored. A journal that no owner has opened since there
        is an index is looked through."""
        sql = f"{COLUMNS} WHERE {_begins(prefix)} AND sequence > ? ORDER BY sequence"
        return [_record(row) for row in self._query(sql, (after,))]

    def head(self) -> Head:
        """The newest durable record."""
        return self._stored_head() if self.read_only else self._head

    def take_epoch(self) -> int:
        """Raise the epoch durably and return it; whoever held a lower one can append no more."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("UPDATE owner SET epoch = epoch + 1")
            epoch = int(self._db.execute("SELECT epoch FROM owner").fetchone()[0])
            reached("journal: epoch written")
            self._db.execute("COMMIT")
            reached("journal: epoch committed")
        except sqlite3.Error as error:
            raise JournalRefused(f"journal: {self.path} could not be taken over: {error}") from error
        return epoch

    def beat(self, epoch: int) -> bool:
        """Nobody stands by at a file, and its lock says who owns it."""
        return True

    def close(self) -> None:
        """Close the database and give up the file lock."""
        self._db.close()
        self._unlock()

    def _connect(self, busy_timeout_s: float) -> sqlite3.Connection:
        if self.read_only:
            if not self.path.exists():
                raise JournalRefused(f"journal: {self.path} does not exist")
            db = sqlite3.connect(
                f"file:{self.path}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
            )
        else:
            db = sqlite3.connect(self.path, busy_timeout_s, check_same_thread=False, isolation_level=None)
        try:
            self._prepare(db)
        except (sqlite3.Error, JournalRefused):
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        if not self.read_only:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # each owner begins an empty log, see wal.py
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        application = int(db.execute("PRAGMA application_id").fetchone()[0])
        is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if is_new and not self.read_only:
            stamps = f"PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT};"
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {stamps} COMMIT;")
        elif application != APPLICATION:
            raise JournalRefused(f"journal: {self.path} is a database of something else, no journal")
        elif version != FORMAT:
            raise JournalRefused(f"journal: {self.path} has format {version}, this version reads {FORMAT}")
        if not self.read_only:
            db.execute(
                f"CREATE INDEX IF NOT EXISTS record_sought ON record (sequence) WHERE {_begins(SOUGHT)}"
            )

    def _owner_and_head(self) -> tuple[int, Head]:
        row = self._db.execute(OWNER_AND_HEAD).fetchone()
        newest = Record(0, 0, b"", GENESIS_HASH) if row[1] is None else _record(row[1:])
        return int(row[0]), Head(newest.sequence, newest.stamp_ms, newest.hash)

    def _insert(self, records: Sequence[Row]) -> None:
        """In few statements: for each one the thread gives up the interpreter, and waits until it gets it back."""
        at = 0
        while at < len(records):
            some = records[at : at + _power_of_two(len(records) - at)]
            self._db.execute(_insertion(len(some)), [value for record in some for value in record])
            at += len(some)

    def _stored_head(self) -> Head:
        rows = self._query(f"{COLUMNS} ORDER BY sequence DESC LIMIT 1", ())
        if not rows:
            return Head(0, 0, GENESIS_HASH)
        newest = _record(rows[0])
        return Head(newest.sequence, newest.stamp_ms, newest.hash)

    def _hash_before(self, sequence: int) -> bytes:
        if sequence <= 1:
            return GENESIS_HASH
        rows = self._query(f"{COLUMNS} WHERE sequence = ?", (sequence - 1,))
        if not rows:
            raise JournalRefused(f"journal: {self.path} has no record {sequence - 1} to continue from")
        return rows[0][3]

    def _query(self, sql: str, values: tuple[int, ...]) -> list[Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise JournalRefused(f"journal: {self.path} cannot be read: {error}") from error

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _power_of_two(most: int) -> int:
    """The largest one that is not above `most` and MOST_AT_ONCE: few different statements, which stay prepared."""
    return min(MOST_AT_ONCE, 1 << most.bit_length() - 1)


@lru_cache
def _insertion(records: int) -> str:
    return "INSERT INTO record VALUES " + ", ".join(["(?, ?, ?, ?)"] * records)


def _begins(prefix: bytes) -> str:
    """The condition, always in the same words, for SQLite knows its index by them."""
    return f"substr(payload, 1, {len(prefix)}) = x'{prefix.hex()}'"


def _record(row: Row) -> Record:
    """A row as a record; on a damaged page a column may hold anything."""
    kinds = tuple(type(value) for value in row)
    if kinds != (int, int, bytes, bytes) or not 0 <= row[1] < 2**63:
        raise JournalRefused(
            f"journal: record {row[0]} is damaged; restore the journal from a backup or a replica"
        )
    return Record(*row)


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalRefused(
            f"journal: {path} is in use by another sequencer; one at a time: stop it first"
        ) from None
    return descriptor
