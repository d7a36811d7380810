"""`evermark exit`: out of an exchange that nobody runs any more, with nothing but a chain and the Exit's address."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from evermark.cli import chain, options, output
from evermark.cli.errors import CliError
from evermark.cli.gateway import DEFAULT_RPC_URL
from evermark.cli.units import format_ether, format_time, format_usdc, parse_usdc
from evermark.cli.wallet import DEVNET_CHAIN_ID, WalletChoice, open_key

if TYPE_CHECKING:  # web3 takes a second to load, and `--help` needs none of it
    from evermark.chain.exit import ExitContracts, ExitStatus
    from evermark.chain.transactions import TransactionSender

app = typer.Typer(no_args_is_help=True, help="Get out when nobody runs the exchange any more.")

Address = Annotated[str, typer.Option("--exit", help="Address of the Exit contract.")]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", help="A manifest that names it, instead of --exit.")
]
ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
ALL_LOTS = 2**62 - 1  # as much as a position can be
Result = TypeVar("Result")


@app.command()
def status(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    owner: Annotated[str, typer.Option(help="Also what this address can take.")] = "",
    rpc_url: options.RpcUrl = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Whether the exchange can be frozen, is frozen, is counted; and what an owner can take."""
    if owner and not ADDRESS.fullmatch(owner):
        raise CliError(f"--owner: {owner!r} is no address")

    async def look(door: "ExitContracts") -> tuple["ExitStatus", int, int]:
        now = await door.status()
        account = await door.account_of(owner, sub_account) if owner else 0
        return now, account, await door.payout(account) if account and now.complete else 0

    now, account, payout = _run(rpc_url, _address(exit_address, manifest), look)
    if as_json:
        import msgspec

        output.print_json({**msgspec.to_builtins(now), "account": account, "payout": payout})
        return
    fields = {
        "inbox": f"{now.tail - now.head} entries wait" + _due(now),
        "frozen": format_time(now.frozen_s) if now.frozen_s else "no",
        "counted": f"{now.counted} of {now.accounts} accounts" if now.frozen_s else "not yet",
    }
    if now.complete:
        fields["to share"] = f"{format_usdc(now.pot)} USDC for {format_usdc(now.positive_equity)} of equity"
    if owner:
        fields["account"] = f"{account}, takes {format_usdc(payout)} USDC" if account else "not registered"
    output.print_fields(fields)


@app.command()
def request(
    amount: Annotated[str, typer.Argument(help="USDC; everything that is free when not given.")] = "",
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
) -> None:
    """Queue a withdrawal on the chain, with its bond: due in an hour, then anybody may execute it."""
    from evermark.chain.exit import MOST

    units = parse_usdc(amount) if amount else MOST
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> None:
        await door.request_withdrawal(sender, sub_account, units)

    _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"requested": f"{format_usdc(units)} USDC" if amount else "everything that is free"})


@app.command()
def close(
    market: Annotated[str, typer.Argument(help="Symbol of the market, or its number.")],
    lots: Annotated[int, typer.Argument(min=1, help="Lots; the whole position when not given.")] = ALL_LOTS,
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
) -> None:
    """Queue on the chain that a position be closed, with its bond: due in an hour, then anybody may execute it."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> int:
        number = await door.market_id(market)
        await door.request_close(sender, sub_account, number, lots)
        positions = await door.open_positions(await door.account_of(sender.address, sub_account))
        return min(lots, abs(positions[number]))

    asked = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"asked to close": f"{asked} lots of {market.upper()}"})


@app.command()
def liquidate(
    account: Annotated[int, typer.Argument(min=1, help="Id of an account below two thirds of maintenance.")],
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Queue on the chain that an account be liquidated, with the bond: due in an hour, then anybody may do it."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> None:
        await door.request_liquidation(sender, account)

    _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"asked to liquidate": f"account {account}"})


@app.command()
def void(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
) -> None:
    """Queue on the chain that nothing signed until now is ever executed: orders, withdrawals, transfers, approvals."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> int:
        now_ms = (await door.status()).block_s * 1000
        await door.request_cancel(sender, sub_account, now_ms)
        return now_ms

    sequence = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"void, once executed": f"everything up to sequence {sequence}"})


@app.command()
def execute(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Settle the overdue entries at the head of the inbox in the sequencer's place, and earn their bonds."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> int:
        from evermark.chain.overdue import OverdueWork

        return await OverdueWork(door).execute(sender)

    done = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"executed": f"{done} entries" if done else "nothing is overdue"})


@app.command()
def bonds(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Collect what the wallet earned by executing entries, or got back with its own."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> int:
        owed = await door.bonds(sender.address)
        if owed:
            await door.collect_bonds(sender)
        return owed

    collected = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"collected": format_ether(collected) if collected else "nothing is owed"})


