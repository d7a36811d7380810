"""The replicated journal: one table in PostgreSQL, whose commits wait until a quorum of nodes has them on disk.

One statement is one append: a function checks the owner's epoch and the head in the transaction that inserts, so a
stale owner is refused by the database itself, however late it wakes. What a lost connection leaves open is Unknown,
never a guess.

PostgreSQL answers "committed" with a mere warning when its wait for the quorum was cut short. Such an answer counts
as Unknown here. And a node that was cut off from its standbys still accepts connections, so every new one first
commits a barrier: a node without a quorum never gets past it, and whatever it shows afterwards is replicated.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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

FORMAT = 1  # of the tables
PAGE_RECORDS = 2_000  # records fetched at once by a reader
CONNECT_S = 2  # the least that libpq waits for one node
ANSWER_S = 5.0  # an append that takes longer is Unknown
PATIENCE_S = 30.0  # how long a fail-over of the database may take before this gives up
AGAIN_S = 0.2
COLUMNS = "SELECT sequence, stamp_ms, payload, hash FROM evermark_record"

SCHEMA = """
CREATE TABLE evermark_record (
    sequence bigint PRIMARY KEY, stamp_ms bigint NOT NULL, payload bytea NOT NULL, hash bytea NOT NULL
);
CREATE TABLE evermark_owner (
    id integer PRIMARY KEY CHECK (id = 1), epoch bigint NOT NULL, barrier bigint NOT NULL, format integer NOT NULL
);
CREATE FUNCTION evermark_final() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'journal: append-only'; END $$;
CREATE TRIGGER record_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON evermark_record
    FOR EACH STATEMENT EXECUTE FUNCTION evermark_final();
