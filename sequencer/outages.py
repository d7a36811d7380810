"""Outages of the chain itself -> commands: while `PriceOracle.restarted()` says so, the engine lets nothing through that the
vault would refuse.

An outage counts from the newest block that shows it, and is over when a confirmed block says so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from sequencer.engine.commands import AnyCommand, ChainRestarted
from sequencer.engine.events import Event
from sequencer.settlement.errors import Unreachable

POLL_S = 2.0  # wall time between looks at the oracle

log = structlog.get_logger("outages")


class OutageSource(Protocol):
    """Where it is read; `settlement.chain.ExchangeChain` on a real chain."""

    async def has_uptime_feed(self) -> bool:
        """Whether the chain tells of its outages at all. Raises Unreachable."""
        ...

    async def restarted(self) -> tuple[bool, bool, int]:
        """(as of the newest block, as of the newest confirmed one, that one's number). Raises Unreachable."""
        ...


class OutageWatch:
    """Feeds the pipeline until cancelled."""

    def __init__(
        self,
        source: OutageSource,
        submit: Callable[[AnyCommand], Awaitable[list[Event]]],
        known: Callable[[], bool],
    ) -> None:
        """`known` is what the engine holds true."""
        self._source = source
        self._submit = submit
        self._known = known

    async def run(self) -> None:
        """Watch until cancelled. A chain without an uptime feed has nothing to watch."""
        watches: bool | None = None
        while True:
            try:
                if watches is None:
                    watches = await self._source.has_uptime_feed()
                if watches or self._known():
                    await self.step()
            except Unreachable as error:
                log.warning("the oracle will be read again", reason=str(error))
            await asyncio.sleep(POLL_S)

    async def step(self) -> bool:
        """One look; whether it changed what is known. Raises Unreachable."""
        newest, confirmed, block_number = await self._source.restarted()
        restarted = newest or confirmed
        if restarted == self._known():
            return False
        await self._submit(ChainRestarted(restarted=restarted, block_number=block_number))
        if restarted:
            log.error(
                "THE CHAIN WAS DOWN: nobody is liquidated, and positions keep their collateral, for an hour"
            )
        else:
            log.warning("the hour after the chain's outage is over")
        return True
