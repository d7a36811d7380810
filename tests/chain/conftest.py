"""Chains to test against: the embedded devnet, and anvil where it is installed."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from chain_cases import GENESIS_TIME, ROLES

from evermark.chain import Manifest, deploy
from evermark.chain.rpc import Web3, connect
from evermark.devnet import Devnet, DevnetConfig, dev_key


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    """A chain that mines each transaction at once."""
    chain = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME))
    await chain.start()
    yield chain
    await chain.stop()


@pytest.fixture
async def slow_devnet() -> AsyncIterator[Devnet]:
    """A chain that mines when told to."""
    chain = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME, block_time_s=3600.0))
    await chain.start()
    yield chain
    await chain.stop()


@pytest.fixture
async def w3(devnet: Devnet) -> AsyncIterator[Web3]:
    async with connect(devnet.url) as connection:
        yield connection


@pytest.fixture
async def manifest(devnet: Devnet, tmp_path: Path) -> Manifest:
    """An exchange on the devnet."""
    return await deploy(devnet.url, dev_key(0), ROLES, tmp_path / "manifest.json")


@pytest.fixture
def anvil_url(anvil_path: Path) -> Iterator[str]:
    """A running anvil under Prague rules."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(anvil_path), "--port", str(port), "--hardfork", "prague", "--silent"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def _answers(port: int) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise TimeoutError("anvil does not listen")
