"""Snapshots: a start from one ends in the state of a full replay, and nothing that is wrong with one does harm."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sequencer_world import World
from small_core import SmallCore
from structlog.testing import capture_logs
from typer.testing import CliRunner

from evermark.cli.journal import app
from sequencer.core import Core
from sequencer.engine.commands import BatchConfirmed
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.followers import Followers
from sequencer.journal import JournalRefused, SqliteJournal
from sequencer.replay import replay
from sequencer.snapshots import SnapshotFiles, files

pytestmark = pytest.mark.safety("G09", "sequencer")


async def traded(directory: Path, world: World | None = None, commands: int = 150) -> World:
    """A directory with a journal, its history and two snapshots, the last one taken at the graceful stop."""
    async with SmallCore(directory, world, snapshot_every=60) as small:
        await small.fund()
        await small.trade(commands)
        await small.core.snapshotter.close()
    return small.world


def opened(directory: Path, world: World) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a start finds: state hash, the followers' memory, where the replay began; and what it logged."""

    async def start() -> dict[str, Any]:
        core = Core(directory, world.genesis, lambda: world.now_s * 1000)
        followers = Followers(core.history, core.market_data, core.backlog, core.reports)
        found = {"hash": state_hash(core.state), "memory": followers.encode_memory()}
        found |= {"orders": core.history._orders, "sequence": core.state.sequence}
        await core.close()
        return found

    with capture_logs() as logs:
        found = asyncio.run(start())
    return found, logs


def copied(directory: Path, name: str, *, snapshots: bool = True) -> Path:
    copy = directory.parent / name
    shutil.copytree(directory, copy)
    if not snapshots:
        shutil.rmtree(copy / "snapshots")
    return copy


def began(logs: list[dict[str, Any]]) -> int:
    """After which record the replay began."""
    return next(int(line["after"]) for line in logs if line["event"] == "journal replayed")


