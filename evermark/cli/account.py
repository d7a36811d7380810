"""`evermark account`: keystores of people, and what their wallets hold."""

from typing import Annotated

import typer

from evermark.cli import chain, keystore, options, output, session
from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL
from evermark.cli.units import WEI_DECIMALS, checksum, format_scaled, format_usdc
from evermark.cli.wallet import WalletChoice, dev_key, open_wallet, read_password
from evermark.client import EvermarkClient, Refused

FAUCET_WEI = 10 * 10**18
FAUCET_USDC = 10_000 * 10**6
FAUCET_ACCOUNT = 0  # the development account whose ether the faucet gives away

app = typer.Typer(no_args_is_help=True, help="Keystores and balances.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the keystore.")],
    password_file: options.PasswordFile = "",
    as_json: options.AsJson = False,
) -> None:
    """Make a new key in an encrypted keystore that only you can read."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise CliError(f"account: a name has letters, digits, - and _, not {name!r}")
    path = keystore.default_directory() / f"{name}.json"
    if path.exists():
        raise CliError(f"keystore: {path} exists already")
    password = read_password(password_file, "new password: ", confirm=True)
    if not password:
        raise CliError("account: an empty password protects nothing")
    address = keystore.create(path, password)
    if as_json:
        output.print_json({"name": name, "address": address, "keystore": str(path)})
    else:
        output.print_fields({"address": checksum(address), "keystore": str(path)})


@app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """Names and addresses of the keystores in the default folder."""
    found = [
        (path.stem, keystore.read_address(path))
        for path in sorted(keystore.default_directory().glob("*.json"))
    ]
    if as_json:
        output.print_json([{"name": name, "address": address} for name, address in found])
    elif found:
        output.print_table("", ("<name", "<address"), [(name, checksum(address)) for name, address in found])
    else:
        output.say(
            f"no keystores in {keystore.default_directory()}; make one with `evermark account new NAME`"
        )


@app.command()
def show(
    url: options.Url = "",
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """What a wallet holds on the chain and in its account."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)
    session.run(_show(url, rpc_url, choice, sub_account, as_json))


async def _show(url: str, rpc_url: str, choice: WalletChoice, sub_account: int, as_json: bool) -> None:
    rpc = rpc_url or DEFAULT_RPC_URL
    async with await session.open_client(url, rpc, choice, sub_account) as client:
        address, token = client.owner_text, (await client.exchange()).token
        wei, units = await chain.ether(rpc, address), await chain.tokens(rpc, token, address)
        collateral, equity = await _account_money(client)
    if as_json:
        money = {"wei": str(wei), "wallet": units, "collateral": collateral, "equity": equity}
        output.print_json({"address": address, **money})
        return
    output.print_fields(
        {
            "address": checksum(address),
            "ether": format_scaled(wei, WEI_DECIMALS),
            "in the wallet": f"{format_usdc(units)} USDC",
            "collateral": f"{format_usdc(collateral)} USDC",
            "equity": f"{format_usdc(equity)} USDC",
        }
    )


async def _account_money(client: EvermarkClient) -> tuple[int, int]:
    try:
        account = await client.account()
    except Refused as refused:
        if refused.name != "UNKNOWN_ACCOUNT":
            raise
        return 0, 0
    return account.collateral, account.equity


@app.command()
def fund(
    url: options.Url = "",
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    password_file: options.PasswordFile = "",
    as_json: options.AsJson = False,
) -> None:
    """On a devnet: give a wallet 10 test ether and 10,000 test USDC."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, password_file=password_file)
    session.run(_fund(url, rpc_url, choice, as_json))


async def _fund(url: str, rpc_url: str, choice: WalletChoice, as_json: bool) -> None:
    rpc = rpc_url or DEFAULT_RPC_URL
    address = "0x" + open_wallet(choice).address.hex()
    # Opened with the public key of the faucet, which is refused on anything but a devnet.
    async with await session.open_client(url, rpc, WalletChoice(dev=FAUCET_ACCOUNT), 0) as client:
        token = (await client.exchange()).token
    giver = dev_key(FAUCET_ACCOUNT)
    await chain.send_ether(rpc, giver, address, FAUCET_WEI)
    await chain.mint(rpc, giver, token, address, FAUCET_USDC)
    if as_json:
        output.print_json({"address": address, "wei": str(FAUCET_WEI), "wallet": FAUCET_USDC})
    else:
        output.print_fields(
            {"address": checksum(address), "received": "10 ether and 10,000.00 USDC, for tests only"}
        )
