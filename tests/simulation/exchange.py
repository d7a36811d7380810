"""A whole exchange under faults in virtual time, and what must hold of it afterwards.

Traders, keepers, the sequencer, its disk, its node and the chain run in one deterministic event loop. A seed decides
everything: prices, orders, latencies, deaths, lost answers, reorganisations. At the end the faults stop, the exchange has
to come to rest by itself, and engine, journal and vault are compared.
"""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass
from random import Random

from sequencer_world import PRICES, ROUND_SECONDS, World, key

from evermark.protocol.oracle import SignedPriceReport
from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import Signer
from evermark.protocol.units import BrokenInvariant
from sequencer.engine.commands import AnyCommand, InboxEntryKind, TriggerLiquidation
from sequencer.engine.events import (
    BatchSealed,
    CommandRejected,
    Event,
    ForeignBatchApplied,
    Liquidated,
    Trade,
)
from sequencer.engine.invariants import check_invariants
from sequencer.engine.sealing import pay_dust
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import JournalRefused, encode_command
from sequencer.pipeline import PipelineStopped
from sequencer.replay import Applied, replay, reversals
from tests.simulation.chain import Faults, SimulatedChain
from tests.simulation.disk import FINE, FULL, LOST_ANSWER, LOST_WRITE, Disk, SimulatedJournal
from tests.simulation.process import Process

TRADERS = 6
CONFIRMATIONS = 2
START_S = 1_760_130_000 - 180  # a funding hour ends after three minutes
QUIET_S = 150  # virtual seconds in which everything must come to rest once the faults stop
AT_THE_DOOR = (RejectCode.OVERLOADED, RejectCode.NOT_READY)  # what may be answered without being journaled
BIAS = 0.6  # share of orders that follow a trader's belief: positions build up and are liquidated
POISON = 0.3  # share of runs in which one trader's orders revert
GAP = 0.005  # chance that a market jumps by four per cent
MOODS = (
    1_000,
    400,
    150,
)  # a market moves at most the 1,000th, 400th or 150th part of its price between two rounds


class Violated(AssertionError):
    """A promise did not hold; the message says which."""


def require(condition: object, promise: str) -> None:
    """Raise Violated with the promise that was broken."""
    if not condition:
        raise Violated(promise)


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
    deaths: int = 0
    takeovers: int = 0
    reorgs: int = 0
    outages: int = 0
    lost_answers: int = 0
    strangers: int = 0
    reversals: int = 0
    halted: int = 0
    state: str = ""


