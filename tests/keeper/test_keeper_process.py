"""Keepers as they run: real HTTP, real keystores, real processes that are killed and started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
from keeper_cases import MARKETS, NOW_S
from small_gateway import ROUND_SECONDS, SmallGateway

from evermark.chain import Manifest, Parameters, Roles
from evermark.chain.manifest import CONTRACT_NAMES
from evermark.client.models import ExchangeInfo
from evermark.protocol.funding import HOUR_S
from evermark.protocol.oracle import NO_PRICE, aggregate
from keeper.clock import STRIDE_S, report_stride, sample_interval_s
from keeper.config import KeeperConfig, PricesConfig, load_config
from keeper.keystore import KeyConfig, KeyRefused, create_keystore, load_signer
from keeper.run import agree_with_manifest, make_source, run_keepers
from keeper.sources.quotes import SourceUnavailable

FAST_SCRYPT = 2**4
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def gateway():
    """A gateway and a node in one, on a clock that starts at NOW_S."""
    made = SmallGateway(start_s=NOW_S)
    await made.start()
    yield made
    await made.stop()


def keeper(
    tmp_path: Path, url: str, *roles: str, number: int = 1, **changes
) -> tuple[KeeperConfig, dict[str, bytes]]:
    """A configuration with fresh keystores, and the address of each role."""
    password = tmp_path / f"password-{number}"
    if not password.exists():
        password.write_text("correct horse\n")
        password.chmod(0o600)
    keys, addresses = {}, {}
    for role in roles:
        path = tmp_path / f"{role}-{number}.json"
        addresses[role] = create_keystore(path, "correct horse", scrypt_n=FAST_SCRYPT).address
        keys[role] = KeyConfig(keystore=str(path), password_file=str(password))
    config = KeeperConfig(
        gateway_url=url,
        rpc_url=url,
        keys=keys,
        name=f"keeper-{number}",
        status_path=str(tmp_path / f"status-{number}.json"),
        state_dir=str(tmp_path / f"state-{number}"),
    )
    return msgspec.structs.replace(config, **changes), addresses


async def until(condition, timeout_s=15.0):
    """Wait for something that must come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel and let it clean up."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_three_oracle_keepers_make_a_round(tmp_path, gateway):
    """Three keepers report the same rounds, each with a key of its own, and a median comes out."""
    made = [keeper(tmp_path, gateway.url, "oracle", number=number) for number in (1, 2, 3)]
    tasks = [asyncio.create_task(run_keepers(config)) for config, _ in made]

    def rounds():
        by_round = {}
        for signer, report in gateway.prices:
            by_round.setdefault(report.round, {})[signer] = report
        return [reports for reports in by_round.values() if len(reports) == 3]

    await until(lambda: len(rounds()) >= 2)
    await asyncio.gather(*(stopped(task) for task in tasks))
    reports = rounds()[0]
    assert set(reports) == {addresses["oracle"] for _, addresses in made}
    assert all(report.timestamp == report.round * ROUND_SECONDS for report in reports.values())
    result = aggregate(list(reports.values()), 3, [NO_PRICE] * len(MARKETS), [0] * len(MARKETS))
    assert all(price.index_ticks > 0 for price in result.prices)


async def test_the_status_file_tells_health_sources_and_origin(tmp_path, gateway):
    """Each source with its origin, each market's prices, the address; replaced whole every second."""
    config, addresses = keeper(tmp_path, gateway.url, "oracle", "funding")
    task = asyncio.create_task(run_keepers(config))
    path = Path(config.status_path)

    def written():
        roles = json.loads(path.read_text())["roles"] if path.exists() else {}
        return "markets" in roles.get("oracle", {}) and "last_sample" in roles.get("funding", {})

    await until(written)
    await stopped(task)
    status = json.loads(path.read_text())
    assert status["health"] == "ok"
    assert status["pid"] == os.getpid()
    oracle = status["roles"]["oracle"]
    assert oracle["address"] == "0x" + addresses["oracle"].hex()
    assert {source["origin"] for source in oracle["sources"]} == {"simulated"}
    assert oracle["markets"]["BTC-PERP"]["used"] == ["sim-a", "sim-b", "sim-c"]
    assert addresses["oracle"] != addresses["funding"]


