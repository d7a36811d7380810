"""Tuning and reference feeds by the command line, on a real chain: propose, show with the bounds, execute, cancel."""

import asyncio
from pathlib import Path

import pytest
from chain_cases import ROLES, address
from msgspec.structs import replace
from test_chain_exit import pass_time, post_public_round
from typer.testing import CliRunner
from vyper.compiler.output import build_abi_output

from evermark.chain import ExchangeContracts, TransactionSender, deploy
from evermark.chain.exit import ExitContracts
from evermark.chain.governor import NO_REFERENCE, Action, GovernorContract, ProposalState
from evermark.chain.overdue import OverdueWork
from evermark.cli.errors import CliError
from evermark.cli.govern import app
from evermark.devnet import dev_key
from evermark.protocol.governance import DELAY_S, NOTICE_S
from tests.compiled_contracts import deployer

GOVERNOR, STRANGER = 11, 8
MOCKS = Path(__file__).resolve().parents[1] / "contracts" / "mocks"
MARKETS_FILE = Path(__file__).resolve().parents[2] / "evermark" / "protocol" / "markets.toml"
PRICE = 100_000  # in ticks, of every market in `post_public_round`
AVAX_TICK = 10 ** (18 + 8 - 3)  # of a feed with eight decimals


@pytest.fixture
async def governed(devnet, w3, tmp_path):
    """An exchange with a governor: its manifest's path, its contracts."""
    path = tmp_path / "manifest.json"
    manifest = await deploy(devnet.url, dev_key(0), replace(ROLES, governor=address(GOVERNOR)), path)
    return path, ExchangeContracts(w3, manifest), GovernorContract(w3, manifest)


async def govern(devnet, path, *arguments, dev=None):
    """A command of `evermark govern` in a thread of its own: exit code, the fields that it prints, and its error."""
    wallet = () if dev is None else ("--dev", str(dev))
    words = [*arguments, "--manifest", str(path), "--rpc-url", devnet.url, *wallet]
    done = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert done.exception is None or isinstance(done.exception, CliError), done.exception
    fields = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    return done.exit_code, {name: value.strip() for name, value in fields.items()}, str(done.exception)


def market_file(tmp_path: Path, listed: str, **changes: object) -> Path:
    """The packaged row of one market, with other values."""
    rows = MARKETS_FILE.read_text().split("[[market]]")
    lines = next(row for row in rows if f'"{listed}"' in row).splitlines()
    kept = [line for line in lines if "=" in line and line.split(" = ")[0] not in changes]
    new = [f"{name} = {value}" for name, value in changes.items()]
    path = tmp_path / "market.toml"
    path.write_text("\n".join(["[[market]]", *kept, *new]) + "\n")
    return path


async def test_a_market_is_tuned_by_the_command_line(devnet, w3, governed, tmp_path):
    """Refused before it is sent where it is too much; shown beside what is in force; in force by anybody's batch; what follows
    is measured by the new parameters."""
    path, contracts, governor = governed
    (avax,) = [market for market in contracts.manifest.markets if market.symbol == "AVAX-PERP"]
    cap = avax.open_interest_cap_lots
    for changes, reason in (
        ({"taker_fee_ppm": 2_001}, "not within taker fee at most 0.2 %"),
        (
            {"open_interest_cap_lots": 2 * cap + 1},
            f"too large a step; the cap at most doubles (now {cap:,} lots)",
        ),
        ({"base": '"OTHER"'}, "base stays AVAX"),
        ({"symbol": '"DOT-PERP"'}, "no market DOT-PERP is listed"),
        ({}, "these are the parameters in force"),
    ):
        file = market_file(tmp_path, "AVAX-PERP", **changes)
        code, _, err = await govern(devnet, path, "propose-tuning", str(file), dev=GOVERNOR)
        assert (code, reason in err) == (1, True), err
    assert await governor.proposal_count() == 0
    file = market_file(tmp_path, "AVAX-PERP", taker_fee_ppm=500, open_interest_cap_lots=2 * cap)
    code, shown, err = await govern(devnet, path, "propose-tuning", str(file), dev=GOVERNOR)
    assert code == 0, err
    assert (shown["proposal"], shown["state"], shown["action"]) == ("1", "proposed", "tune")
    assert shown["taker_fee_ppm"] == "400 -> 500  (0 to 2,000)"
    assert shown["open_interest_cap_lots"].startswith(f"{cap:,} -> {2 * cap:,}  (at most doubles;")
    assert "maker_fee_ppm" not in shown
    code, _, err = await govern(devnet, path, "execute", "1", dev=STRANGER)
    assert (code, "governor: too early" in err) == (1, True)
    stranger = TransactionSender(w3, dev_key(STRANGER))
    await post_public_round(contracts, stranger)
    await pass_time(w3, DELAY_S + 60)
    code, _, err = await govern(devnet, path, "execute", "1", dev=STRANGER)
    assert (code, "governor: no live price" in err) == (1, True)
    await post_public_round(contracts, stranger)
    assert (await govern(devnet, path, "execute", "1", dev=STRANGER))[1]["entry"] == "1"
    await pass_time(w3, 3_601)
    await post_public_round(contracts, stranger)
    assert (
        await OverdueWork(await ExitContracts.open(w3, contracts.manifest.addresses["exit"])).execute(
            stranger
        )
        == 1
    )
    assert (await govern(devnet, path, "show", "1"))[1]["state"] == "in force"
    present = (await governor.markets())[avax.market_id]
    assert present == replace(avax, taker_fee_ppm=500, open_interest_cap_lots=2 * cap)
    file = market_file(tmp_path, "AVAX-PERP", open_interest_cap_lots=4 * cap)
    shown = (await govern(devnet, path, "propose-tuning", str(file), dev=GOVERNOR))[1]
    assert shown["taker_fee_ppm"] == "500 -> 400  (0 to 2,000)"
    assert (await govern(devnet, path, "cancel", "2", dev=GOVERNOR))[1]["state"] == "cancelled"


