"""A whole exchange: traded by hand, hurt in every part, and whole at the end, to the last unit."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_exchange import RunningExchange, command, eventually

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes through /proc"),
]
SECONDS = 600  # at most: the last test ends the run


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """One exchange for the tests of this file, which run in order and end with its result."""
    options = ("--prices", "sim", "--speed", "3", "--start", "2025-03-03T10:56:00Z")
    counted = ("--for", str(SECONDS), "--json", "--min-fills", "30")
    running = RunningExchange(tmp_path_factory.mktemp("e2e") / "run", *options, *counted)
    try:
        yield running.wait_until_up()
    finally:
        running.stop()


def fills(exchange: RunningExchange) -> int:
    """Fills that the chain has; 0 while nobody answers."""
    return int(exchange.status().get("fills_settled", 0))


def rounds(exchange: RunningExchange) -> int:
    """The newest oracle round; 0 while nobody answers."""
    return int(exchange.status().get("round", 0))


def test_a_person_trades_from_the_command_line(exchange: RunningExchange) -> None:
    """Deposit, buy, look, rest and cancel an order, sell, withdraw, and the money is in the wallet."""
    eventually(lambda: fills(exchange), 60, "a market to trade in")
    wallet = ("--dev", "3")
    assert exchange.evermark("deposit", "1000", *wallet)["collateral"] == 1_000_000_000
    bought = exchange.evermark("order", "buy", "btc", "0.002", "--market", *wallet)
    assert (bought["status"], bought["filled"]) == ("filled", 200)
    rested = exchange.evermark("order", "buy", "eth", "0.1", "--price", "100", "--post-only", *wallet)
    assert rested["status"] == "open"
    held = exchange.evermark("positions", *wallet)
    assert [(at["market"], at["size"]) for at in held["positions"]] == [("BTC-PERP", 200)]
    assert [order["order_hash"] for order in held["orders"]] == [rested["order_hash"]]
    assert exchange.evermark("cancel", rested["order_hash"], *wallet)["cancelled"] == [rested["order_hash"]]
    sold = exchange.evermark("order", "sell", "btc", "0.002", "--market", "--reduce-only", *wallet)
    assert (sold["status"], sold["filled"]) == ("filled", 200)
    receipt = exchange.evermark("withdraw", "500", *wallet)
    assert receipt["paid"] is True
    assert exchange.evermark("status")["ready"] is True
    shown = exchange.evermark("account", "show", *wallet)
    assert shown["wallet"] == 500_000_000 - receipt["fee"]
    assert 499_000_000 < shown["collateral"] < 500_000_000


@pytest.mark.safety("G02", "sequencer")
@pytest.mark.safety("E04", "sequencer")
def test_a_killed_sequencer_loses_nothing(exchange: RunningExchange) -> None:
    """kill -9 in mid-flow, twice: the supervisor brings it back and settlement goes on where it was.

    That nothing was lost or settled twice is what the verification at the end of the run shows.
    """
    for _ in range(2):
        before = eventually(lambda: fills(exchange), 60, "a settled fill")
        exchange.kill("sequencer")
        eventually(exchange.status, 60, "the gateway again")
        eventually(lambda at=before: fills(exchange) > at, 60, "fills settled after the restart")


def test_killed_keepers_come_back(exchange: RunningExchange) -> None:
    """kill -9 of each keeper: with all three back there is a quorum again, and rounds go on."""
    for name in ("keeper-1", "keeper-2", "keeper-3", "liquidator"):
        exchange.kill(name)
    before = rounds(exchange)
    eventually(lambda: rounds(exchange) > before, 60, "a new oracle round")


def test_a_killed_chain_comes_back_whole(exchange: RunningExchange) -> None:
    """kill -9 of the embedded chain: it replays what it had acknowledged, and settlement goes on."""
    before = eventually(lambda: fills(exchange), 60, "a settled fill")
    exchange.kill("chain")
    eventually(lambda: fills(exchange) > before, 60, "fills settled after the restart")


def test_the_run_ends_settled_and_verified(exchange: RunningExchange) -> None:
    """Everything matched is settled once, journal and chain agree, funding was applied, and exit is 0."""
    eventually(lambda: exchange.read("/v1/markets/BTC-PERP/funding"), 120, "an hour of funding")
    exchange.process.send_signal(signal.SIGINT)
    result = exchange.result()
    assert result["fills_matched"] == result["fills_settled"] >= 30
    assert result["verify"]["ok"] is True
    assert result["verify"]["differences"] == []
    assert all(result["verify"]["invariants"].values())
    assert result["funding_hours"] >= 1
    assert result["withdrawals"] >= 1
    assert eventually(lambda: not exchange.children(), 5, "no process left behind")


def refusal(directory: Path) -> str:
    """The line with which a second start from this directory is refused."""
    arguments = ("up", "--prices", "sim", "--port", "0", "--chain-port", "0", "--state", str(directory))
    refused = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1, refused.stderr
    assert refused.stdout == ""
    return refused.stderr.splitlines()[-1]


def test_a_kept_exchange_goes_on_or_says_what_does_not_match(
    exchange: RunningExchange, start: Callable[..., RunningExchange], tmp_path: Path
) -> None:
    """Chain and journal continue together. An older chain, or a missing journal, is refused by name."""
    assert exchange.process.poll() == 0, "needs the run before it to have ended"
    counted = ("--for", "3", "--json", "--no-actors", "--speed", "3")
    again = start("--prices", "sim", *counted, directory=exchange.directory).result()
    assert again["fills_settled"] >= 30
    assert again["verify"]["ok"] is True
    older = shutil.copytree(exchange.directory, tmp_path / "older")
    (log,) = (older / "chain").iterdir()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) * 2 // 3]))
    assert "confirmed, the chain ends with" in refusal(older)
    shutil.rmtree(older / "journal")
    assert "--state: " in refusal(older)
    assert "missing journal" in refusal(older)


@pytest.mark.skipif(not os.environ.get("EVERMARK_TAPES"), reason="needs recorded tapes in EVERMARK_TAPES")
def test_a_recorded_day_trades_and_settles(start: Callable[..., RunningExchange]) -> None:
    """The fall of 10 October 2025, a minute of it at five times its pace, verified like any other run."""
    options = ("--prices", "tape", "--start", "2025-10-10T21:11:00Z", "--speed", "5")
    result = start(*options, "--for", "40", "--json", "--min-fills", "20").result()
    assert result["fills_matched"] == result["fills_settled"] >= 20
    assert result["verify"]["ok"] is True


def without_network() -> list[str]:
    """A prefix that runs a command without any network; empty where the machine does not allow it."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10)
    except OSError:
        return []
    return prefix if done.returncode == 0 else []


def test_live_prices_without_a_network_fail_at_once() -> None:
    """Within ten seconds, with the reason, and with nothing started."""
    prefix = without_network()
    if not prefix:
        pytest.skip("this machine does not let a process drop its network")
    began = time.monotonic()
    done = subprocess.run(
        [*prefix, *command("up", "--prices", "live")], capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert done.stderr.startswith("evermark: --prices live: ")
