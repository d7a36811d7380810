"""The gateway's side of the processes that check signatures: off its interpreter lock, for which threads compete."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from sequencer.gateway.checking import (
    LENGTH_BYTES,
    Outcome,
    Question,
    decode_outcomes,
    encode_questions,
)

END_S = 5.0  # a process that takes longer to end is stuck


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
            asking.write(encode_questions(questions))
            length = await answering.readexactly(LENGTH_BYTES)
            return decode_outcomes(await answering.readexactly(int.from_bytes(length, "big")))
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
