"""The governor at work on a whole exchange: the sequencer's key is rotated, a market is delisted and settled in cash by the
keepers alone, and journal and chain agree at the end."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running_exchange import RunningExchange, eventually
from typer.testing import CliRunner

from evermark.cli import keystore
from evermark.cli.govern import app
from evermark.devnet import dev_key
from evermark.protocol.governance import DELAY_S
from evermark.protocol.markets import load_markets
from evermark.protocol.signing import Signer

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes through /proc"),
]
MAKER, TAKER, ANYBODY, NEXT_SEQUENCER = 3, 4, 5, 6  # development accounts
SOL = load_markets()[2]
SIZE = "10"


class GovernedExchange(RunningExchange):
    """An exchange whose governor, guardian and operator a test is."""

    def rpc(self, method: str, *params: Any) -> Any:
        """A JSON-RPC call of the chain."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.rpc_url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["result"]

    def pass_time(self, seconds: int) -> None:
        """The chain's clock jumps; everybody notices, and there is a round of the new time."""
        self.rpc("evm_increaseTime", seconds)
        self.rpc("evm_mine")
        now = int(self.rpc("devnet_clock")["chain_time"])
        eventually(lambda: self.is_priced(now), 60, "a round after the jump")

    def is_priced(self, since_s: int) -> bool:
        """There are prices from after a time, and orders are taken."""
        status = self.status()
        return bool(status and status["ready"] and status["round"] * 3 >= since_s)

    def govern(self, *arguments: str) -> dict[str, str]:
        """A command of `evermark govern`, in this process, which saves its start; its fields."""
        words = ("--manifest", str(self.directory / "manifest.json"), "--rpc-url", self.rpc_url)
        done = CliRunner().invoke(app, [*arguments, *words])
        assert done.exception is None, done.exception
        return {
            name: value.strip() for name, value in (line.split("  ", 1) for line in done.stdout.splitlines())
        }

    def propose(self, *arguments: str) -> str:
        """As the governor; the proposal's number."""
        keys = self.directory / "keys"
        wallet = ("--keystore", str(keys / "governor.json"), "--password-file", str(keys / "password"))
        return self.govern("propose", *arguments, *wallet)["proposal"]

    def settlers(self) -> list[dict[str, Any]]:
        """What the settler of each keeper says of itself."""
        files = [self.directory / "status" / f"keeper-{number}.json" for number in (1, 2, 3)]
        return [json.loads(file.read_text())["roles"].get("settler", {}) for file in files if file.exists()]

    def market(self) -> dict[str, Any]:
        """SOL's part of the status."""
        return dict(self.status().get("markets", {}).get(SOL.symbol, {}))

    def is_settled(self) -> bool:
        """Everything matched is on the chain."""
        status = self.status()
        return bool(status and status["fills_settled"] == status["fills_matched"] > 0)


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GovernedExchange]:
    """One exchange for the tests of this file, which run in order."""
    options = ("--prices", "sim", "--speed", "5", "--no-actors", "--for", "600", "--json")
    running = GovernedExchange(tmp_path_factory.mktemp("e2e") / "run", *options)
    try:
        running.wait_until_up()
        yield running
    finally:
        running.stop()


def trade(exchange: GovernedExchange) -> None:
    """The maker sells, the taker buys, near the mark."""
    mark = exchange.market()["mark"]
    price = f"{mark / 10**SOL.price_decimals:.{SOL.price_decimals}f}"
    sold = exchange.evermark("order", "sell", "sol", SIZE, "--price", price, "--dev", str(MAKER))
    bought = exchange.evermark("order", "buy", "sol", SIZE, "--price", price, "--dev", str(TAKER))
    assert sold["status"] == "open"
    assert bought["status"] == "filled", bought
    eventually(exchange.is_settled, 60, "the fill on the chain")


