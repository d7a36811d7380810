"""What every client command needs: the event loop, a signing client, and errors as one line."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL, DEFAULT_URL, unreachable
from evermark.cli.refusals import explain
from evermark.cli.wallet import DEVNET_CHAIN_ID, WalletChoice, open_key
from evermark.client import EvermarkClient, EvermarkError, Refused, Unreachable
from evermark.client.reads import PublicReads

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine; what the exchange refuses becomes a CliError with its name and numbers."""
    try:
        return asyncio.run(work)
    except EvermarkError as error:
        raise CliError(explain(error)) from None


async def open_client(url: str, rpc_url: str, choice: WalletChoice, sub_account: int) -> EvermarkClient:
    """A client that signs with the chosen wallet; a development key only ever signs for a devnet."""
    key = open_key(choice)
    client = EvermarkClient(url or DEFAULT_URL, key, sub_account, rpc_url=rpc_url or DEFAULT_RPC_URL)
    try:
        await check_reachable(client)
        chain_id = (await client.exchange()).chain_id
        if choice.dev >= 0 and chain_id != DEVNET_CHAIN_ID:
            raise CliError(f"--dev: chain {chain_id} is no devnet; its development keys are public")
    except BaseException:
        await client.close()
        raise
    return client


async def check_reachable(reads: PublicReads) -> None:
    """Read the exchange's facts. Raises CliError with the one line about where to find one."""
    try:
        await reads.exchange()
    except Unreachable:
        raise CliError(unreachable(reads.transport.url)) from None
    except Refused as error:
        if error.code:
            raise
        said = error.name.removeprefix("HTTP_")
        raise CliError(
            f"what answers at {reads.transport.url} is no exchange (HTTP {said}); name another with --url"
        ) from None
