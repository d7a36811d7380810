"""Chain time for keepers and the moments at which they act.

On a devnet it may start anywhere and run at any speed.
"""

import asyncio
import time
from typing import Any, Protocol

import aiohttp
import msgspec

from evermark.client.errors import Unreachable
from evermark.protocol.units import check

STRIDE_S = 20  # chain seconds between two reports at most, a third of the usual greatest age of a price
MIN_WALL_S = 0.5  # between two reports, so that a fast devnet does not drown in rounds
POLL_WALL_S = 0.02
RESYNC_WALL_S = 5.0
MAX_ANSWER_BYTES = 64 * 2**10


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
    """Chain seconds between two funding samples: `least_s`, or more to stay above MIN_WALL_S of wall time."""
    interval = least_s
    while interval < MIN_WALL_S * speed and interval < 60:
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


class RpcClock:
    """The chain's clock as its node tells it: `devnet_clock` on a devnet, real time on any other chain.

    Between two readings it runs on the machine's monotonic clock at the chain's speed.
    """

    def __init__(self, rpc_url: str) -> None:
        self._url = rpc_url
        self._speed = 1.0
        self._heard_s = 0.0
        self._heard_at = 0.0
        self._session: aiohttp.ClientSession | None = None

    @property
    def speed(self) -> float:
        """Chain seconds per wall second; 1 on a real chain."""
        return self._speed

    def now_s(self) -> int:
        """Estimated chain time in whole unix seconds."""
        return int(self._heard_s + (time.monotonic() - self._heard_at) * self._speed)

    async def read(self) -> None:
        """Ask the node. Raises Unreachable when it does not answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        began = time.monotonic()
        clock = await self._call("devnet_clock")
        if isinstance(clock, dict):
            self._speed = float(clock["speed"])
            self._heard_s = float(clock["chain_time"])
        else:
            self._speed, self._heard_s = 1.0, time.time()
        self._heard_at = (began + time.monotonic()) / 2

    async def keep_reading(self) -> None:
        """Read again every RESYNC_WALL_S until cancelled; a node that is away leaves the clock running."""
        while True:
            await asyncio.sleep(RESYNC_WALL_S)
            try:
                await self.read()
            except Unreachable:
                continue

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def _call(self, method: str) -> Any:
        check(self._session is not None, "clock: used before it was read")
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": []}
        try:
            async with self._session.post(self._url, json=body) as response:  # type: ignore[union-attr]
                answer = msgspec.json.decode(await response.content.read(MAX_ANSWER_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            raise Unreachable(f"chain at {self._url} does not answer: {error!r}") from error
        return answer.get("result") if isinstance(answer, dict) else None
