"""The pipeline: durable before anybody hears, overload refused before the journal, restart by replay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from sequencer_world import World, key

from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer import pipeline as pipeline_module
from sequencer.engine.apply import apply
from sequencer.engine.commands import AnyCommand, CancelOrder, PlaceOrder
from sequencer.engine.events import CommandRejected, OrderAccepted, OrderCancelled
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import (
    Appended,
    Fenced,
    JournalRefused,
    JournalWriter,
    SqliteJournal,
    Unknown,
    decode_command,
)
from sequencer.pipeline import Pipeline, PipelineStopped
from sequencer.replay import Applied, replay

MAKER, TAKER = key(11), key(12)


class GatedJournal(SqliteJournal):
    """A real journal whose commits wait for `gate`, so that a test can look at the moment before
    durability."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        import threading

        self.gate = threading.Event()
        self.gate.set()
        self.groups: list[int] = []

    def append(
        self, entries: Sequence[tuple[int, bytes]], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        self.gate.wait()
        self.groups.append(len(entries))
        return super().append(entries, expected_sequence, epoch)


class Running:
    """A pipeline on a journal of its own, with everything that it published."""

    def __init__(self, path: Path, world: World, **limits: int) -> None:
        self.world = world
        self.journal = GatedJournal(path)
        self.writer = JournalWriter(self.journal, self.journal.take_epoch())
        self.state = EngineState()
        replay(self.journal, self.state)
        self.pipeline = Pipeline(self.writer, self.state, lambda: world.now_s * 1000, **limits)
        self.published: list[Applied] = []
        self.pipeline.subscribe(self.published.append)
        self.task = asyncio.ensure_future(self.pipeline.run())

    async def fund(self) -> None:
        for command in (
            self.world.genesis,
            self.world.round(),
            self.world.deposit(MAKER, 100_000),
            self.world.deposit(TAKER, 100_000),
        ):
            await self.pipeline.submit(command)

    def order(self, slot: int, price: int = 1_090_000) -> PlaceOrder:
        return self.world.sign_order(MAKER, 3, Side.BUY, 1_000, price, slot=slot)

    async def stop(self) -> None:
        self.journal.gate.set()
        self.pipeline.stop()
        await asyncio.gather(self.task, return_exceptions=True)
        self.writer.close()
        self.journal.close()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def start(tmp_path: Path, world: World) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    started: list[Running] = []

    async def begin(**limits: int) -> Running:
        running = Running(tmp_path / "journal.db", world, **limits)
        started.append(running)
        if not running.state.sequence:
            await running.fund()
        return running

    yield begin
    for running in started:
        if not running.task.done():
            await running.stop()


@pytest.mark.safety("G08", "sequencer")
async def test_nothing_is_told_before_it_is_durable(start: Callable[..., Awaitable[Running]]) -> None:
    """While the commit hangs, the submitter waits and no subscriber has heard; afterwards both have."""
    running = await start()
    running.journal.gate.clear()
    before = len(running.published)
    done = running.pipeline.submit(running.order(1))
    await asyncio.sleep(0.05)
    assert not done.done()
    assert len(running.published) == before
    assert running.state.accounts[3].orders == {}
    running.journal.gate.set()
    events = await done
    assert isinstance(events[0], OrderAccepted)
    applied = running.published[-1]
    assert running.journal.record(applied.sequence).hash == applied.hash
    assert (
        decode_command(running.journal.record(applied.sequence).payload, applied.sequence) == applied.command
    )


async def test_group_commit_takes_what_gathered(start: Callable[..., Awaitable[Running]]) -> None:
    """Commands that arrive during a commit share the next one, and come out in the order in which they
    came."""
    running = await start()
    running.journal.gate.clear()
    first = running.pipeline.submit(running.order(1))
    await asyncio.sleep(0.05)
    rest = [running.pipeline.submit(running.order(slot)) for slot in range(2, 40)]
    running.journal.gate.set()
    await asyncio.gather(first, *rest)
    assert running.journal.groups[-2:] == [1, 38]
    slots = [item.command.order.slot for item in running.published if isinstance(item.command, PlaceOrder)]
    assert slots == list(range(1, 40))


@pytest.mark.safety("G21", "sequencer")
async def test_overload_is_refused_before_the_journal(start: Callable[..., Awaitable[Running]]) -> None:
    """A full queue refuses orders at once with both numbers; cancels still find room; nothing refused is
    journaled."""
    running = await start(capacity=64, urgent_reserve=16)
    await running.pipeline.submit(running.order(500))
    running.journal.gate.clear()
    held = running.pipeline.submit(running.order(501))
    await asyncio.sleep(0.05)
    orders = [running.pipeline.submit(running.order(slot)) for slot in range(1, 65)]
    refused = await running.pipeline.submit(running.order(65))
    assert isinstance(refused[0], CommandRejected)
    assert refused[0].reject.code is RejectCode.OVERLOADED
    assert refused[0].reject.details == {"waiting": 64, "limit": 64}
    cancel = running.pipeline.submit(running.world.cancel(MAKER, 3, 500))
    running.journal.gate.set()
    assert isinstance((await cancel)[0], OrderCancelled)
    await asyncio.gather(held, *orders)
    journaled = [decode_command(record.payload, record.sequence) for record in running.journal.read()]
    assert sum(isinstance(command, PlaceOrder) for command in journaled) == 66


@pytest.mark.safety("B22", "sequencer")
async def test_urgent_commands_overtake_a_crowd(start: Callable[..., Awaitable[Running]]) -> None:
    """Behind a crowd of orders of one account, another's cancel goes first; one's own never overtakes its
    order."""
    running = await start()
    await running.pipeline.submit(running.world.sign_order(TAKER, 4, Side.SELL, 1_000, 1_110_000))
    running.journal.gate.clear()
    head = running.pipeline.submit(running.order(600))
    await asyncio.sleep(0.05)
    crowd = [running.pipeline.submit(running.order(slot)) for slot in range(1, 100)]
    own = running.pipeline.submit(running.world.cancel(MAKER, 3, 99))
    other = running.pipeline.submit(running.world.cancel(TAKER, 4, 1))
    running.journal.gate.set()
    results = await asyncio.gather(own, other, head, *crowd)
    assert all(isinstance(result[0], OrderCancelled) for result in results[:2])
    after = running.published[running.journal.head().sequence - 101 :]
    assert isinstance(after[0].command, CancelOrder)
    assert isinstance(after[-1].command, CancelOrder)


@pytest.mark.safety("G01", "sequencer")
async def test_restart_replays_to_the_same_state(
    start: Callable[..., Awaitable[Running]], world: World
) -> None:
    """The state after a restart, and of every replay, has the hash of the state that was lost."""
    running = await start()
    for slot in range(1, 30):
        await running.pipeline.submit(running.order(slot, 1_099_000 + slot))
        await running.pipeline.submit(world.taker(TAKER, 4, Side.SELL, 700, 1_090_000))
        world.now_s += 3
        await running.pipeline.submit(world.round())
    lost = state_hash(running.state)
    sequence = running.pipeline.sequence
    await running.stop()
    again = await start()
    assert state_hash(again.state) == lost
    assert again.pipeline.sequence == sequence == again.state.sequence
    partial = EngineState()
    assert replay(again.journal, partial, until=sequence - 5).sequence == sequence - 5
    replay(again.journal, partial, after=sequence - 5)
    assert state_hash(partial) == lost


@pytest.mark.safety("G15", "sequencer")
async def test_stamps_never_fall(start: Callable[..., Awaitable[Running]], world: World) -> None:
    """A clock that jumps back leaves the stamps standing, before and after a restart."""
    running = await start()
    await running.pipeline.submit(running.order(1))
    world.now_s -= 3_600
    await running.pipeline.submit(running.order(2))
    await running.stop()
    again = await start()
    await again.pipeline.submit(again.order(3))
    stamps = [record.stamp_ms for record in again.journal.read()]
    assert stamps == sorted(stamps)
    assert stamps[-1] == stamps[-3]


@pytest.mark.safety("G06", "sequencer")
async def test_failed_journal_ends_the_loop(start: Callable[..., Awaitable[Running]]) -> None:
    """When an append fails the loop raises, nothing waiting is acknowledged, and later commands are
    refused."""
    running = await start()
    sequence = running.pipeline.sequence
    running.journal.take_epoch()
    waiting = [running.pipeline.submit(running.order(slot)) for slot in range(1, 5)]
    with pytest.raises(JournalRefused, match="fenced"):
        await running.task
    for done in waiting:
        with pytest.raises(PipelineStopped):
            await done
    late = await running.pipeline.submit(running.order(9))
    assert isinstance(late[0], CommandRejected)
    assert late[0].reject.code is RejectCode.NOT_READY
    assert running.pipeline.sequence == sequence


async def test_bug_in_the_engine_ends_the_loop(
    start: Callable[..., Awaitable[Running]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception inside apply is never swallowed: the loop raises it, the submitter learns no outcome."""
    running = await start()

    def broken(
        state: EngineState, command: AnyCommand, sequence: int, stamp_ms: int, past: EngineState | None
    ) -> object:
        if isinstance(command, CancelOrder):
            raise ZeroDivisionError("bug")
        return apply(state, command, sequence, stamp_ms, past)

    monkeypatch.setattr(pipeline_module, "apply", broken)
    good = running.pipeline.submit(running.order(1))
    await good
    bad = running.pipeline.submit(running.world.cancel(MAKER, 3, 1))
    with pytest.raises(ZeroDivisionError):
        await running.task
    with pytest.raises(PipelineStopped):
        await bad


async def test_stop_finishes_what_waits(start: Callable[..., Awaitable[Running]]) -> None:
    """A graceful stop applies every waiting command before it ends."""
    running = await start()
    waiting = [running.pipeline.submit(running.order(slot)) for slot in range(1, 50)]
    running.pipeline.stop()
    await running.task
    assert all(isinstance(done.result()[0], OrderAccepted) for done in waiting)
