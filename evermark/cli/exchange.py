"""Brings a whole exchange up, part after part, and takes it down so that nothing matched stays unsettled."""

import asyncio
import time
from typing import Any

import aiohttp

from evermark.cli import chain, configs, output
from evermark.cli.audit import check_restored
from evermark.cli.children import Child
from evermark.cli.errors import CliError
from evermark.cli.gateway import Gateway
from evermark.cli.plan import UpPlan, choose_port
from evermark.cli.rundir import (
    FUNDING_ROLES,
    KEEPER_NUMBERS,
    LAYOUT_VERSION,
    ORACLE_ROLES,
    ROLES,
    RunDirectory,
    RunFacts,
)
from evermark.cli.supervisor import Supervisor
from evermark.cli.units import format_time, format_usdc
from evermark.cli.wallet import dev_key

START_S = 150.0  # for one part; a busy machine loads slowly
BLOCK_S = 0.5  # for each recorded block that the chain mines again: ten times what an idle machine takes
SETTLE_S = 120.0
POLL_S = 0.2
ROLE_WEI = 100 * 10**18
FUND_DONATION = 2_000_000 * 10**6  # the insurance fund of a devnet, quote units
ACTORS = tuple(configs.ACTOR_ACCOUNTS)
KEEPERS = (*(f"keeper-{number}" for number in KEEPER_NUMBERS), "liquidator")


class Exchange:
    """The parts of one run. `bring_up` may be called once; `take_down` always works."""

    def __init__(self, plan: UpPlan, run: RunDirectory, supervisor: Supervisor, gateway: Gateway) -> None:
        self.plan = plan
        self.run = run
        self._supervisor = supervisor
        self._gateway = gateway

    async def bring_up(self, facts: RunFacts | None) -> None:
        """Chain, contracts, sequencer, keepers, actors. `facts` restores an earlier run."""
        if facts is None:
            facts = await asyncio.to_thread(self._new_facts)
        began = time.monotonic()

        def done(what: str) -> None:
            output.say(f"{what} ({time.monotonic() - began:.1f} s)")

        await self._start_chain(facts)
        done("the chain runs")
        await self._deploy(facts)
        done("the contracts stand")
        # Loading takes longest, so these load side by side; each waits for what it needs.
        sequencer = self._start_sequencer()
        first_keeper = self._start_keepers()
        await self._supervisor.ready(sequencer, self._gateway_answers, "the gateway does not answer", START_S)
        done("the sequencer answers")
        if self.plan.actors:
            self._start_actors()
        await self._supervisor.ready(first_keeper, self._gateway_ready, "no prices", START_S)
        done("the keepers agree on prices")

    async def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Stop the actors and wait until everything matched is settled. Raises CliError when it is not."""
        await self._supervisor.stop(*ACTORS, "liquidator")
        deadline = time.monotonic() + timeout_s
        while True:
            status = await self._gateway.get("/v1/status")
            if status["fills_settled"] == status["fills_matched"] and int(status["unsettled_notional"]) == 0:
                return
            if time.monotonic() > deadline:
                raise CliError(f"not all settled within {timeout_s:.0f} s: {describe_settlement(status)}")
            await asyncio.sleep(POLL_S)

    async def stop_trading_parts(self) -> None:
        """Everything but the chain."""
        for stage in (ACTORS, KEEPERS, ("sequencer",)):
            await self._supervisor.stop(*stage)

    async def take_down(self) -> None:
        """Stop everything in order."""
        await self._supervisor.stop_all(ACTORS, KEEPERS, ("sequencer",), ("chain",))

    def _new_facts(self) -> RunFacts:
        return RunFacts(
            layout=LAYOUT_VERSION,
            prices=self.plan.prices,
            start_s=self.plan.start_s,
            seed=self.plan.seed,
            addresses=self.run.make_keys(),
        )

    async def _start_chain(self, facts: RunFacts) -> None:
        self.run.chain.mkdir(mode=0o700, exist_ok=True)
        blocks = self.run.recorded_blocks()
        if blocks:
            output.say(f"the chain mines the {blocks:,} blocks of the earlier run again, some 20 a second")
        child = self._supervisor.start(
            "chain",
            "devnet",
            *("--port", str(self.plan.chain_port)),
            *("--speed", str(self.plan.speed)),
            *("--start", format_time(facts.start_s)),
            *("--state", str(self.run.chain)),
            "--no-accounts",
        )

        async def answers() -> bool:
            return await chain.result_or_none(self.plan.rpc_url, "eth_chainId") is not None

        await self._supervisor.ready(child, answers, "the chain does not answer", START_S + BLOCK_S * blocks)

    async def _deploy(self, facts: RunFacts) -> None:
        """Deploy and fund, or make sure that the contracts of an earlier run are there."""
        from evermark.chain import DeployRefused, ManifestRefused, Roles, check_deployed, deploy

        url, key, addresses = self.plan.rpc_url, dev_key(configs.DEPLOYER), facts.addresses
        roles = Roles(
            sequencer=addresses["sequencer"],
            oracle_keepers=tuple(addresses[role] for role in ORACLE_ROLES),
            funding_keepers=tuple(addresses[role] for role in FUNDING_ROLES),
            governor=addresses["governor"],
            guardian=addresses["guardian"],
        )
        try:
            if self.run.facts_path.exists():
                await check_deployed(url, self.run.manifest)
                await check_restored(self.run.journal / "journal.db", self.run.manifest, url)
                return
            manifest = await deploy(url, key, roles, self.run.manifest)
        except (DeployRefused, ManifestRefused) as error:
            raise CliError(str(error)) from None
        for role in ROLES:
            await chain.send_ether(url, key, addresses[role], ROLE_WEI)
        await chain.donate(url, key, manifest.addresses["token"], manifest.addresses["inbox"], FUND_DONATION)
        self.run.journal.mkdir(mode=0o700, exist_ok=True)
        self.run.save(facts)

    def _start_sequencer(self) -> Child:
        path = configs.sequencer(self.plan, self.run)
        return self._supervisor.start("sequencer", "sequencer", "--config", path)

    def _start_keepers(self) -> Child:
        path = configs.liquidator(self.plan, self.run)
        self._supervisor.start("liquidator", "keeper", "liquidator", "--config", path)
        report_ports = {number: choose_port(0, "--port") for number in KEEPER_NUMBERS}
        for number in KEEPER_NUMBERS:
            path = configs.keeper(self.plan, self.run, number, report_ports)
            self._supervisor.start(f"keeper-{number}", "keeper", "run", "--config", path)
        return self._supervisor.children["keeper-1"]

    def _start_actors(self) -> None:
        for kind in ACTORS:
            path = configs.actor(self.plan, self.run, kind)
            self._supervisor.start(kind, "actor", kind, "--config", path, lasting=kind != "wallet")

    async def _gateway_answers(self) -> bool:
        return await self._answers("/health")

    async def _gateway_ready(self) -> bool:
        return await self._answers("/ready")

    async def _answers(self, path: str) -> bool:
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                async with session.get(self.plan.gateway_url + path) as response:
                    return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def describe_settlement(status: dict[str, Any]) -> str:
    """How far settlement is, for an error message."""
    return (
        f"{status['fills_settled']} of {status['fills_matched']} fills, "
        f"batch {status['batch_settled']} settled and {status['batch_open']} open, "
        f"{format_usdc(status['unsettled_notional'])} USDC unsettled"
    )
