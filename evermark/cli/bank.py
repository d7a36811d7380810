"""Money between a wallet and its account: deposits until credited, withdrawals until paid."""

import asyncio
import time

from evermark.cli import chain
from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL
from evermark.cli.units import format_usdc
from evermark.client import EvermarkClient
from evermark.client.models import AccountInfo

CREDIT_S = 60.0
PAYOUT_S = 120.0
POLL_S = 0.25


async def credit(client: EvermarkClient, units: int, mint_key: bytes | None) -> tuple[int, AccountInfo]:
    """Deposit on-chain and wait for the exchange to credit it; the inbox entry and the account afterwards.

    `mint_key` makes the missing test USDC first. Raises CliError when the wallet has too little, or
    nothing is credited within a minute.
    """
    held = await token_balance(client)
    if held < units:
        if mint_key is None:
            raise CliError(f"deposit: the wallet holds {format_usdc(held)} USDC, not {format_usdc(units)}")
        token = (await client.exchange()).token
        await chain.mint(rpc_url(client), mint_key, token, client.owner_text, units - held)
    try:
        entry = await client.deposit(amount_units=units, credit_timeout_s=CREDIT_S)
    except TimeoutError:
        raise CliError(f"deposit: mined, but not credited within {CREDIT_S:.0f} s") from None
    return entry, await client.account()


async def token_balance(client: EvermarkClient) -> int:
    """Quote units in the owner's wallet."""
    return await chain.tokens(rpc_url(client), (await client.exchange()).token, client.owner_text)


async def await_payout(client: EvermarkClient, expected: int) -> int:
    """Wait until the wallet holds at least `expected` quote units; what it holds then."""
    deadline = time.monotonic() + PAYOUT_S
    while True:
        held = await token_balance(client)
        if held >= expected:
            return held
        if time.monotonic() > deadline:
            raise CliError(
                f"withdraw: accepted, but not paid within {PAYOUT_S:.0f} s; `evermark status` has the lag"
            )
        await asyncio.sleep(POLL_S)


def rpc_url(client: EvermarkClient) -> str:
    """The chain that the client was told."""
    return client.rpc_url or DEFAULT_RPC_URL
