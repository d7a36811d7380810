"""A sequencer's core in this process, fed with a seeded stream of signed commands; no chain, no sockets."""

import asyncio
import random
from pathlib import Path
from typing import Any

from sequencer_world import World, key

from evermark.protocol.orders import Side
from evermark.protocol.units import USDC
from sequencer.core import Core
from sequencer.engine.commands import AnyCommand, BatchConfirmed
from sequencer.engine.events import Event

MAKER, TAKER = key(11), key(12)


class SmallCore:
    """`async with SmallCore(directory)`; leaves gracefully. `world` says what everybody signs."""

    def __init__(self, directory: Path, world: World | None = None, **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.world = world or World()
        self.settings = settings

    async def __aenter__(self) -> "SmallCore":
        self.core = Core(self.directory, self.world.genesis, lambda: self.world.now_s * 1000, **self.settings)
        self.running = asyncio.ensure_future(self.core.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.core.pipeline.stop()
        try:
            await self.running
        finally:
            await self.core.close()

    async def submit(self, command: AnyCommand) -> list[Event]:
        return await self.core.pipeline.submit(command)

    async def fund(self) -> None:
        for command in (
            self.world.round(),
            self.world.deposit(MAKER, 1_000_000),
            self.world.deposit(TAKER, 1_000_000),
        ):
            await self.submit(command)

    async def trade(self, count: int, seed: int = 1) -> None:
        """`count` commands: orders that rest, take and are cancelled, rounds, withdrawals, confirmations."""
        chance = random.Random(seed)
        for _ in range(count):
            await self.submit(self._next(chance))

    def _next(self, chance: random.Random) -> AnyCommand:
        world, pick = self.world, chance.random()
        price = 1_100_000 + chance.randint(-400, 400)
        if pick < 0.45:
            side = chance.choice((Side.BUY, Side.SELL))
            return world.sign_order(
                MAKER, 3, side, chance.randint(300, 900), price, slot=chance.randint(1, 60)
            )
        if pick < 0.65:
            side = chance.choice((Side.BUY, Side.SELL))
            return world.taker(TAKER, 4, side, chance.randint(300, 900), 1_100_000 + side.sign * 900)
        if pick < 0.75:
            return world.cancel(MAKER, 3, chance.randint(1, 60))
        if pick < 0.80:
            sequence = self.core.state.accounts[4].action_sequence + 1
            return world.withdraw(TAKER, 4, chance.randint(1, 5) * USDC, sequence)
        if pick < 0.88 and self.core.state.sealed_batch > self.core.state.confirmed_batch:
            return BatchConfirmed(batch_id=self.core.state.confirmed_batch + 1, block_number=7)
        world.now_s += 3
        return world.round()
