"""A process that writes rows into a database for another one, off its interpreter lock.

`python -m sequencer.row_writer DATABASE` takes batches from the socket that is its standard input, stores each in one transaction
of its own, and says when it is stored. It knows nothing of what the rows mean.
"""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from sequencer.frames import frame, outlive_signals, read_frame

Rows = Sequence[tuple[str, Sequence[tuple[Any, ...]]]]  # for each statement the rows that it stores

ANSWER_S = 10.0  # a process that takes longer is stuck
END_S = 5.0  # to end
STORED = b"stored"
NICE = 5  # its batches are bursts of milliseconds, which orders need not wait for; a quarter of a core is left to it at worst

_encoder = msgspec.msgpack.Encoder()
_rows = msgspec.msgpack.Decoder(list[tuple[str, list[tuple[Any, ...]]]])


class WriterLost(RuntimeError):
    """The process did not store what it was given, or did not say so; storing it again changes nothing."""


class RowWriter:
    """The other process's side of it: one batch at a time, from one thread."""

    def __init__(self, database: Path) -> None:
        """Raises OSError when no process can be started."""
        mine, its = socket.socketpair()
        try:
            command = [sys.executable, "-m", "sequencer.row_writer", str(database)]
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=its.fileno(), stdout=subprocess.DEVNULL
            )
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        self._socket = mine
        self._answers = mine.makefile("rb")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def write(self, rows: Rows) -> None:
        """The rows are committed when it returns. Raises WriterLost."""
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.sendall(frame(_encoder.encode(rows)))
            answer = read_frame(self._answers)
        except (OSError, OverflowError) as error:
            raise WriterLost(f"history process {self.pid}: {error!r}") from None
        if answer != STORED:
            raise WriterLost(f"history process {self.pid}: {answer.decode() or 'it ended'}")

    def kill(self) -> None:
        """End it at once. It is dead when this returns, so that nobody else writes."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """It ends when its input does, or is made to."""
        self._answers.close()
        self._socket.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def tune(connection: sqlite3.Connection) -> None:
    """How everybody who writes the projection opens it."""
    # Losing the last writes in a power cut is harmless here: the journal brings them back. NORMAL keeps the file
    # whole through one, and costs a sync only when the log is written back.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")


def serve(connection: sqlite3.Connection, batches: BinaryIO, answers: BinaryIO) -> None:
    """Store until the other side closes its end."""
    while batch := read_frame(batches):
        answers.write(frame(_store(connection, batch)))
        answers.flush()


def main() -> None:
    """The process."""
    outlive_signals()
    os.nice(NICE)
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    tune(connection)
    with socket.socket(fileno=0) as both:
        serve(connection, both.makefile("rb"), both.makefile("wb"))


def _store(connection: sqlite3.Connection, batch: bytes) -> bytes:
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in _rows.decode(batch):
                connection.executemany(statement, rows)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        return str(error).encode() or b"failed"
    return STORED


if __name__ == "__main__":
    main()
