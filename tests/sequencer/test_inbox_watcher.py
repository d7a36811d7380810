"""Inbox entries reach the engine in queue order and exactly once, whatever node and engine say in between."""

import asyncio
from pathlib import Path

import pytest
from sequencer_world import World, key

from evermark.protocol.units import BrokenInvariant
from sequencer.core import Core
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.inbox import InboxWatcher
from sequencer.settlement.errors import Unreachable


class Queue:
    """The on-chain queue as far as it is confirmed; `away` answers fail first."""

    def __init__(self, entries: list[InboxEntry]) -> None:
        self.entries = entries
        self.confirmed = len(entries)
        self.away = 0

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        if self.away:
            self.away -= 1
            raise Unreachable("node is away")
        return self.entries[first_id - 1 : min(self.confirmed, first_id - 1 + limit)]


class House:
    """A core and a watcher on one queue."""

    def __init__(self, directory: Path, world: World, queue: Queue) -> None:
        self.directory, self.world, self.queue = directory, world, queue

    async def __aenter__(self) -> "House":
        self.core = Core(self.directory, self.world.genesis, lambda: self.world.now_s * 1000)
        self.running = asyncio.ensure_future(self.core.run())
        state = self.core.state
        self.watcher = InboxWatcher(self.queue, self.core.pipeline.submit, lambda: state.next_entry_id)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.core.pipeline.stop()
        await self.running
        await self.core.close()

    def credited(self) -> int:
        return self.core.state.credited


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue([world.deposit(key(11 + number % 5), 10 + number) for number in range(100)])


async def test_entries_are_taken_once_across_restarts(tmp_path: Path, world: World, queue: Queue) -> None:
    """Stopped anywhere and started again, the sum credited is the sum queued."""
    queue.confirmed = 0
    for confirmed in (0, 1, 40, 100):
        queue.confirmed = confirmed
        async with House(tmp_path, world, queue) as house:
            if house.core.state.now == 0:
                await house.core.pipeline.submit(world.round())
            while await house.watcher.step():
                pass
            assert house.core.state.entry_count == confirmed
            assert house.credited() == sum(entry.amount for entry in queue.entries[:confirmed])


@pytest.mark.safety("E06", "sequencer")
async def test_unconfirmed_entries_are_not_credited(tmp_path: Path, world: World, queue: Queue) -> None:
    """An entry counts when it is deep enough; one that a reorg replaced before that was never usable."""
    queue.confirmed = 2
    async with House(tmp_path, world, queue) as house:
        await house.watcher.step()
        assert house.core.state.entry_count == 2
        queue.entries[2] = world.deposit(key(19), 77)
        queue.entries[2] = InboxEntry(
            entry_id=3, entry_kind=InboxEntryKind.DEPOSIT, owner=key(19).address, sub_account=0, amount=77
        )
        queue.confirmed = 3
        await house.watcher.step()
        account = house.core.state.account_ids[key(19).address, 0]
        assert house.core.state.accounts[account].collateral == 77


async def test_node_outage_is_waited_out(
    tmp_path: Path, world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher asks again until the node answers."""
    monkeypatch.setattr("sequencer.inbox.POLL_S", 0.01)
    queue.away = 3
    queue.confirmed = 5
    async with House(tmp_path, world, queue) as house:
        task = asyncio.ensure_future(house.watcher.run())
        for _ in range(300):
            await asyncio.sleep(0.01)
            if house.core.state.entry_count == 5:
                break
        assert house.core.state.entry_count == 5
        task.cancel()


async def test_entries_wait_for_the_first_price(
    tmp_path: Path, world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine cannot take yet stays the next entry and follows after the first round; the engine knows every deposit
    that waits, each told once."""
    monkeypatch.setattr("sequencer.inbox.WAIT_S", 0.0)
    async with House(tmp_path, world, queue) as house:
        for _ in range(5):
            await house.watcher.step()
        waiting = house.core.state.entry_count
        assert waiting < 100
        assert len(house.core.state.waiting_deposits) == 100 - waiting
        told = house.core.state.sequence
        await house.watcher.step()
        assert house.core.state.sequence == told + 1
        await house.core.pipeline.submit(world.round())
        while await house.watcher.step():
            pass
        assert house.core.state.entry_count == 100
        assert not house.core.state.waiting_deposits


async def test_gap_stops_the_watcher(tmp_path: Path, world: World, queue: Queue) -> None:
    """A node that leaves an entry out is never believed."""
    del queue.entries[3]
    queue.confirmed = 20
    async with House(tmp_path, world, queue) as house:
        with pytest.raises(BrokenInvariant, match="entry 5 where 4 belongs"):
            await house.watcher.step()
        assert house.core.state.entry_count == 3
