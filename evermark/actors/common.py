"""What all actors share: keys, a request budget, staying alive while the exchange restarts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from eth_account import Account

from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError, Refused
from evermark.protocol.markets import Market
from evermark.protocol.signing import Signer
from evermark.status import RoleStatus, StatusFile, stop_on_signals

# The mnemonic that development chains have always used: public, worthless, funded on a devnet only.
DEV_MNEMONIC = "test test test test test test test test test test test junk"
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0

log = structlog.get_logger("actor")


def dev_signer(index: int) -> Signer:
    """Signer of development account `index`."""
    return Signer(dev_signer_key(index))


@lru_cache
def dev_signer_key(index: int) -> bytes:
    """Private key of development account `index` (m/44'/60'/0'/0/index)."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return bytes(account.key)


class RateLimiter:
    """At most `per_s` takes a second, in bursts of at most one second's worth."""

    def __init__(self, per_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._now = now
        self._held = max(1.0, per_s)
        self._at = now()

    def try_take(self) -> bool:
        """Take one if there is one."""
        now = self._now()
        self._held = min(max(1.0, self._per_s), self._held + (now - self._at) * self._per_s)
        self._at = now
        if self._held < 1.0:
            return False
        self._held -= 1.0
        return True

    async def take(self) -> None:
        """Wait for one."""
        while True:
            if self.try_take():
                return
            await asyncio.sleep((1.0 - self._held) / self._per_s)


class Actor:
    """A named program with a status file that runs `step` again and again until it is told to stop."""

    def __init__(self, name: str, status_path: str) -> None:
        self.file = StatusFile(Path(status_path) if status_path else None, name)
        self.status: RoleStatus = self.file.role(name)
        self.name = name

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` to its end, or until SIGTERM, SIGINT or cancellation. Status is written throughout."""
        task = asyncio.ensure_future(work())
        writer = asyncio.create_task(self.file.keep_writing())
        with stop_on_signals(task):
            try:
                await task
            except asyncio.CancelledError:
                log.info("stopped", name=self.name)
            finally:
                writer.cancel()
                self.file.write()

    async def persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """`step` for ever; what the exchange refuses or its silence is noted and waited out."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await step()
                self.status.looked()
                pause = FIRST_PAUSE_S
            except EvermarkError as error:
                self.note(error)
                await asyncio.sleep(retry_pause(error, pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def until_done(self, step: Callable[[], Awaitable[Any]], tries: int = 0) -> Any:
        """`step` until it succeeds once, at most `tries` times (0: for ever). The last error is raised."""
        pause, attempt = FIRST_PAUSE_S, 0
        while True:
            attempt += 1
            try:
                return await step()
            except EvermarkError as error:
                self.note(error)
                if attempt == tries:
                    raise
                await asyncio.sleep(retry_pause(error, pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def note(self, error: EvermarkError) -> None:
        """Show and log an error that the actor lives with."""
        self.status.failed(str(error))
        log.warning("did not work", name=self.name, reason=str(error)[:300])


def retry_pause(error: EvermarkError, otherwise_s: float) -> float:
    """What the exchange asked for, or else `otherwise_s`."""
    asked = error.retry_after_s if isinstance(error, Refused) else None
    return otherwise_s if asked is None else max(asked, 0.05)


async def chosen_markets(client: EvermarkClient, symbols: tuple[str, ...]) -> tuple[Market, ...]:
    """The markets to trade: the named ones, or all."""
    info = await client.exchange()
    return tuple(market for market in info.markets if not symbols or market.symbol in symbols)


def lots_for(market: Market, usdc: int, price_ticks: int) -> int:
    """Lots worth about `usdc` whole USDC at `price_ticks`, rounded down, at least one."""
    return max(1, usdc * 10**6 // (price_ticks * market.lot_tick_value))


def least_lots(market: Market, price_ticks: int) -> int:
    """The smallest order that reaches the market's minimum notional at `price_ticks`."""
    return max(1, -(-market.min_notional // (price_ticks * market.lot_tick_value)))
