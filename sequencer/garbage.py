"""Keeps the garbage collector and other threads out of an order's way.

A full collection visits every object of the process: with many accounts and orders it stops everything for hundreds
of milliseconds. What lives long here is freed by its reference count, so the collector need only look at what is young: ten
times a second it does, once, and the survivors leave its sight. Cycles among them are found by a full collection once an hour.
"""

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 200_000  # new containers that call the collector early; it then stops everything for some 20 ms
NEVER = 2**31 - 1  # of the middle generation, between two full collections

# A thread that comes back from a signature waits for the interpreter while the event loop has it. With the default of
# 5 ms for each one, the threads would check a few hundred signatures a second under load.
SWITCH_INTERVAL_S = 0.0001

HIDE_EVERY_S = 0.1  # the pause is then a millisecond at a few thousand orders a second
FULL_EVERY = 36_000  # hidings between two full collections


async def keep_pauses_short(hide_every_s: float = HIDE_EVERY_S, full_every: int = FULL_EVERY) -> None:
    """Run until cancelled; the collector's settings are then as they were."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, before[1], NEVER)
    try:
        while True:
            collect_all()
            for _ in range(full_every):
                await asyncio.sleep(hide_every_s)
                gc.collect(1)
                gc.freeze()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def without_collector() -> Iterator[None]:
    """Making a million objects that nearly all stay would send the collector through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > YOUNG:
            gc.freeze()  # or the next object that is made would send it through all of them
        if enabled:
            gc.enable()


def let_threads_in() -> None:
    """Hand the interpreter over soon when another thread waits for it; for the whole process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def collect_all() -> None:
    """One full collection, of what was hidden too."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
