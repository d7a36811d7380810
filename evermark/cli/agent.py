"""`evermark agent`: session keys that trade for an account, and the end of one."""

import re
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from evermark.cli import options, output, session
from evermark.cli.errors import CliError
from evermark.cli.units import checksum, format_time, parse_usdc
from evermark.cli.wallet import WalletChoice
from evermark.client.models import AgentReceipt

MOST_DAYS = 365  # the contracts take no longer life

app = typer.Typer(no_args_is_help=True, help="Session keys that trade for an account.")
Agent = Annotated[str, typer.Argument(help="Address of the session key.")]


@app.command()
def approve(
    agent: Agent,
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS, help="How long it may trade.")] = 30,
    transfer_cap: Annotated[
        str, typer.Option("--transfer-cap", help="USDC that it may move between the owner's sub-accounts.")
    ] = "",
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Let a session key place and cancel orders for this account; it can never withdraw. A new approval replaces the old one."""
    cap = parse_usdc(transfer_cap) if transfer_cap else 0
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    life_s = int(timedelta(days=days).total_seconds())
    _tell(session.run(_approve(url, choice, sub_account, agent, life_s, cap)), as_json)


@app.command()
def revoke(
    agent: Agent,
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """End a session key. Where no sequencer answers: `Inbox.revoke_agent` (docs/contracts.md)."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    _tell(session.run(_approve(url, choice, sub_account, agent, 0, 0)), as_json)


async def _approve(
    url: str, choice: WalletChoice, sub_account: int, agent: str, life_s: int, cap: int
) -> AgentReceipt:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", agent):
        raise CliError(f"agent: {agent!r} is no address")
    async with await session.open_client(url, "", choice, sub_account) as client:
        return await client.approve_agent(agent, expires_in_s=life_s, transfer_cap_units=cap)


def _tell(receipt: AgentReceipt, as_json: bool) -> None:
    if as_json:
        output.print_json(msgspec.to_builtins(receipt))
        return
    until = f"{format_time(receipt.expiry)} UTC" if receipt.expiry else "revoked"
    output.print_fields(
        {"session key": checksum(receipt.agent), "account": str(receipt.account), "until": until}
    )
