"""`evermark govern`: propose, watch, cancel and carry out changes of a deployed exchange; pause and lift as its guardian."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evermark.cli import options, output
from evermark.cli.errors import CliError
from evermark.cli.governing import ManifestFile, market_in, run, tell, wallet_choice
from evermark.cli.tuning import propose_reference, propose_tuning

if TYPE_CHECKING:  # web3 takes a second to load, and `--help` needs none of it
    from evermark.chain.governor import GovernorContract
    from evermark.chain.transactions import TransactionSender

app = typer.Typer(no_args_is_help=True, help="Change a deployed exchange, within bounds and after a delay.")
app.command(name="propose-tuning")(propose_tuning)
app.command(name="propose-reference")(propose_reference)

ProposalId = Annotated[int, typer.Argument(min=1, help="The proposal's number.")]
MODES = ("normal", "post-only", "reduce-only", "cancel-only", "halted")


@app.command(name="propose-market")
def propose_market(
    file: Annotated[Path, typer.Argument(exists=True, help="TOML with one [[market]], as in markets.toml.")],
    index: Annotated[int, typer.Option(min=1, help="What it is worth now, in its ticks.")],
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Propose a listing; after 48 hours `execute` lists it, and everything trades it without a restart."""
    from evermark.protocol.governance import broken_bounds, broken_thin_bounds

    market = market_in(file)
    broken = broken_bounds(market) + broken_thin_bounds(market, index)
    if broken:
        raise CliError(f"{market.symbol}: not within {'; '.join(broken)}")

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        return await door.propose_market(sender, market, index)

    tell(
        manifest, rpc_url, run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    )


@app.command()
def propose(
    what: Annotated[
        str,
        typer.Argument(help="sequencer, guardian, governor, {add,remove}-{oracle,funding}, delist, quorums"),
    ],
    arguments: Annotated[list[str], typer.Argument(help="An address, a market's number, two quorums.")],
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Propose another key, another quorum, or the end of a market."""
    call = _call(what, arguments)

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        return await door.propose(sender, *call)

    tell(
        manifest, rpc_url, run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    )


@app.command()
def cancel(
    proposal: ProposalId,
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Cancel a proposal, as governor or guardian."""

    async def work(door: "GovernorContract", sender: "TransactionSender") -> None:
        await door.cancel(sender, proposal)

    run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    tell(manifest, rpc_url, proposal)


@app.command()
def execute(
    proposal: ProposalId,
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Carry out a proposal whose delay is over, with any wallet; it posts the entry's bond."""

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        return await door.execute(sender, proposal)

    entry = run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    output.print_fields({"proposal": str(proposal), "entry": str(entry) if entry else "none: in force"})


@app.command()
def settle(
    market: Annotated[int, typer.Argument(help="Number of a delisted market whose last hour is over.")],
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Have a delisted market settled in cash, with any wallet; it posts the entry's bond."""

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        return await door.settle(sender, market)

    entry = run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    output.print_fields({"market": str(market), "entry": str(entry)})


@app.command()
def pause(
    mode: Annotated[str, typer.Argument(help=", ".join(MODES) + "; normal lifts.")],
    markets: Annotated[list[int], typer.Argument(help="Numbers of the markets.")],
    manifest: ManifestFile,
    hours: Annotated[int, typer.Option(min=0, max=72, help="How long; 0 with normal.")] = 0,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Set markets to a stricter mode for a time, as guardian."""
    if mode not in MODES:
        raise CliError(f"no such mode: {mode}; there are {', '.join(MODES)}")

    async def work(door: "GovernorContract", sender: "TransactionSender") -> None:
        await door.pause(sender, markets, MODES.index(mode), hours * 3_600)

    run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    output.print_fields(
        {
            "mode": mode,
            "markets": ", ".join(map(str, markets)),
            "in force": "once consumed, in ten minutes at most",
        }
    )


@app.command()
def show(proposal: ProposalId, manifest: ManifestFile, rpc_url: options.RpcUrl = "") -> None:
    """Where a proposal stands, what it changes, and within which bounds."""
    tell(manifest, rpc_url, proposal)


def _call(what: str, arguments: list[str]) -> tuple[Any, ...]:
    """The contract's call and its arguments, but for the deadline."""
    from web3 import Web3

    wanted = 2 if what == "quorums" else 1
    if len(arguments) != wanted:
        raise CliError(f"{what} takes {wanted} argument{'s' if wanted > 1 else ''}")
    if what in ("quorums", "delist"):
        if not all(argument.isdecimal() for argument in arguments):
            raise CliError(f"{what}: {' '.join(arguments)}: whole numbers belong there")
        call = "propose_quorums" if what == "quorums" else "propose_delisting"
        return (call, *map(int, arguments))
    try:
        address = Web3.to_checksum_address(arguments[0])
    except ValueError:
        raise CliError(f"{what}: {arguments[0]!r} is no address") from None
    if what == "sequencer":
        return ("propose_sequencer", address)
    if what in ("guardian", "governor"):
        return ("propose_role", 8 if what == "guardian" else 9, address)
    action, _, role = what.partition("-")
    if action not in ("add", "remove") or role not in ("oracle", "funding"):
        raise CliError(f"nothing is called {what}")
    return ("propose_keeper", ("oracle", "funding").index(role), address, action == "add")
