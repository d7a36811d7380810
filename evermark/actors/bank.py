"""Test money for an actor: mint, deposit, and wait until the exchange has credited it. Devnets only."""

import asyncio
import time
from pathlib import Path

from web3.exceptions import Web3Exception

from evermark.actors.common import dev_signer_key
from evermark.actors.config import ActorConfig
from evermark.chain import ExchangeContracts, TransactionReverted, TransactionSender, load_manifest, make_web3
from evermark.chain.rpc import UNREACHABLE, close_web3
from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError, Refused
from evermark.protocol.units import USDC

CREDIT_TIMEOUT_S = 60.0
POLL_S = 0.25
CHAIN_TROUBLE = (*UNREACHABLE, TransactionReverted, Web3Exception)


class ChainRefused(EvermarkError):
    """The chain refused a transaction, or did not answer."""


def make_bank(client: EvermarkClient, config: ActorConfig) -> "Bank":
    """The bank of an actor's account."""
    return Bank(client, config.rpc_url, Path(config.manifest), config.dev_account)


class Bank:
    """One development account's tokens and its way into the exchange. Use as `async with`."""

    def __init__(self, client: EvermarkClient, rpc_url: str, manifest: Path, dev_account: int) -> None:
        self._client = client
        self._w3 = make_web3(rpc_url)
        self._contracts = ExchangeContracts(self._w3, load_manifest(manifest))
        self._sender = TransactionSender(self._w3, dev_signer_key(dev_account))

    async def __aenter__(self) -> "Bank":
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_web3(self._w3)

    async def ensure(self, usdc: int) -> None:
        """Deposit so much that the account's collateral is at least `usdc` whole USDC; nothing when it is.

        Raises ChainRefused, Unreachable, or Refused when the exchange has not credited it within a minute.
        """
        held = await self._collateral()
        missing = usdc * USDC - held
        if missing <= 0:
            return
        await self._deposit(missing)
        deadline = time.monotonic() + CREDIT_TIMEOUT_S
        while await self._collateral() <= held:
            if time.monotonic() > deadline:
                message = f"deposit of {missing} quote units not credited in {CREDIT_TIMEOUT_S:.0f} s"
                raise Refused({"code": 0, "name": "NOT_CREDITED", "message": message})
            await asyncio.sleep(POLL_S)

    async def tokens(self) -> int:
        """Quote units that the owner holds on-chain."""
        try:
            return await self._contracts.tokens_of(self._sender.address)
        except CHAIN_TROUBLE as error:
            raise ChainRefused(f"chain: balance: {error}") from error

    async def _deposit(self, amount: int) -> None:
        try:
            held = await self._contracts.tokens_of(self._sender.address)
            if held < amount:
                await self._contracts.mint(self._sender, self._sender.address, amount - held)
            await self._contracts.deposit(self._sender, amount, self._client.sub_account)
        except CHAIN_TROUBLE as error:
            raise ChainRefused(f"chain: deposit of {amount}: {error}") from error

    async def _collateral(self) -> int:
        try:
            return (await self._client.account()).collateral
        except Refused as refused:
            if refused.name != "UNKNOWN_ACCOUNT":
                raise
            return 0