CREATE FUNCTION evermark_append(
    my_epoch bigint, first bigint, stamps bigint[], payloads bytea[], hashes bytea[],
    OUT owner_epoch bigint, OUT head bigint, OUT written boolean
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT epoch INTO owner_epoch FROM evermark_owner WHERE id = 1 FOR UPDATE;
    SELECT coalesce(max(sequence), 0) INTO head FROM evermark_record;
    written := owner_epoch = my_epoch AND head + 1 = first;
    IF written THEN
        INSERT INTO evermark_record
            SELECT first + at - 1, stamp, payload, hash
            FROM unnest(stamps, payloads, hashes) WITH ORDINALITY AS entry (stamp, payload, hash, at);
    END IF;
END $$;
"""

Result = TypeVar("Result")

log = structlog.get_logger("journal")


class Pulse(msgspec.Struct, frozen=True):
    """Moves with every append and every beat of the owner."""

    epoch: int
    barrier: int
    head: int


class PostgresJournal:
    """The `Journal` protocol on a PostgreSQL cluster. Use one instance from one thread at a time."""

    def __init__(
        self,
        url: str,
        *,
        read_only: bool = False,
        answer_s: float = ANSWER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`url` may name several hosts; the one that accepts writes is found. With `read_only` any node will do.

        Raises JournalRefused when no node answers in time or the database is no journal of this format.
        """
        self.read_only = read_only
        self.name, self.location = _without_password(url), url
        self._settings = _settings(url, read_only)
        self._answer_s = answer_s
        self._patience_s = patience_s
        self._connection: _Connection | None = None
        self._head = self._patiently(lambda db: _stored_head(db))

    def append(
        self, entries: Sequence[Entry], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        """One statement that checks and inserts, acknowledged by the quorum when it returns.

        Unknown when the answer did not come, or came without the quorum's.
        """
        if expected_sequence != self._head.sequence + 1:
            self._head = self._patiently(_stored_head)
        rows = chained(self._head, entries)
        try:
            db = self._connected()
            reached("journal: append sent")
            owner, head, written = db.append(epoch, expected_sequence, rows)
            reached("journal: append answered")
        except (psycopg.Error, _Cut) as error:
            self._drop()
            return Unknown(f"{self.name}: {_line(error)}")
        if not written:
            return Fenced(owner, head)
        if rows:
            self._head = Head(rows[-1][0], rows[-1][1], rows[-1][3])
        return Appended(expected_sequence, tuple(row[3] for row in rows))

    def read(self, from_sequence: int = 1) -> Iterator[Record]:
        """Records from `from_sequence` to the head, each checked. Raises JournalRefused at the first broken one."""
        last, at = self.head().sequence, from_sequence
        for rows in self._checked_pages(from_sequence):
            yield from starmap(Record, rows)
            at += len(rows)
        if at <= last:
            raise JournalRefused(f"journal: record {at} is missing, the head is {last}")

    def record(self, sequence: int) -> Record:
        """One record by its sequence. Raises KeyError beyond the head."""
        rows = self._rows(f"{COLUMNS} WHERE sequence = %s", (sequence,))
        if not rows:
            raise KeyError(sequence)
        return Record(*rows[0])

    def beginning_with(self, prefix: bytes, after: int = 0) -> list[Record]:
        """Records after `after` whose payload begins with `prefix`, as stored; the server looks for them."""
        sql = f"{COLUMNS} WHERE {_begins(prefix)} AND sequence > %s ORDER BY sequence"
        return [Record(*row) for row in self._rows(sql, (after,))]

    def check_chain(self, until: int) -> None:
        """Read and check records 1 to `until`. Raises JournalRefused at the first broken one."""
        at = 0
        for rows in self._checked_pages(1, until):
            at += len(rows)
        if at < until:
            raise JournalRefused(f"journal: it ends before record {until}")

    def head(self) -> Head:
        """The newest record that the quorum has."""
        self._head = self._patiently(_stored_head)
        return self._head

    def take_epoch(self) -> int:
        """Raise the epoch, acknowledged by the quorum; whoever held a lower one can append no more."""
        return self._patiently(
            lambda db: int(db.committed("UPDATE evermark_owner SET epoch = epoch + 1 RETURNING epoch")[0][0])
        )

    def beat(self, epoch: int) -> bool:
        """Move the barrier, acknowledged by the quorum. False when somebody else owns the journal."""
        sql = "UPDATE evermark_owner SET barrier = barrier + 1 WHERE epoch = %s RETURNING barrier"
        return bool(self._patiently(lambda db: db.committed(sql, (epoch,))))

    def pulse(self) -> Pulse:
        """What changes while an owner lives."""
        sql = "SELECT epoch, barrier, (SELECT coalesce(max(sequence), 0) FROM evermark_record) FROM evermark_owner"
        return Pulse(*self._rows(sql, ())[0])

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _checked_pages(self, first: int, until: int = 2**63 - 1) -> Iterator[list[Row]]:
        """Records from `first` to `until`, or the newest, page by page, each page held against the chain."""
        previous, at = self.record(first - 1).hash if first > 1 else GENESIS_HASH, first
        while True:
            rows = self._rows(
                f"{COLUMNS} WHERE sequence BETWEEN %s AND %s ORDER BY sequence LIMIT %s",
                (at, until, PAGE_RECORDS),
            )
            previous = check_rows(rows, at, previous).hash
            yield rows
            at += len(rows)
            if len(rows) < PAGE_RECORDS:
                return

    def _rows(self, sql: str, values: tuple[int, ...]) -> list[Any]:
        return self._patiently(lambda db: db.execute(sql, values, binary=True).fetchall())

    def _patiently(self, work: Callable[["_Connection"], Result]) -> Result:
        """Do `work`, which may be repeated, again on other connections until one answers or patience ends."""
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                return work(self._connected())
            except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
                raise JournalRefused(f"journal: {self.name}: {_line(error)}") from error
            except (psycopg.Error, _Cut) as error:
                self._drop()
                if time.monotonic() > give_up:
                    raise JournalRefused(
                        f"journal: {self.name} does not answer, or has no quorum: {_line(error)}"
                    ) from error
            time.sleep(AGAIN_S)

    def _connected(self) -> "_Connection":
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> "_Connection":
        db = _Connection.connect(self._settings, autocommit=True)
        try:
            db.begin(self._answer_s)
            if not self.read_only:
                self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: "_Connection") -> None:
        if db.execute("SHOW fsync").fetchall() != [("on",)]:
            raise JournalRefused(f"journal: {self.name} runs with fsync = off; switch it on")
        if db.execute("SELECT to_regclass('evermark_owner')").fetchall() == [(None,)]:
            _create(db)
        ((found,),) = db.execute("SELECT format FROM evermark_owner").fetchall()
        if found != FORMAT:
            raise JournalRefused(f"journal: {self.name} has format {found}, this version reads {FORMAT}")
        if db.execute("SELECT to_regclass('evermark_record_sought')").fetchall() == [(None,)]:
            index = "CREATE INDEX IF NOT EXISTS evermark_record_sought ON evermark_record (sequence)"
            db.execute(f"{index} WHERE {_begins(SOUGHT)}".encode())
        db.committed("UPDATE evermark_owner SET barrier = barrier + 1 RETURNING barrier")
        if db.execute("SHOW synchronous_standby_names").fetchall() == [("",)]:
            log.warning(
                "the journal is not replicated: synchronous_standby_names is empty", journal=self.name
            )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Cut(Exception):
    """The server gave up waiting for the quorum, or the answer took too long."""


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every wait ends in time, and which tells a commit without the quorum from one with it."""

    answer_s: float
    warnings: list[str]

    def begin(self, answer_s: float) -> None:
        self.answer_s, self.warnings = answer_s, []
        self.add_notice_handler(self._note)
        self.execute("SET synchronous_commit = on")

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Psycopg's own wait, with a deadline."""
        try:
            return super().wait(gen, interval, timeout=self.__dict__.get("answer_s", timeout))
        except (psycopg.errors._WaitTimeout, TimeoutError) as error:
            self.close()
            raise _Cut("no answer in time") from error

    def append(
        self, epoch: int, first: int, rows: Sequence[tuple[int, int, bytes, bytes]]
    ) -> tuple[int, int, bool]:
        """(the owner's epoch, head before, written)."""
        columns = ([row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows])
        ((owner, head, written),) = self.committed(
            "SELECT * FROM evermark_append(%s, %s, %s::bigint[], %s::bytea[], %s::bytea[])",
            (epoch, first, *columns),
        )
        return owner, head, written

    def committed(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a statement whose transaction the quorum has. Raises _Cut when that is not certain."""
        self.warnings.clear()
        rows = self.execute(sql, values, binary=True).fetchall()
        if self.warnings:
            raise _Cut(self.warnings[0])
        return rows

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "a warning")


def _create(db: _Connection) -> None:
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (0x45564D4A,))
        if db.execute("SELECT to_regclass('evermark_owner')").fetchall() == [(None,)]:
            db.execute(SCHEMA.encode())
            db.execute("INSERT INTO evermark_owner VALUES (1, 0, 0, %s)", (FORMAT,))


def _begins(prefix: bytes) -> str:
    """The condition, always in the same words, for PostgreSQL knows its index by them."""
    return f"substring(payload FROM 1 FOR {len(prefix)}) = '\\x{prefix.hex()}'::bytea"


def _stored_head(db: _Connection) -> Head:
    rows = db.execute(f"{COLUMNS} ORDER BY sequence DESC LIMIT 1", binary=True).fetchall()
    return Head(rows[0][0], rows[0][1], rows[0][3]) if rows else Head(0, 0, GENESIS_HASH)


def _settings(url: str, read_only: bool) -> str:
    """With several hosts: any order, so that a node that is cut off is not asked for ever; only one that takes
    writes."""
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_S, "application_name": "evermark"}
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise JournalRefused(f"journal: {_line(error)}") from error
    if not read_only:
        defaults["target_session_attrs"] = "read-write"
    if "," in str(given.get("host", "")):
        defaults["load_balance_hosts"] = "random"
    return make_conninfo("", **(defaults | given))


def _without_password(url: str) -> str:
    """For messages: where, and nothing secret."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "postgresql"
    return f"postgresql {given.get('dbname', '')} on {given.get('host', 'localhost')}"


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