class Exchange:
    """`await Exchange(seed, duration_s).run()` inside `run_simulated`."""

    def __init__(self, rng: Random, seed: int, duration_s: int) -> None:
        self.rng = rng
        self.duration_s = duration_s
        self.report = Report(seed, duration_s)
        self.world = World(start_s=START_S)
        self.mood = rng.choice(MOODS)
        self.prices = [list(pair) for pair in PRICES]
        self.traders = [key(11 + number) for number in range(TRADERS)]
        self.actions = Counter[bytes]()
        self.disk = Disk()
        self.acknowledged: list[bytes] = []
        self.chain = SimulatedChain(rng, self.world.markets, self.now_s, ROUND_SECONDS, CONFIRMATIONS)
        self.faulty_until_s = 0.0
        self.process: Process | None = None
        self.zombies: list[Process] = []

    def now_s(self) -> int:
        """Chain time."""
        return self.now_ms() // 1000

    def now_ms(self) -> int:
        """Chain time in milliseconds."""
        return START_S * 1000 + int(asyncio.get_running_loop().time() * 1000)

    async def run(self) -> Report:
        """The whole life: setup, faults, rest, judgement."""
        self.faulty_until_s = float(self.duration_s)
        self.chain.faults = Faults(until_s=self.faulty_until_s)
        actors = [
            self.chain.mine_forever(),
            self.chain.fail_at_times(),
            self.chain.strangers(self._reports),
            self._poison(),
            self._live(),
            self._keepers(),
            self._funding(),
        ]
        actors += [self._depositors()]
        actors += [self._trader(trader) for trader in self.traders]
        actors.append(self._liquidator())
        tasks = [asyncio.ensure_future(actor) for actor in actors]
        try:
            await self._watch(tasks, self.duration_s)
            for trader_task in tasks[7:]:
                trader_task.cancel()
            await self._watch(tasks[:7], QUIET_S)
            return self._judge()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for process in [*self.zombies, *([self.process] if self.process else [])]:
                await process.kill()

    async def _watch(self, tasks: "list[asyncio.Task[None]]", seconds: float) -> None:
        """Sleep, and pass on the error of a part that ends by itself."""
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled():
                task.result()

    # ------------------------------------------------------------------------------------------ the sequencer's lives

    async def _live(self) -> None:
        """Start, die, start again: by kill -9, by a failing disk, or as a zombie beside its successor."""
        while True:
            self.process = Process(self.disk, self._fate, self.world.genesis, self.chain, self.now_ms)
            left_s = self.faulty_until_s - asyncio.get_running_loop().time()
            life_s = min(self.rng.expovariate(1 / 60), left_s) if left_s > 0 else 10.0**9
            try:
                await asyncio.wait_for(self.process.ended.wait(), life_s)
            except TimeoutError:
                pass
            process, self.process = self.process, None
            error = process.error
            if error is not None and not isinstance(error, JournalRefused):
                raise error
            if error is None and self.rng.random() < 0.3:
                self.report.takeovers += (
                    1  # it is only frozen out: it goes on working until the journal fences it
                )
                self.zombies.append(process)
            else:
                self.report.deaths += 1
                await process.kill()
                await asyncio.sleep(self.rng.uniform(0.1, 4))

    def _fate(self) -> str:
        if not self._faulty():
            return FINE
        return self.rng.choices((FINE, LOST_ANSWER, LOST_WRITE, FULL), (96, 2, 1.7, 0.3))[0]

    def _faulty(self) -> bool:
        return asyncio.get_running_loop().time() < self.faulty_until_s

    # -------------------------------------------------------------------------------------------------------- actors

    async def _depositors(self) -> None:
        """Everybody comes with money; somebody donates to the fund; some come again."""
        self.chain.enter(InboxEntryKind.DONATION, self.traders[0].address, 0, 50_000 * 10**6)
        for number, trader in enumerate(self.traders):
            await asyncio.sleep(self.rng.uniform(0, 3))
            self.chain.enter(InboxEntryKind.DEPOSIT, trader.address, 0, (2_000 + 9_000 * number) * 10**6)
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / 60))
            kind = self.rng.choice((InboxEntryKind.DEPOSIT, InboxEntryKind.WITHDRAWAL))
            trader = self.rng.choice(self.traders)
            self.chain.enter(kind, trader.address, 0, self.rng.randint(10**7, 10**9))

    async def _keepers(self) -> None:
        """A report of each keeper for each round; some are lost, some come twice."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            for pair in self.prices:
                pair[0] += self.rng.randint(-pair[0] // self.mood, pair[0] // self.mood)
                if self.rng.random() < GAP:
                    pair[0] += self.rng.choice((-1, 1)) * pair[0] // 25
                pair[1] = pair[0] + self.rng.randint(-20, 20)
            for signed in self._reports() * self.rng.choice((1, 1, 1, 2)):
                if self.process is not None and self.rng.random() > (0.03 if self._faulty() else 0.0):
                    self.process.reports.add_price(signed)

    async def _poison(self) -> None:
        """In some runs the vault takes no order of one trader from a moment on: it is isolated, and the others go on."""
        if self.rng.random() < POISON:
            await asyncio.sleep(self.rng.uniform(0.3, 0.8) * self.duration_s)
            self.chain.faults.poisoned = frozenset((3 + self.rng.randrange(TRADERS),))

    def _reports(self) -> tuple[SignedPriceReport, ...]:
        return self.world.price_reports([(index, mark) for index, mark in self.prices], self.now_s())

    async def _funding(self) -> None:
        """The hour's rates, again and again until they are applied."""
        while True:
            await asyncio.sleep(5)
            hour = self.now_s() // 3600 - 1
            if self.process is not None and self.process.reports.last_hour < hour:
                for signed in self.world.funding_reports(hour, [self.rng.randint(-90_000, 90_000)] * 4):
                    self.process.reports.add_funding(signed)

    async def _liquidator(self) -> None:
        """Points at every account, as keepers do that saw old prices; the engine decides."""
        while True:
            await asyncio.sleep(self.rng.uniform(1, 5))
            if self.process is None:
                continue
            account = 3 + self.rng.randrange(TRADERS)
            await self._submit(
                TriggerLiquidation(
                    account=account, market_id=self.rng.randrange(4), keeper=self.world.keepers[0].address
                )
            )

    async def _trader(self, trader: Signer) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / 1.5))
            account = self._account(trader)
            if account is not None:
                await self._submit(self._wish(trader, account))

    def _account(self, trader: Signer) -> int | None:
        if self.process is None:
            return None
        return self.process.state.account_ids.get((trader.address, 0))

    def _wish(self, trader: Signer, account: int) -> AnyCommand:
        self.world.now_s = self.now_s()
        pick, side = self.rng.random(), self.rng.choice((Side.BUY, Side.SELL))
        if self.rng.random() < BIAS:  # half of the traders believe in rising prices, half in falling ones
            side = (Side.BUY, Side.SELL)[self.traders.index(trader) % 2]
        at = self.rng.randrange(len(self.world.markets))
        market, mark = self.world.markets[at], self.prices[at][1]
        size = max(1, self.rng.randint(20, 12_000) * 10**6 // (mark * market.lot_tick_value))
        if pick < 0.08:
            return self.world.cancel(trader, account, self.rng.randint(1, 9))
        if pick < 0.11:
            self.actions[trader.address] += 1
            return self.world.withdraw(
                trader, account, self.rng.randint(1, 10**9), self.actions[trader.address]
            )
        if pick < 0.6:
            price = mark + self.rng.randint(-mark // 500, mark // 500)
            slot = self.rng.randint(1, 9)
            return self.world.sign_order(trader, account, side, size, price, market=market.symbol, slot=slot)
        price = mark + side.sign * mark // 100
        order = self.world.taker(trader, account, side, size, price)
        if market.symbol == order.order.market:
            return order
        return self.world.sign_order(
            trader,
            account,
            side,
            size,
            price,
            market=market.symbol,
            slot=0,
            time_in_force=order.order.time_in_force,
        )

    async def _submit(self, command: AnyCommand) -> None:
        """Hand a command to the process of the moment and note what it acknowledges."""
        process = self.process
        if process is None:
            return
        self.report.commands += 1
        try:
            events = await process.submit(command)
        except PipelineStopped:
            return  # nobody knows; the journal does
        self._note(process, command, events)

    def _note(self, process: Process, command: AnyCommand, events: list[Event]) -> None:
        refusal = next((event.reject for event in events if isinstance(event, CommandRejected)), None)
        payload = encode_command(command)
        durable = any(record.payload == payload for record in reversed(self.disk.records[-3_000:]))
        if not durable and refusal is not None and refusal.code in AT_THE_DOOR:
            return
        require(durable, f"acknowledged implies durable: {type(command).__name__}")
        self.acknowledged.append(payload)
        self.report.acknowledged += 1
        self.report.trades += sum(isinstance(event, Trade) for event in events)
        self.report.liquidations += sum(isinstance(event, Liquidated) for event in events)
        try:
            check_invariants(process.state)
        except BrokenInvariant as error:
            raise Violated(str(error)) from error

    # ----------------------------------------------------------------------------------------------------- judgement

    def _judge(self) -> Report:
        """Everything that must hold at rest."""
        process, chain, report = self.process, self.chain, self.report
        require(process is not None, "the sequencer lives")
        assert process is not None
        status = process.line.status()
        require(not status.alarm, f"settlement goes on by itself: {status.alarm}")
        poisoned, halted = chain.faults.poisoned, process.state.halted.keys()
        require(not halted or poisoned, "nobody is halted for nothing")
        self._judge_journal(process)
        state, replayed, ends = EngineState(), SimulatedJournal(self.disk, lambda: FINE), dict[int, int]()
        replay(replayed, state, [lambda applied: _note_ends(ends, applied)])
        require(state_hash(state) == state_hash(process.state), "a replay reaches the running state")
        require(state.sealed_batch - state.confirmed_batch <= 3, f"settlement keeps up: {status}")
        settled = chain.head.batches
        require(settled, "something settled")
        ids = [int.from_bytes(batch[:6], "big") for batch in settled]
        require(ids == list(range(1, len(ids) + 1)), "batches settle once, in order")
        require(len(settled) in ends, "the vault holds only what the journal sealed, or has followed")
        self._judge_vault(ends[len(settled)])
        report.batches, report.outages = len(settled), chain.outages
        report.strangers, report.reversals = chain.strangers_batches, process.backlog.reversals
        report.halted = len(halted)
        report.reorgs, report.lost_answers = chain.reorgs, chain.lost_answers
        report.state = hashlib.sha256(state_hash(state) + settled[-1]).hexdigest()[:16]
        return report

    def _judge_journal(self, process: Process) -> None:
        durable = Counter(record.payload for record in self.disk.records)
        void = reversals(SimulatedJournal(self.disk, lambda: FINE))
        effective = Counter(
            record.payload
            for record in self.disk.records
            if not any(reversal.voids(record.sequence) for reversal in void)
        )
        for payload, times in Counter(self.acknowledged).items():
            require(durable[payload] >= times, "every acknowledged command is in the journal")
            # A keeper may point at one account twice; what a trader signs is never in force twice.
            once = effective[payload] <= 1 or payload.startswith(b'{"kind":"TriggerLiquidation"')
            require(once, "no signed command is applied twice")
        stamps = [record.stamp_ms for record in self.disk.records]
        require(stamps == sorted(stamps), "stamps never fall")
        for zombie in self.zombies:
            head = zombie.pipeline.sequence
            require(head <= process.pipeline.sequence, "a fenced process is never ahead")

    def _judge_vault(self, sequence: int) -> None:
        """The vault after its last batch equals the engine as of that batch's journal sequence."""
        state, vault = EngineState(), self.chain.head.vault
        replay(SimulatedJournal(self.disk, lambda: FINE), state, until=sequence)
        pay_dust(state)  # as the vault has, whose batch ended here
        for account_id, account in state.accounts.items():
            require(vault.collateral(account_id) == account.collateral, f"collateral of {account_id} agrees")
            for market_id, held in account.positions.items():
                size = vault.position(account_id, market_id)[0]
                require(size == held.size, f"position of {account_id} in {market_id} agrees")
        require((vault.pool, vault.dust) == (state.funding_pool, state.dust), "funding pool and dust agree")
        require(vault.claimed == state.claimed, "claims agree")
        require((*vault.levels.values(), vault.last_claim) == state.outflow, "outflow levels agree")


def _note_ends(ends: dict[int, int], applied: Applied) -> None:
    """The record that each batch ends with; after a reversal an id may come again."""
    for event in applied.events:
        if isinstance(event, BatchSealed):
            ends[event.batch.batch_id] = event.batch.journal_sequence
        elif isinstance(event, ForeignBatchApplied):
            ends[event.batch_id] = applied.sequence