async def test_temporary_failures_are_retried(tmp_path, gateway):
    """An overloaded gateway gets the same report again."""
    gateway.failures = [503, 429, 503]
    config, _ = keeper(tmp_path, gateway.url, "oracle")
    task = asyncio.create_task(run_keepers(config))
    await until(lambda: gateway.prices)
    await stopped(task)
    assert gateway.failures == []


async def test_keepers_survive_a_gateway_that_restarts(tmp_path, gateway):
    """Silence is waited out, before the first contact and later, and shown."""
    await gateway.stop()
    config, _ = keeper(tmp_path, gateway.url, "oracle", "liquidator")
    task = asyncio.create_task(run_keepers(config))
    path = Path(config.status_path)
    await until(
        lambda: path.exists() and "waiting" in json.loads(path.read_text())["roles"]["oracle"]["last_error"]
    )
    await gateway.start()
    await until(lambda: gateway.prices)
    await gateway.stop()
    await asyncio.sleep(1.5)
    seen = len(gateway.prices)
    await gateway.start()
    await until(lambda: len(gateway.prices) > seen)
    assert not task.done()
    await stopped(task)


async def test_keepers_report_a_market_that_is_listed_while_they_run(tmp_path, gateway, monkeypatch):
    """Without a restart: a price more from the round on that follows, and samples of before do not stand in the way."""
    monkeypatch.setattr("keeper.run.MARKETS_LOOK_S", 0.1)
    config, _ = keeper(tmp_path, gateway.url, "oracle", "funding")
    task = asyncio.create_task(run_keepers(config))
    await until(lambda: gateway.prices)
    assert len(gateway.prices[-1][1].prices) == len(MARKETS)
    listed = msgspec.structs.replace(MARKETS[3], market_id=len(MARKETS), symbol="DOT-PERP", base="DOT")
    gateway.markets = (*MARKETS, listed)
    await until(lambda: len(gateway.prices[-1][1].prices) == len(MARKETS) + 1)
    assert all(gateway.prices[-1][1].prices)
    await stopped(task)


async def test_an_hour_is_reported_with_its_commitment(tmp_path):
    """At 120 times the speed: samples until the hour's end, then its report, signed by the funding key."""
    gateway = SmallGateway(start_s=(NOW_S // HOUR_S + 1) * HOUR_S - 900, speed=120.0)
    await gateway.start()
    hour = NOW_S // HOUR_S
    config, addresses = keeper(tmp_path, gateway.url, "funding", funding_min_share_ppm=100_000)
    task = asyncio.create_task(run_keepers(config))
    try:
        await until(lambda: gateway.funding, timeout_s=25)
    finally:
        await stopped(task)
        await gateway.stop()
    signer, report = gateway.funding[0]
    assert signer == addresses["funding"]
    assert report.hour == hour
    assert len(report.rates_ppb) == len(MARKETS)
    assert report.samples != bytes(32)


async def test_liquidatable_accounts_are_pointed_at(tmp_path, gateway):
    """Below maintenance by its own numbers: a trigger under the vault's domain; healthy: none."""
    mark = 1_200_000

    def account(number: int, equity: int) -> dict[str, object]:
        value = MARKETS[0].notional(10_000, mark)
        position = {
            "market": "BTC-PERP",
            "size": 10_000,
            "entry_price": "1",
            "mark": mark,
            "notional": str(value),
        }
        position |= {"unrealized_pnl": "0", "funding_owed": "0", "liquidation_price": None}
        margins = {"initial_margin": "0", "maintenance_margin": "0", "withdrawable": "0"}
        return margins | {
            "account": number,
            "owner": "0x" + "55" * 20,
            "sub_account": 0,
            "collateral": str(equity - value),
            "equity": str(equity),
            "action_sequence": 0,
            "positions": [position],
            "open_orders": 0,
        }

    gateway.accounts = [account(7, 1_000), account(8, 10**12)]
    gateway.healthy = {9}
    config, addresses = keeper(tmp_path, gateway.url, "liquidator")
    task = asyncio.create_task(run_keepers(config))
    await until(lambda: gateway.triggers)
    await asyncio.sleep(1.2)
    await stopped(task)
    assert {trigger.account for _, trigger in gateway.triggers} == {7}
    assert gateway.triggers[0][0] == addresses["liquidator"]


@pytest.mark.safety("B23", "keeper")
async def test_a_killed_keeper_goes_on_after_its_restart(tmp_path, gateway):
    """kill -9 loses nothing: the next process reports rounds again and keeps the hour's samples."""
    config, addresses = keeper(tmp_path, gateway.url, "oracle", "funding")
    path = tmp_path / "keeper.json"
    path.write_bytes(msgspec.json.encode(config))
    samples = Path(config.state_dir)

    def lines() -> int:
        return sum(len(file.read_text().splitlines()) for file in samples.glob("*.jsonl"))

    def went_on(rounds: int, kept: int) -> bool:
        return len(gateway.prices) > rounds + 1 and lines() > kept

    for _ in range(2):
        rounds, kept = len(gateway.prices), lines()
        with await start_process(path) as process:
            await until(partial(went_on, rounds, kept), 30)
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
    assert {signer for signer, _ in gateway.prices} == {addresses["oracle"]}


async def test_sigterm_ends_a_keeper_cleanly(tmp_path, gateway):
    """Exit code 0, within seconds."""
    config, _ = keeper(tmp_path, gateway.url, "oracle")
    path = tmp_path / "keeper.json"
    path.write_bytes(msgspec.json.encode(config))
    with await start_process(path) as process:
        await until(lambda: gateway.prices, 30)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 10) == 0


async def start_process(path: Path) -> "subprocess.Popen[bytes]":
    """`python -m keeper CONFIG` as a process of its own."""
    return await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-m", "keeper", str(path)], cwd=ROOT, stderr=subprocess.DEVNULL
    )


