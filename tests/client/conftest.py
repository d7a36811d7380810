import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# The client is tested against the real gateway of the gateway's own tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gateway"))

from gateway_world import MAKER, TAKER, GatewayWorld, running

from evermark.client import EvermarkClient


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GatewayWorld]:
    """A served exchange with two funded traders and fresh prices."""
    async with running(tmp_path) as world:
        await world.fund(MAKER, TAKER)
        yield world


@pytest.fixture
async def maker(world: GatewayWorld) -> AsyncIterator[EvermarkClient]:
    async with world.client(MAKER) as client:
        yield client


@pytest.fixture
async def taker(world: GatewayWorld) -> AsyncIterator[EvermarkClient]:
    async with world.client(TAKER) as client:
        yield client