async def test_a_reference_is_set_replaced_and_ended_by_the_command_line(devnet, w3, governed):
    """With what the feed says of its decimals or as told; a feed that disagrees or is silent cannot become the reference."""
    path, contracts, governor = governed
    sender = TransactionSender(w3, dev_key(STRANGER))
    mock = deployer("Feed", MOCKS)
    code = mock.compiler_data.bytecode
    feeds = [(await sender.send(None, code))["contractAddress"] for _ in range(2)]
    contract = w3.eth.contract(abi=build_abi_output(mock.compiler_data))

    async def tell(feed, ticks):
        now = (await w3.eth.get_block("latest"))["timestamp"]
        answer = ticks * AVAX_TICK // 10**18
        await sender.send(feed, contract.encode_abi("tell", args=[answer, now, now]))

    for arguments, reason in (
        (("3", "here"), "here: not an address"),
        (("9", feeds[0]), "no market 9; there are 4"),
        (("3", feeds[0]), "does not tell its decimals"),
        (("3", feeds[0], "--deviation-ppm", "999"), "--deviation-ppm is within"),
        (("3", feeds[0], "--tick-scale", str(10**36 + 1)), "--tick-scale"),
    ):
        code, _, err = await govern(devnet, path, "propose-reference", *arguments, dev=GOVERNOR)
        assert (code, reason in err) == (1, True), err
    scale = ("--tick-scale", str(AVAX_TICK))
    shown = (await govern(devnet, path, "propose-reference", "3", feeds[0], *scale, dev=GOVERNOR))[1]
    assert (shown["action"], shown["market"], shown["present feed"], shown["feed"]) == (
        "reference",
        "3",
        "none",
        feeds[0],
    )
    assert shown["deviation_ppm"] == "50,000  (1,000 to 500,000)"
    assert shown["tick_scale"] == f"{AVAX_TICK:,}  (1 to 10^36)"
    heartbeat = ("--heartbeat-s", "86400")
    await govern(devnet, path, "propose-reference", "3", feeds[1], *scale, *heartbeat, dev=GOVERNOR)
    await govern(devnet, path, "propose-reference", "3", "none", dev=GOVERNOR)
    await pass_time(w3, DELAY_S + 60)
    await post_public_round(contracts, sender)
    await tell(feeds[0], PRICE * 2)
    code, _, err = await govern(devnet, path, "execute", "1", dev=STRANGER)
    assert (code, "governor: the feed disagrees" in err) == (1, True)
    code, _, err = await govern(devnet, path, "execute", "2", dev=STRANGER)
    assert (code, "governor: the feed is silent" in err) == (1, True)
    for feed in feeds:
        await tell(feed, PRICE)
    assert (await govern(devnet, path, "execute", "1", dev=STRANGER))[1]["entry"] == "none: in force"
    assert (await governor.reference(3)).feed == feeds[0]
    assert (await govern(devnet, path, "show", "2"))[1]["present feed"] == feeds[0]
    assert await governor.execute(sender, 2) == 0
    assert (await governor.reference(3)).heartbeat_s == 86_400
    assert await governor.execute(sender, 3) == 0
    assert await governor.reference(3) == NO_REFERENCE
    found = await governor.proposal(3)
    assert (found.action, found.state) == (Action.REFERENCE, ProposalState.IN_FORCE)


async def test_a_market_is_delisted_and_settled_by_the_command_line(devnet, w3, governed):
    """Without a sequencer and without keepers' settlers: strangers post the rounds and execute what is overdue."""
    path, contracts, governor = governed
    stranger = TransactionSender(w3, dev_key(STRANGER))
    work = OverdueWork(await ExitContracts.open(w3, contracts.manifest.addresses["exit"]))

    async def later(seconds):
        await pass_time(w3, seconds)
        await post_public_round(contracts, stranger)

    shown = (await govern(devnet, path, "propose", "delist", "3", dev=GOVERNOR))[1]
    assert (shown["action"], shown["market"]) == ("delist", "3")
    await later(DELAY_S + 60)
    assert (await govern(devnet, path, "execute", "1", dev=STRANGER))[1]["entry"] == "1"
    await later(3_601)
    assert await work.execute(stranger) == 1
    code, _, err = await govern(devnet, path, "settle", "3", dev=STRANGER)
    assert (code, "governor: no settlement price" in err) == (1, True)
    await later(NOTICE_S - 60)
    await later(61)
    assert (await governor.ending(3))[1:] == (PRICE, False)
    assert (await govern(devnet, path, "settle", "3", dev=STRANGER))[1] == {"market": "3", "entry": "2"}
    code, _, err = await govern(devnet, path, "settle", "3", dev=STRANGER)
    assert (code, "one of this kind is open" in err) == (1, True)
    await later(3_601)
    assert await work.execute(stranger) == 1
    shown = (await govern(devnet, path, "show", "2"))[1]
    assert (shown["action"], shown["state"], shown["price"]) == ("settle", "in force", f"{PRICE} ticks")
    code, _, err = await govern(devnet, path, "settle", "3", dev=STRANGER)
    assert (code, "governor: settled" in err) == (1, True)
