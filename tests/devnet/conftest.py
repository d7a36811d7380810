"""A devnet over real HTTP, and a web3.py connection to it."""

from collections.abc import AsyncIterator

import pytest
from devnet_cases import GENESIS_TIME
from eth_account import Account
from eth_account.signers.local import LocalAccount

from evermark.chain.rpc import Web3, connect
from evermark.devnet import Devnet, DevnetConfig, dev_key


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    chain = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME))
    await chain.start()
    yield chain
    await chain.stop()


@pytest.fixture
async def w3(devnet: Devnet) -> AsyncIterator[Web3]:
    async with connect(devnet.url) as connection:
        yield connection


@pytest.fixture
def sender() -> LocalAccount:
    return Account.from_key(dev_key(0))


@pytest.fixture
def receiver() -> LocalAccount:
    return Account.from_key(dev_key(1))
