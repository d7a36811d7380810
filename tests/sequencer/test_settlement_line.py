"""The settlement line against a model of the vault's and the oracle's rules, dying at every single point.

The model keeps what matters here: only batch last + 1 settles, a batch's round must be in the lane with
exactly the engine's prices, and blocks may be taken back. The same line runs against the real contracts in
test_settlement.py.
"""

import asyncio
import shutil
from pathlib import Path

import pytest
from eth_hash.auto import keccak
from sequencer_world import World
from settling_house import ChainModel, Died, House, eventually, mine, nothing_is_mined

from sequencer.settlement.errors import Ended, Refused


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> ChainModel:
    return ChainModel(len(world.markets))


async def test_batches_settle_in_order_and_are_confirmed(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Every sealed batch reaches the vault once, with the journal's hash, and the engine learns of each."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(9)
        expected = list(house.expected())
        assert len(expected) >= 9
        await house.settle_all()
        assert [keccak(batch) for batch in chain.settled] == expected
        assert house.core.state.confirmed_batch == len(expected) == house.core.backlog.last_confirmed
        assert house.core.backlog.fills_settled == house.core.state.trade_count - 1  # the last waits unsealed
        sequence = int.from_bytes(chain.settled[-1][43:49], "big")
        assert chain.settled[-1][49:81] == house.core.reader.record(sequence).hash


@pytest.mark.safety("E04", "sequencer")
async def test_death_at_every_point_settles_everything_once(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Killed once at each point around every post, settle and confirm: nothing is lost, nothing settles
    twice."""
    async with House(tmp_path / "first", world, chain) as house:
        await house.fund_and_trade(4)
        expected = list(house.expected())
    die_at, finished = 0, False
    while not finished:
        die_at += 1
        directory = tmp_path / f"died-{die_at}"
        shutil.copytree(tmp_path / "first", directory)
        model = ChainModel(len(world.markets))
        model.die_at = die_at
        async with House(directory, world, model) as house:
            try:
                await house.settle_all()
                finished = True
            except Died:
                pass
        model.die_at = -1
        async with House(directory, world, model) as house:
            await house.settle_all()
            assert house.core.state.confirmed_batch == len(expected)
        assert [keccak(batch) for batch in model.settled] == expected
        assert model.posted == sorted(set(model.posted))
    assert die_at > 5 * len(expected)


@pytest.mark.safety("E05", "sequencer")
@pytest.mark.parametrize("rounds_too", [False, True])
async def test_batch_that_a_reorg_took_back_settles_again(
    tmp_path: Path, world: World, chain: ChainModel, rounds_too: bool
) -> None:
    """With confirmations, a settled batch counts only when it is deep; taken back, the same bytes are sent
    again."""
    chain.depth_lag = 2
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(6)
        expected = list(house.expected())
        await house.settle_all()
        assert house.core.state.confirmed_batch == len(expected) - 2
        del chain.settled[-2:]
        if rounds_too:
            for number in chain.posted[-2:]:
                del chain.ring[number]
            chain.lane = chain.ring[chain.posted[-3]]
        await house.settle_all()
        assert [keccak(batch) for batch in chain.settled] == expected
        chain.depth_lag = 0
        await house.settle_all()
        assert house.core.state.confirmed_batch == len(expected)


@pytest.mark.parametrize("overdue_in_s, together", [(600, True), (149, False)])
async def test_batches_are_under_way_together_unless_a_strangers_may_come_between(
    tmp_path: Path, world: World, chain: ChainModel, overdue_in_s: int, together: bool
) -> None:
    """Nothing is mined yet, and those behind the first are sent, each after its rounds; near an overdue entry one goes at a
    time."""
    chain.overdue_in_s = overdue_in_s
    waiting = nothing_is_mined(chain)
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(4)
        last = house.core.backlog.last_sealed
        stepping = asyncio.ensure_future(house.line.step())
        await eventually(lambda: len(waiting) == (last if together else 1))
        assert not stepping.done()
        assert house.core.backlog.last_confirmed == 0
        mine(waiting)
        assert await stepping
        assert chain.posted == sorted(chain.posted)
        assert len(chain.settled) == (last if together else 1)


async def test_outage_is_waited_out(
    tmp_path: Path, world: World, chain: ChainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable node is asked again; the line says so meanwhile and raises no alarm."""
    monkeypatch.setattr("sequencer.settlement.line.FIRST_RETRY_S", 0.01)
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        chain.outages = 4
        task = asyncio.ensure_future(house.line.run())
        await eventually(lambda: house.line.status().retrying != "")
        assert house.line.status().alarm == ""
        await eventually(house.all_confirmed)
        assert house.line.status().retrying == ""
        task.cancel()


async def test_refused_batch_stands_still_with_an_alarm(
    tmp_path: Path, world: World, chain: ChainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that the vault refuses is never skipped: the line stands with the reason, and goes on when
    it is cured."""
    monkeypatch.setattr("sequencer.settlement.line.STOPPED_RETRY_S", 0.02)
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        chain.refusal = "vault: below initial margin"
        task = asyncio.ensure_future(house.line.run())
        await asyncio.sleep(0.2)
        assert chain.settled == []
        assert house.line.status().alarm == "vault: below initial margin"
        chain.refusal = ""
        await eventually(house.all_confirmed)
        assert house.line.status().alarm == ""
        task.cancel()


async def test_foreign_batch_raises_the_alarm(tmp_path: Path, world: World, chain: ChainModel) -> None:
    """A vault that is ahead of the journal means that another journal settles there."""
    async with House(tmp_path, world, chain) as house:
        chain.settled = [b"\1" * 81]
        with pytest.raises(Refused, match="has settled batch 1, but this journal ends at batch 0"):
            await house.line.step()


async def test_another_journals_batch_under_a_sealed_id_raises_the_alarm(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """It is never confirmed as this journal's, and nothing is sent after it."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        chain.settled = [b"\1" * 81]
        with pytest.raises(
            Refused, match="batch 1 on the chain names record 1103823438081 of another journal"
        ):
            await house.line.step()
        assert house.line.status().last_confirmed == 0
        assert chain.settled == [b"\1" * 81]


async def test_a_frozen_exchange_raises_the_alarm(tmp_path: Path, world: World, chain: ChainModel) -> None:
    """Nothing is sent or confirmed any more, whatever waits; claims are still paid."""

    async def frozen() -> tuple[int, int]:
        return 2**48 - 1, 2**48 - 1

    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        chain.claims = {1: 10}
        chain.last_batch_ids = frozen  # type: ignore[method-assign]
        with pytest.raises(Ended, match="the exchange is frozen"):
            await house.line.step()
        assert (chain.settled, chain.claims) == ([], {1: 0})
        assert house.line.status().last_confirmed == 0


async def test_heartbeat_posts_a_round_without_batches(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """With nothing to settle, a round goes to the chain once its predecessor there is a minute old, not
    before."""
    async with House(tmp_path, world, chain) as house:
        for _ in range(45):
            world.now_s += 3
            await house.core.pipeline.submit(world.round())
            await house.settle_all()
        assert len(chain.posted) == 3
        assert (
            min(later - earlier for earlier, later in zip(chain.posted, chain.posted[1:], strict=False)) == 20
        )
