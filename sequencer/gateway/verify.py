"""Signatures off the event loop: a few threads recover keys (coincurve lets go of the interpreter lock
meanwhile), a chunk of waiting messages at a time, so that a crowd costs one hand-over and not one each."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from evermark.protocol.merkle import Path, merkle_paths
from evermark.protocol.orders import Order, OrderBatch, Signature
from evermark.protocol.signing import (
    Message,
    SignatureRefused,
    digest,
    digest_of,
    domain_separator,
    recover,
    struct_hash,
)

CHUNK = 64
# Chains whose domain a wallet may have been on by mistake; each costs one more recovery of a refused
# signature.
USUAL_CHAINS = (1, 31337, 1337, 10, 137, 8453, 42161, 11155111)


class Recovered(msgspec.Struct, frozen=True):
    """Who signed: `signer` is None when no key recovers. `known` is the first answer to an order seen
    before.
    """

    digest: bytes
    struct_hash: bytes
    signer: bytes | None
    known: bytes | None


class RecoveredOrders(msgspec.Struct, frozen=True):
    """Who signed an order batch, and for each of its orders struct hash, path to the root and stored first answer."""

    digest: bytes
    signer: bytes | None
    struct_hashes: list[bytes]
    paths: list[Path]
    known: list[bytes | None]


Outcome = Recovered | RecoveredOrders


class _Job:
    __slots__ = ("done", "message", "outcome", "separator", "signature")

    def __init__(
        self,
        message: Message | tuple[Order, ...],
        separator: bytes,
        signature: Signature,
        done: "asyncio.Future[Any]",
    ) -> None:
        self.message = message  # a tuple: the orders of one OrderBatch
        self.separator = separator
        self.signature = signature
        self.done = done
        self.outcome: Outcome | BaseException | None = None

    @property
    def messages(self) -> Sequence[Message]:
        """What is hashed: the message, or each order of a batch."""
        return self.message if isinstance(self.message, tuple) else (self.message,)

    @property
    def is_of_orders(self) -> bool:
        """Repetitions of orders get their first answer again; nothing else is remembered."""
        return isinstance(self.message, Order | tuple)


class SignatureThreads:
    """`recover` answers from the threads. `lookup` finds the stored first answers to orders, from any thread."""

    def __init__(self, threads: int, lookup: Callable[[Sequence[bytes]], dict[bytes, bytes]]) -> None:
        self._threads = threads
        self._lookup = lookup
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="signature")
        self._waiting: list[_Job] = []
        self._unanswered: deque[_Job] = deque()
        self._busy = 0

    async def recover(self, message: Message, separator: bytes, signature: Signature) -> Recovered:
        """The signer of a message under a domain. Answers come in the order of the questions, so that two
        orders of one connection do not overtake each other."""
        done: asyncio.Future[Recovered] = asyncio.get_running_loop().create_future()
        self._ask(_Job(message, separator, signature, done))
        return await done

    async def recover_orders(
        self, orders: Sequence[Order], separator: bytes, signature: Signature
    ) -> RecoveredOrders:
        """The signer of an order batch, in its turn among the questions."""
        done: asyncio.Future[RecoveredOrders] = asyncio.get_running_loop().create_future()
        self._ask(_Job(tuple(orders), separator, signature, done))
        return await done

    def _ask(self, job: _Job) -> None:
        self._waiting.append(job)
        self._unanswered.append(job)
        if len(self._waiting) == 1:
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
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hand_over(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._busy < self._threads:
            chunk, self._waiting = self._waiting[:CHUNK], self._waiting[CHUNK:]
            self._busy += 1
            work = loop.run_in_executor(self._pool, self._recover_chunk, chunk)
            work.add_done_callback(lambda work, chunk=chunk: self._answer(chunk, work))  # type: ignore[misc]

    def _answer(self, chunk: list[_Job], work: "asyncio.Future[list[Outcome]]") -> None:
        self._busy -= 1
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        for at, job in enumerate(chunk):
            job.outcome = work.result()[at] if error is None else error
        while self._unanswered and self._unanswered[0].outcome is not None:
            _deliver(self._unanswered.popleft())
        if self._waiting:
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
