"""The projection's database: one thread writes and reads it in turn, so that a read sees every write before
it.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection, Select, Table, create_engine, delete, event, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from sequencer.answered import answered
from sequencer.crash_points import reached
from sequencer.history import tables
from sequencer.history.candles import INTERVALS_S, bucket
from sequencer.history.records import Row
from sequencer.row_writer import RowWriter, WriterLost, tune

Result = TypeVar("Result")
RETRY_S = 1.0
# Rows of one statement. For each one the thread gives up the interpreter and takes it back from the event loop, which most
# of an order's latency came from; a few numbers of rows, so that the statements stay prepared.
ROWS_AT_ONCE = (32, 8, 1)
# More rows than these come from a replay, when nobody else wants the interpreter; by themselves they cost less one by one.
ROWS_OF_A_CROWD = 4_000
LAYOUT = 7  # raise it with any change of the tables or of what is in them; the journal rebuilds a projection of another one

log = structlog.get_logger("history")


class HistoryGap(RuntimeError):
    """The journal's records do not follow on what the projection holds; it has to be rebuilt from the
    start.
    """


class Voided(msgspec.Struct, frozen=True):
    """What one reversal took back: trades by id, and the ledger's lines by journal sequence, each from the first to the last."""

    first_trade: int
    last_trade: int
    first_sequence: int
    last_sequence: int


class VoidedCandles(msgspec.Struct, frozen=True):
    """A market's candles that end after a time: they go before what is left of them is written."""

    market: str
    since_s: int


class Moved(msgspec.Struct, frozen=True):
    """Whatever is of an account gets another id."""

    account: int
    to: int


class WriteBatch(msgspec.Struct, frozen=True):
    """Everything that one transaction stores, and the journal position that it brings the projection to."""

    rows: dict[str, Sequence[Row]]  # by table name
    sequence: int
    journal_hash: bytes
    genesis_hash: bytes = b""  # of the journal's first record
    voided: Sequence["Voided"] = ()  # marked after the rows are written
    voided_candles: Sequence["VoidedCandles"] = ()  # go before they are
    moved: Sequence["Moved"] = ()  # before them too, in this order


class Store:
    """SQLAlchemy core on SQLite. Its file may be deleted at any time: the journal rebuilds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closing = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._engine = create_engine(f"sqlite+pysqlite:///{path}", connect_args={"check_same_thread": False})
        event.listen(self._engine, "connect", _tune)
        self._connection: Connection = self._worker.submit(self._open).result()
        self._readers = threading.local()
        self._writer: RowWriter | None = None

    def start_process(self) -> None:
        """From now on a process writes the rows, for which the store's thread competes with the event loop otherwise. Should it
        not start, or end, the thread does it again."""
        try:
            self._writer = RowWriter(self.path)
        except OSError as error:
            log.error("history is written without a process", reason=str(error))

    @property
    def process_id(self) -> int | None:
        """Of the process that writes."""
        return None if self._writer is None else self._writer.pid

    def position(self) -> tuple[int, bytes]:
        """(last journal sequence stored, that record's hash); (0, b"") when new."""
        return self._worker.submit(self._position).result()

    def genesis_hash(self) -> bytes:
        """Hash of the journal's first record; b"" when new."""
        return bytes.fromhex(self._worker.submit(self._meta).result().get("genesis_hash", ""))

    def write(self, batch: WriteBatch) -> "Future[None]":
        """Store a batch in one transaction, after everything that was asked before it."""
        return self._worker.submit(self._write, batch)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in the store's thread, after every write asked before."""
        return await asyncio.wrap_future(self._worker.submit(self._read, work))

    def read_now(self, work: Callable[[Connection], Result]) -> Result:
        """Like `read`, blocking; for start-up."""
        return self._worker.submit(self._read, work).result()

    def answered(self, order_hashes: Sequence[bytes]) -> set[bytes]:
        """Those of these orders that are stored. From any thread: the signature threads ask for every order, many at a time and
        on a connection of their own, because the detour over the store's thread costs more than the question."""
        if not order_hashes:
            return set()
        reader = getattr(self._readers, "connection", None)
        if reader is None:
            reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False)
            self._readers.connection = reader
        return answered(reader, order_hashes)

    def close(self) -> None:
        """Finish what was asked and close the file."""
        self._closing.set()
        self._worker.submit(self._connection.close).result()
        if self._writer is not None:
            self._writer.close()
        self._worker.shutdown()
        self._engine.dispose()

    def _open(self) -> Connection:
        with self._engine.begin() as connection:
            if connection.exec_driver_sql("PRAGMA user_version").scalar() != LAYOUT:
                tables.metadata.drop_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT}")
            tables.metadata.create_all(connection)
        return self._engine.connect()

    def _position(self) -> tuple[int, bytes]:
        values = self._meta()
        return int(values.get("sequence", "0")), bytes.fromhex(values.get("journal_hash", ""))

    def _meta(self) -> dict[str, str]:
        rows = self._read(lambda connection: connection.execute(select(tables.meta)).all())
        return {row.key: row.value for row in rows}

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        with self._connection.begin():
            return work(self._connection)

    def _write(self, batch: WriteBatch) -> None:
        """The journal has everything, so a failing disk only delays this; what it holds up is questions."""
        while True:
            try:
                return self._write_once(batch)
            except DatabaseError as error:
                log.error("history does not write", path=str(self.path), reason=str(error.orig))
                if self._closing.wait(RETRY_S):
                    raise

    def _write_once(self, batch: WriteBatch) -> None:
        position = {
            "sequence": str(batch.sequence),
            "journal_hash": batch.journal_hash.hex(),
            "genesis_hash": batch.genesis_hash.hex(),
        }
        rows: dict[str, Sequence[Row]] = {**batch.rows, "meta": list(position.items())}
        if not (batch.voided or batch.voided_candles or batch.moved) and self._written_by_process(rows):
            return
        with self._connection.begin():
            for candles in batch.voided_candles:
                _remove(self._connection, candles)
            for moved in batch.moved:
                _move(self._connection, moved)
            for name, values in rows.items():
                _UPSERTS[name].write(self._connection, values)
            for voided in batch.voided:
                _mark(self._connection, voided)
            reached("history: rows written")
        reached("history: committed")

    def _written_by_process(self, rows: dict[str, Sequence[Row]]) -> bool:
        if self._writer is None:
            return False
        try:
            self._writer.write([(_UPSERTS[name].one, rows[name]) for name in rows])
        except WriterLost as lost:
            log.error("history is written without a process", reason=str(lost))
            self._writer.kill()
            self._writer = None
            return False
        return True