@pytest.mark.safety("F07", "ops")
def test_keystores_are_encrypted_private_and_one_a_role(tmp_path):
    """scrypt, mode 0600; exposed files and wrong or missing passwords are refused, no secret is shown."""
    path, password = tmp_path / "key.json", tmp_path / "password"
    signer = create_keystore(path, "s3cret", key=b"\x07" * 32, scrypt_n=FAST_SCRYPT)
    password.write_text("s3cret\n")
    password.chmod(0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["crypto"]["kdf"] == "scrypt"
    assert "07" * 32 not in path.read_text()
    config = KeyConfig(keystore=str(path), password_file=str(password))
    assert load_signer(config).address == signer.address
    assert "07" * 32 not in repr(load_signer(config))
    with pytest.raises(KeyRefused, match="exists already"):
        create_keystore(path, "x", scrypt_n=FAST_SCRYPT)
    password.write_text("wrong")
    with pytest.raises(KeyRefused, match="does not open with this password") as caught:
        load_signer(config)
    assert "wrong" not in str(caught.value)
    for exposed in (path, password):
        exposed.chmod(0o640)
        with pytest.raises(KeyRefused, match="open to others"):
            load_signer(config)
        exposed.chmod(0o600)
    with pytest.raises(KeyRefused, match="No such file"):
        load_signer(KeyConfig(keystore=str(tmp_path / "none"), password_file=str(password)))
    with pytest.raises(KeyRefused, match="neither"):
        load_signer(KeyConfig(keystore=str(path)))


@pytest.mark.safety("F07", "ops")
def test_a_password_leaves_the_environment(tmp_path, monkeypatch):
    """Child processes and dumps of the environment do not show it."""
    path = tmp_path / "key.json"
    signer = create_keystore(path, "s3cret", scrypt_n=FAST_SCRYPT)
    monkeypatch.setenv("KEEPER_TEST_PASSWORD", "s3cret")
    config = KeyConfig(keystore=str(path), password_env="KEEPER_TEST_PASSWORD")
    assert load_signer(config).address == signer.address
    assert "KEEPER_TEST_PASSWORD" not in os.environ
    with pytest.raises(KeyRefused, match="not set"):
        load_signer(config)


@pytest.mark.parametrize(
    "changes, fact",
    [
        ({"keys": {}}, "nobody"),
        ({"keys": {"sequencer": {"keystore": "x"}}}, "not sequencer"),
        ({"state_dir": ""}, "needs state_dir"),
        ({"prices": {"kind": "crystal ball"}}, "crystal ball"),
        ({"prices": {"kind": "tape", "max_age_s": 0}}, "max_age_s"),
        ({"surprise": 1}, "surprise"),
        ({"funding_min_share_ppm": 2_000_000}, "funding_min_share_ppm"),
        ({"keys": {"settler": {"keystore": "x"}}}, "needs the manifest"),
        ({"reports_listen": "9101"}, "not HOST:PORT"),
        ({"reports_listen": "here:70000"}, "not HOST:PORT"),
        ({"public_round_s": 601}, "public_round_s"),
    ],
)
def test_configurations_that_cannot_work_are_refused(tmp_path, changes, fact):
    """Before anything starts, naming the setting."""
    raw = {"gateway_url": "x", "rpc_url": "x", "keys": {"funding": {"keystore": "x"}}, "state_dir": "x"}
    path = tmp_path / "keeper.json"
    path.write_bytes(msgspec.json.encode(raw))
    assert load_config(path).prices.kind == "sim"
    path.write_bytes(msgspec.json.encode(raw | changes))
    with pytest.raises(ValueError, match=fact):
        load_config(path)


async def test_live_prices_without_a_network_end_the_process_with_a_reason(tmp_path, gateway):
    """Soon, with one line that says why, whether or not the exchange is there."""
    venues = ({"name": "kraken", "symbol": "{base}/USD"},)
    prices = msgspec.convert({"kind": "live", "proxy": "http://127.0.0.1:9", "venues": venues}, PricesConfig)
    config, _ = keeper(tmp_path, gateway.url, "oracle", prices=prices)
    with pytest.raises(SourceUnavailable, match="no venue answered"):
        await asyncio.wait_for(run_keepers(config), 10)


async def test_a_market_to_abstain_from_has_to_exist(tmp_path, gateway):
    """A slip of the pen ends the process, instead of reporting what was not to be reported."""
    config, _ = keeper(tmp_path, gateway.url, "oracle", abstain=("BTC-PREP",))
    with pytest.raises(ValueError, match="no market BTC-PREP"):
        await asyncio.wait_for(run_keepers(config), 30)


def test_a_tape_source_needs_a_directory(monkeypatch):
    """From the configuration or the environment."""
    monkeypatch.delenv("EVERMARK_TAPES", raising=False)
    with pytest.raises(ValueError, match="EVERMARK_TAPES"):
        make_source(PricesConfig(kind="tape"), MARKETS)


def test_a_gateway_that_contradicts_the_manifest_is_refused(tmp_path):
    """No gateway can make a keeper sign for another chain or contract."""
    info = ExchangeInfo(
        chain_id=1, vault="0xAa", oracle="0xBb", inbox="", token="", round_seconds=1, markets=()
    )
    path = tmp_path / "manifest.json"
    addresses = dict.fromkeys(CONTRACT_NAMES, "0x1") | {"vault": "0xaa", "oracle": "0xbb"}
    manifest = Manifest(
        chain_id=1,
        genesis_block=0,
        addresses=addresses,
        roles=Roles(sequencer="0x3", oracle_keepers=(), funding_keepers=()),
        parameters=Parameters(round_seconds=1, oracle_quorum=3, funding_quorum=3),
        markets=(),
        abis={name: [] for name in addresses},
    )
    manifest.save(path)
    agree_with_manifest(info, path)
    for wrong in ({"chain_id": 2}, {"addresses": addresses | {"oracle": "0xcc"}}):
        msgspec.structs.replace(manifest, **wrong).save(path)
        with pytest.raises(ValueError, match="manifest"):
            agree_with_manifest(info, path)


@pytest.mark.parametrize("round_seconds", [1, 2, 3, 5])
@pytest.mark.parametrize("speed", [0.5, 1.0, 1.01, 10.0, 60.0, 1_000.0])
def test_rounds_are_apart_in_wall_time_and_fresh_in_chain_time(round_seconds, speed):
    """Half a second of wall time where freshness allows it, and never more than twenty chain seconds."""
    stride = report_stride(round_seconds, speed)
    assert stride & (stride - 1) == 0
    assert stride == 1 or stride * round_seconds <= STRIDE_S
    assert stride * round_seconds >= 0.5 * speed or 2 * stride * round_seconds > STRIDE_S
    assert sample_interval_s(5, speed) % 5 == 0
