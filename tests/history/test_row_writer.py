"""A process stores the history's rows as the store's thread does, and nothing is lost with one that ends or falls silent."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from sequencer import row_writer
from sequencer.history import tables
from sequencer.history.candles import Candle
from sequencer.history.records import Row
from sequencer.history.store import ROWS_OF_A_CROWD, Moved, Store, WriteBatch, fetch
from sequencer.row_writer import RowWriter, WriterLost


def candle(t: int, close: int, volume: int) -> Row:
    return Candle(market="A", interval="1m", t=t, o=5, h=9, l=1, c=close, v=volume, n=3).row()


def account(number: int) -> Row:
    return number, bytes([number]) * 20, 0, number


BATCHES = (
    WriteBatch({"candles": [candle(at, at, 2**90 + at) for at in range(50)]}, 1, b"one", b"genesis"),
    WriteBatch({"candles": [candle(7, 1, 1), candle(7, 2, 2)], "accounts": [account(3)]}, 2, b"two"),
    WriteBatch({"accounts": [account(4)]}, 3, b"three", moved=[Moved(3, -3)]),
    WriteBatch({}, 4, b"four"),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "process.db")
    store.start_process()
    yield store
    store.close()


def content(store: Store) -> list[list[dict[str, Any]]]:
    def read(connection: Connection) -> list[list[dict[str, Any]]]:
        return [fetch(connection, select(table)) for table in (tables.candles, tables.accounts, tables.meta)]

    return store.read_now(read)


def by_thread(path: Path, count: int = len(BATCHES)) -> list[list[dict[str, Any]]]:
    store = Store(path)
    for batch in BATCHES[:count]:
        store.write(batch).result()
    stored = content(store)
    store.close()
    return stored


def test_a_process_stores_what_the_thread_does(store: Store, tmp_path: Path) -> None:
    """New rows and changed ones, integers beyond 64 bits, and what only the thread can do in its turn between them; a read sees
    every write before it."""
    pid = store.process_id
    for count, batch in enumerate(BATCHES, start=1):
        store.write(batch)
        assert content(store) == by_thread(tmp_path / f"{count}.db", count)
    assert pid is not None
    assert store.process_id == pid


def test_rows_of_a_replay_are_stored_as_those_of_a_moment_are(tmp_path: Path) -> None:
    """However many come at once, and whatever statements take them."""
    rows = [candle(at % (ROWS_OF_A_CROWD + 41), at, at) for at in range(ROWS_OF_A_CROWD + 50)]
    stored = []
    for most in (len(rows), 1_003):
        store = Store(tmp_path / f"{most}.db")
        for at in range(0, len(rows), most):
            store.write(WriteBatch({"candles": rows[at : at + most]}, 1, b"one")).result()
        stored.append(content(store))
        store.close()
    assert stored[0] == stored[1]
    assert len(stored[0][0]) == ROWS_OF_A_CROWD + 41


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_the_thread_stores_what_a_lost_process_did_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """What it was given when it ended, and everything after."""
    store.write(BATCHES[0]).result()
    monkeypatch.setattr(row_writer, "ANSWER_S", 0.1)
    assert store.process_id is not None
    os.kill(store.process_id, how)
    for batch in BATCHES[1:]:
        store.write(batch).result()
    assert store.process_id is None
    assert content(store) == by_thread(tmp_path / "thread.db")


def test_a_store_whose_process_does_not_start_writes_by_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of memory, say."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    store = Store(tmp_path / "process.db")
    store.start_process()
    for batch in BATCHES:
        store.write(batch).result()
    assert store.process_id is None
    assert content(store) == by_thread(tmp_path / "thread.db")
    store.close()


def test_rows_that_the_database_refuses_leave_nothing_behind(store: Store, tmp_path: Path) -> None:
    """The whole batch is undone, the reason is told, and the next one is stored."""
    store.write(BATCHES[0]).result()
    before, writer = content(store), RowWriter(tmp_path / "process.db")
    insertion = "INSERT INTO meta VALUES (?, ?)"
    with pytest.raises(WriterLost, match="NOT NULL constraint failed"):
        writer.write([(insertion, [("good", "1"), ("bad", None)])])
    assert content(store) == before
    writer.write([(insertion, [("good", "1")])])
    assert {"key": "good", "value": "1"} in content(store)[2]
    writer.close()
