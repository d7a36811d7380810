"""`evermark govern propose-tuning` and `propose-reference`: other parameters and other reference feeds of markets that exist."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evermark.cli import options
from evermark.cli.errors import CliError
from evermark.cli.governing import ManifestFile, market_in, run, tell, wallet_choice

if TYPE_CHECKING:
    from evermark.chain.governor import GovernorContract
    from evermark.chain.transactions import TransactionSender
    from evermark.protocol.markets import Market

KEPT = ("symbol", "base", "size_decimals", "price_decimals", "lot_tick_value")


def propose_tuning(
    file: Annotated[
        Path, typer.Argument(exists=True, help="TOML with one [[market]], all of its parameters.")
    ],
    manifest: ManifestFile,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Propose other parameters of a listed market, which the file's symbol names; `show` compares them with those in force."""
    from evermark.protocol.governance import broken_bounds

    market = market_in(file)
    broken = broken_bounds(market)
    if broken:
        raise CliError(f"{market.symbol}: not within {'; '.join(broken)}")

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        present = next((one for one in await door.markets() if one.symbol == market.symbol), None)
        if present is None:
            raise CliError(f"no market {market.symbol} is listed; propose-market lists one")
        _check_step(present, market)
        return await door.propose_tuning(sender, present.market_id, market)

    tell(
        manifest, rpc_url, run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    )


def propose_reference(
    market: Annotated[int, typer.Argument(min=0, help="The market's number.")],
    feed: Annotated[str, typer.Argument(help="An AggregatorV3Interface, or `none` to end a reference.")],
    manifest: ManifestFile,
    deviation_ppm: Annotated[
        int, typer.Option(help="How far an index may be from its answer, 1,000 to 500,000.")
    ] = 50_000,
    heartbeat_s: Annotated[int, typer.Option(help="An older answer bounds nothing; 60 to 172,800.")] = 3_600,
    tick_scale: Annotated[
        int, typer.Option(help="The feed's answer at a price of one tick, times 10^18; 0: by its decimals.")
    ] = 0,
    rpc_url: options.RpcUrl = "",
    keystore: options.Keystore = "",
    key_env: options.KeyEnv = "",
    dev: options.Dev = -1,
    password_file: options.PasswordFile = "",
) -> None:
    """Propose a market's reference feed, or another one, or none; rounds whose index is far from its live answer are refused."""
    from web3 import Web3

    from evermark.chain.governor import NO_REFERENCE, Reference

    ending = feed == "none"
    if not ending and not Web3.is_address(feed):
        raise CliError(f"{feed}: not an address")
    if not ending and not (1_000 <= deviation_ppm <= 500_000 and 60 <= heartbeat_s <= 172_800):
        raise CliError("--deviation-ppm is within 1,000 and 500,000, --heartbeat-s within 60 and 172,800")

    async def work(door: "GovernorContract", sender: "TransactionSender") -> int:
        markets = await door.markets()
        if market >= len(markets):
            raise CliError(f"no market {market}; there are {len(markets)}, from 0 on")
        if ending:
            return await door.propose_reference(sender, market, NO_REFERENCE)
        scale = tick_scale or _scale(await door.feed_decimals(feed), markets[market])
        if not 1 <= scale <= 10**36:
            raise CliError(f"--tick-scale: {scale} is not within 1 and 10^36")
        reference = Reference(Web3.to_checksum_address(feed), deviation_ppm, heartbeat_s, scale)
        return await door.propose_reference(sender, market, reference)

    tell(
        manifest, rpc_url, run(rpc_url, manifest, wallet_choice(keystore, key_env, dev, password_file), work)
    )


def _check_step(present: "Market", tuned: "Market") -> None:
    """What the contract would refuse, or skip when it is consumed."""
    from evermark.protocol.governance import fits

    for field in KEPT:
        if getattr(present, field) != getattr(tuned, field):
            raise CliError(f"{present.symbol}: {field} stays {getattr(present, field)}")
    if not fits(present, tuned):
        raise CliError(
            f"{present.symbol}: too large a step; the cap at most doubles (now {present.open_interest_cap_lots:,} lots), the "
            f"first margin fraction at most doubles or halves (now {present.tiers[0].initial_fraction_ppm:,} ppm)"
        )
    if present == tuned:
        raise CliError(f"{present.symbol}: these are the parameters in force")


def _scale(decimals: "int | None", market: "Market") -> int:
    """Answer of a feed with so many decimals at a price of one tick, times 10^18."""
    if decimals is None:
        raise CliError("the feed does not tell its decimals; name --tick-scale")
    return int(10 ** (18 + decimals - market.price_decimals))
