"""The gateway's side of the processes that check signatures: off its interpreter lock, for which threads compete."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sequencer.frames import LENGTH_BYTES
from sequencer.gateway.checking import Outcome, Question, decode_outcomes, encode_questions

END_S = 5.0  # a process that takes longer to end is stuck
ANSWER_S = 10.0  # and one that takes longer for a frame, which is a few milliseconds of work


def processes_for(configured: int | None) -> int:
    """How many the operator wants, or else suit the machine: one has more to give than the event loop can take, and where there
    is a single core it would only stand in the loop's way."""
    if configured is not None:
        return configured
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if (cores or 1) > 1 else 0


class ProcessLost(RuntimeError):
    """The process ended; what it was asked has to be asked elsewhere."""


Checked = Callable[[list[Outcome] | ProcessLost], None]


class CheckingProcess(asyncio.Protocol):
    """One of them. Asked one frame at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._transport: asyncio.Transport | None = None  # none any more: it ended
        self._received = bytearray()
        self._asked: tuple[Checked, asyncio.TimerHandle] | None = None

    @classmethod
    async def start(cls, history: Path) -> "CheckingProcess":
        """`history` is the file of the projection, which knows the orders that have been answered. Raises OSError."""
        command = (sys.executable, "-m", "sequencer.gateway.checking", str(history))
        mine, its = socket.socketpair()
        try:
            one = cls(await asyncio.create_subprocess_exec(*command, stdin=its.fileno()))
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: one, sock=mine)
        return one

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, questions: Sequence[Question], checked: Checked) -> None:
        """Have `checked` called with the answers, in order, or with ProcessLost."""
        if self._transport is None:
            checked(ProcessLost(f"signature process {self.pid} ended"))
            return
        self._asked = checked, asyncio.get_running_loop().call_later(ANSWER_S, self._stuck)
        self._transport.write(encode_questions(questions))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Its side of the socket is open."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._received += data
        if len(self._received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
            if len(self._received) >= end:
                body, self._received = self._received[LENGTH_BYTES:end], self._received[end:]
                self._answer(decode_outcomes(bytes(body)))

    def connection_lost(self, error: Exception | None) -> None:
        """It ended."""
        self._transport = None
        self._answer(ProcessLost(f"signature process {self.pid} ended: {error or 'it closed its socket'}"))

    async def close(self) -> None:
        """It ends when its input does, or is made to."""
        if self._transport is not None:
            self._transport.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _stuck(self) -> None:
        self._process.kill()
        self._answer(ProcessLost(f"signature process {self.pid} was stuck and is killed"))

    def _answer(self, outcomes: "list[Outcome] | ProcessLost") -> None:
        if self._asked is not None:
            (checked, timer), self._asked = self._asked, None
            timer.cancel()
            checked(outcomes)
