"""Signatures off the event loop: a few threads recover keys (coincurve lets go of the interpreter lock meanwhile), or processes
where the operator wants some, a chunk of waiting messages at a time, so that a crowd costs one hand-over and not one each.

Cancels and keepers' messages have a lane of their own and go first; orders beyond what the other lane holds are refused
before their signature costs anything.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from evermark.protocol.orders import Order, Signature
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import (
    Message,
    SignatureRefused,
    digest,
    domain_separator,
    recover,
    struct_hash,
)
from sequencer.gateway.checking import Lookup, Outcome, Question, Recovered, check
from sequencer.gateway.processes import CheckingProcess, ProcessLost
from sequencer.gateway.refusal import Refusal, refuse
from sequencer.pipeline import resolve

CHUNK = 64
RETRY_AFTER_MS = 500
# Chains whose domain a wallet may have been on by mistake; each costs one more recovery of a refused
# signature.
USUAL_CHAINS = (1, 31337, 1337, 10, 137, 8453, 42161, 11155111)


log = structlog.get_logger("gateway")


# Takes an Outcome of the question's kind, or the exception in its place; raises nothing.
Answered = Callable[[Any], object]


class _Job(msgspec.Struct, gc=False):
    question: Question
    account: int  # 0: none
    answered: Answered
    wakes: bool  # a task, which the loop runs after what it runs now
    outcome: Outcome | BaseException | None = None


class _Lane:
    """Messages that are answered in the order in which they came."""

    __slots__ = ("unanswered", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Job] = []  # not yet handed to a thread
        self.unanswered: deque[_Job] = deque()


class SignatureThreads:
    """`recover` answers from the threads. `lookup` finds the stored first answers to orders, from any thread."""

    def __init__(self, threads: int, lookup: Lookup, room: int) -> None:
        """At most `room` messages that are not urgent are under way."""
        self._threads = threads
        self._room = room
        self._lookup = lookup
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="signature")
        self._urgent, self._normal = _Lane(), _Lane()
        self._normal_of: dict[int, int] = {}  # unanswered in the normal lane, by account
        self._busy = 0
        self._processes: list[CheckingProcess] = []
        self._idle: list[CheckingProcess] = []
        self._closed = False
        self._answered: deque[_Job] = deque()  # and not yet told
        self._telling = False  # soon

    async def start_processes(self, count: int, history: Path) -> None:
        """From now on processes check what is not urgent; `history` is where they look for first answers. Should they not start,
        or end, the threads do it."""
        starting = (CheckingProcess.start(history) for _ in range(count))
        started = await asyncio.gather(*starting, return_exceptions=True)
        for one in started:
            if isinstance(one, CheckingProcess):
                self._processes.append(one)
            elif isinstance(one, OSError):
                log.error("the threads check what a process would have", reason=str(one))
            else:
                raise one
        self._idle = list(self._processes)

    async def recover(
        self,
        message: Message,
        separator: bytes,
        signature: Signature,
        account: int = 0,
        *,
        urgent: bool = False,
    ) -> Recovered:
        """The signer of a message under a domain. Answers come in the order of the questions, so that two
        orders of one connection do not overtake each other; `urgent` ones overtake those of other accounts.

        Raises Refusal (OVERLOADED) for one that is not urgent while too many wait."""
        signed = signature.to_bytes()
        if isinstance(message, Order):
            question = Question(separator, signed, (message,))
        else:
            question = Question(separator, signed, hashed=struct_hash(message))
        return await self.answer_to(question, account, urgent)  # type: ignore[no-any-return]

    @property
    def overload(self) -> Refusal | None:
        """Why nothing that is not urgent is taken at the moment; None when there is room."""
        waiting = len(self._normal.unanswered)
        if waiting < self._room:
            return None
        return refuse(
            RejectCode.OVERLOADED,
            "too many signatures wait to be checked",
            waiting=waiting,
            limit=self._room,
            retry_after_ms=RETRY_AFTER_MS,
        )

    async def answer_to(self, question: Question, account: int, urgent: bool = False) -> Any:
        """An Outcome of the question's kind, in its turn. Raises Refusal (OVERLOADED)."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ask(_Job(question, account, partial(resolve, done), wakes=True), urgent)
        return await done

    def ask(self, question: Question, account: int, answered: Answered) -> None:
        """Have `answered` called in the question's turn; what `answer_to` does, without a task that waits.

        Raises Refusal (OVERLOADED), and then `answered` is not called."""
        self._ask(_Job(question, account, answered, wakes=False), False)

    def _ask(self, job: _Job, urgent: bool) -> None:
        lane = self._normal
        if urgent and job.account not in self._normal_of:
            lane = self._urgent
        elif not urgent and (refusal := self.overload) is not None:
            raise refusal
        else:
            self._normal_of[job.account] = self._normal_of.get(job.account, 0) + 1
        lane.waiting.append(job)
        lane.unanswered.append(job)
        if len(self._urgent.waiting) + len(self._normal.waiting) == 1:
            # Once the loop has read what else has come: few large chunks cost less than many small ones.
            asyncio.get_running_loop().call_soon(self._hand_over)

    async def chain_signed_for(
        self, message: Message, contract: bytes, name: str, signature: Signature, signers: frozenset[bytes]
    ) -> int | None:
        """The chain id under which one of `signers` signed this message, when it is a usual one."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, _find_chain, message, contract, name, signature, signers
        )

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that are still asked."""
        return [process.pid for process in self._processes]

    async def close(self) -> None:
        """End threads and processes; what waits is forgotten with its connections."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(process.close() for process in self._processes))

    def _hand_over(self) -> None:
        if self._closed:
            return
        while self._urgent.waiting and self._busy < self._threads:
            self._begin(self._urgent)
        while self._normal.waiting and (self._idle if self._processes else self._busy < self._threads):
            self._begin(self._normal, self._idle.pop() if self._processes else None)

    def _begin(self, lane: _Lane, process: CheckingProcess | None = None) -> None:
        chunk, lane.waiting = lane.waiting[:CHUNK], lane.waiting[CHUNK:]
        if process is None:
            self._ask_thread(chunk)
        else:
            process.ask([job.question for job in chunk], partial(self._process_answered, chunk, process))

    def _ask_thread(self, chunk: list[_Job]) -> None:
        self._busy += 1
        questions = [job.question for job in chunk]
        work = asyncio.get_running_loop().run_in_executor(self._pool, check, questions, self._lookup)
        work.add_done_callback(partial(self._thread_answered, chunk))

    def _thread_answered(self, chunk: list[_Job], work: "asyncio.Future[list[Outcome]]") -> None:
        self._busy -= 1
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        self._answer(chunk, work.result() if error is None else [error] * len(chunk))

    def _process_answered(
        self, chunk: list[_Job], process: CheckingProcess, outcomes: list[Outcome] | ProcessLost
    ) -> None:
        if not isinstance(outcomes, ProcessLost):
            self._idle.append(process)
            self._answer(chunk, outcomes)
        elif not self._closed:
            log.error("the threads check what a process did not", reason=str(outcomes))
            self._processes.remove(process)
            self._ask_thread(chunk)

    def _answer(self, chunk: list[_Job], outcomes: Sequence[Outcome | BaseException]) -> None:
        for job, outcome in zip(chunk, outcomes, strict=True):
            job.outcome = outcome
        for lane in (self._urgent, self._normal):
            while lane.unanswered and lane.unanswered[0].outcome is not None:
                job = lane.unanswered.popleft()
                self._answered.append(job)
                if lane is self._normal:
                    self._normal_of[job.account] -= 1
                    if not self._normal_of[job.account]:
                        del self._normal_of[job.account]
        self._hand_over()
        if not self._telling:
            self._tell()

    def _tell(self) -> None:
        """Whoever asked, in order: who comes after a task that is woken, a cancel say, is told when that has run."""
        self._telling = False
        while self._answered and not self._telling:
            job = self._answered.popleft()
            job.answered(job.outcome)
            if job.wakes and self._answered:
                self._telling = True
                asyncio.get_running_loop().call_soon(self._tell)


def _signer(signed: bytes, signature: Signature) -> bytes | None:
    try:
        return recover(signed, signature)
    except SignatureRefused:
        return None


def _find_chain(
    message: Message, contract: bytes, name: str, signature: Signature, signers: frozenset[bytes]
) -> int | None:
    for chain_id in USUAL_CHAINS:
        if _signer(digest(domain_separator(chain_id, contract, name), message), signature) in signers:
            return chain_id
    return None
