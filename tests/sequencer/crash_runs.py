"""A small exchange that is killed at every point that `sequencer/crash_points.py` counts, each time in a process of its own:
`python crash_runs.py DIRECTORY`.

A program beside the tests, because each point is a fork, and a fork of a process that has run half the tests is slow.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

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


def main(root: Path) -> None:
    """Every point of an exchange's first life and of its third; prints the places where it died as a JSON list. Each time the
    last run reaches its end, so there is no point beyond those that were tried."""
    places = set()
    for life in (0, 2):
        for point in count(1):
            directory = root / f"{life}-{point}"
            if life:
                shutil.copytree(root / "lived", directory)
            else:
                directory.mkdir()
            place = run_and_die(directory, life, point)
            if place is None:
                break
            places.add(place)
            asyncio.run(check(directory, (directory / "acknowledged").read_text().split()))
        if not life:  # what the first life left at its end, and another one after it
            directory.rename(root / "lived")
            asyncio.run(live(root / "lived", 1))
    print(json.dumps(sorted(places)))


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
