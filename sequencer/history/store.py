"""The projection's database: one thread writes and reads it in turn, so that a read sees every write before
it.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection, Select, Table, create_engine, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from sequencer.crash_points import reached
from sequencer.history import tables

Result = TypeVar("Result")
RETRY_S = 1.0
LAYOUT = 3  # raise it with any change of the tables; the journal rebuilds a projection of another one

log = structlog.get_logger("history")


class HistoryGap(RuntimeError):
    """The journal's records do not follow on what the projection holds; it has to be rebuilt from the
    start.
    """


class WriteBatch(msgspec.Struct, frozen=True):
    """Everything that one transaction stores, and the journal position that it brings the projection to."""

    rows: dict[str, list[dict[str, Any]]]  # table name -> rows
    sequence: int
    journal_hash: bytes
    genesis_hash: bytes = b""  # of the journal's first record


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

    def first_answer(self, order_hash: bytes) -> bytes | None:
        """The stored first answer to an order. From any thread: the signature threads ask for every order.

        A plain statement on a connection of the thread's own takes some 10 us, a tenth of the detour.
        """
        reader = getattr(self._readers, "connection", None)
        if reader is None:
            reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False)
            self._readers.connection = reader
        row = reader.execute("SELECT first_answer FROM orders WHERE order_hash = ?", (order_hash,)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        """Finish what was asked and close the file."""
        self._closing.set()
        self._worker.submit(self._connection.close).result()
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
        rows = batch.rows | {"meta": [{"key": key, "value": value} for key, value in position.items()]}
        with self._connection.begin():
            for name, values in rows.items():
                _upsert(self._connection, tables.metadata.tables[name], values)
            reached("history: rows written")
        reached("history: committed")


def fetch(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    """Rows of a query as dicts."""
    return [dict(row) for row in connection.execute(query).mappings()]


def _upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), rows)


def _tune(connection: sqlite3.Connection, _: object) -> None:
    # Losing the last writes in a power cut is harmless here: the journal brings them back. NORMAL keeps the file
    # whole through one, and costs a sync only when the log is written back.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")
