"""Batches that are sent and not mined, and somebody else's batch that comes below them: neither ends the exchange. What is stuck
is outbid while nobody else's can come; where one came all the same, the exchange stands still with an alarm and goes on when
the chain does.
"""

import asyncio
from pathlib import Path

import pytest
from sequencer_world import World
from settling_house import MAKER, TAKER, ChainModel, House, eventually, trade
from test_reversal import commands, executed, stranger

from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import InboxEntry, TriggerLiquidation
from sequencer.engine.events import CommandRejected
from sequencer.settlement.chain import Receipt
from sequencer.settlement.errors import Diverged, Unreachable


class Pool(ChainModel):
    """Batches wait in it until `mine`, which takes what the vault takes of them; or until they are outbid."""

    def __init__(self, markets: int) -> None:
        super().__init__(markets)
        self.stuck = False
        self.waiting: list[tuple[bytes, asyncio.Future[Receipt]]] = []
        self.outbid = 0

    async def start_settle(self, batch: bytes) -> "asyncio.Future[Receipt]":
        if not self.stuck:
            return await super().start_settle(batch)
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.waiting.append((batch, done))
        return done

    async def nothing_in_flight(self) -> bool:
        self.outbid += len(self.waiting)
        self.waiting.clear()
        return await super().nothing_in_flight()

    def mine(self) -> None:
        for batch, done in self.waiting:
            if int.from_bytes(batch[:6], "big") == len(self.settled) + 1:
                self.settled.append(batch)
                if not done.done():
                    done.set_result(Receipt(1, 1))
        self.waiting.clear()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> Pool:
    return Pool(len(world.markets))


async def under_way(house: House, chain: Pool, batches: int) -> "asyncio.Task[bool]":
    """So many batches are sent, none mined; somebody else's may come three minutes later."""
    chain.stuck = True
    stepping = asyncio.ensure_future(house.line.step())
    await eventually(lambda: len(chain.waiting) == batches)
    return stepping


@pytest.mark.safety("E05", "sequencer")
async def test_what_follows_on_a_stuck_batch_is_outbid_before_somebody_elses_can_come(
    tmp_path: Path, world: World, chain: Pool
) -> None:
    """Three batches of fills are stuck for two minutes while a deposit becomes overdue. The line stops waiting for them and
    leaves nothing in flight, so the stranger's batch finds nothing that could settle on top of it, and is followed."""
    chain.now_s = lambda: world.now_s
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(1)
        await house.settle_all()
        await trade(house.core, world, 3)
        settled = len(chain.settled)
        stepping = await under_way(house, chain, 3)
        world.now_s += 119
        await asyncio.sleep(0.6)
        assert not stepping.done(), "nobody's is near"
        world.now_s += 2
        chain.overdue_in_s, chain.clearings = 29, 2
        with pytest.raises(Unreachable, match="batch 2 is stuck, and what follows on it is outbid"):
            await stepping
        assert [done.cancelled() for _, done in chain.waiting] == [True] * 3
        await house.core.pipeline.submit(world.round())
        with pytest.raises(Unreachable, match="behind batch 2 may be in flight"):
            await house.line.step()
        executed(chain, stranger(world, settled + 1, [world.deposit(MAKER, 70)], (3,)))
        chain.mine()
        assert (chain.outbid, len(chain.settled)) == (3, settled + 1), "nothing settles on top of theirs"
        chain.stuck = False
        await house.settle_all()
        world.now_s += 3
        await house.core.pipeline.submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        assert house.core.backlog.reversals == 1


async def test_what_is_stuck_goes_on_waiting_while_nobody_elses_can_come(
    tmp_path: Path, world: World, chain: Pool
) -> None:
    """However long it takes; and a batch alone waits in any case, for nothing follows on it."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        stepping = await under_way(house, chain, 3)
        world.now_s += 3_000
        await asyncio.sleep(0.6)
        assert not stepping.done()
        chain.mine()
        assert await stepping
        assert len(chain.settled) == 3
        await trade(house.core, world, 2)
        chain.overdue_in_s = 10
        stepping = await under_way(house, chain, 1)
        world.now_s += 3_000
        await asyncio.sleep(0.6)
        assert not stepping.done()
        chain.mine()
        assert await stepping
        assert chain.outbid == 0


async def test_what_an_earlier_process_sent_is_outbid_where_somebody_elses_may_come(
    tmp_path: Path, world: World, chain: Pool
) -> None:
    """A start knows nothing of the pool. Where nobody else's can come, what is in it may be mined like any other."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        (await under_way(house, chain, 3)).cancel()
    chain.stuck = False
    async with House(tmp_path, world, chain) as house:
        chain.overdue_in_s, chain.clearings = 150, 2
        with pytest.raises(Unreachable, match="behind batch 1 may be in flight"):
            await house.line.step()
        assert (chain.outbid, chain.settled) == (3, [])
        await house.settle_all()
        assert house.all_confirmed()


