"""The commands that run one long-lived part: devnet, sequencer, keepers, actors. `up` starts these."""

import asyncio
from collections.abc import Callable, Coroutine
from errno import EADDRINUSE
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from evermark.cli.errors import CliError
from evermark.cli.units import parse_time

ConfigFile = Annotated[Path, typer.Option("--config", help="Configuration, JSON or TOML.")]

keeper_app = typer.Typer(no_args_is_help=True, help="Run a keeper; docs/keepers.md has the configuration.")
ACTORS = ("maker", "takers", "leveraged", "wallet")


def devnet(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8545,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    speed: Annotated[float, typer.Option(help="Chain seconds in a wall second.")] = 1.0,
    start: Annotated[str, typer.Option(help="Time of the first block, ISO 8601; default now.")] = "",
    block_time: Annotated[float, typer.Option(help="Wall seconds between blocks; 0: at once.")] = 0.0,
    state: Annotated[str, typer.Option(help="Keep the chain in this directory.")] = "",
    accounts: Annotated[bool, typer.Option(help="Print the development accounts.")] = True,
) -> None:
    """Run the embedded chain: an Ethereum node for development, in one process."""
    from evermark.devnet import DevnetConfig, run_devnet
    from evermark.devnet.state_log import StateRefused

    config = DevnetConfig(
        host=host,
        port=port,
        genesis_time=parse_time(start) if start else None,
        speed=speed,
        block_time_s=block_time or None,
        state_dir=state or None,
        print_accounts=accounts,
    )
    try:
        _serve(lambda: run_devnet(config), (StateRefused,))
    except OSError as error:
        if error.errno != EADDRINUSE:
            raise
        raise CliError(
            f"port {port} of {host} is in use, perhaps by another chain; choose with --port"
        ) from None


def sequencer(config: ConfigFile) -> None:
    """Run the sequencer: gateway, journal, engine, settlement."""
    from sequencer.app import REFUSALS, run_sequencer
    from sequencer.config import load_config

    _serve(lambda: run_sequencer(load_config(config)), REFUSALS)


@keeper_app.command("oracle")
def keeper_oracle(config: ConfigFile) -> None:
    """Sign and report prices, round by round."""
    from keeper.run import run_oracle_keeper

    _keeper(config, run_oracle_keeper)


@keeper_app.command("funding")
def keeper_funding(config: ConfigFile) -> None:
    """Sample the premium and report each hour's funding rate."""
    from keeper.run import run_funding_keeper

    _keeper(config, run_funding_keeper)


@keeper_app.command("liquidator")
def keeper_liquidator(config: ConfigFile) -> None:
    """Point at accounts below maintenance."""
    from keeper.run import run_liquidator

    _keeper(config, run_liquidator)


@keeper_app.command("settler")
def keeper_settler(config: ConfigFile) -> None:
    """Settle delisted markets in cash, with public rounds in their last hour."""
    from keeper.run import run_settler

    _keeper(config, run_settler)


@keeper_app.command("run")
def keeper_run(config: ConfigFile) -> None:
    """Run every role that the configuration has a key for, in one process."""
    from keeper.run import run_keepers

    _keeper(config, run_keepers)


def _keeper(path: Path, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    from keeper.config import load_config

    _serve(lambda: work(load_config(path)))


def actor(
    kind: Annotated[str, typer.Argument(help=" | ".join(ACTORS))],
    config: ConfigFile,
) -> None:
    """Run a trader that brings a devnet to life."""
    from evermark import actors

    runs: dict[str, tuple[Any, Any]] = {
        "maker": (actors.MakerConfig, actors.run_maker),
        "takers": (actors.TakersConfig, actors.run_takers),
        "leveraged": (actors.LeveragedConfig, actors.run_leveraged),
        "wallet": (actors.WalletConfig, actors.run_wallet),
    }
    if kind not in runs:
        raise CliError(f"actor: {kind!r} is not one of {', '.join(ACTORS)}")
    kind_config, work = runs[kind]
    try:
        read = msgspec.json.decode(config.read_bytes(), type=kind_config)
    except OSError as error:
        raise CliError(f"{config}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise CliError(f"{config}: {error}") from None
    _serve(lambda: work(read))


def _serve(make: Callable[[], Coroutine[Any, Any, None]], refusals: tuple[type[Exception], ...] = ()) -> None:
    """Run until the work ends; what a person can put right is one line, a bug shows its trace."""
    from evermark.client.errors import EvermarkError
    from keeper.keystore import KeyRefused
    from keeper.sources.quotes import SourceUnavailable

    expected: tuple[type[Exception], ...] = (EvermarkError, KeyRefused, SourceUnavailable, *refusals)
    try:
        work = make()
    except (ValueError, OSError) as error:
        raise CliError(str(error)) from None
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return
    except expected as error:
        raise CliError(str(error)) from None
