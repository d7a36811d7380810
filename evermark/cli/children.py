"""One supervised process: spawned in a session of its own, restarted with backoff, stopped by signal.

A child never outlives its supervisor: it holds the reading end of a pipe whose writing end only the
supervisor has, and ends itself when the pipe closes, however the supervisor went (see `watch_supervisor`).
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

SUPERVISOR_PIPE = "EVERMARK_SUPERVISOR_PIPE"  # number of the inherited file descriptor
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 15.0
STEADY_S = 30.0  # a child that lived this long starts with the first backoff again
STOP_S = 20.0  # between the polite signal and the final one
ORPHAN_S = 10.0  # the same for a child whose supervisor is gone


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: `evermark ARGUMENTS`, logging to a file. One that is not `lasting` may end with exit 0."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    lasting: bool = True


class Child:
    """A service's current process and its history, as the screen shows it."""

    def __init__(self, service: Service, notice: Callable[[str], None]) -> None:
        self.service = service
        self.state = "starting"  # running, waiting, finished, stopped
        self.restarts = 0
        self.last_exit = ""
        self._notice = notice
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id while a process lives."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    def start(self) -> None:
        """Begin to keep the service alive."""
        self._task = asyncio.create_task(self._keep_alive(), name=self.service.name)

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """Ask the whole process group to end, wait, then force it. Safe to call twice."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        _, pending = await asyncio.wait({self._task}, timeout=timeout_s)
        if pending:
            self._notice(f"{self.service.name} did not stop within {timeout_s:.0f} s: killed")
            self._signal(signal.SIGKILL)
            await asyncio.wait({self._task})
        self.state = "stopped" if self.state != "finished" else self.state

    def kill(self) -> None:
        """End the process group at once."""
        self._signal(signal.SIGKILL)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines that the service logged, for an error message."""
        try:
            return "\n".join(self.service.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    async def _keep_alive(self) -> None:
        backoff = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            self.last_exit = _describe(code)
            if code == 0 and not self.service.lasting:
                self.state = "finished"
                return
            if time.monotonic() - began > STEADY_S:
                backoff = FIRST_BACKOFF_S
            self.state = "waiting"
            self._notice(f"{self.service.name} ended ({self.last_exit}), restart in {backoff:.1f} s")
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff)
            except TimeoutError:
                self.restarts += 1
            backoff = min(2 * backoff, LAST_BACKOFF_S)

    async def _run_once(self) -> int:
        reader, writer = os.pipe()
        command = (sys.executable, "-m", "evermark.cli.main", *self.service.arguments)
        with self.service.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, SUPERVISOR_PIPE: str(reader), "PYTHONUNBUFFERED": "1"},
                pass_fds=(reader,),
                start_new_session=True,
            )
        os.close(reader)
        self.state = "running"
        try:
            # A stop that came while the process was being made has signalled nobody.
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            return await self._process.wait()
        finally:
            os.close(writer)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                pass  # it ended just now, which is what the signal asks for


def _describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def watch_supervisor() -> None:
    """In a child: end this process when the supervisor's end of the pipe closes. Alone, it does nothing."""
    descriptor = os.environ.pop(SUPERVISOR_PIPE, "")
    if not descriptor:
        return

    def watch() -> None:
        os.read(int(descriptor), 1)  # blocks until the supervisor is gone; nobody ever writes
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
