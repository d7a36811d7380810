"""Puts the sequencer together: journal, chain, pipeline, inbox, settlement and gateway, in the order of
their needs.

Whatever ends by itself ends the process: a supervisor starts it again, and the journal brings everything
back.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import uvloop
from aiohttp import web
from web3.exceptions import Web3Exception

from evermark.chain import (
    ChainClock,
    DeployRefused,
    Manifest,
    ManifestRefused,
    TransactionSender,
    check_deployed,
)
from evermark.chain.rpc import UNREACHABLE, Web3, connect
from evermark.protocol.reject import Reject
from sequencer.config import ConfigRefused, SequencerConfig, open_key, validate
from sequencer.core import Core
from sequencer.engine.commands import Genesis
from sequencer.engine.events import Reversed
from sequencer.garbage import let_threads_in
from sequencer.gateway.app import create_app, create_runner
from sequencer.gateway.processes import processes_for
from sequencer.gateway.services import ExchangeFacts, GatewaySettings, Services
from sequencer.inbox import InboxWatcher
from sequencer.journal import JournalRefused
from sequencer.opening import Opening
from sequencer.outages import OutageWatch
from sequencer.outside import Release, create_outside
from sequencer.release import release_account
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Ended, Unreachable
from sequencer.settlement.hours import PostedHours
from sequencer.settlement.line import SettlementLine
from sequencer.settlement.reconciliation import Reconciliation
from sequencer.settlement.standstill import Standstill
from sequencer.settlement.way_out import WayOut
from sequencer.settlement.witness import check_witness
from sequencer.storage import StorageWatch, free_bytes

REFUSALS = (ConfigRefused, DeployRefused, Ended, JournalRefused, ManifestRefused)

log = structlog.get_logger("sequencer")


def genesis_of(manifest: Manifest) -> Genesis:
    """Journal record 1 as a deployment determines it."""
    return Genesis(
        chain_id=manifest.chain_id,
        vault=manifest.address("vault"),
        oracle=manifest.address("oracle"),
        round_seconds=manifest.parameters.round_seconds,
        oracle_quorum=manifest.parameters.oracle_quorum,
        funding_quorum=manifest.parameters.funding_quorum,
        oracle_keepers=tuple(sorted(bytes.fromhex(keeper[2:]) for keeper in manifest.roles.oracle_keepers)),
        funding_keepers=tuple(sorted(bytes.fromhex(keeper[2:]) for keeper in manifest.roles.funding_keepers)),
        markets=manifest.markets,
    )


async def run_sequencer(config: SequencerConfig, started: Callable[[int], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT; `started` hears the gateway's port.

    Raises one of REFUSALS, with one line that says why, when it cannot begin; anything else is a failure
    or a bug.
    """
    validate(config)
    key = open_key(config)
    manifest = await check_deployed(config.rpc_url, config.manifest)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with connect(config.rpc_url) as w3, _clock(w3) as clock:
        sender = TransactionSender(w3, key)
        chain = ExchangeChain(w3, manifest, sender, config.confirmations)
        await _check_key(chain, sender.address)
        async with _Outside(config.metrics_port) as outside:
            core = Core(
                config.directory,
                genesis_of(manifest),
                clock.now_ms,
                config.capacity,
                journal=config.journal,
                snapshot_every=config.snapshot_every,
                standby=config.standby,
            )
            try:
                if not config.standby or await _turn(config, core, stop, outside):
                    await _check_chain(core, chain)
                    sequencer = Sequencer(config, manifest, core, chain, clock)
                    outside.phase, outside.missing = "leader", sequencer.missing
                    outside.alarms, outside.release = sequencer.alarms, sequencer.release
                    await sequencer.run(stop, started)
            finally:
                await core.close()
    log.info("stopped")