def fetch(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    """Rows of a query as dicts."""
    return [dict(row) for row in connection.execute(query).mappings()]


class _Upsert:
    """The statement that stores rows of one table, made once: binding row by row costs several times what writing does."""

    def __init__(self, table: Table) -> None:
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        changes = {
            column.name: statement.excluded[column.name] for column in table.c if column.name not in keys
        }
        whole = statement.on_conflict_do_update(index_elements=keys, set_=changes)
        names = [column.name for column in table.c]
        one, places = str(whole.compile(dialect=sqlite.dialect())), f"({', '.join('?' * len(names))})"
        self.one = one
        self._sql = {count: one.replace(places, ", ".join([places] * count)) for count in ROWS_AT_ONCE}

    def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Store rows, the later one of two with the same key."""
        if len(rows) > ROWS_OF_A_CROWD:
            connection.exec_driver_sql(self.one, list(rows))
            return
        at = 0
        for count in ROWS_AT_ONCE:
            while at + count <= len(rows):
                connection.exec_driver_sql(
                    self._sql[count], tuple(chain.from_iterable(rows[at : at + count]))
                )
                at += count


_UPSERTS = {name: _Upsert(table) for name, table in tables.metadata.tables.items()}


def _mark(connection: Connection, voided: Voided) -> None:
    for table in (tables.fills, tables.trades):
        within = table.c.trade_id.between(voided.first_trade, voided.last_trade)
        connection.execute(update(table).where(within).values(voided=True))
    lines = tables.ledger.c.journal_sequence.between(voided.first_sequence, voided.last_sequence)
    connection.execute(update(tables.ledger).where(lines).values(voided=True))


def _move(connection: Connection, moved: Moved) -> None:
    for table in (tables.orders, tables.fills, tables.ledger):
        connection.execute(update(table).where(table.c.account == moved.account).values(account=moved.to))
    known = tables.accounts.c.account == moved.account
    if moved.to > 0:  # its owner registers again, which makes a row of its own
        connection.execute(delete(tables.accounts).where(known))
    else:
        connection.execute(update(tables.accounts).where(known).values(account=moved.to))


def _remove(connection: Connection, candles: VoidedCandles) -> None:
    table = tables.candles.c
    for interval in INTERVALS_S:
        behind = table.market == candles.market, table.interval == interval
        since = table.t >= bucket(interval, candles.since_s)
        connection.execute(delete(tables.candles).where(*behind, since))


def _tune(connection: sqlite3.Connection, _: object) -> None:
    tune(connection)
