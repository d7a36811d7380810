"""Chain time for keepers and the moments at which they act.

On a devnet it may start anywhere and run at any speed.
"""

import asyncio
from typing import Protocol

STRIDE_S = 20  # chain seconds between two reports at most, a third of the usual greatest age of a price
MIN_WALL_S = 1.5  # between two reports: each round ends a batch, and a fast devnet must settle them all
MIN_SAMPLE_WALL_S = 0.5  # between two looks at the public book
POLL_WALL_S = 0.02


class Clock(Protocol):
    """The chain's clock."""

    @property
    def speed(self) -> float:
        """Chain seconds per wall second."""

    def now_s(self) -> int:
        """Chain time in whole unix seconds."""


def report_stride(round_seconds: int, speed: float) -> int:
    """Every how many rounds a keeper reports: a power of two, so that all keepers pick the same rounds.

    At least MIN_WALL_S of wall time apart, but never more than STRIDE_S of chain time: fresh prices come
    first.
    """
    stride = 1
    while stride * round_seconds < MIN_WALL_S * speed and 2 * stride * round_seconds <= STRIDE_S:
        stride *= 2
    return stride


def sample_interval_s(least_s: int, speed: float) -> int:
    """Chain seconds between two funding samples: `least_s`, or more to stay above MIN_SAMPLE_WALL_S of wall time."""
    interval = least_s
    while interval < MIN_SAMPLE_WALL_S * speed and interval < 60:
        interval *= 2
    return interval


async def next_multiple(clock: Clock, step_s: int, after: int) -> int:
    """Wait until floor(chain time / `step_s`) is above `after`; returns that number, the newest one."""
    while True:
        now = clock.now_s()
        number = now // step_s
        if number > after:
            return number
        wait_s = ((after + 1) * step_s - now) / max(clock.speed, 0.001)
        await asyncio.sleep(max(POLL_WALL_S, min(wait_s / 2, 0.5)))
