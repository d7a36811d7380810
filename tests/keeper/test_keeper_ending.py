"""Two settlers at the end of a delisted market, on a real chain without a sequencer: the mean of the public rounds, one entry."""

import asyncio
import json
from pathlib import Path

import pytest
from chain_cases import GENESIS_TIME, ROLES, address
from msgspec.structs import replace

from evermark.chain import ChainClock, ExchangeContracts, TransactionSender, deploy
from evermark.chain.exit import ExitContracts
from evermark.chain.governor import GovernorContract
from evermark.chain.overdue import OverdueWork
from evermark.chain.rpc import connect, rpc
from evermark.devnet import Devnet, DevnetConfig, dev_key
from evermark.protocol.governance import DELAY_S, NOTICE_S
from evermark.protocol.oracle import pack_price
from evermark.protocol.signing import PriceReport, Signer, digest, domain_separator
from evermark.status import RoleStatus
from keeper.config import KeeperConfig
from keeper.ending import SettlerCollector, SettlerExecutor
from keeper.keystore import KeyConfig, create_keystore
from keeper.run import run_keepers
from keeper.settler import SettlerStrategy
from keeper.shown import KeeperReports, OwnReports

MARKET, GOVERNOR, STRANGER, SETTLERS = 2, 11, 8, (12, 13)
PRICE = 100_000
ROUND_S = 3