async def test_a_strangers_batch_is_left_alone_before_it_is_deep(
    tmp_path: Path, world: World, chain: Pool
) -> None:
    """What was sent behind ours is outbid as soon as theirs is seen, not only when it is followed."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        (await under_way(house, chain, 3)).cancel()
        entries = [command for command in commands(house.core) if isinstance(command, InboxEntry)]
        executed(chain, stranger(world, 1, entries, (3, 4)))
        chain.depth_lag = 1
        assert not await house.line.step()
        chain.mine()
        assert (chain.outbid, len(chain.settled)) == (3, 1)


# ------------------------------------------------------------------------------------------------------- diverged


async def diverge(house: House, chain: Pool) -> list[bytes]:
    """A reorganisation put a stranger's batch in the place of our first, with our second and third on top. Returns ours."""
    await house.fund_and_trade(3)
    entries = [command for command in commands(house.core) if isinstance(command, InboxEntry)]
    chain.depth_lag = 3
    await house.settle_all()
    ours = list(chain.settled)
    chain.settled.clear()
    executed(chain, stranger(house.world, 1, entries, (3, 4)))
    chain.settled += ours[1:]
    chain.depth_lag = 0
    return ours


async def codes(house: House) -> list[RejectCode]:
    """What an order, a trigger and a withdrawal are answered."""
    world, pipeline = house.world, house.core.pipeline
    asked = (
        world.sign_order(MAKER, 3, Side.BUY, 500, 1_050_000, slot=70 + world.now_s % 100),
        TriggerLiquidation(account=3, market_id=0, keeper=bytes(20)),
        world.withdraw(TAKER, 4, 1),
    )
    answers = [(await pipeline.submit(command))[0] for command in asked]
    return [answer.reject.code for answer in answers if isinstance(answer, CommandRejected)]


@pytest.mark.safety("E05", "sequencer")
async def test_a_diverged_chain_ends_nothing_and_is_told(
    tmp_path: Path, world: World, chain: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders, liquidations and withdrawals are refused with a code, cancels are taken, prices are followed and claims paid; the
    alarm says what happened. A start comes to the same, and when the chain takes its state back everything goes on."""
    monkeypatch.setattr("sequencer.settlement.line.STOPPED_RETRY_S", 0.02)
    async with House(tmp_path, world, chain) as house:
        ours = await diverge(house, chain)
        chain.claims = {1: 10}
        with pytest.raises(
            Diverged, match="batch 1 is somebody else's, and batches of this journal settled on top"
        ):
            await house.line.step()
        assert chain.claims == {1: 0}
    async with House(tmp_path, world, chain) as house:
        theirs = list(chain.settled)
        running = asyncio.ensure_future(house.line.run())
        await eventually(lambda: house.line.status().diverged)
        assert "at a state that no journal has" in house.line.status().alarm
        assert await codes(house) == [RejectCode.NOT_READY] * 3
        world.now_s += 3
        await house.core.pipeline.submit(world.round())
        assert house.core.backlog.newest_round.timestamp == world.now_s  # type: ignore[union-attr]
        cancelled = await house.core.pipeline.submit(world.cancel(MAKER, 3, 1))
        assert not any(isinstance(event, CommandRejected) for event in cancelled)
        assert (chain.settled, running.done()) == (theirs, False)
        chain.settled[:] = ours
        await eventually(house.all_confirmed)
        status = house.line.status()
        assert (status.alarm, status.diverged) == ("", False)
        assert RejectCode.NOT_READY not in await codes(house)
        running.cancel()


async def test_a_freeze_that_is_not_deep_ends_nothing(tmp_path: Path, world: World, chain: Pool) -> None:
    """A reorganisation may take it back: claims are paid, nothing is sent, and the process ends only when it is final."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        chain.claims = {1: 10}
        seen = chain.last_batch_ids

        async def frozen() -> tuple[int, int]:
            return 2**48 - 1, 0

        chain.last_batch_ids = frozen  # type: ignore[method-assign]
        with pytest.raises(Unreachable, match="frozen in a block that is not deep enough"):
            await house.line.step()
        assert (chain.settled, chain.claims) == ([], {1: 0})
        chain.last_batch_ids = seen  # type: ignore[method-assign]
        await house.settle_all()
        assert house.all_confirmed()
