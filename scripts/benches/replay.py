"""How long a start takes, as one JSON object: the whole journal replayed, and from a snapshot with a tail behind it.

The engine benchmark's flow is applied once, as live, and journaled; then the sequencer's core is opened on the
journal as a restart would. `--commands 1000000` is the size that the bar is set for.
"""

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _engine_flow as engine
import msgspec
import structlog

from evermark.protocol.markets import Market
from sequencer.core import Core
from sequencer.engine.commands import OracleRound
from sequencer.engine.snapshot import state_hash
from sequencer.garbage import NEVER, YOUNG
from sequencer.journal import Appended, SqliteJournal, encode_command
from sequencer.snapshots.taking import EVERY

COMMANDS = 60_000
GROUP = 1_000  # records of one append
ROUND_EVERY = 5_000  # commands between two price rounds


class Journaled(engine.Journal):
    """The benchmark's engine, with everything that it applied written to a journal."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = SqliteJournal(path)
        self.epoch = self.file.take_epoch()
        self.entries: list[tuple[int, bytes]] = []
        self.applying = self.applying_cpu = 0.0

    def apply(self, command: object) -> list[object]:
        began, cpu = time.perf_counter(), time.process_time()
        events = super().apply(command)
        self.applying_cpu += time.process_time() - cpu
        self.applying += time.perf_counter() - began
        self.entries.append((self.state.stamp_ms, encode_command(command)))
        if len(self.entries) == GROUP:
            self.flush()
        return events

    def flush(self) -> None:
        first = self.file.head().sequence + 1
        if not isinstance(self.file.append(self.entries, first, self.epoch), Appended):
            raise SystemExit("bench: the journal did not take the records")
        self.entries = []


def run(journal: Journaled, flow: engine.Flow, count: int) -> None:
    """Apply and journal `count` commands of the flow."""
    for number in range(count):
        command = flow.prices() if number % ROUND_EVERY == 0 else flow.next()
        journal.apply(command)
        if type(command) is OracleRound:
            journal.confirm()
    journal.flush()


class Started(msgspec.Struct, frozen=True):
    """A start in a process of its own, as a restart is one."""

    seconds: float
    cpu_seconds: float  # a process that checks the hash chain beside it has CPU of its own
    state_hash: str


def start(directory: Path, *options: str) -> Started:
    """Open the core in a new process, and close it."""
    command = [sys.executable, __file__, "--start", str(directory), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Started)


def start_here(directory: Path, *, leaves_snapshot: bool) -> Started:
    """What the new process does."""
    genesis = engine.Flow(engine.make_markets()).genesis()
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    core = Core(directory, genesis, lambda: 0)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    if leaves_snapshot:
        core.snapshotter.write_now()
    core.history.flush().result()
    core.writer.close()
    core.history.store.close()
    core.reader.close()
    core.journal.close()
    return Started(seconds, cpu_seconds, state_hash(core.state).hex())


def measure(directory: Path, commands: int) -> dict[str, object]:
    markets: tuple[Market, ...] = engine.make_markets()
    flow = engine.Flow(markets)
    original, engine.Journal = engine.Journal, lambda: Journaled(directory / "journal.db")
    journal = engine.prepare(flow)
    engine.Journal = original
    tail = min(EVERY // 2, commands // 40)  # what a crash leaves behind a snapshot, in the mean
    prepared, journal.applying, journal.applying_cpu = journal.state.sequence, 0.0, 0.0
    run(journal, flow, commands - tail)
    journal.file.close()
    rebuilt = start(directory, "--leave-snapshot")
    journal.file = SqliteJournal(directory / "journal.db")
    journal.epoch = journal.file.take_epoch()
    run(journal, flow, tail)
    journal.file.close()
    records, expected = journal.state.sequence, state_hash(journal.state).hex()
    live_per_s = (records - prepared) / journal.applying
    live_per_cpu_s = (records - prepared) / journal.applying_cpu
    snapshots, aside = directory / "snapshots", directory / "aside"
    snapshots.rename(aside)
    full = start(directory)
    shutil.rmtree(snapshots, ignore_errors=True)
    aside.rename(snapshots)
    short = start(directory)
    if {full.state_hash, short.state_hash} != {expected}:
        raise SystemExit("bench: a start did not find the state of the live engine")
    return {
        "records": records,
        "tail": tail,
        "live_per_s": round(live_per_s),
        "live_per_cpu_s": round(live_per_cpu_s),
        "replay_per_s": round(records / full.seconds),
        "replay_per_cpu_s": round(records / full.cpu_seconds),
        "full_s": round(full.seconds, 2),
        "full_cpu_s": round(full.cpu_seconds, 2),
        "snapshot_s": round(short.seconds, 2),
        "snapshot_cpu_s": round(short.cpu_seconds, 2),
        "snapshot_share": round(short.seconds / full.seconds, 3),
        "with_history_rebuilt_s": round(rebuilt.seconds, 2),
        "journal_mb": round((directory / "journal.db").stat().st_size / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=COMMANDS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--leave-snapshot", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    gc.set_threshold(YOUNG, gc.get_threshold()[1], NEVER)  # as the sequencer runs
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if options.start:
        print(msgspec.json.encode(start_here(options.start, leaves_snapshot=options.leave_snapshot)).decode())
        return
    with tempfile.TemporaryDirectory() as directory:
        result = measure(Path(directory), options.commands)
    print(json.dumps(result | {"python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
