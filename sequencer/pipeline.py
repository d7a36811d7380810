"""THE LOOP: stamp -> journal -> apply -> publish. Whatever changes the exchange passes here, one after
another.

No future resolves and no subscriber hears of a command before it is durable. While one group of commands is
being written, the next one gathers; while the engine applies a group, the journal already writes the one
after it.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from evermark.protocol.reject import Reject, RejectCode
from sequencer import metrics
from sequencer.crash_points import reached
from sequencer.engine.apply import apply
from sequencer.engine.commands import (
    AnyCommand,
    BatchConfirmed,
    CancelOrder,
    FundingHour,
    InboxEntry,
    OracleRound,
    Reverse,
    TriggerLiquidation,
)
from sequencer.engine.events import CommandRejected, Event
from sequencer.engine.state import EngineState
from sequencer.journal import Appended, JournalWriter, encode_command
from sequencer.replay import Applied, StateAt, Subscriber

CAPACITY = 4_096  # commands waiting, at most; at 5,000 a second it empties in less than one
URGENT_RESERVE = 1_024  # places that only urgent commands may take
GROUP = 256  # records of one commit; bounds how long the engine holds the event loop
SLICE = 64  # commands applied between two looks at the sockets

URGENT = (CancelOrder, TriggerLiquidation, OracleRound, FundingHour, InboxEntry, BatchConfirmed)


class PipelineStopped(RuntimeError):
    """The loop ended before this command's outcome was known to it; the journal knows."""


# Takes a command's events, or why they are not known; raises nothing, and is called once.
Done = Callable[[list[Event] | PipelineStopped], object]
Making = Callable[[int], Sequence[AnyCommand]]  # from the journal's last sequence to what follows it
_STOPPING = Reject(code=RejectCode.NOT_READY, message="the sequencer is stopping")


class _Waiting(msgspec.Struct, gc=False):
    command: AnyCommand
    payload: bytes
    done: Done

    def tell(self, outcome: list[Event] | PipelineStopped) -> None:
        """Once; who has heard hears nothing more."""
        done, self.done = self.done, _nobody
        done(outcome)


