"""A whole exchange under faults in virtual time.

Traders, keepers, the sequencer, its disk, its node and the chain run in one deterministic event loop. A seed decides
everything: prices, orders, latencies, deaths, lost answers, reorganisations. At the end the faults stop, the exchange has
to come to rest by itself, and `judge.py` compares engine, journal, history and vault.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sequencer_world import World

from evermark.protocol.reject import RejectCode
from evermark.protocol.units import BrokenInvariant
from sequencer.engine.commands import (
    AnyCommand,
    PlaceOrder,
    TransferRequest,
    TriggerLiquidation,
    WithdrawRequest,
)
from sequencer.engine.events import CommandRejected, Event, Liquidated
from sequencer.engine.invariants import check_invariants
from sequencer.journal import Record, encode_command
from sequencer.pipeline import PipelineStopped
from tests.simulation.disk import Disk
from tests.simulation.door import Door
from tests.simulation.faults import Faults
from tests.simulation.judge import Violated, judge, require
from tests.simulation.lives import Lives
from tests.simulation.node import SimulatedChain
from tests.simulation.people import FIRST_TRADERS, People
from tests.simulation.process import Process

CONFIRMATIONS = 2
START_S = 1_760_130_000 - 180  # a funding hour ends after three minutes
QUIET_S = 150  # virtual seconds in which everything must come to rest once the faults stop
AT_THE_DOOR = (RejectCode.OVERLOADED, RejectCode.NOT_READY)  # what may be answered without being journaled
HELD_S = 300  # after a take-over, until withdrawals and transfers pass
STUCK = 0.3  # share of runs in which transactions get stuck
STUCK_CHANCE = 0.02  # of each, in those
POISON = 0.3  # share of runs in which one trader's orders revert


@dataclass
class Report:
    """What one seed did."""

    seed: int
    simulated_s: int
    commands: int = 0
    acknowledged: int = 0
    trades: int = 0
    liquidations: int = 0
    batches: int = 0
    late_batches: int = 0
    deaths: int = 0
    takeovers: int = 0
    failovers: int = 0
    late_appends: int = 0
    reorgs: int = 0
    outages: int = 0
    stuck: int = 0
    lost_answers: int = 0
    repeated: int = 0
    lost_connections: int = 0
    forged: int = 0
    strangers: int = 0
    strangers_fills: int = 0
    other_hours: int = 0
    governed: int = 0
    reversals: int = 0
    halted: int = 0
    state: str = ""


class Exchange:
    """`await Exchange(rng, seed, duration_s, directory).run()` inside `run_simulated`."""

    def __init__(self, rng: Random, seed: int, duration_s: int, directory: Path) -> None:
        self.rng = rng
        self.duration_s = duration_s
        self.report = Report(seed, duration_s)
        self.world = World(start_s=START_S)
        self.disk = Disk(rng)
        self.chain = SimulatedChain(rng, self.world.markets, self.now_s, CONFIRMATIONS)
        self.chain.pool_rng = Random(f"{seed} pool")
        self.lives = Lives(rng, self.disk, self.world.genesis, self.chain, self.now_ms, directory)
        self.door = Door(rng, self.disk, lambda: self.lives.process)
        self.acknowledged = self.door.acknowledged
        self.people = People(
            rng, self.world, self.chain, self.now_s, lambda: self.lives.process, self._submit
        )

    def now_s(self) -> int:
        """Chain time."""
        return self.now_ms() // 1000

    def now_ms(self) -> int:
        """Chain time in milliseconds."""
        return START_S * 1000 + int(asyncio.get_running_loop().time() * 1000)

    async def run(self) -> Report:
        """The whole life: setup, faults, rest, judgement."""
        stuck = STUCK_CHANCE if self.chain.pool_rng.random() < STUCK else 0.0
        self.chain.faults = Faults(until_s=float(self.duration_s), stuck=stuck)
        chain = self.chain
        stays = [chain.mine_forever(), chain.fail_at_times(), chain.hide_the_inbox(), self.lives.live()]
        staying = [asyncio.ensure_future(part) for part in (*stays, *self.people.staying())]
        going = [asyncio.ensure_future(part) for part in (*self.people.going(), self._poison())]
        try:
            while (left_s := chain.faults.until_s - asyncio.get_running_loop().time()) > 0:
                await _watch([*staying, *going], left_s)
            for task in going:
                task.cancel()
            await _watch(staying, QUIET_S)
            return await self._judge()
        finally:
            for task in (*staying, *going):
                task.cancel()
            await asyncio.gather(*staying, *going, return_exceptions=True)
            await self.lives.kill_all()

    async def _poison(self) -> None:
        """In some runs the vault takes no order of one trader from a moment on: it is isolated, and the others go on."""
        if self.rng.random() < POISON:
            await asyncio.sleep(self.rng.uniform(0.3, 0.8) * self.duration_s)
            self.chain.faults.poisoned = frozenset((3 + self.rng.randrange(FIRST_TRADERS),))

    async def _submit(self, command: AnyCommand) -> None:
        """Hand a command to the process of the moment and note what it acknowledges."""
        process = self.lives.process
        if process is None:
            return
        self.report.commands += 1
        if isinstance(command, PlaceOrder):
            await self.door.place(command)
            return
        try:
            events = await process.submit(command)
        except PipelineStopped:
            return  # nobody knows; the journal does
        self._note(process, command, events)

    def _note(self, process: Process, command: AnyCommand, events: list[Event]) -> None:
        refusal = next((event.reject for event in events if isinstance(event, CommandRejected)), None)
        payload = encode_command(command)
        record = next((one for one in reversed(self.disk.records) if one.payload == payload), None)
        again = isinstance(command, TriggerLiquidation)  # a keeper may have said the same before
        if (again or record is None) and refusal is not None and refusal.code in AT_THE_DOOR:
            return
        require(record is not None, f"acknowledged implies durable: {type(command).__name__}")
        assert record is not None
        self._opens_slowly(process, command, record)
        self.acknowledged.append(payload)
        self.report.liquidations += sum(isinstance(event, Liquidated) for event in events)
        try:
            check_invariants(process.state)
        except BrokenInvariant as error:
            raise Violated(str(error)) from error

    def _opens_slowly(self, process: Process, command: AnyCommand, record: Record) -> None:
        """What nobody may do at once who has just begun, or taken over."""
        if isinstance(command, TriggerLiquidation):
            since = self.disk.records[process.first : record.sequence]
            priced = any(one.payload.startswith(b'{"kind":"OracleRound"') for one in since)
            require(priced, "nothing is liquidated before there are prices since the start")
        if process.taken_over and isinstance(command, (WithdrawRequest, TransferRequest)):
            waited_ms = record.stamp_ms - process.began_s * 1000
            require(waited_ms >= HELD_S * 1000, "no money leaves at once after a take-over")

    async def _judge(self) -> Report:
        chain, lives, report = self.chain, self.lives, self.report
        process = lives.process
        require(process is not None, "the sequencer lives")
        assert process is not None
        report.simulated_s = int(chain.faults.until_s)
        report.state = await judge(process, lives, chain, self.disk, self.acknowledged)
        report.batches, report.outages = len(chain.head.batches), chain.outages
        report.strangers, report.strangers_fills = chain.strangers_batches, chain.strangers_fills
        report.other_hours, report.reversals = chain.other_hours, process.backlog.reversals
        report.governed, report.late_batches = self.people.governed, chain.late
        report.halted = len(process.state.halted)
        report.reorgs, report.lost_answers, report.stuck = chain.reorgs, chain.lost_answers, chain.stuck
        report.deaths, report.takeovers, report.failovers = lives.deaths, lives.takeovers, lives.failovers
        report.late_appends, report.acknowledged = self.disk.late, len(self.acknowledged)
        report.trades, report.repeated = process.state.trade_count, self.door.repeated
        report.lost_connections, report.forged = self.door.lost, self.door.forged
        return report


async def _watch(tasks: "list[asyncio.Task[None]]", seconds: float) -> None:
    """Sleep, and pass on the error of a part that ends by itself."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        if not task.cancelled():
            task.result()