class Sequencer:
    """The parts at work."""

    def __init__(
        self, config: SequencerConfig, manifest: Manifest, core: Core, chain: ExchangeChain, clock: ChainClock
    ) -> None:
        self._config = config
        self._processes = processes_for(config.signature_processes)
        self._manifest = manifest
        self._core = core
        self._clock = clock
        self._opening = Opening(core.pipeline, clock.now_s, taken_over=config.standby)
        self._inbox = InboxWatcher(chain, core.pipeline.submit, lambda: core.state.next_entry_id)
        self._outages = OutageWatch(chain, core.pipeline.submit, lambda: core.state.chain_restarted)
        core.reports.ask_first(PostedHours(chain).reports_for)
        way_out = WayOut(
            chain,
            core.backlog,
            clock.now_s,
            core.reverse,
            core.bisection,
            core.reports.funding_reports,
        )
        self._standstill = Standstill(core.pipeline)
        self._line = SettlementLine(
            chain,
            core.backlog,
            core.pipeline.submit,
            clock.now_s,
            way_out,
            self._standstill,
            lambda: [(due, claim) for due, claim, _, _ in core.state.delayed_claims],
        )
        self._reconciliation = Reconciliation(chain, core.pipeline, config.reconcile_s)
        self._storage = StorageWatch(
            core.pipeline, lambda: free_bytes(config.directory), config.reserve_bytes
        )

    async def run(self, stop: asyncio.Event, started: Callable[[int], None] | None) -> None:
        """Work until `stop`; then refuse new commands, finish those that wait, and end."""
        tasks = {
            "pipeline": asyncio.ensure_future(self._core.run()),
            "inbox": asyncio.ensure_future(self._inbox.run()),
            "outages": asyncio.ensure_future(self._outages.run()),
            "settlement": asyncio.ensure_future(self._line.run()),
            "storage": asyncio.ensure_future(self._storage.run()),
            "reconciliation": asyncio.ensure_future(self._reconciliation.run()),
            "stop": asyncio.ensure_future(stop.wait()),
        }
        if self._processes:
            self._core.history.store.start_process()
        runner = create_runner(create_app(self._services()))
        try:
            port = await _listen(runner, self._config)
            log.info("gateway listens", host=self._config.host, port=port)
            if started is not None:
                started(port)
            for account in self._core.state.halted.keys() & set(self._config.release_accounts):
                await self.release(account, "the operator let it go")
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for name, task in tasks.items():
                if task.done() and name != "stop":
                    log.error("a part has ended", part=name)
                    task.result()
        finally:
            await runner.cleanup()
            for name in tasks.keys() - {"pipeline"}:
                tasks[name].cancel()
            self._core.pipeline.stop()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def release(self, account: int, reason: str) -> Reject | None:
        """Let a halted account trade again, by a journaled command; why not, if it does not."""
        return await release_account(self._core.pipeline, account, reason)

    def status(self) -> dict[str, Any]:
        """What the status page shows beside the engine's own numbers."""
        line, backlog = self._line.status(), self._core.backlog
        oldest = backlog.oldest_round_s
        return {
            "batch_sealed": line.last_sealed,
            "batch_settled": line.last_settled,
            "batch_confirmed": line.last_confirmed,
            "settlement_lag_s": 0 if oldest is None else max(0, self._clock.now_s() - oldest),
            "settlement_alarm": line.alarm,
            "settlement_retrying": line.retrying,
            "reconciled_batch": self._reconciliation.compared,
            "reconciliation_alarm": self._reconciliation.alarm,
            "fills_matched": self._core.state.trade_count - backlog.fills_voided,
            "fills_settled": backlog.fills_settled,
            "fills_voided": backlog.fills_voided,
            "reversals": backlog.reversals,
            "last_reversal": _reversal_json(backlog.last_reversal),
            "halted_accounts": sorted(self._core.state.halted),
            "last_settle_gas": line.last_settle_gas,
            "commands_waiting": self._core.pipeline.waiting,
        }

    def alarms(self) -> list[str]:
        """What an operator has to look at while everything goes on."""
        return [alarm for alarm in (self._standstill.alarm, self._reconciliation.alarm) if alarm]

    def missing(self) -> list[str]:
        """What readiness waits for. The journal is replayed before the gateway exists."""
        missing = []
        state = self._core.state
        if not self._line.reached:
            missing.append("chain")
        if self._standstill.diverged:
            missing.append("settlement")
        if not self._opening.has_prices:
            missing.append("prices since the start")
        elif state.stale_markets == len(state.markets):
            missing.append("fresh prices")
        return missing

    def _services(self) -> Services:
        manifest, core = self._manifest, self._core
        return Services(
            submit=core.pipeline.submit_then,
            state=core.state,
            history=core.history,
            market_data=core.market_data,
            reports=core.reports,
            now_s=self._clock.now_s,
            facts=ExchangeFacts(
                chain_id=manifest.chain_id,
                vault=manifest.address("vault"),
                oracle=manifest.address("oracle"),
                inbox=manifest.address("inbox"),
                token=manifest.address("token"),
            ),
            status=self.status,
            missing=self.missing,
            publication=core.publication,
            settings=GatewaySettings(signature_processes=self._processes),
        )


