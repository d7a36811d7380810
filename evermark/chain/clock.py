"""Chain time: the devnet's own clock where there is one, the machine's otherwise."""

import asyncio
import time

from evermark.chain.rpc import UNREACHABLE, Web3, rpc

RESYNC_WALL_S = 5.0
MAX_SLEEP_WALL_S = 0.5  # a devnet's clock may jump while somebody sleeps on it


class ChainClock:
    """Between two readings, chain time runs on the monotonic clock at the chain's speed, never back."""

    def __init__(self, w3: Web3) -> None:
        self._w3 = w3
        self._speed = 1.0
        self._heard_ms = 0.0
        self._heard_at = 0.0
        self._newest_ms = 0
        self._resync: asyncio.Task[None] | None = None

    @property
    def speed(self) -> float:
        """Chain seconds in a wall second; 1 on a real chain."""
        return self._speed

    def now_ms(self) -> int:
        """Chain time in milliseconds."""
        elapsed_ms = (time.monotonic() - self._heard_at) * 1000 * self._speed
        self._newest_ms = max(self._newest_ms, int(self._heard_ms + elapsed_ms))
        return self._newest_ms

    def now_s(self) -> int:
        """Chain time in whole unix seconds."""
        return self.now_ms() // 1000

    async def start(self) -> None:
        """Read the clock and read it again every RESYNC_WALL_S until `stop`. Raises when nobody answers."""
        await self.read()
        self._resync = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """End the readings; the clock goes on by itself."""
        if self._resync is not None:
            self._resync.cancel()
            await asyncio.gather(self._resync, return_exceptions=True)

    async def read(self) -> None:
        """Ask the node once. Raises one of `rpc.UNREACHABLE` when it does not answer."""
        began = time.monotonic()
        clock = await rpc(self._w3, "devnet_clock")
        ended = time.monotonic()
        if isinstance(clock, dict):
            self._speed = float(clock["speed"])
            self._heard_ms, self._heard_at = float(clock["chain_time"]) * 1000, (began + ended) / 2
        else:
            self._speed, self._heard_ms, self._heard_at = 1.0, time.time() * 1000, ended

    async def sleep(self, chain_seconds: float) -> None:
        """Wait until chain time has moved on by `chain_seconds`."""
        until_ms = self.now_ms() + int(chain_seconds * 1000)
        while (left_ms := until_ms - self.now_ms()) > 0:  # noqa: ASYNC110 -- time passes, nobody sets an event
            await asyncio.sleep(min(left_ms / 1000 / self._speed, MAX_SLEEP_WALL_S))

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_WALL_S)
            try:
                await self.read()
            except UNREACHABLE:
                continue  # the clock runs on at its last speed