class Ending:
    """An exchange that only keepers, a governor and strangers run."""

    def __init__(self, w3, manifest) -> None:
        self.w3, self.manifest = w3, manifest
        self.contracts, self.governor = ExchangeContracts(w3, manifest), GovernorContract(w3, manifest)
        self.stranger = TransactionSender(w3, dev_key(STRANGER))
        self.separator = domain_separator(31_337, manifest.address("oracle"), "Evermark Oracle")
        self.shown = [OwnReports() for _ in range(3)]

    async def now_s(self) -> int:
        return int((await self.w3.eth.get_block("latest"))["timestamp"])

    async def pass_time(self, seconds: int) -> None:
        await rpc(self.w3, "evm_increaseTime", seconds)
        await rpc(self.w3, "evm_mine")

    async def report(self, index: int) -> int:
        """Every keeper signs the round of now; its time."""
        now = await self.now_s() // ROUND_S * ROUND_S
        prices = tuple(pack_price(index, index) for _ in self.manifest.markets)
        told = PriceReport(round=now // ROUND_S, timestamp=now, prices=prices)
        for number, own in enumerate(self.shown):
            own.add(told, Signer(dev_key(2 + number)).sign(digest(self.separator, told)))
        return now

    async def post(self) -> None:
        """A stranger posts the newest round, for its own purposes."""
        await self.report(PRICE)
        reports = (await self.gather()).popitem()[1]
        rows = tuple(reports[key] for key in sorted(reports))
        data = self.contracts.post_round_calldata(rows, public=True)
        await self.stranger.send(self.contracts.oracle.address, data)

    async def gather(self):
        found: dict[int, dict[bytes, object]] = {}
        for own in self.shown:
            reports = KeeperReports(own, (), self.separator)
            for number, held in (await reports.gather()).items():
                found.setdefault(number, {}).update(held)
            await reports.close()
        return dict(sorted(found.items()))

    async def consume(self) -> int:
        """Anybody's batch of what is overdue."""
        await self.pass_time(3_601)
        await self.post()
        work = OverdueWork(await ExitContracts.open(self.w3, self.manifest.addresses["exit"]))
        return await work.execute(self.stranger)


class AllReports:
    """What a settler gathers: all keepers' reports, without their servers."""

    silent = ()

    def __init__(self, exchange: Ending) -> None:
        self.gather = exchange.gather


class Settler:
    """The role's parts; `step` is one turn of its loop."""

    def __init__(self, exchange: Ending, clock: ChainClock, account: int) -> None:
        self.key = dev_key(account)
        self.collector = SettlerCollector(
            exchange.w3, exchange.manifest, AllReports(exchange), clock, RoleStatus("settler")
        )
        self.strategy = SettlerStrategy(60)
        sender = TransactionSender(exchange.w3, self.key)
        self.executor = SettlerExecutor(exchange.w3, exchange.manifest, sender)

    async def look(self):
        self.collector._next_look = 0.0
        return self.strategy.decide(await self.collector.collect())

    async def act(self, actions) -> list[str]:
        told = []
        for action in actions:
            outcome = await self.executor.execute(action)
            self.strategy.learn(action, outcome)
            assert outcome.accepted or outcome.name == "LATE", outcome
            told.append("done" if outcome.accepted else "late")
        return told


async def race(*settlers: Settler) -> list[str]:
    """Both decide on the same state of the chain, and then act; what became of it, sorted."""
    decided = [await settler.look() for settler in settlers]
    told = await asyncio.gather(
        *(settler.act(actions) for settler, actions in zip(settlers, decided, strict=True))
    )
    return sorted(word for words in told for word in words)


@pytest.fixture
async def exchange(tmp_path: Path):
    devnet = Devnet(DevnetConfig(port=0, genesis_time=GENESIS_TIME))
    await devnet.start()
    roles = replace(ROLES, governor=address(GOVERNOR))
    manifest = await deploy(devnet.url, dev_key(0), roles, tmp_path / "manifest.json")
    async with connect(devnet.url) as w3:
        made = Ending(w3, manifest)
        made.url = devnet.url
        yield made
    await devnet.stop()


async def test_settlers_race_and_the_market_is_settled_once(exchange):
    """From the delisting in force to the settlement in force, with rounds in between; nobody waits for the sequencer, a new start
    in the middle changes nothing, and the price is the mean of what was posted."""
    clock = ChainClock(exchange.w3)
    await clock.read()
    one, two = (Settler(exchange, clock, account) for account in SETTLERS)
    await exchange.governor.propose(
        TransactionSender(exchange.w3, dev_key(GOVERNOR)), "propose_delisting", MARKET
    )
    await exchange.pass_time(DELAY_S + 60)
    await exchange.post()
    await exchange.governor.execute(exchange.stranger, 1)
    assert await exchange.consume() == 1
    ends_at, price, _ = await exchange.governor.ending(MARKET)
    assert (ends_at - await exchange.now_s() > NOTICE_S - 60, price) == (True, 0)
    await exchange.report(PRICE)
    assert await race(one, two) == []  # three days are left

    area, held, since = 0, PRICE, ends_at - 3_600
    for left_s, index in ((3_500, PRICE + 30), (1_900, PRICE + 10), (45, PRICE + 60)):
        await exchange.pass_time(ends_at - left_s - await exchange.now_s())
        await clock.read()
        at = await exchange.report(index)
        assert await race(one, two) == ["done", "late"]
        assert await race(one, two) == []  # within the minute, nobody posts again
        held = index if since == ends_at - 3_600 else held
        area, held, since = area + held * (at - since), index, at
        one = Settler(exchange, clock, SETTLERS[0])
    await exchange.pass_time(ends_at + 3 - await exchange.now_s())
    await clock.read()
    await exchange.report(PRICE + 500)
    assert await race(one, two) == ["done", "late"]
    mean = (area + held * (ends_at - since)) // 3_600
    assert await exchange.governor.ending(MARKET) == (ends_at, mean, False)

    assert await race(one, two) == ["done", "late"]
    assert await exchange.contracts.inbox_range() == (2, 3)
    assert await race(one, two) == []  # the entry waits
    assert await exchange.consume() == 1
    assert await exchange.governor.ending(MARKET) == (ends_at, mean, True)
    words = await exchange.contracts.vault.functions.market_words(MARKET).call()
    assert words[0] >> 248 == 5
    assert await race(one, Settler(exchange, clock, SETTLERS[1])) == []


async def test_a_settler_runs_without_a_gateway(exchange, tmp_path):
    """As a process does, from a configuration with a keystore; the wrong chain's manifest ends it."""
    create_keystore(tmp_path / "key.json", "correct horse", key=dev_key(SETTLERS[0]), scrypt_n=2**4)
    (tmp_path / "password").write_text("correct horse")
    (tmp_path / "password").chmod(0o600)
    config = KeeperConfig(
        gateway_url="http://127.0.0.1:9",
        rpc_url=exchange.url,
        manifest=str(tmp_path / "manifest.json"),
        keys={
            "settler": KeyConfig(
                keystore=str(tmp_path / "key.json"), password_file=str(tmp_path / "password")
            )
        },
        status_path=str(tmp_path / "status.json"),
    )
    running = asyncio.create_task(run_keepers(config))
    for _ in range(300):
        await asyncio.sleep(0.05)
        path = tmp_path / "status.json"
        role = json.loads(path.read_text())["roles"]["settler"] if path.exists() else {}
        if "endings" in role:
            break
    assert (role["endings"], role["health"]) == ([], "ok")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    replace(exchange.manifest, chain_id=5).save(tmp_path / "other.json")
    with pytest.raises(ValueError, match="the chain's id is 31337, the manifest's 5"):
        await asyncio.wait_for(run_keepers(replace(config, manifest=str(tmp_path / "other.json"))), 20)
