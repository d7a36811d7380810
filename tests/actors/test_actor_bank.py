"""An actor's money on the real embedded chain with the real contracts."""

import asyncio

import pytest
from small_exchange import SmallClient, SmallExchange

from evermark.actors.bank import Bank, ChainRefused
from evermark.chain import ExchangeContracts, Roles, deploy
from evermark.chain.rpc import connect
from evermark.devnet import Devnet, DevnetConfig, dev_key

ACCOUNT = 7
DEPOSIT = 5_000 * 10**6


async def test_a_deposit_is_minted_queued_and_waited_for(tmp_path):
    """Tokens are made, go through the inbox for the right sub-account, and nothing is deposited twice."""
    net = Devnet(DevnetConfig(port=0))
    await net.start()
    try:
        keepers = tuple(f"0x{number:040x}" for number in (1, 2, 3))
        roles = Roles(sequencer=keepers[0], oracle_keepers=keepers, funding_keepers=keepers)
        path = tmp_path / "manifest.json"
        manifest = await deploy(net.url, dev_key(0), roles, path)
        exchange = SmallExchange()
        client = SmallClient(exchange, 2)
        async with Bank(client, net.url, path, ACCOUNT) as bank, connect(net.url) as w3:
            contracts = ExchangeContracts(w3, manifest)
            asyncio.get_running_loop().call_later(3.0, exchange.collateral.__setitem__, 2, DEPOSIT)
            await bank.ensure(5_000)
            assert await contracts.inbox_range() == (1, 2)
            entry = await contracts.inbox_entry(1)
            assert (entry.amount, entry.sub_account) == (DEPOSIT, 2)
            assert await bank.tokens() == 0
            await bank.ensure(5_000)
            assert await contracts.inbox_range() == (1, 2)
    finally:
        await net.stop()
    async with Bank(client, net.url, path, ACCOUNT) as bank:
        with pytest.raises(ChainRefused, match="balance"):
            await bank.tokens()
