from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_world import MAKER, TAKER, Caller, GatewayWorld, running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GatewayWorld]:
    """A served exchange with two funded traders and fresh prices."""
    async with running(tmp_path) as world:
        await world.fund(MAKER, TAKER)
        yield world
        assert world.unexpected == 0, "an input caused an unexpected error"


@pytest.fixture
async def caller(world: GatewayWorld) -> AsyncIterator[Caller]:
    caller = Caller(world)
    yield caller
    await caller.close()
