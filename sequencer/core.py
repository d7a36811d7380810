"""Journal, snapshots, engine and what listens to it: everything of the sequencer that needs no chain and no
sockets.
"""

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from sequencer.engine.commands import Genesis
from sequencer.followers import Followers, Memory, decode_memory
from sequencer.garbage import keep_pauses_short, without_collector
from sequencer.history import History
from sequencer.journal import (
    Appended,
    JournalRefused,
    JournalWriter,
    Record,
    decode_command,
    encode_command,
    open_journal,
)
from sequencer.journal.aside import ChainCheck
from sequencer.market_data import MarketData
from sequencer.pipeline import CAPACITY, Pipeline
from sequencer.publication import Publication
from sequencer.replay import apply_record, replay
from sequencer.reports import ReportCollector
from sequencer.settlement.backlog import Backlog
from sequencer.settlement.bisection import Bisection
from sequencer.settlement.reversal import ReversalPlan, reversal_commands
from sequencer.snapshots import Recovered, SnapshotFiles, Snapshotter, recover
from sequencer.snapshots.earlier import EarlierStates
from sequencer.snapshots.taking import EVERY

BEAT_S = 1.0  # wall time between two signs of life for a standby
FOLLOW_RECORDS = 256  # that a standby applies before it lets others have the event loop

log = structlog.get_logger("sequencer")


