"""`evermark release`: the operator lets a halted account trade again, without a restart."""

import asyncio
from typing import Annotated

import aiohttp
import typer

from evermark.cli import output
from evermark.cli.errors import CliError

Account = Annotated[
    int, typer.Argument(help="Id of a halted account, as `halted_accounts` in /v1/status has it.", min=3)
]
Reason = Annotated[str, typer.Option(help="Why it may trade again; it is journaled.")]
Port = Annotated[
    int, typer.Option(help="The sequencer's `metrics_port`, on this machine.", min=1, max=65_535)
]


def release(account: Account, reason: Reason, port: Port) -> None:
    """Let a halted account trade again, by a journaled command."""
    asyncio.run(_release(account, reason, port))
    output.say(f"account {account} may trade again")


async def _release(account: int, reason: str, port: int) -> None:
    url = f"http://127.0.0.1:{port}/accounts/{account}/release"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            async with session.post(url, json={"reason": reason}) as answer:
                body = await answer.json()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        raise CliError(
            f"no sequencer answers on port {port} of this machine; --port is the `metrics_port` of its configuration"
        ) from None
    if answer.status != 200:
        raise CliError(f"account {account} is not let go: {body.get('error', answer.status)}")
