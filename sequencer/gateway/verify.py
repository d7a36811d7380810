"""Signatures off the event loop: a few threads recover keys (coincurve lets go of the interpreter lock meanwhile), a
chunk of waiting messages at a time, so that a crowd costs one hand-over and not one each.

Cancels and keepers' messages have a lane of their own and go first; orders beyond what the other lane holds are refused
before their signature costs anything.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from evermark.protocol.merkle import Path, merkle_paths
from evermark.protocol.orders import Order, OrderBatch, Signature
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import (
    Message,
    SignatureRefused,
    digest,
    digest_of,
    domain_separator,
    recover,
    struct_hash,
)
from sequencer.gateway.refusal import Refusal, refuse

CHUNK = 64
RETRY_AFTER_MS = 500
# Chains whose domain a wallet may have been on by mistake; each costs one more recovery of a refused
# signature.
USUAL_CHAINS = (1, 31337, 1337, 10, 137, 8453, 42161, 11155111)


class Recovered(msgspec.Struct, frozen=True, gc=False):
    """Who signed: `signer` is None when no key recovers. `known` is the first answer to an order seen
    before.
    """

    digest: bytes
    struct_hash: bytes
    signer: bytes | None
    known: bytes | None


class RecoveredOrders(msgspec.Struct, frozen=True, gc=False):
    """Who signed an order batch, and for each of its orders struct hash, path to the root and stored first answer."""

    digest: bytes
    signer: bytes | None
    struct_hashes: list[bytes]
    paths: list[Path]
    known: list[bytes | None]


Outcome = Recovered | RecoveredOrders


class _Job:
    __slots__ = ("account", "done", "message", "outcome", "separator", "signature")

    def __init__(
        self,
        message: Message | tuple[Order, ...],
        separator: bytes,
        signature: Signature,
        account: int,
    ) -> None:
        self.account = account  # 0: none
        self.message = message  # a tuple: the orders of one OrderBatch
        self.separator = separator
        self.signature = signature
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.outcome: Outcome | BaseException | None = None

    @property
    def messages(self) -> Sequence[Message]:
        """What is hashed: the message, or each order of a batch."""
        return self.message if isinstance(self.message, tuple) else (self.message,)

    @property
    def is_of_orders(self) -> bool:
        """Repetitions of orders get their first answer again; nothing else is remembered."""
        return isinstance(self.message, Order | tuple)


class _Lane:
    """Messages that are answered in the order in which they came."""

    __slots__ = ("unanswered", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Job] = []  # not yet handed to a thread
        self.unanswered: deque[_Job] = deque()


class SignatureThreads:
    """`recover` answers from the threads. `lookup` finds the stored first answers to orders, from any thread."""

    def __init__(
        self, threads: int, lookup: Callable[[Sequence[bytes]], dict[bytes, bytes]], room: int
    ) -> None:
        """At most `room` messages that are not urgent are under way."""
        self._threads = threads
        self._room = room
        self._lookup = lookup
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="signature")
        self._urgent, self._normal = _Lane(), _Lane()
        self._normal_of: Counter[int] = Counter()  # unanswered in the normal lane, by account
        self._busy = 0
        self._closed = False

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
        job = _Job(message, separator, signature, account)
        self._ask(job, urgent)
        return await job.done  # type: ignore[no-any-return]

    async def recover_orders(
        self, orders: Sequence[Order], separator: bytes, signature: Signature, account: int
    ) -> RecoveredOrders:
        """The signer of an order batch, in its turn among the questions. Raises Refusal (OVERLOADED)."""
        job = _Job(tuple(orders), separator, signature, account)
        self._ask(job, False)
        return await job.done  # type: ignore[no-any-return]

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

    def _ask(self, job: _Job, urgent: bool) -> None:
        lane = self._normal
        if urgent and not self._normal_of[job.account]:
            lane = self._urgent
        elif not urgent and (refusal := self.overload) is not None:
            raise refusal
        else:
            self._normal_of[job.account] += 1
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

    def close(self) -> None:
        """End the threads; what waits is forgotten with its connections."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hand_over(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        while self._busy < self._threads:
            lane = self._urgent if self._urgent.waiting else self._normal
            chunk, lane.waiting = lane.waiting[:CHUNK], lane.waiting[CHUNK:]
            if not chunk:
                return
            self._busy += 1
            work = loop.run_in_executor(self._pool, self._recover_chunk, chunk)
            work.add_done_callback(lambda work, chunk=chunk: self._answer(chunk, work))  # type: ignore[misc]

    def _answer(self, chunk: list[_Job], work: "asyncio.Future[list[Outcome]]") -> None:
        self._busy -= 1
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        for at, job in enumerate(chunk):
            job.outcome = work.result()[at] if error is None else error
        for lane in (self._urgent, self._normal):
            while lane.unanswered and lane.unanswered[0].outcome is not None:
                job = lane.unanswered.popleft()
                _deliver(job)
                if lane is self._normal:
                    self._normal_of[job.account] -= 1
                    if not self._normal_of[job.account]:
                        del self._normal_of[job.account]
        self._hand_over()

    def _recover_chunk(self, chunk: list[_Job]) -> list[Outcome]:
        hashes = [[struct_hash(message) for message in job.messages] for job in chunk]
        asked = [
            each for job, hashed in zip(chunk, hashes, strict=True) if job.is_of_orders for each in hashed
        ]
        known = self._lookup(asked)
        return [_outcome(job, hashed, known) for job, hashed in zip(chunk, hashes, strict=True)]


def _outcome(job: _Job, hashes: list[bytes], known: dict[bytes, bytes]) -> Outcome:
    if not isinstance(job.message, tuple):
        signed = digest_of(job.separator, hashes[0])
        return Recovered(signed, hashes[0], _signer(signed, job.signature), known.get(hashes[0]))
    root, paths = merkle_paths(hashes)
    signed = digest(job.separator, OrderBatch(root=root))
    first_answers = [known.get(hashed) for hashed in hashes]
    return RecoveredOrders(signed, _signer(signed, job.signature), hashes, paths, first_answers)


def _deliver(job: _Job) -> None:
    if job.done.done():
        return
    if isinstance(job.outcome, BaseException):
        job.done.set_exception(job.outcome)
    elif job.outcome is not None:
        job.done.set_result(job.outcome)


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
