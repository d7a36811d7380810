"""One clock rules a devnet: blocks, views and `devnet_clock` agree, at any speed."""

import asyncio
import time

import pytest
from devnet_cases import GENESIS_TIME, error, result, transfer

from evermark.devnet import Devnet, DevnetConfig

# Returns block.timestamp: TIMESTAMP PUSH0 MSTORE PUSH1 32 PUSH0 RETURN, as creation code's output.
TIMESTAMP_CODE = "0x425f5260205ff3"


async def seen_time(url: str, block: str = "latest") -> int:
    """block.timestamp as a view sees it."""
    return int(await result(url, "eth_call", {"data": TIMESTAMP_CODE}, block), 16)


async def test_a_chain_begins_at_its_genesis_time(devnet):
    """Clock and first block start at the configured time."""
    genesis = await result(devnet.url, "eth_getBlockByNumber", "0x0", False)
    clock = await result(devnet.url, "devnet_clock")
    assert int(genesis["timestamp"], 16) == GENESIS_TIME
    assert GENESIS_TIME <= clock["chain_time"] < GENESIS_TIME + 10
    assert clock["speed"] == 1.0


async def test_views_see_time_pass_without_blocks(sender, receiver):
    """At 600 chain seconds a second, a view's block.timestamp moves on though nothing is mined."""
    devnet = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME, speed=600.0))
    await devnet.start()
    try:
        first, began = await seen_time(devnet.url), time.monotonic()
        await asyncio.sleep(0.3)
        second, elapsed = await seen_time(devnet.url), time.monotonic() - began
        assert 0.5 * 600 * elapsed < second - first < 600 * elapsed + 60
        assert await result(devnet.url, "eth_blockNumber") == "0x0"
        raw = "0x" + transfer(sender, receiver.address, 0).hex()
        await result(devnet.url, "eth_sendRawTransaction", raw)
        block = await result(devnet.url, "eth_getBlockByNumber", "latest", False)
        clock = (await result(devnet.url, "devnet_clock"))["chain_time"]
        assert second <= int(block["timestamp"], 16) <= clock
    finally:
        await devnet.stop()


async def test_many_blocks_do_not_outrun_the_clock(devnet, sender, receiver):
    """Forty blocks within a second or two carry the clock's time, not a second each."""
    for nonce in range(40):
        raw = "0x" + transfer(sender, receiver.address, nonce).hex()
        await result(devnet.url, "eth_sendRawTransaction", raw)
    stamps = [
        int((await result(devnet.url, "eth_getBlockByNumber", hex(number), False))["timestamp"], 16)
        for number in range(41)
    ]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= (await result(devnet.url, "devnet_clock"))["chain_time"]


async def test_time_can_be_moved_forward(devnet):
    """evm_increaseTime and evm_setNextBlockTimestamp move the clock with the blocks; never backward."""
    await result(devnet.url, "evm_increaseTime", 1_000)
    assert await seen_time(devnet.url) >= GENESIS_TIME + 1_000
    await result(devnet.url, "evm_setNextBlockTimestamp", GENESIS_TIME + 5_000)
    await result(devnet.url, "evm_mine")
    block = await result(devnet.url, "eth_getBlockByNumber", "latest", False)
    assert GENESIS_TIME + 5_000 <= int(block["timestamp"], 16) < GENESIS_TIME + 5_010
    assert (await result(devnet.url, "devnet_clock"))["chain_time"] >= GENESIS_TIME + 5_000
    assert (await error(devnet.url, "evm_setNextBlockTimestamp", GENESIS_TIME))["code"] == -32602
    assert await seen_time(devnet.url, "0x0") == GENESIS_TIME


@pytest.mark.parametrize("setting", [{"speed": 0.0}, {"speed": 10.0**9}, {"block_time_s": 0.0}])
def test_impossible_settings_are_refused(setting):
    """A clock that stands still or a block time of nothing is named when the configuration is made."""
    with pytest.raises(ValueError, match=r"devnet: (speed|block time)"):
        DevnetConfig(**setting)
