"""The gateway's side of the processes that check signatures: off its interpreter lock, for which threads compete."""

import asyncio
import os
import sys
from collections.abc import Sequence
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


class CheckingProcess:
    """One of them. Asked one frame at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, history: Path) -> "CheckingProcess":
        """`history` is the file of the projection, where the first answers are."""
        command = (sys.executable, "-m", "sequencer.gateway.checking", str(history))
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def check(self, questions: Sequence[Question]) -> list[Outcome]:
        """The answers, in order. Raises ProcessLost."""
        asking, answering = self._process.stdin, self._process.stdout
        if asking is None or answering is None:
            raise ProcessLost("it was started without pipes")
        try:
            async with asyncio.timeout(ANSWER_S):
                asking.write(encode_questions(questions))
                length = await answering.readexactly(LENGTH_BYTES)
                return decode_outcomes(await answering.readexactly(int.from_bytes(length, "big")))
        except TimeoutError:
            self._process.kill()
            raise ProcessLost(f"signature process {self.pid} was stuck and is killed") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ProcessLost(f"signature process {self.pid} ended: {error}") from None

    async def close(self) -> None:
        """It ends when its input does, or is made to."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
