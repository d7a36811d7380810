"""Starts the roles of one keeper process and keeps them running until it is told to stop.

Everything is rebuilt at the start (prices from the sources, samples from disk), so a process may be killed at
any moment.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from evermark.chain import ChainClock, TransactionSender, load_manifest, make_web3
from evermark.chain.rpc import UNREACHABLE, close_web3
from evermark.client.errors import EvermarkError
from evermark.client.models import ExchangeInfo
from evermark.client.signed import parse_address
from evermark.protocol.funding import HOUR_S
from evermark.protocol.markets import Market, load_markets
from evermark.protocol.signing import Signer, domain_separator
from evermark.status import RoleStatus, StatusFile, stop_on_signals
from keeper.bot import run_bot
from keeper.clock import report_stride, sample_interval_s
from keeper.collectors import FundingCollector, LiquidatorCollector, OracleCollector
from keeper.config import KeeperConfig, PricesConfig
from keeper.ending import SettlerCollector, SettlerExecutor
from keeper.exchange import Exchange
from keeper.executors import (
    ORACLE_DOMAIN,
    FundingExecutor,
    OracleExecutor,
    ReportSender,
    TriggerExecutor,
    make_domains,
)
from keeper.funding import SAMPLE_S, FundingRules, FundingStrategy
from keeper.keystore import load_key
from keeper.liquidator import LiquidatorStrategy
from keeper.oracle import OracleStrategy
from keeper.samples import SampleStore
from keeper.settler import SettlerStrategy
from keeper.shown import KeeperReports, OwnReports, ReportServer
from keeper.sources.live import LiveSource
from keeper.sources.quotes import PriceSource, SourceRules
from keeper.sources.sim import SimSource
from keeper.sources.tape import TapeSource

WAIT_FOR_EXCHANGE_S = 0.5
RPC_TIMEOUT_S = 5.0

log = structlog.get_logger("keeper")


async def run_keepers(config: KeeperConfig) -> None:
    """Run every role that the configuration has a key for, until SIGTERM, SIGINT or cancellation.

    Raises KeyRefused, SourceUnavailable or ValueError when it cannot start.
    """
    keys = {role: await asyncio.to_thread(load_key, key) for role, key in config.keys.items()}
    process = KeeperProcess(config, keys)
    try:
        await process.run()
    finally:
        await process.close()


async def run_oracle_keeper(config: KeeperConfig) -> None:
    """The oracle role alone, whatever else the configuration has keys for."""
    await run_keepers(_only(config, "oracle"))


async def run_funding_keeper(config: KeeperConfig) -> None:
    """The funding role alone."""
    await run_keepers(_only(config, "funding"))


async def run_liquidator(config: KeeperConfig) -> None:
    """The liquidation role alone."""
    await run_keepers(_only(config, "liquidator"))


async def run_settler(config: KeeperConfig) -> None:
    """The settler role alone."""
    await run_keepers(_only(config, "settler"))


def make_source(prices: PricesConfig, markets: Sequence[Market]) -> PriceSource:
    """The configured source, not started yet. Raises ValueError when a tape source has no directory."""
    if prices.kind == "live":
        return LiveSource(markets, prices.venues, prices.proxy)
    if prices.kind == "tape":
        rules = source_rules(prices)
        root = prices.tape_root
        return TapeSource(root, markets, seed=prices.seed, synthetic=prices.synthetic, rules=rules)
    return SimSource(markets, prices.seed)


def source_rules(prices: PricesConfig) -> SourceRules:
    """When a quote counts, as configured."""
    return SourceRules(max_age_s=prices.max_age_s, max_spread_ppm=prices.max_spread_ppm)


MARKETS_LOOK_S = 5.0  # wall time between looks at which markets there are


class KeeperProcess:
    """The parts that the roles of a process share: sources, books, clock, status file."""

    def __init__(self, config: KeeperConfig, keys: dict[str, bytes]) -> None:
        self._config = config
        self._signers = {role: Signer(key) for role, key in keys.items()}
        self._settler_key = keys.get("settler", b"")
        self._own_reports = OwnReports()
        self._server: ReportServer | None = None
        self._reports: KeeperReports | None = None
        self._exchange = Exchange(config.gateway_url)
        self._w3 = make_web3(config.rpc_url, RPC_TIMEOUT_S)
        self._clock = ChainClock(self._w3)
        self._source: PriceSource | None = None
        self._status = StatusFile(Path(config.status_path) if config.status_path else None, config.name)

    async def run(self) -> None:
        """Wait for the chain and the exchange, then run the roles.

        A role that crashes takes the process down.
        """
        for role in self._signers:
            self._status.role(role).facts["address"] = "0x" + self._signers[role].address.hex()
        work = asyncio.create_task(self._work(), name="roles")
        writer = asyncio.create_task(self._status.keep_writing(), name="status")
        with stop_on_signals(work):
            try:
                await work
            except asyncio.CancelledError:
                log.info("stopped", name=self._config.name)
            finally:
                writer.cancel()
                self._status.write()

    async def close(self) -> None:
        """Close every connection."""
        if self._source is not None:
            await self._source.close()
        if self._server is not None:
            await self._server.close()
        if self._reports is not None:
            await self._reports.close()
        await self._exchange.close()
        await self._clock.stop()
        await close_web3(self._w3)

    async def _work(self) -> None:
        """The settler needs the chain alone; all else waits for the exchange. Whatever crashes first is raised."""
        works = [self._settle()] if "settler" in self._signers else []
        if set(self._signers) - {"settler"}:
            works.append(self._report())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self) -> None:
        """The settler role, from the moment on when the chain answers."""
        manifest, status = load_manifest(Path(self._config.manifest)), self._status.role("settler")
        clock, chain_id = ChainClock(self._w3), 0
        while not chain_id:
            try:
                await clock.start()
                chain_id = int(await self._w3.eth.chain_id)
            except UNREACHABLE as error:
                await clock.stop()
                status.failed(f"waiting: {error!r}")
                await asyncio.sleep(WAIT_FOR_EXCHANGE_S)
        if chain_id != manifest.chain_id:
            raise ValueError(f"keeper: the chain's id is {chain_id}, the manifest's {manifest.chain_id}")
        separator = domain_separator(chain_id, manifest.address("oracle"), ORACLE_DOMAIN)
        self._reports = KeeperReports(self._own_reports, self._config.reports_urls, separator)
        collector = SettlerCollector(self._w3, manifest, self._reports, clock, status)
        executor = SettlerExecutor(self._w3, manifest, TransactionSender(self._w3, self._settler_key))
        try:
            await run_bot(collector, SettlerStrategy(self._config.public_round_s), executor, status)
        finally:
            await clock.stop()

    async def _report(self) -> None:
        """The other roles."""
        # Sources first: a keeper that has no prices says so at once, whether or not the exchange is up yet.
        info = None
        if self._config.reports_listen and "oracle" in self._signers:
            host, _, port = self._config.reports_listen.rpartition(":")
            self._server = ReportServer(self._own_reports, host, int(port))
            await self._server.start()
        if set(self._signers) & {"oracle", "funding"} and self._config.prices.kind == "live":
            self._source = make_source(self._config.prices, _packaged_markets())
            await self._source.start()
        info = await self._wait_for_exchange()
        if set(self._signers) & {"oracle", "funding"} and self._source is None:
            await self._open_source(info)
        while True:
            changed = await self._run_roles(info)
            if set(self._signers) & {"oracle", "funding"} and changed.markets != info.markets:
                await self._open_source(changed)
            info = changed

    async def _open_source(self, info: ExchangeInfo) -> None:
        """Sources of all markets that there are now, in place of those that were open."""
        if self._source is not None:
            await self._source.close()
        self._source = make_source(self._config.prices, info.markets)
        await self._source.start()

    async def _run_roles(self, info: ExchangeInfo) -> ExchangeInfo:
        """All roles, until the exchange lists or changes a market; returns the new facts. A role's crash is raised."""
        watch = asyncio.create_task(self._await_change(info), name="markets")
        roles = [
            asyncio.create_task(self._role(role, signer, info), name=role)
            for role, signer in self._signers.items()
            if role != "settler"
        ]
        try:
            done, _ = await asyncio.wait([watch, *roles], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {watch}:
                task.result()
            return await watch
        finally:
            for task in (watch, *roles):
                task.cancel()
            await asyncio.gather(watch, *roles, return_exceptions=True)

    async def _await_change(self, info: ExchangeInfo) -> ExchangeInfo:
        """The exchange's facts once its markets are others than those of `info`."""
        while True:
            await asyncio.sleep(MARKETS_LOOK_S)
            try:
                now = await self._exchange.info()
            except (EvermarkError, *UNREACHABLE):
                continue  # the roles say so themselves
            if now.markets != info.markets:
                log.info("the exchange has other markets now", markets=[one.symbol for one in now.markets])
                return now

    async def _wait_for_exchange(self) -> ExchangeInfo:
        """The exchange's facts, once chain and gateway answer; the status says what it waits for."""
        while True:
            try:
                await self._clock.start()
                info = await self._exchange.info()
                if self._config.manifest:
                    agree_with_manifest(info, Path(self._config.manifest))
                return info
            except (EvermarkError, *UNREACHABLE) as error:
                await self._clock.stop()
                for role, status in self._status.roles.items():
                    if role != "settler":
                        status.failed(f"waiting: {error!r}")
                await asyncio.sleep(WAIT_FOR_EXCHANGE_S)

    def _role(self, role: str, signer: Signer, info: ExchangeInfo) -> Coroutine[Any, Any, None]:
        domains = make_domains(info.chain_id, parse_address(info.oracle), parse_address(info.vault))
        sender = ReportSender(self._exchange, signer, domains, self._own_reports)
        status = self._status.role(role)
        if role == "oracle":
            return self._oracle(sender, status, info)
        if role == "funding":
            return self._funding(sender, status, info)
        collector = LiquidatorCollector(info.markets, self._exchange, status)
        return run_bot(collector, LiquidatorStrategy(info.markets), TriggerExecutor(sender), status)

    def _oracle(
        self, sender: ReportSender, status: RoleStatus, info: ExchangeInfo
    ) -> Coroutine[Any, Any, None]:
        strangers = sorted(set(self._config.abstain) - {market.symbol for market in info.markets})
        if strangers:
            raise ValueError(f"keeper: abstain: the exchange has no market {', '.join(strangers)}")
        stride = report_stride(info.round_seconds, self._clock.speed)
        status.facts |= {"prices": self._config.prices.kind, "rounds_apart": stride}
        collector = OracleCollector(
            info.markets,
            self._prices(),
            self._exchange,
            self._clock,
            round_seconds=info.round_seconds,
            stride=stride,
            status=status,
        )
        useful_s = max(0.5, stride * info.round_seconds / self._clock.speed)
        executor = OracleExecutor(sender, info.markets, useful_s, status)
        strategy = OracleStrategy(info.markets, source_rules(self._config.prices), self._config.abstain)
        return run_bot(collector, strategy, executor, status)

    def _funding(
        self, sender: ReportSender, status: RoleStatus, info: ExchangeInfo
    ) -> Coroutine[Any, Any, None]:
        rules = FundingRules(
            sample_s=sample_interval_s(SAMPLE_S, self._clock.speed),
            min_share_ppm=self._config.funding_min_share_ppm,
        )
        status.facts |= {"sample_s": rules.sample_s, "samples_an_hour": HOUR_S // rules.sample_s}
        store = SampleStore(Path(self._config.state_dir))
        strategy = FundingStrategy(info.markets, rules, store.load(self._clock.now_s()))
        collector = FundingCollector(
            info.markets,
            self._prices(),
            self._exchange,
            self._clock,
            rules=rules,
            source_rules=source_rules(self._config.prices),
        )
        return run_bot(collector, strategy, FundingExecutor(sender, store, status), status)

    def _prices(self) -> PriceSource:
        if self._source is None:
            raise RuntimeError("keeper: prices used before they were opened")
        return self._source


def agree_with_manifest(info: ExchangeInfo, manifest: Path) -> None:
    """A gateway cannot make a keeper sign for another chain or contract.

    Raises ValueError naming the difference.
    """
    deployed = load_manifest(manifest)
    facts = {
        "chain id": (info.chain_id, deployed.chain_id),
        "oracle": (info.oracle.lower(), deployed.addresses["oracle"].lower()),
        "vault": (info.vault.lower(), deployed.addresses["vault"].lower()),
    }
    for name, (told, known) in facts.items():
        if told != known:
            raise ValueError(f"keeper: the gateway's {name} is {told}, the manifest's {known}")


def _only(config: KeeperConfig, role: str) -> KeeperConfig:
    if role not in config.keys:
        raise ValueError(f"keeper: the configuration has no key for the {role} role")
    return msgspec.structs.replace(config, keys={role: config.keys[role]})


def _packaged_markets() -> tuple[Market, ...]:
    return load_markets()