class Pipeline:
    """Owns the engine state. `state` is for reading only, between two awaits, on the event loop."""

    def __init__(
        self,
        writer: JournalWriter,
        state: EngineState,
        now_ms: Callable[[], int],
        *,
        capacity: int = CAPACITY,
        urgent_reserve: int = URGENT_RESERVE,
        state_at: StateAt | None = None,
    ) -> None:
        """`now_ms` is chain time; stamps never fall even when it does. `state_at` gives what a reversal goes back to."""
        self.state = state
        self._state_at = state_at
        self.sequence = writer.head.sequence  # last applied record
        self._stamp_ms = writer.head.stamp_ms
        self._writer = writer
        self._now_ms = now_ms
        self._capacity = capacity
        self._urgent_reserve = urgent_reserve
        self._urgent: deque[_Waiting] = deque()
        self._normal: deque[_Waiting] = deque()
        self._normal_of: dict[int, int] = {}  # commands in the normal queue by account
        self._alone: tuple[Making, asyncio.Future[None]] | None = None
        self._arrived = asyncio.Event()
        self._stopping = False
        self._holds: dict[str, tuple[Reject, Callable[[AnyCommand], bool]]] = {}
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` for every applied command, in order, before its submitter hears of it."""
        self._subscribers.append(subscriber)

    def hold_except(self, name: str, reject: Reject, passing: tuple[type[AnyCommand], ...] = URGENT) -> None:
        """From now on refuse with `reject` whatever is not `passing`, before it is journaled."""
        self._holds[name] = (reject, lambda command: not isinstance(command, passing))

    def hold_only(self, name: str, reject: Reject, kinds: tuple[type[AnyCommand], ...]) -> None:
        """From now on refuse commands of these kinds with `reject`, before they are journaled."""
        self._holds[name] = (reject, lambda command: isinstance(command, kinds))

    def release(self, name: str) -> None:
        """End the hold of this name, if there is one."""
        self._holds.pop(name, None)

    @property
    def holds(self) -> list[str]:
        """Names of the holds in force."""
        return list(self._holds)

    @property
    def waiting(self) -> int:
        """Commands that are not yet handed to the journal."""
        return len(self._urgent) + len(self._normal)

    def submit(self, command: AnyCommand) -> "asyncio.Future[list[Event]]":
        """Queue a command; the future gives its events once they are durable and applied."""
        done: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
        self.submit_then(command, partial(resolve, done))
        return done

    def submit_then(self, command: AnyCommand, done: Done) -> None:
        """Queue a command; `done` gets its events once they are durable and applied.

        With the queue full, or while it is held, it gets a CommandRejected at once, and nothing is journaled.
        """
        limit = self._capacity + (self._urgent_reserve if isinstance(command, URGENT) else 0)
        if self._stopping:
            done([_refusal(command, _STOPPING)])
        elif (held := self._held(command)) is not None:
            done([_refusal(command, held)])
        elif self.waiting >= limit:
            metrics.OVERLOADED.inc()
            details: dict[str, int | str] = {"waiting": self.waiting, "limit": limit}
            message = "the sequencer is overloaded"
            overloaded = Reject(code=RejectCode.OVERLOADED, message=message, details=details)
            done([_refusal(command, overloaded)])
        else:
            self._enqueue(_Waiting(command, encode_command(command), done))

    def submit_alone(self, make: Making) -> "asyncio.Future[None]":
        """Journal what `make` returns in one commit, with nothing else under way and nothing between; the future is done once
        all of it is applied. `make` runs in a thread, given the last record, and what is submitted meanwhile waits.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._stopping or self._alone is not None:
            done.set_exception(PipelineStopped("pipeline: it is stopping, or at such work already"))
        else:
            self._alone = (make, done)
            self._arrived.set()
        return done

    def stop(self) -> None:
        """Take no more commands; `run` returns when all that wait are applied."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Work until stopped. Raises JournalRefused when the journal fails, BrokenInvariant and the like on a
        bug; either way the engine is not to be trusted any further and the process has to end."""
        durable: tuple[list[_Waiting], list[int], Appended] | None = None
        group: list[_Waiting] = []
        try:
            while True:
                if durable is None and not await self._wait():
                    return
                if durable is None and self._alone is not None:
                    await self._work_alone(*self._alone)
                    continue
                group = self._take() if self._alone is None else []
                stamps = [self._stamp() for _ in group]
                commit = asyncio.ensure_future(self._commit(group, stamps)) if group else None
                if durable is not None:
                    if commit is not None:
                        # Lets the journal's thread begin before the engine takes the core.
                        await asyncio.sleep(0)
                    await self._apply(*durable)
                durable = (group, stamps, await commit) if commit is not None else None
        finally:
            self._stopping = True
            self._abandon([*(durable[0] if durable else ()), *group, *self._urgent, *self._normal])
            if self._alone is not None and not self._alone[1].done():
                self._alone[1].set_exception(PipelineStopped("pipeline: stopped before it was applied"))
                self._alone[1].exception()  # nobody may be listening

    def _held(self, command: AnyCommand) -> Reject | None:
        for reject, holds in self._holds.values():
            if holds(command):
                return reject
        return None

    def _enqueue(self, item: _Waiting) -> None:
        """Urgent commands overtake, but never an earlier one of the same account: a cancel stays behind its
        order."""
        account = getattr(item.command, "account", 0)
        if isinstance(item.command, URGENT) and account not in self._normal_of:
            self._urgent.append(item)
        else:
            self._normal.append(item)
            self._normal_of[account] = self._normal_of.get(account, 0) + 1
        self._arrived.set()

    async def _wait(self) -> bool:
        """True when there is something to take, False when stopped and empty."""
        while not self.waiting and self._alone is None:
            if self._stopping:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    async def _work_alone(self, make: Making, done: "asyncio.Future[None]") -> None:
        """One group that somebody else makes. Nothing is under way, so the journal ends with what is applied."""
        commands = await asyncio.to_thread(make, self.sequence)
        group = [_Waiting(command, encode_command(command), _nobody) for command in commands]
        if group:
            stamps = [self._stamp()] * len(group)
            await self._apply(group, stamps, await self._commit(group, stamps))
        self._alone = None
        if not done.done():
            done.set_result(None)

    def _take(self) -> list[_Waiting]:
        """The next group. What must not wait behind a crowd goes first: cancels, liquidations, prices, the
        chain."""
        group: list[_Waiting] = []
        while self._urgent and len(group) < GROUP:
            group.append(self._urgent.popleft())
        while self._normal and len(group) < GROUP:
            item = self._normal.popleft()
            account = getattr(item.command, "account", 0)
            self._normal_of[account] -= 1
            if not self._normal_of[account]:
                del self._normal_of[account]
            group.append(item)
        metrics.QUEUED.set(self.waiting)
        return group

    def _stamp(self) -> int:
        self._stamp_ms = max(self._stamp_ms, self._now_ms())
        return self._stamp_ms

    async def _commit(self, group: Sequence[_Waiting], stamps: Sequence[int]) -> Appended:
        began = time.perf_counter()
        payloads = [item.payload for item in group]
        appended = await self._writer.append(list(zip(stamps, payloads, strict=True)))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began)
        metrics.COMMIT_RECORDS.observe(len(group))
        return appended

    async def _apply(self, group: Sequence[_Waiting], stamps: Sequence[int], appended: Appended) -> None:
        for at, (item, stamp_ms, hash_) in enumerate(zip(group, stamps, appended.hashes, strict=True)):
            if at and at % SLICE == 0:
                await asyncio.sleep(0)
            sequence = appended.first_sequence + at
            reached("pipeline: durable")
            events = apply(self.state, item.command, sequence, stamp_ms, self._past(item.command))
            self.sequence = sequence
            reached("pipeline: applied")
            applied = Applied(sequence, stamp_ms, item.command, events, hash_)
            for subscriber in self._subscribers:
                subscriber(applied)
            item.tell(events)
            reached("pipeline: acknowledged")
        for kind, count in Counter(type(item.command) for item in group).items():
            metrics.COMMANDS.labels(kind.__name__).inc(count)
        metrics.JOURNAL_HEAD.set(self.sequence)

    def _past(self, command: AnyCommand) -> EngineState | None:
        if self._state_at is None or not isinstance(command, Reverse):
            return None
        return self._state_at(command.after)

    def _abandon(self, waiting: Sequence[_Waiting]) -> None:
        for item in waiting:
            item.tell(PipelineStopped("pipeline: stopped before the outcome was known"))


def resolve(done: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give whoever still waits for a future a value or an exception."""
    if done.done():
        return
    if isinstance(outcome, BaseException):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _nobody(_: list[Event] | PipelineStopped) -> None:
    """Waits."""


def _refusal(command: AnyCommand, reject: Reject) -> CommandRejected:
    return CommandRejected(
        account=getattr(command, "account", 0),
        reject=reject,
        order_hash=getattr(command, "order_hash", b""),
        client_id=getattr(command, "client_id", ""),
    )
