"""Test money for an actor: mint, approve, deposit, and wait until the exchange has credited it.

Devnets only.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_typing import ChecksumAddress
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.exceptions import Web3Exception

from evermark.actors.common import dev_signer_key
from evermark.actors.config import ActorConfig
from evermark.client import EvermarkClient
from evermark.client.errors import EvermarkError, Refused
from evermark.protocol.units import USDC

CREDIT_TIMEOUT_S = 60.0
POLL_S = 0.25
MAX_UINT256 = 2**256 - 1


def make_bank(client: EvermarkClient, config: ActorConfig) -> "Bank":
    """The bank of an actor's account."""
    return Bank(client, config.rpc_url, config.manifest, config.dev_account)


def _function(name: str, inputs: str, outputs: str = "") -> dict[str, Any]:
    def typed(kinds: str) -> list[dict[str, str]]:
        return [{"name": "", "type": kind} for kind in kinds.split()]

    view = "view" if outputs else "nonpayable"
    return {
        "type": "function",
        "name": name,
        "inputs": typed(inputs),
        "outputs": typed(outputs),
        "stateMutability": view,
    }


TOKEN_ABI = [
    _function("mint", "address uint256"),
    _function("approve", "address uint256"),
    _function("balanceOf", "address", "uint256"),
    _function("allowance", "address address", "uint256"),
]
INBOX_ABI = [_function("deposit", "uint256 uint16")]


class ChainRefused(EvermarkError):
    """The chain refused a transaction, or did not answer."""


class Bank:
    """One development account's tokens and its way into the exchange."""

    def __init__(self, client: EvermarkClient, rpc_url: str, manifest: str, dev_account: int) -> None:
        self._client = client
        self._web3 = AsyncWeb3(AsyncHTTPProvider(rpc_url, cache_allowed_requests=True))
        self._account = Account.from_key(dev_signer_key(dev_account))
        self._manifest = Path(manifest)

    async def __aenter__(self) -> "Bank":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._web3.provider.disconnect()

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
            token = self._contract("token", TOKEN_ABI)
            return int(await token.functions.balanceOf(self._account.address).call())
        except (Web3Exception, OSError, ValueError) as error:
            raise ChainRefused(f"chain: balance: {error}") from error

    async def _deposit(self, amount: int) -> None:
        try:
            token, inbox = self._contract("token", TOKEN_ABI), self._contract("inbox", INBOX_ABI)
            owner = self._account.address
            held = int(await token.functions.balanceOf(owner).call())
            if held < amount:
                await self._send(token.functions.mint(owner, amount - held))
            if int(await token.functions.allowance(owner, inbox.address).call()) < amount:
                await self._send(token.functions.approve(inbox.address, MAX_UINT256))
            await self._send(inbox.functions.deposit(amount, self._client.sub_account))
        except (Web3Exception, OSError, ValueError) as error:
            raise ChainRefused(f"chain: deposit of {amount}: {error}") from error

    async def _send(self, call: Any) -> None:
        sender = self._account.address
        nonce = await self._web3.eth.get_transaction_count(sender, "pending")
        transaction = await call.build_transaction({"from": sender, "nonce": nonce})
        signed = self._account.sign_transaction(transaction)
        sent = await self._web3.eth.send_raw_transaction(signed.raw_transaction)
        receipt = await self._web3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.1)
        if receipt["status"] != 1:
            raise ChainRefused(f"chain: transaction {sent.hex()} reverted")

    def _contract(self, name: str, abi: list[dict[str, Any]]) -> Any:
        addresses = json.loads(self._manifest.read_text())["addresses"]
        address: ChecksumAddress = self._web3.to_checksum_address(addresses[name])
        return self._web3.eth.contract(address=address, abi=abi)

    async def _collateral(self) -> int:
        try:
            return (await self._client.account()).collateral
        except Refused as refused:
            if refused.name != "UNKNOWN_ACCOUNT":
                raise
            return 0