def _reversal_json(event: Reversed | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "cause": event.cause.value,
        "batch": event.batch_id,
        "after": event.after,
        "first_trade": event.first_trade,
        "last_trade": event.last_trade,
    }


class _Outside:
    """The operator's port, when one is configured, and what it tells at the moment."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.phase = "starting"
        self.missing: Callable[[], list[str]] = lambda: [self.phase]
        self.alarms: Callable[[], list[str]] = list
        self.release: Release | None = None

    async def __aenter__(self) -> "_Outside":
        app = create_outside(
            lambda: self.phase, lambda: self.missing(), lambda: self.release, lambda: self.alarms()
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        if self._port:
            try:
                await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
            except OSError as error:
                await self._runner.cleanup()
                raise ConfigRefused(f"config: metrics_port: {self._port}: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def _turn(config: SequencerConfig, core: Core, stop: asyncio.Event, outside: _Outside) -> bool:
    """Stand by until it is this process's turn; False when it is stopped before."""
    from sequencer.journal.postgres import PostgresJournal
    from sequencer.standby import wait_for_turn

    outside.phase = "standby"
    watching = await asyncio.to_thread(PostgresJournal, config.journal)
    try:
        return await wait_for_turn(core, watching, stop, config.silence_s)
    finally:
        watching.close()


async def _check_key(chain: ExchangeChain, address: str) -> None:
    """Whether it is the sequencer's by now; the manifest has the first one's."""
    try:
        known = await chain.sequencer()
    except Unreachable as error:
        raise ConfigRefused(
            f"config: rpc_url: the node does not tell who the sequencer is: {error}"
        ) from error
    if address != known:
        raise ConfigRefused(
            f"config: keystore: its address is {address}, but the contracts know the sequencer {known}"
        )


async def _check_chain(core: Core, chain: ExchangeChain) -> None:
    try:
        await check_witness(chain, core.state, core.reader.record, core.journal.head().sequence)
    except Unreachable as error:
        raise ConfigRefused(f"config: rpc_url: the node does not tell what is settled: {error}") from error


@asynccontextmanager
async def _clock(w3: Web3) -> AsyncIterator[ChainClock]:
    clock = ChainClock(w3)
    try:
        await clock.start()
    except (Web3Exception, *UNREACHABLE) as error:
        raise ConfigRefused(f"config: rpc_url: the node does not tell the time: {error!r}") from error
    try:
        yield clock
    finally:
        await clock.stop()


async def _listen(runner: web.AppRunner, config: SequencerConfig) -> int:
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        raise ConfigRefused(f"config: port: {config.host}:{config.port}: {error.strerror}") from error
    return int(runner.addresses[0][1])


def run(config: SequencerConfig) -> int:
    """Run in a new event loop; exit code 0 after a graceful stop, 1 with one line on stderr for a refusal."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    let_threads_in()
    try:
        uvloop.run(run_sequencer(config))
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    return 0
