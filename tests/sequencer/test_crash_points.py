"""kill -9 at every write, sync and answer of a small exchange: each point is tried, none is left to luck."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from fast_directory import fast_directory
from sequencer_world import World
from small_core import MAKER, TAKER, SmallCore

from evermark.protocol.orders import Side
from sequencer import crash_points
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.invariants import check_invariants
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import SqliteJournal, decode_command
from sequencer.replay import replay

PLACES = {
    "journal: transaction begun",
    "journal: records written",
    "journal: committed",
    "journal: epoch written",
    "journal: epoch committed",
    "pipeline: durable",
    "pipeline: applied",
    "pipeline: acknowledged",
    "history: rows written",
    "history: committed",
    "snapshot: draft opened",
    "snapshot: written",
    "snapshot: on the disk",
    "snapshot: named",
    "snapshot: older one removed",
}


@pytest.fixture
def fast_path() -> Iterator[Path]:
    with fast_directory() as directory:
        yield directory


@pytest.mark.safety("G02", "sequencer")
@pytest.mark.safety("G08", "sequencer")
def test_kill_at_every_point_loses_nothing_acknowledged(fast_path: Path) -> None:
    """In an exchange's first life and in its third: every acknowledged order is in the journal once, a start finds
    the state of a full replay, and trading goes on. Each time the last run reaches its end, so there is no point
    beyond those that were tried."""
    places = set()
    for life in (0, 2):
        for point in count(1):
            directory = fast_path / f"{life}-{point}"
            if life:
                shutil.copytree(fast_path / "lived", directory)
            else:
                directory.mkdir()
            place = run_and_die(directory, life, point)
            if place is None:
                break
            places.add(place)
            asyncio.run(check(directory, (directory / "acknowledged").read_text().split()))
        if not life:  # what the first life left at its end, and another one after it
            directory.rename(fast_path / "lived")
            asyncio.run(live(fast_path / "lived", 1))
    assert places == PLACES


def run_and_die(directory: Path, life: int, point: int) -> str | None:
    """Run a small exchange in a forked process that dies at `point`; where that was, None when it did not."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(directory / "stderr", os.O_CREAT | os.O_WRONLY), 2)
            crash_points.arm(point)
            asyncio.run(live(directory, life))
            (directory / "finished").touch()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    told = (directory / "stderr").read_text()
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        return told.strip().splitlines()[-1].removeprefix("crash point: ")
    (directory / "finished").unlink()  # raises when the child failed in another way
    return None


async def live(directory: Path, life: int) -> None:
    """One life, ended gracefully; every answered order is noted outside of the exchange."""
    world = World()
    with (directory / "acknowledged").open("ab", buffering=0) as notes:
        async with SmallCore(directory / "exchange", world) as small:
            if not life:
                await small.fund()
            orders = [
                world.sign_order(MAKER, 3, Side.BUY, 900, 1_100_000, slot=life + 1),
                world.taker(TAKER, 4, Side.SELL, 600 + life, 1_100_000),
            ]
            answers = [small.core.pipeline.submit(order) for order in orders]
            for order, answer in zip(orders, answers, strict=True):
                await answer
                notes.write(order.order_hash.hex().encode() + b"\n")


async def check(directory: Path, acknowledged: list[str]) -> None:
    if not (directory / "exchange" / "journal.db").exists():
        assert not acknowledged
        return
    async with SmallCore(directory / "exchange", World()) as small:
        core = small.core
        check_invariants(core.state)
        journaled = [decode_command(record.payload, record.sequence) for record in core.journal.read()]
        hashes = [command.order_hash.hex() for command in journaled if isinstance(command, PlaceOrder)]
        assert len(hashes) == len(set(hashes))
        assert set(acknowledged) <= set(hashes)
        await small.submit(small.world.round())
        after = state_hash(core.state)
    again, journal = EngineState(), SqliteJournal(directory / "exchange" / "journal.db", read_only=True)
    replay(journal, again)
    journal.close()
    assert state_hash(again) == after