class Core:
    """Opened from a directory, recovered, ready to run. One process owns a directory at a time."""

    def __init__(
        self,
        directory: Path,
        genesis: Genesis,
        now_ms: Callable[[], int],
        capacity: int = CAPACITY,
        *,
        journal: str = "",
        snapshot_every: int = EVERY,
        standby: bool = False,
    ) -> None:
        """Loads the newest snapshot and replays what follows; blocks meanwhile. `now_ms` is chain time,
        `journal` the address of a replicated journal instead of the directory's own. A `standby` owns nothing
        until `take_over`.

        Raises JournalRefused when the journal is in use, broken, or of another exchange than `genesis`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        location = journal or directory / "journal.db"
        self.genesis = genesis
        self._owns = False
        self._now_ms, self._capacity = now_ms, capacity
        self.journal = open_journal(location)
        epoch = 0 if standby else self.journal.take_epoch()
        if self.journal.head().sequence == 0:
            self._begin(epoch)
        self._check_genesis()
        began = time.monotonic()
        self.reader = open_journal(location, read_only=not journal)
        files, genesis_hash = SnapshotFiles(directory / "snapshots"), self.journal.record(1).hash
        recovered = self._recover(files, genesis_hash, directory / "history.db")
        self.state = recovered.state
        self.market_data = MarketData(self.state)
        self.backlog = Backlog(self.reader.record)
        self.reports = ReportCollector(
            genesis,
            lambda command: self.pipeline.submit(command),
            lambda: now_ms() // 1000,
            spacing_s=self.backlog.round_spacing_s,
        )
        self.publication = Publication(
            open_journal(location, read_only=True), lambda: self.backlog.settled_sequence
        )
        self._followers = followers = Followers(self.history, self.market_data, self.backlog, self.reports)
        if recovered.memory is not None:
            followers.recall(self.state.genesis or genesis, recovered.memory)
        self.snapshotter = Snapshotter(
            files,
            self.state,
            followers.encode_memory,
            genesis_hash,
            every=snapshot_every,
            needed=lambda: self.backlog.confirmed_sequence,
        )
        self.snapshotter.start_at(recovered.sequence)
        self._earlier = EarlierStates(open_journal(location, read_only=True), files)
        self.bisection = Bisection(self._earlier)
        self._catch_up(recovered.sequence, began)
        if not standby:
            self._own(epoch)

    def _recover(self, files: SnapshotFiles, genesis_hash: bytes, history: Path) -> Recovered[Memory]:
        with ChainCheck(self.journal, files.newest_sequence) as check:
            self.history = History.open(history, self._hash_at)
            return recover(
                files, self.journal, genesis_hash, self.history.sequence, decode_memory, check.wait
            )

    def _catch_up(self, after: int, began: float) -> None:
        replaying = (*self._followers.subscribers, self.snapshotter.note)
        with without_collector():
            replay(self.journal, self.state, replaying, after=after, state_at=self._earlier)
        log.info(
            "journal replayed",
            sequence=self.state.sequence,
            after=after,
            journal=self.journal.name,
            seconds=round(time.monotonic() - began, 3),
        )

    async def follow(self) -> None:
        """Apply what the leader has made durable since; for a standby. Raises JournalRefused."""
        while True:
            page = await asyncio.to_thread(self._page_after, self.state.sequence)
            for record in page:
                apply_record(
                    record,
                    self.state,
                    (*self._followers.subscribers, self.snapshotter.observe),
                    self._earlier,
                )
            if len(page) < FOLLOW_RECORDS:
                return

    def _page_after(self, sequence: int) -> list[Record]:
        return list(islice(self.reader.read(sequence + 1), FOLLOW_RECORDS))

    async def take_over(self) -> None:
        """Fence the leader, apply the rest of what it made durable, and own the journal."""
        epoch = await asyncio.to_thread(self.journal.take_epoch)
        await self.follow()
        self._own(epoch)

    async def reverse(self, plan: ReversalPlan) -> None:
        """Journal a reversal and what stands of what it voids, and apply it. Orders wait meanwhile."""
        await self.pipeline.submit_alone(lambda head: reversal_commands(plan, self._earlier, head))

    async def run(self) -> None:
        """Work until the pipeline is stopped. Raises what ends it otherwise."""
        storing = asyncio.ensure_future(self.history.run())
        pipeline = asyncio.ensure_future(self.pipeline.run())
        beating = asyncio.ensure_future(self._beat())
        collecting = asyncio.ensure_future(keep_pauses_short())
        try:
            await asyncio.wait({pipeline, storing, beating}, return_when=asyncio.FIRST_COMPLETED)
            for task in (pipeline, storing, beating):
                if task.done():
                    task.result()
        finally:
            beating.cancel()
            self.pipeline.stop()
            await asyncio.gather(pipeline, beating, return_exceptions=True)
            storing.cancel()
            collecting.cancel()
            await asyncio.gather(storing, collecting, return_exceptions=True)
            await self.snapshotter.close()
        self.snapshotter.write_now()

    async def close(self) -> None:
        """Release everything, after `run` has ended."""
        await self.reports.close()
        await self.snapshotter.close()
        if self._owns:
            self.writer.close()
        self.history.store.close()
        self.publication.close()
        self._earlier.journal.close()
        self.reader.close()
        self.journal.close()

    def _begin(self, epoch: int) -> None:
        if not epoch:
            raise JournalRefused(
                f"journal: {self.journal.name} is empty: a standby has nobody to follow; start a leader first"
            )
        outcome = self.journal.append([(self._now_ms(), encode_command(self.genesis))], 1, epoch)
        if not isinstance(outcome, Appended):
            raise JournalRefused(f"journal: {self.journal.name} could not be begun: {outcome}")

    def _own(self, epoch: int) -> None:
        """From here on this process alone appends."""
        self.writer = JournalWriter(self.journal, epoch)
        if self.writer.head.sequence != self.state.sequence:
            raise JournalRefused(
                f"journal: its head is {self.writer.head.sequence}, but {self.state.sequence} records were applied"
            )
        self.pipeline = Pipeline(
            self.writer, self.state, self._now_ms, capacity=self._capacity, state_at=self._earlier
        )
        for subscriber in (*self._followers.subscribers, self.snapshotter.observe):
            self.pipeline.subscribe(subscriber)
        self._owns = True

    async def _beat(self) -> None:
        while True:
            await self.writer.beat()
            await asyncio.sleep(BEAT_S)

    def _hash_at(self, sequence: int) -> bytes | None:
        try:
            return self.reader.record(sequence).hash
        except KeyError:
            return None

    def _check_genesis(self) -> None:
        record = self.journal.record(1)
        command = decode_command(record.payload, 1)
        if not isinstance(command, Genesis):
            raise JournalRefused(f"journal: {self.journal.name} does not begin with a genesis")
        for field in msgspec.structs.fields(Genesis):
            stored, expected = getattr(command, field.name), getattr(self.genesis, field.name)
            if stored != expected:
                raise JournalRefused(
                    f"journal: {self.journal.name} is of another exchange: its {field.name} is "
                    f"{_shown(stored)}, the manifest's is {_shown(expected)}"
                )


def _shown(value: object) -> str:
    text = "0x" + value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
