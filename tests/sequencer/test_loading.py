"""A start that dies while it loads: the next one has the state that the last stop had, or none opens at all."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sequencer_world import World
from small_core import SmallCore

import sequencer.replay
from sequencer.core import Core
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState


class Died(BaseException):
    """The process was killed here. Not an Exception, so that nothing handles it."""


def facts(state: EngineState) -> tuple[object, ...]:
    """What Paradex lost in such a start: funding indices, and with them every position's worth."""
    return (
        state_hash(state),
        [(at.cumulative, at.funding_hour, at.open_interest) for at in state.markets],
        {key: sorted(account.positions) for key, account in state.accounts.items()},
    )


async def traded(directory: Path) -> tuple[World, tuple[object, ...]]:
    """An exchange with positions and a snapshot in the middle of its journal, stopped gracefully."""
    async with SmallCore(directory, snapshot_every=60) as small:
        await small.fund()
        await small.trade(150)
        await small.core.snapshotter.close()
        return small.world, facts(small.core.state)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World, tuple[object, ...]]:
    directory = tmp_path_factory.mktemp("stopped") / "exchange"
    return directory, *asyncio.run(traded(directory))


@pytest.mark.safety("C05", "sequencer")
@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("records", [1, 2, 40, 120])
def test_death_while_loading_loses_nothing(
    tmp_path: Path,
    stopped: tuple[Path, World, tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    records: int,
    snapshots: bool,
) -> None:
    """Killed after so many replayed records, with or without a snapshot to start from: nothing was told to anybody, and the next
    start's state is the last stop's, funding indices and positions included."""
    source, world, before = stopped
    directory = tmp_path / "exchange"
    shutil.copytree(source, directory)
    for path in sorted((directory / "snapshots").glob("*"))[-1 if snapshots else 0 :]:
        path.unlink()  # the newest one, so that there is something to replay; or all
    apply, left = sequencer.replay.apply, records

    def dying(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise Died
        return apply(*arguments)  # type: ignore[arg-type]

    async def start(directory: Path) -> tuple[object, ...]:
        core = Core(directory, world.genesis, lambda: world.now_s * 1000)
        found = facts(core.state)
        await core.close()
        return found

    with monkeypatch.context() as killing:
        killing.setattr(sequencer.replay, "apply", dying)
        try:
            found = asyncio.run(start(directory))
        except Died:
            pass
        else:
            assert left >= 0, "the replay went on after its process was dead"
            assert found == before  # so few records were left to replay
    left_behind = (
        tmp_path / "left behind"
    )  # what is on the disk when the process is gone, and its lock with it
    shutil.copytree(directory, left_behind)
    assert asyncio.run(start(left_behind)) == before
