"""A deposit by the client on a real embedded chain: approved, queued in the inbox, credited by a real
sequencer.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sequencer"))

from real_exchange import TRADERS, RealExchange

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.client import ChainRefused, EvermarkClient
from evermark.devnet import dev_key
from evermark.protocol.signing import Signer
from evermark.protocol.units import USDC


async def test_deposit_is_credited(tmp_path: Path) -> None:
    """The first deposit opens the account; a second one adds; more than the wallet holds is the chain's
    refusal.
    """
    key = dev_key(TRADERS[0])
    async with RealExchange(tmp_path) as exchange:
        await exchange.spawn()
        sender = TransactionSender(exchange.w3, key)
        await ExchangeContracts(exchange.w3, exchange.manifest).mint(sender, sender.address, 100 * USDC)
        async with EvermarkClient(exchange.url, key, rpc_url=exchange.devnet.url) as client:
            first = await client.deposit("60.5")
            assert await client.balance() == 60_500_000
            assert await client.deposit(amount_units=USDC) == first + 1
            assert await client.balance() == 61_500_000
            with pytest.raises(ChainRefused):
                await client.deposit(1_000)
            assert [row["cause"] for row in await client.ledger()] == ["deposit", "deposit"]
        async with EvermarkClient(exchange.url, Signer(key), rpc_url=exchange.devnet.url) as signer_only:
            with pytest.raises(ValueError, match="private key"):
                await signer_only.deposit(1)