def reasons(logs: list[dict[str, Any]]) -> list[str]:
    return [line["reason"] for line in logs if line["event"] == "snapshot passed over"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    directory = tmp_path_factory.mktemp("kept") / "exchange"
    return directory, asyncio.run(traded(directory))


@pytest.fixture
def house(tmp_path: Path, kept: tuple[Path, World]) -> tuple[Path, World]:
    shutil.copytree(kept[0], tmp_path / "exchange")
    for older in snapshots_of(tmp_path / "exchange")[2:]:  # one that a reversal would begin with
        older.unlink()
    return tmp_path / "exchange", kept[1]


def snapshots_of(directory: Path) -> list[Path]:
    return SnapshotFiles(directory / "snapshots").newest_first()


def test_start_from_a_snapshot_equals_a_full_replay(house: tuple[Path, World]) -> None:
    """State, backlog, market data, reports and orders are the same whether the journal's beginning was applied
    or not, from the newest snapshot (written at the stop) and from the one before (written while trading)."""
    directory, world = house
    newest, previous = snapshots_of(directory)
    full, logs = opened(copied(directory, "full", snapshots=False), world)
    assert began(logs) == 0
    quick, logs = opened(copied(directory, "quick"), world)
    assert began(logs) == int(newest.stem) == full["sequence"]
    newest.unlink()
    middle, logs = opened(directory, world)
    assert began(logs) == int(previous.stem) < full["sequence"]
    assert full == quick == middle
    state = EngineState()
    replay(SqliteJournal(directory / "journal.db", read_only=True), state)
    assert state_hash(state) == full["hash"]


async def test_trading_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    """Two houses that are stopped at other moments, one starting from snapshots and one replaying, end in the
    same state."""
    world = World()
    ends = []
    for name, every in (("first", 60), ("second", 10**6)):
        world = World()
        for life in range(3):
            async with SmallCore(tmp_path / name, world, snapshot_every=every) as small:
                if not life:
                    await small.fund()
                await small.trade(40, seed=life)
                ends.append(state_hash(small.core.state))
            if name == "second":
                shutil.rmtree(tmp_path / name / "snapshots")
    assert ends[:3] == ends[3:]


async def test_loop_runs_on_while_a_snapshot_is_written(tmp_path: Path) -> None:
    """The child writes; the parent goes on trading, and the file holds the state as it was at the fork."""
    async with SmallCore(tmp_path, snapshot_every=50) as small:
        await small.fund()
        await small.trade(60)
        await small.core.snapshotter.close()
        (path,) = snapshots_of(tmp_path)
        taken = SnapshotFiles(tmp_path / "snapshots").read(path)
        assert taken.sequence == 50 < small.core.state.sequence
        state = EngineState()
        replay(small.core.reader, state, until=50)
        assert state_hash(state) == taken.state_hash
        assert small.core.reader.record(50).hash == taken.head_hash


async def test_two_snapshots_are_kept_and_the_one_that_a_reversal_would_begin_with(tmp_path: Path) -> None:
    """Older ones than the newest and its predecessor are removed, and no draft is left over; the newest from before the last
    confirmed batch stays."""
    async with SmallCore(tmp_path, snapshot_every=25) as small:
        await small.fund()
        for part in range(6):
            await small.trade(25, seed=part)
            await small.core.snapshotter.close()
        needed = small.core.backlog.confirmed_sequence
        every = [int(path.stem) for path in snapshots_of(tmp_path)]
        older = every[2:]
        assert len(older) <= 1
        assert any(sequence <= needed for sequence in every)
        waits = small.core.state.sealed_batch
        await small.submit(BatchConfirmed(batch_id=waits, block_number=7))
        small.world.now_s += 3
        await small.trade(60, seed=9)
        await small.core.snapshotter.close()
    files = len(list((tmp_path / "snapshots").iterdir()))
    assert 2 <= len(snapshots_of(tmp_path)) == files <= 3


@pytest.mark.parametrize("at", [0, 5, 20, 40, 100, 1_000, -1])
def test_damaged_snapshot_falls_back(house: tuple[Path, World], at: int) -> None:
    """Whichever byte is changed: the previous snapshot serves, one line says why; with both changed, a full
    replay. The state is the same each time."""
    directory, world = house
    newest, previous = snapshots_of(directory)
    full, _ = opened(copied(directory, "full", snapshots=False), world)
    flip(newest, at)
    found, logs = opened(copied(directory, "once"), world)
    assert found == full
    assert began(logs) == int(previous.stem)
    assert len(reasons(logs)) == 1
    flip(previous, at)
    found, logs = opened(directory, world)
    assert found == full
    assert began(logs) == 0
    assert len(reasons(logs)) == 2


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("cut", [0, 10, 60, 2_000])
def test_cut_snapshot_falls_back(house: tuple[Path, World], cut: int) -> None:
    """A file that ends early counts as damaged."""
    directory, world = house
    newest, previous = snapshots_of(directory)
    newest.write_bytes(newest.read_bytes()[:cut])
    _, logs = opened(directory, world)
    assert began(logs) == int(previous.stem)


def test_foreign_snapshot_falls_back(house: tuple[Path, World], tmp_path: Path) -> None:
    """A whole and good snapshot of another journal is named as such and not used."""
    directory, world = house
    other = tmp_path / "other"
    asyncio.run(traded(other, World(start_s=world.now_s + 30), commands=200))
    (foreign, *_) = snapshots_of(other)
    shutil.copy(foreign, directory / "snapshots" / "999999999999999.snapshot")
    newest = snapshots_of(directory)[1]
    _, logs = opened(directory, world)
    assert began(logs) == int(newest.stem)
    assert reasons(logs) == ["it is of another journal"]


def test_snapshot_of_another_version_falls_back(
    house: tuple[Path, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade of the engine the first start replays: the new code decides what the state is."""
    directory, world = house
    monkeypatch.setattr(files, "code_digest", lambda: b"another version")
    _, logs = opened(directory, world)
    assert began(logs) == 0
    assert set(reasons(logs)) == {"another version of the engine wrote it"}


def test_snapshot_made_ahead_of_an_upgrade_serves(house: tuple[Path, World]) -> None:
    """What `evermark journal snapshot` leaves, with the new code and nothing but the journal, is what a start of the
    new code goes on from."""
    directory, world = house
    full, _ = opened(copied(directory, "full", snapshots=False), world)
    shutil.rmtree(directory / "snapshots")
    journal, snapshots = str(directory / "journal.db"), str(directory / "snapshots")
    done = CliRunner().invoke(app, ["snapshot", "--journal", journal, "--to", snapshots])
    assert done.exit_code == 0, done.output
    found, logs = opened(directory, world)
    assert began(logs) == full["sequence"]
    assert found == full


def test_lost_history_is_rebuilt_by_a_full_replay(house: tuple[Path, World]) -> None:
    """Without the history's database the snapshots cannot serve, because the history needs every record."""
    directory, world = house
    full, _ = opened(copied(directory, "full", snapshots=False), world)
    for file in directory.glob("history.db*"):
        file.unlink()
    found, logs = opened(directory, world)
    assert began(logs) == 0
    assert reasons(logs)[0] == "the history ends at record 0, before it"
    assert found["hash"] == full["hash"]


@pytest.mark.safety("G05", "sequencer")
def test_record_before_the_snapshot_is_still_checked(house: tuple[Path, World]) -> None:
    """A snapshot makes no damaged record acceptable, even one that need not be applied again."""
    directory, world = house
    change(directory, "UPDATE record SET payload = x'00' WHERE sequence = 7")
    with pytest.raises(JournalRefused, match="record 7 does not match its hash"):
        opened(directory, world)


@pytest.mark.safety("G05", "sequencer")
@pytest.mark.parametrize("witness", ["snapshots", "history"])
def test_journal_that_lost_its_end_is_refused(house: tuple[Path, World], witness: str) -> None:
    """Records that a snapshot or the history was made of and that are gone were acknowledged: no start."""
    directory, world = house
    change(directory, "DELETE FROM record WHERE sequence > 100")
    if witness == "snapshots":
        for file in directory.glob("history.db*"):
            file.unlink()
    else:
        shutil.rmtree(directory / "snapshots")
    with pytest.raises(JournalRefused, match=r"records are lost\. Restore the journal"):
        opened(directory, world)


def change(directory: Path, statement: str) -> None:
    db = sqlite3.connect(directory / "journal.db")
    db.execute("DROP TRIGGER record_is_final")
    db.execute("DROP TRIGGER record_stays")
    db.execute(statement)
    db.commit()
    db.close()


async def test_failed_snapshot_is_logged_and_trading_goes_on(tmp_path: Path) -> None:
    """A directory that takes no file costs nothing but the snapshot."""
    (tmp_path / "snapshots").write_text("in the way")
    with capture_logs() as logs:
        async with SmallCore(tmp_path, snapshot_every=20) as small:
            await small.fund()
            await small.trade(30)
            await small.core.snapshotter.close()
            await small.trade(5)
    assert [line["event"] for line in logs].count("snapshot failed") == 2
    assert os.path.isfile(tmp_path / "snapshots")