def test_positions_are_there_and_changes_are_proposed(exchange: GovernedExchange) -> None:
    """A trade in SOL; its delisting and another sequencer wait for 48 hours."""
    with ThreadPoolExecutor() as at_once:
        deposits = [
            at_once.submit(exchange.evermark, "deposit", "5000", "--dev", str(wallet))
            for wallet in (MAKER, TAKER)
        ]
        assert all(deposit.result()["collateral"] for deposit in deposits)
    trade(exchange)
    assert int(exchange.market()["open_interest"]) == 10 * 10**SOL.size_decimals
    sequencer = "0x" + Signer(dev_key(NEXT_SEQUENCER)).address.hex()
    assert exchange.propose("sequencer", sequencer) == "1"
    assert exchange.propose("delist", str(SOL.market_id)) == "2"
    assert exchange.govern("show", "2")["action"] == "delist"


def test_the_sequencers_key_is_rotated_while_the_exchange_runs(exchange: GovernedExchange) -> None:
    """The old key is refused by vault and oracle, which its operator is told; with the new one everything goes on."""
    exchange.pass_time(DELAY_S + 60)
    assert exchange.govern("execute", "1", "--dev", str(ANYBODY))["entry"] != "none: in force"
    eventually(lambda: exchange.status().get("settlement_alarm"), 90, "the old key is refused")
    alarm = exchange.status()["settlement_alarm"]
    assert "only the sequencer" in alarm, alarm
    keys = exchange.directory / "keys"
    password = (keys / "password").read_text().strip()
    keystore.create(
        keys / "next.json", password, key=dev_key(NEXT_SEQUENCER), scrypt_n=keystore.DEVNET_SCRYPT
    )
    path = exchange.directory / "config" / "sequencer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"keystore": str(keys / "next.json")}))
    exchange.kill("sequencer")
    eventually(lambda: exchange.status().get("ready"), 90, "the exchange with its new key")
    eventually(lambda: not exchange.status()["settlement_alarm"], 60, "settlement goes on")
    trade(exchange)


def test_a_delisted_market_is_settled_by_the_keepers(exchange: GovernedExchange) -> None:
    """Reduce-only for three days, public rounds in the last hour, and then every position ends in cash, without anybody at work
    but the keepers."""
    assert exchange.govern("show", "1")["state"] == "in force"
    assert exchange.govern("execute", "2", "--dev", str(ANYBODY))["entry"]
    eventually(lambda: exchange.market().get("mode") == "reduce_only", 60, "the market only reduces")
    endings = eventually(lambda: exchange.settlers()[0]["endings"], 60, "the settlers know")
    ends_at = endings[0]["ends_at"]
    exchange.pass_time(ends_at - 1_800 - int(exchange.rpc("devnet_clock")["chain_time"]))
    posted = "public round"
    eventually(
        lambda: any(posted in one.get("last_action", "") for one in exchange.settlers()), 60, "a public round"
    )
    held = exchange.evermark("positions", "--dev", str(TAKER))
    assert [at["market"] for at in held["positions"]] == [SOL.symbol]
    exchange.pass_time(ends_at + 1 - int(exchange.rpc("devnet_clock")["chain_time"]))
    eventually(lambda: exchange.market().get("mode") == "settled", 90, "the market is settled")
    eventually(lambda: int(exchange.market()["open_interest"]) == 0, 60, "positions end")
    for wallet in (MAKER, TAKER):
        assert exchange.evermark("positions", "--dev", str(wallet))["positions"] == []
    settled = [one for one in exchange.settlers() if "is settled by entry" in one.get("last_action", "")]
    assert len(settled) == 1


def test_money_leaves_and_everything_agrees(exchange: GovernedExchange) -> None:
    """Withdrawals are paid, and the audit of the whole run finds no difference."""
    assert exchange.evermark("withdraw", "4000", "--dev", str(TAKER))["paid"] is True
    exchange.process.send_signal(signal.SIGINT)
    result = exchange.result()
    assert result["verify"]["ok"] is True, result["verify"]
    assert result["fills_matched"] == result["fills_settled"]
