"""One life of the sequencer: journal, engine, pipeline, reports, inbox watcher and settlement line, as `sequencer/app.py`
puts them together, without sockets.
"""

import asyncio
from collections.abc import Callable

from sequencer.engine.commands import AnyCommand, Genesis
from sequencer.engine.events import Event
from sequencer.engine.state import EngineState
from sequencer.inbox import InboxWatcher
from sequencer.journal import JournalWriter, encode_command
from sequencer.pipeline import Pipeline
from sequencer.replay import replay
from sequencer.reports import ReportCollector
from sequencer.settlement.backlog import Backlog
from sequencer.settlement.bisection import Bisection
from sequencer.settlement.line import SettlementLine
from sequencer.settlement.reversal import ReversalPlan, reversal_commands
from sequencer.settlement.way_out import WayOut
from sequencer.snapshots.earlier import EarlierStates
from tests.simulation.chain import SimulatedChain
from tests.simulation.disk import Disk, SimulatedJournal


class Process:
    """Starts by replaying the disk. Killed, it leaves nothing behind but the disk and the mempool."""

    def __init__(
        self,
        disk: Disk,
        fate: Callable[[], str],
        genesis: Genesis,
        chain: SimulatedChain,
        now_ms: Callable[[], int],
    ) -> None:
        self.journal = SimulatedJournal(disk, fate)
        epoch = self.journal.take_epoch()
        if self.journal.head().sequence == 0:
            SimulatedJournal(disk, lambda: "fine").append([(now_ms(), encode_command(genesis))], 1, epoch)
        self.state = EngineState()
        self.earlier = EarlierStates(self.journal)
        self.pipeline = Pipeline(
            JournalWriter(self.journal, epoch), self.state, now_ms, state_at=self.earlier
        )
        self.backlog = Backlog(self.journal.record)
        self.reports = ReportCollector(
            genesis, self.submit, lambda: now_ms() // 1000, spacing_s=self.backlog.round_spacing_s
        )
        subscribers = [self.backlog.observe, self.reports.observe]
        replay(self.journal, self.state, subscribers)  # type: ignore[arg-type]
        for subscriber in subscribers:
            self.pipeline.subscribe(subscriber)
        now_s = lambda: now_ms() // 1000  # noqa: E731
        way_out = WayOut(
            chain, self.backlog, now_s, self.reverse, Bisection(self.earlier), self.reports.funding_reports
        )  # type: ignore[arg-type]
        self.line = SettlementLine(chain, self.backlog, self.submit, now_s, way_out)  # type: ignore[arg-type]
        self._inbox = InboxWatcher(chain, self.submit, lambda: self.state.next_entry_id)
        self.ended = asyncio.Event()
        self.error: BaseException | None = None
        self._tasks = [
            asyncio.ensure_future(part) for part in (self.pipeline.run(), self.line.run(), self._inbox.run())
        ]
        for task in self._tasks:
            task.add_done_callback(self._part_ended)

    def submit(self, command: AnyCommand) -> "asyncio.Future[list[Event]]":
        """The pipeline's, which is what the gateway calls."""
        return self.pipeline.submit(command)

    async def reverse(self, plan: ReversalPlan) -> None:
        """What `Core.reverse` does."""
        await self.pipeline.submit_together(lambda head: reversal_commands(plan, self.earlier, head))

    async def kill(self) -> None:
        """kill -9: every task ends where it stands."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reports.close()

    def _part_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self.error = self.error or task.exception()
        self.ended.set()
