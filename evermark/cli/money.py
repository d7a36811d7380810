"""`evermark transfer`: collateral between sub-accounts of one owner."""

from typing import Annotated

import msgspec
import typer

from evermark.cli import options, output, session
from evermark.cli.units import format_usdc, parse_usdc
from evermark.cli.wallet import WalletChoice
from evermark.client.models import TransferReceipt


def transfer(
    amount: Annotated[str, typer.Argument(help="USDC; at least 10 to open the other sub-account.")],
    to: Annotated[int, typer.Option("--to", min=0, max=65535, help="The sub-account that receives.")],
    url: options.Url = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Move USDC to another sub-account of the same owner, as far as positions and orders leave it free."""
    units = parse_usdc(amount)
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    receipt = session.run(_transfer(url, choice, sub_account, to, units))
    if as_json:
        output.print_json(msgspec.to_builtins(receipt))
        return
    output.print_fields(
        {
            "transferred": f"{format_usdc(receipt.amount)} USDC",
            "from account": f"{receipt.account} (sub-account {sub_account})",
            "to account": f"{receipt.target} (sub-account {to})",
        }
    )


async def _transfer(url: str, choice: WalletChoice, sub_account: int, to: int, units: int) -> TransferReceipt:
    async with await session.open_client(url, "", choice, sub_account) as client:
        return await client.transfer(to, amount_units=units)
