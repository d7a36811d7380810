"""Chain time as everybody reads it."""

import asyncio
import time

import pytest
from chain_cases import GENESIS_TIME

from evermark.chain import ChainClock
from evermark.chain.rpc import connect, rpc
from evermark.devnet import Devnet, DevnetConfig


async def test_a_fast_devnet_rules_the_clock():
    """The clock follows a devnet at 100 times real time, and sleeping means chain seconds."""
    devnet = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME, speed=100.0))
    await devnet.start()
    try:
        async with connect(devnet.url) as w3:
            clock = ChainClock(w3)
            await clock.start()
            assert clock.speed == 100.0
            first, began = clock.now_s(), time.monotonic()
            await clock.sleep(30)
            assert 30 <= clock.now_s() - first < 60
            assert 0.25 < time.monotonic() - began < 1.0
            told = (await rpc(w3, "devnet_clock"))["chain_time"]
            assert abs(clock.now_ms() / 1000 - told) < 5
            await clock.stop()
    finally:
        await devnet.stop()


async def test_a_jump_ends_a_sleep(devnet, w3):
    """When a devnet's time is moved on, the next reading sees it, and time never goes back."""
    clock = ChainClock(w3)
    await clock.read()
    sleeping = asyncio.create_task(clock.sleep(1_000))
    await asyncio.sleep(0)
    await rpc(w3, "evm_increaseTime", 2_000)
    await clock.read()
    await asyncio.wait_for(sleeping, 5)
    assert clock.now_s() >= GENESIS_TIME + 2_000


async def test_a_clock_without_its_node_runs_on(devnet):
    """After the node is gone the clock keeps its speed; a first reading needs the node."""
    async with connect(devnet.url) as w3:
        clock = ChainClock(w3)
        await clock.read()
        await devnet.stop()
        first = clock.now_ms()
        await asyncio.sleep(0.1)
        assert 50 < clock.now_ms() - first < 2_000
        with pytest.raises(OSError):
            await ChainClock(w3).start()


@pytest.mark.anvil
async def test_real_time_rules_any_other_chain(anvil_url):
    """A node without `devnet_clock` means the machine's clock."""
    async with connect(anvil_url) as w3:
        clock = ChainClock(w3)
        await clock.read()
        assert clock.speed == 1.0
        assert abs(clock.now_s() - time.time()) < 3
