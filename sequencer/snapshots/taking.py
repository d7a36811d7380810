"""Takes snapshots while the exchange runs: a forked child has the state as it was at one record, and writes
it while the parent goes on.

A fork is a copy of the whole process at one moment, which no copying in Python could be without stopping the
loop for as long as the writing takes. The child touches no lock, socket or database of the parent's: it closes
every descriptor, encodes, writes its file, and ends.
"""

import asyncio
import gc
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import structlog

from sequencer import metrics
from sequencer.engine.state import EngineState
from sequencer.journal import Head
from sequencer.replay import Applied
from sequencer.snapshots.files import SnapshotFiles, SnapshotUnusable, make_snapshot

EVERY = 50_000  # records between two snapshots; a tail of so many replays within seconds
MAX_DESCRIPTORS = 65_536  # of a process of ours; some systems allow a thousand million
CHILD_S = 600.0  # a child that takes longer is stuck and is killed
CHILD_NICE = 10  # it takes a second or more of a core, and nobody waits for it: orders go first

log = structlog.get_logger("snapshots")


class Snapshotter:
    """The pipeline's last subscriber, so that everything it takes a snapshot of is at the same record."""

    def __init__(
        self,
        files: SnapshotFiles,
        state: EngineState,
        memory: Callable[[], bytes],
        genesis_hash: bytes,
        *,
        every: int = EVERY,
        needed: Callable[[], int] = lambda: 0,
    ) -> None:
        """`memory` gives the encoded memory of the parts that follow the engine, as of now; `needed` is the record that a
        reversal would go back to: the newest snapshot from before it is kept."""
        self._files = files
        self._state = state
        self._memory = memory
        self._genesis_hash = genesis_hash
        self._every = every
        self._needed = needed
        self._last: Applied | None = None
        self._taken = 0  # sequence of the last snapshot that was begun
        self._watching: asyncio.Task[None] | None = None

    @property
    def _head(self) -> Head:
        last = self._last
        return Head(0, 0, b"") if last is None else Head(last.sequence, last.stamp_ms, last.hash)

    def start_at(self, sequence: int) -> None:
        """A snapshot of this record exists."""
        self._taken = sequence

    def note(self, applied: Applied) -> None:
        """Subscriber of a replay: remember how far it came."""
        self._last = applied

    def observe(self, applied: Applied) -> None:
        """Subscriber of the pipeline: begin a snapshot when it is time and none is being written."""
        self.note(applied)
        due = applied.sequence - self._taken >= self._every
        if due and (self._watching is None or self._watching.done()):
            self._begin()

    def write_now(self) -> None:
        """A snapshot of the last record, written before this returns; for a graceful stop, when nothing runs."""
        if self._head.sequence <= self._taken:
            return
        try:
            began = time.monotonic()
            self._write()
        except (OSError, SnapshotUnusable) as error:
            log.error("snapshot failed", sequence=self._head.sequence, reason=str(error))
        else:
            self._taken = self._head.sequence
            _note(self._taken, began)

    async def close(self) -> None:
        """Wait for a child that still writes."""
        if self._watching is not None:
            await self._watching

    def _begin(self) -> None:
        self._taken = self._head.sequence
        with warnings.catch_warnings():  # the child runs nothing that needs another thread's lock
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            self._run_child()
        self._watching = asyncio.ensure_future(self._watch(child, self._head.sequence))

    def _run_child(self) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)  # else a signal to the child would be told to the parent's loop
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), MAX_DESCRIPTORS))  # the journal's lock among them
            os.nice(CHILD_NICE)
            gc.disable()  # it would write to every page that it visits, and the kernel copy them
            self._write()
            code = 0
        except BaseException as error:
            os.write(2, f"snapshot: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)

    def _write(self) -> Path:
        taken = make_snapshot(self._state, self._head, self._genesis_hash, self._memory())
        return self._files.write(taken, self._needed())

    async def _watch(self, child: int, sequence: int) -> None:
        began = time.monotonic()
        waiting = asyncio.ensure_future(asyncio.to_thread(os.waitpid, child, 0))
        done, _ = await asyncio.wait({waiting}, timeout=CHILD_S)
        if not done:
            os.kill(child, signal.SIGKILL)
        _, status = await waiting
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            _note(sequence, began)
        else:
            metrics.SNAPSHOT_FAILURES.inc()
            log.error("snapshot failed", sequence=sequence, code=code)


def _note(sequence: int, began: float) -> None:
    metrics.SNAPSHOT_SEQUENCE.set(sequence)
    log.info("snapshot taken", sequence=sequence, seconds=round(time.monotonic() - began, 3))