@app.command()
def freeze(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """End settlement for good, once the head of the inbox is overdue by more than a day. Nothing undoes it."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> None:
        await door.freeze(sender)

    _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"frozen": "yes; next: evermark exit push"})


@app.command()
def push(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Accounts a transaction.")] = 100,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Count accounts until all are counted; stopped and started again, it goes on where anybody left it."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> int:
        while not (await door.status()).complete:
            await door.push(sender, count)
        return (await door.status()).counted

    counted = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    output.print_fields({"counted": f"{counted} accounts; next: evermark exit take"})


@app.command()
def take(
    exit_address: Address = "",
    manifest: ManifestFile = None,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
    sub_account: options.SubAccount = 0,
    as_json: options.AsJson = False,
) -> None:
    """Take the wallet's share, its unconsumed deposits and its bonds, and have them paid into the wallet."""
    choice = WalletChoice(keystore=keystore, key_env=key_env, dev=dev, password_file=password_file)

    async def work(door: "ExitContracts", sender: "TransactionSender") -> dict[str, int]:
        return await _take(door, sender, sub_account)

    taken = _run_signed(rpc_url, _address(exit_address, manifest), choice, work)
    if as_json:
        output.print_json(taken)
        return
    output.print_fields(
        {
            "share": f"{format_usdc(taken['share'])} USDC",
            "deposits back": f"{format_usdc(taken['reclaimed'])} USDC",
            "bonds back": format_ether(taken["bonds_wei"]),
        }
    )


async def _take(door: "ExitContracts", sender: "TransactionSender", sub_account: int) -> dict[str, int]:
    """Everything that is the sender's, each part once; what was taken before counts as nothing."""
    account = await door.account_of(sender.address, sub_account)
    claims, reclaimed = [], []
    share = await door.payout(account) if account else 0
    if share:
        claims.append(await door.take(sender, account))
    for entry in await door.waiting_entries(sender.address):
        claim = await door.reclaim(sender, entry)
        if claim:
            reclaimed.append(claim)
    total = sum([await door.claim_amount(claim) for claim in reclaimed])
    for claim in claims + reclaimed:
        await door.pay(sender, claim)
    bonds = await door.bonds(sender.address)
    if bonds:
        await door.collect_bonds(sender)
    return {"account": account, "share": share, "reclaimed": total, "bonds_wei": bonds}


def _address(exit_address: str, manifest: Path | None) -> str:
    if bool(exit_address) == (manifest is not None):
        raise CliError("exit: give --exit ADDRESS, or --manifest FILE")
    if manifest is None:
        if not ADDRESS.fullmatch(exit_address):
            raise CliError(f"--exit: {exit_address!r} is no address")
        return exit_address
    from evermark.chain import ManifestRefused, load_manifest

    try:
        return load_manifest(manifest).addresses["exit"]
    except ManifestRefused as error:
        raise CliError(str(error)) from None


def _run(rpc_url: str, address: str, work: Callable[["ExitContracts"], Awaitable[Result]]) -> Result:
    """Run a command's work; what chain or contract refuses becomes one line."""
    from web3.exceptions import Web3Exception

    from evermark.chain.exit import ExitContracts, ExitRefused
    from evermark.chain.rpc import UNREACHABLE, connect
    from evermark.chain.transactions import TransactionRefused, TransactionReverted, TransactionTimeout

    url = rpc_url or DEFAULT_RPC_URL

    async def whole() -> Result:
        chain.quiet_retries()
        async with connect(url) as w3:
            return await work(await ExitContracts.open(w3, address))

    try:
        return asyncio.run(whole())
    except (ExitRefused, TransactionRefused, TransactionReverted, TransactionTimeout) as error:
        raise CliError(str(error)) from None
    except UNREACHABLE:
        raise CliError(f"no chain answers at {url}; name another with --rpc-url") from None
    except Web3Exception as error:
        raise CliError(f"exit: {chain.reason(error)}") from None


def _run_signed(
    rpc_url: str,
    address: str,
    choice: WalletChoice,
    work: Callable[["ExitContracts", "TransactionSender"], Awaitable[Result]],
) -> Result:
    """`_run` with transactions of the chosen wallet; a development key only ever signs for a devnet."""
    from evermark.chain.transactions import TransactionSender

    key = open_key(choice)

    async def signed(door: "ExitContracts") -> Result:
        chain_id = int(await chain.call(rpc_url or DEFAULT_RPC_URL, "eth_chainId"), 16)
        if choice.dev >= 0 and chain_id != DEVNET_CHAIN_ID:
            raise CliError(f"--dev: chain {chain_id} is no devnet; its development keys are public")
        return await work(door, TransactionSender(door.w3, key))

    return _run(rpc_url, address, signed)


def _due(now: "ExitStatus") -> str:
    if not now.freezable_s:
        return ""
    if now.block_s >= now.freezable_s:
        return ", the first overdue by more than a day: anyone may freeze"
    return f", the first due {format_time(now.head_due_s)}: anyone may freeze from {format_time(now.freezable_s)}"
