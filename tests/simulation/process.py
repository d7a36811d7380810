"""One life of the sequencer, without sockets: the real `Core` over a simulated journal, and what `sequencer/app.py` puts around.

It starts by replaying the disk, or stands by and takes over.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sequencer.core import Core
from sequencer.engine.commands import AnyCommand, Genesis
from sequencer.engine.events import Event
from sequencer.followers import Followers, decode_memory
from sequencer.gateway.desk import Desk
from sequencer.gateway.limits import Limiter, Limits, Rate
from sequencer.gateway.services import ExchangeFacts, Services
from sequencer.gateway.signers import Signers
from sequencer.gateway.verify import SignatureThreads
from sequencer.history import History
from sequencer.inbox import InboxWatcher
from sequencer.journal import Head
from sequencer.market_data import MarketData
from sequencer.opening import Opening
from sequencer.pipeline import CAPACITY
from sequencer.replay import Applied
from sequencer.reports import ReportCollector
from sequencer.settlement.backlog import Backlog
from sequencer.settlement.bisection import Bisection
from sequencer.settlement.errors import Unreachable
from sequencer.settlement.hours import PostedHours
from sequencer.settlement.line import SettlementLine
from sequencer.settlement.reconciliation import Reconciliation
from sequencer.settlement.standstill import Standstill
from sequencer.settlement.way_out import WayOut
from sequencer.settlement.witness import check_witness
from sequencer.snapshots import Snapshot, make_snapshot, recover
from sequencer.snapshots.earlier import EarlierStates
from sequencer.standby import wait_for_turn
from tests.simulation.disk import Disk, SimulatedJournal
from tests.simulation.node import SimulatedChain

SILENCE_S = 2.0  # after which a standby takes over
STORE_S = 2.0  # between two writes of the history
RECONCILE_S = 10.0
EVERY = 150  # records between two snapshots


class SnapshotShelf:
    """What `SnapshotFiles` and `Snapshotter` are to a core: the snapshots of one machine, which outlive its processes. Forked
    processes have no place in virtual time, so they are taken at once."""

    def __init__(self) -> None:
        self._taken: dict[int, Snapshot] = {}
        self._core: Core | None = None

    def begin(self, core: "SimulatedCore") -> None:
        """This process works on the machine now."""
        self._core = core

    def observe(self, applied: Applied) -> None:
        """Subscriber of the pipeline, the last one."""
        core = self._core
        if core is not None and applied.sequence % EVERY == 0:
            head = Head(applied.sequence, applied.stamp_ms, applied.hash)
            memory = core._followers.encode_memory()
            first = core.reader.record(1).hash
            self._taken[applied.sequence] = make_snapshot(core.state, head, first, memory)

    def note(self, applied: Applied) -> None:
        """Nothing is taken in a replay."""

    def newest_first(self) -> list[int]:
        """Their records."""
        return sorted(self._taken, reverse=True)

    def read(self, sequence: int) -> Snapshot:
        """One of them."""
        return self._taken[sequence]


class SimulatedCore(Core):
    """Everything of `Core` but its files: how it begins, follows, takes over, owns and reverses is the real thing."""

    def __init__(
        self,
        disk: Disk,
        fate: Callable[[], str],
        genesis: Genesis,
        now_ms: Callable[[], int],
        directory: Path,
        shelf: SnapshotShelf,
        *,
        standby: bool,
    ) -> None:
        self.genesis = genesis
        self._owns = False
        self._now_ms, self._capacity = now_ms, CAPACITY
        self.journal: Any = SimulatedJournal(disk, fate)
        self.reader: Any = SimulatedJournal(disk)
        epoch = 0 if standby else self.journal.take_epoch()
        if self.journal.head().sequence == 0:
            self._begin(epoch)
        directory.mkdir(exist_ok=True)
        self.history = History.open(directory / "history.db", self._hash_at)
        first: Any = self.journal.record(1).hash
        files: Any = shelf
        check = self.journal.check_chain
        recovered = recover(files, self.journal, first, self.history.sequence, decode_memory, check)
        self.state = recovered.state
        self.market_data = MarketData(self.state)
        self.backlog = Backlog(self.reader.record)
        self.reports = ReportCollector(
            genesis,
            lambda command: self.pipeline.submit(command),
            lambda: now_ms() // 1000,
            spacing_s=self.backlog.round_spacing_s,
        )
        self._followers = Followers(self.history, self.market_data, self.backlog, self.reports)
        if recovered.memory is not None:
            self._followers.recall(self.state.genesis or genesis, recovered.memory)
        self.snapshotter: Any = shelf
        shelf.begin(self)
        self._earlier = EarlierStates(self.reader, files)
        self.bisection = Bisection(self._earlier)
        self._catch_up(recovered.sequence, 0.0)
        if not standby:
            self._own(epoch)

    async def turn(self) -> None:
        """Stand by until the leader is silent, and own the journal."""
        await wait_for_turn(self, SimulatedJournal(self.reader.disk), asyncio.Event(), SILENCE_S)  # type: ignore[arg-type]

    async def check_chain(self, chain: SimulatedChain) -> None:
        """What a start asks the chain, again until it answers. Raises JournalRefused."""
        while True:
            try:
                return await check_witness(chain, self.state, self.reader.record, self.reader.head().sequence)
            except Unreachable:
                await asyncio.sleep(5)

    async def drop(self) -> None:
        """Killed: what the history had not stored is lost."""
        await self.reports.close()
        self.history.store.close()


class Process:
    """Everything at work. Killed, it leaves nothing behind but the disk, its history's file and the mempool."""

    def __init__(
        self, core: SimulatedCore, chain: SimulatedChain, now_s: Callable[[], int], *, taken_over: bool
    ) -> None:
        self.core = core
        self.state, self.backlog, self.reports = core.state, core.backlog, core.reports
        self.pipeline = core.pipeline
        self.taken_over, self.began_s, self.first = taken_over, now_s(), core.pipeline.sequence
        self.opening = Opening(core.pipeline, now_s, taken_over=taken_over)
        core.reports.ask_first(PostedHours(chain).reports_for)  # type: ignore[arg-type]
        way_out = WayOut(
            chain,  # type: ignore[arg-type]
            core.backlog,
            now_s,
            core.reverse,
            core.bisection,
            core.reports.funding_reports,
        )
        submit = core.pipeline.submit
        standstill = Standstill(core.pipeline)
        self.line = SettlementLine(chain, core.backlog, submit, now_s, way_out, standstill)  # type: ignore[arg-type]
        self.reconciliation = Reconciliation(chain, core.pipeline, RECONCILE_S)
        self._threads = SignatureThreads(2, core.history.store.answered, 1_024)
        self.desk = self._make_desk(now_s)
        inbox = InboxWatcher(chain, submit, lambda: core.state.next_entry_id)
        self.ended = asyncio.Event()
        self.error: BaseException | None = None
        self._beating = asyncio.ensure_future(core._beat())
        work = (core.pipeline.run(), self.line.run(), inbox.run(), self.reconciliation.run(), self._store())
        self._tasks = [self._beating, *(asyncio.ensure_future(part) for part in work)]
        for task in self._tasks:
            task.add_done_callback(self._part_ended)

    def _make_desk(self, now_s: Callable[[], int]) -> Desk:
        """What traders' requests meet behind the sockets. Its limits are of the machine's own clock, so there are none here."""
        core, genesis = self.core, self.core.genesis
        nowhere = bytes(20)
        services = Services(
            submit=core.pipeline.submit_then,
            state=core.state,
            history=core.history,
            market_data=core.market_data,
            reports=core.reports,
            now_s=now_s,
            facts=ExchangeFacts(
                chain_id=genesis.chain_id,
                vault=genesis.vault,
                oracle=genesis.oracle,
                inbox=nowhere,
                token=nowhere,
            ),
            status=dict,
            missing=lambda: [] if self.opening.has_prices else ["prices since the start"],
        )
        unbounded = Rate(1e12, 10**12)
        limits = Limits(orders_per_account=unbounded, cancels_per_account=unbounded)
        return Desk(services, Limiter(limits), Signers(services, self._threads))

    def submit(self, command: AnyCommand) -> "asyncio.Future[list[Event]]":
        """The pipeline's, which is what the gateway calls."""
        return self.pipeline.submit(command)

    def hang(self) -> None:
        """The journal does not answer it any more."""
        self.core.journal.hang()

    def fall_silent(self) -> None:
        """It goes on, but nobody hears its beats."""
        self._beating.cancel()

    async def kill(self) -> None:
        """kill -9: every task ends where it stands."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._threads.close()
        await self.core.drop()

    async def _store(self) -> None:
        """Write the history now and then; a death between two writes loses what was not."""
        while True:
            await asyncio.sleep(STORE_S)
            self.core.history.flush().result()

    def _part_ended(self, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():
            return
        if task.exception() is not None:
            self.error = self.error or task.exception()
        self.ended.set()
