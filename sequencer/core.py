"""Journal, snapshots, engine and what listens to it: everything of the sequencer that needs no chain and no
sockets.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from sequencer.engine.commands import Genesis
from sequencer.followers import Followers, decode_memory
from sequencer.history import History
from sequencer.journal import JournalRefused, JournalWriter, decode_command, encode_command, open_journal
from sequencer.market_data import MarketData
from sequencer.pipeline import CAPACITY, Pipeline
from sequencer.publication import Publication
from sequencer.replay import replay
from sequencer.reports import ReportCollector
from sequencer.settlement.backlog import Backlog
from sequencer.snapshots import SnapshotFiles, Snapshotter, recover
from sequencer.snapshots.taking import EVERY

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
    ) -> None:
        """Loads the newest snapshot and replays what follows; blocks meanwhile. `now_ms` is chain time,
        `journal` the address of a replicated journal instead of the directory's own.

        Raises JournalRefused when the journal is in use, broken, or of another exchange than `genesis`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        location = journal or directory / "journal.db"
        self.genesis = genesis
        self.journal = open_journal(location)
        epoch = self.journal.take_epoch()
        if self.journal.head().sequence == 0:
            self.journal.append([(now_ms(), encode_command(genesis))], 1, epoch)
        self._check_genesis()
        began = time.monotonic()
        self.reader = open_journal(location, read_only=not journal)
        self.writer = JournalWriter(self.journal, epoch)
        self.history = History.open(directory / "history.db", self._hash_at)
        files, genesis_hash = SnapshotFiles(directory / "snapshots"), self.journal.record(1).hash
        recovered = recover(files, self.journal, genesis_hash, self.history.sequence, decode_memory)
        self.state = recovered.state
        self.pipeline = Pipeline(self.writer, self.state, now_ms, capacity=capacity)
        self.market_data = MarketData(self.state)
        self.backlog = Backlog(self.reader.record, genesis.round_seconds)
        self.reports = ReportCollector(
            genesis,
            self.pipeline.submit,
            lambda: now_ms() // 1000,
            spacing_s=self.backlog.round_spacing_s,
        )
        self.publication = Publication(
            open_journal(location, read_only=True), lambda: self.backlog.settled_sequence
        )
        followers = Followers(self.history, self.market_data, self.backlog, self.reports)
        if recovered.memory is not None:
            followers.recall(genesis, recovered.memory)
        self.snapshotter = Snapshotter(
            files, self.state, followers.encode_memory, genesis_hash, every=snapshot_every
        )
        self.snapshotter.start_at(recovered.sequence)
        for subscriber in (*followers.subscribers, self.snapshotter.observe):
            self.pipeline.subscribe(subscriber)
        replaying = (*followers.subscribers, self.snapshotter.note)
        head = replay(self.journal, self.state, replaying, after=recovered.sequence)
        log.info(
            "journal replayed",
            sequence=head.sequence,
            after=recovered.sequence,
            epoch=self.writer.epoch,
            journal=self.journal.name,
            seconds=round(time.monotonic() - began, 3),
        )

    async def run(self) -> None:
        """Work until the pipeline is stopped. Raises what ends it otherwise."""
        storing = asyncio.ensure_future(self.history.run())
        pipeline = asyncio.ensure_future(self.pipeline.run())
        try:
            await asyncio.wait({pipeline, storing}, return_when=asyncio.FIRST_COMPLETED)
            for task in (pipeline, storing):
                if task.done():
                    task.result()
        finally:
            self.pipeline.stop()
            await asyncio.gather(pipeline, return_exceptions=True)
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)
            await self.snapshotter.close()
        self.snapshotter.write_now()

    async def close(self) -> None:
        """Release everything, after `run` has ended."""
        await self.reports.close()
        self.writer.close()
        self.history.store.close()
        self.publication.close()
        self.reader.close()
        self.journal.close()

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
