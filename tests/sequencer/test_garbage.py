"""The collector never visits what lives long while orders come, and still frees cycles in the end."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

from sequencer.garbage import keep_pauses_short

ROOT = Path(__file__).resolve().parents[2]


class Node:
    """One half of a cycle."""

    def __init__(self) -> None:
        self.other: object = None


def cycle() -> weakref.ref[Node]:
    one, other = Node(), Node()
    one.other, other.other = other, one
    return weakref.ref(one)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (the collector sets no event)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def keeping(full_every: int):
    task = asyncio.ensure_future(keep_pauses_short(0.01, full_every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def full_collections() -> int:
    """How often the collector visits everything while many objects are made that stay."""
    full: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(1)

    async with keeping(full_every=10**9):
        await until(lambda: gc.get_freeze_count() > 0)
        gc.callbacks.append(note)
        try:
            hidden = gc.get_freeze_count()
            kept = [[number] for number in range(300_000)]
            await until(lambda: gc.get_freeze_count() >= hidden + len(kept))
        finally:
            gc.callbacks.remove(note)
    return len(full)


def test_what_survives_leaves_the_collectors_sight():
    """Only young objects are visited: no full collection runs, whatever is made meanwhile. In a process of its own, where nobody
    else calls the collector."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (made.stdout.strip(), made.stderr) == ("0", "")


async def test_a_cycle_that_was_hidden_is_freed_by_the_full_collection():
    """Hidden while it was in use, garbage afterwards: the next full collection finds it."""
    async with keeping(full_every=3):
        one, other = Node(), Node()
        one.other, other.other = other, one
        seen = weakref.ref(one)
        await asyncio.sleep(0.05)
        del one, other
        await until(lambda: seen() is None)


async def test_young_cycles_are_freed_without_a_full_collection():
    """Each hiding collects the young before it hides them."""
    async with keeping(full_every=10**9):
        await until(lambda: gc.get_freeze_count() > 0)
        seen = cycle()
        await until(lambda: seen() is None)


async def test_the_settings_are_put_back():
    """After the sequencer stopped, the process collects as before. Two in one process, as other tests run them, may leave
    each other's settings: this one begins with its own."""
    found, before = gc.get_threshold(), (701, 11, 12)
    gc.set_threshold(*before)
    try:
        async with keeping(full_every=10):
            await until(lambda: gc.get_threshold() != before)
        assert gc.get_threshold() == before
        assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*found)


if __name__ == "__main__":
    print(asyncio.run(full_collections()))
