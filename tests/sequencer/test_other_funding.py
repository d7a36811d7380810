"""A funding hour that somebody else posted from another quorum of the keepers' reports: the chain's rates count."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sequencer_world import World
from settling_house import ChainModel, House, trade
from test_reversal import assert_replays_to_the_same, commands

from evermark.protocol.oracle import SignedFundingReport, median_rates
from sequencer.engine.commands import FundingHour, ReversalCause
from sequencer.reports import Received
from sequencer.settlement.errors import Refused, Unreachable
from sequencer.settlement.hours import PostedHours

HOUR_S = 3_600


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> ChainModel:
    return ChainModel(len(world.markets))


def reports(world: World, hour: int, rate: int) -> tuple[SignedFundingReport, ...]:
    return world.funding_reports(hour, [rate] * len(world.markets))


async def an_hour_ends(house: House, rate: int) -> int:
    """Positions are open, the hour is over, and reports of this rate are journaled; the hour."""
    await house.fund_and_trade(2)
    await house.settle_all()
    world, hour = house.world, house.world.now_s // HOUR_S
    world.now_s = (hour + 1) * HOUR_S + 3
    await house.core.pipeline.submit(world.round())
    await house.settle_all()
    await house.core.pipeline.submit(FundingHour(reports=reports(world, hour, rate)))
    return hour


async def next_round(house: House) -> None:
    house.world.now_s += 3
    await house.core.pipeline.submit(house.world.round())


def cumulative(house: House) -> list[int]:
    return [market.cumulative for market in house.core.state.markets]


def hours_of(house: House, after: int) -> list[Sequence[SignedFundingReport]]:
    return [command.reports for command in commands(house.core, after) if isinstance(command, FundingHour)]


@pytest.mark.safety("C04", "sequencer")
async def test_the_rates_on_the_chain_count(tmp_path: Path, world: World, chain: ChainModel) -> None:
    """The batch of the void hour is never sent; the engine applies the posted reports, once, and trades happen again."""
    async with House(tmp_path / "ours", world, chain) as house:
        hour = await an_hour_ends(house, 12_500)
        await trade(house.core, world, 2)
        settled, ours = list(chain.settled), cumulative(house)
        before, last = house.core.state.sequence, house.core.state.confirmed_batch
        trades = house.core.state.trade_count
        posted = chain.hours[hour] = reports(world, hour, 40_000)
        assert await house.line.step()
        told = house.core.backlog.last_reversal
        assert told is not None
        assert (told.cause, told.batch_id) == (ReversalCause.OTHER_FUNDING, last)
        assert chain.settled == settled
        assert hours_of(house, before) == [posted]
        assert house.core.state.trade_count == 2 * trades - 2
        theirs = cumulative(house)
        assert theirs != ours
        assert all(theirs[at] * 125 == ours[at] * 400 for at in range(len(ours)))
        await next_round(house)
        await house.settle_all()
        assert house.all_confirmed()
        assert house.core.backlog.reversals == 1
        await assert_replays_to_the_same(house)


async def test_other_reports_of_the_same_rates_change_nothing(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """What counts are medians, in the markets that the hour was applied to."""
    async with House(tmp_path, world, chain) as house:
        hour = await an_hour_ends(house, 12_500)
        chain.hours[hour] = reports(world, hour, 12_500)[:2]
        await next_round(house)
        await house.settle_all()
        assert house.all_confirmed()
        assert house.core.backlog.reversals == 0


async def test_it_waits_for_the_batch_before_and_for_prices(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """The batch before goes alone, though both could be under way together, and must be deep enough; what stands needs prices."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(1)
        await house.settle_all()
        hour = world.now_s // HOUR_S
        world.now_s = (hour + 1) * HOUR_S + 3
        await house.core.pipeline.submit(world.round())
        await trade(house.core, world, 2)
        await house.core.pipeline.submit(FundingHour(reports=reports(world, hour, 12_500)))
        chain.hours[hour] = reports(world, hour, 40_000)
        await trade(house.core, world, 2)
        chain.depth_lag = 1
        with pytest.raises(Unreachable, match="not deep enough: a funding hour has other rates"):
            await house.settle_all()
        carried = house.core.backlog.last_confirmed + 2
        sealed = house.core.backlog.sealed(carried)
        assert sealed is not None
        assert sealed.batch.funding_hours == (hour,)
        assert len(chain.settled) == carried - 1
        chain.depth_lag = 0
        world.now_s += 45
        with pytest.raises(Unreachable, match="a reversal waits for prices"):
            await house.settle_all()
        assert house.core.backlog.reversals == 0
        await next_round(house)
        await house.settle_all()
        await next_round(house)
        await house.settle_all()
        assert house.all_confirmed()
        assert house.core.backlog.reversals == 1


async def test_reports_that_nobody_sees_stop_the_line(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """One line says which hour; nothing is sent and nothing reversed. Once the keepers have sent theirs, too late for the engine,
    it goes on."""
    async with House(tmp_path, world, chain) as house:
        hour = await an_hour_ends(house, 12_500)
        chain.hours[hour] = reports(world, hour, -7)
        chain.hidden.add(hour)
        await next_round(house)
        settled = list(chain.settled)
        with pytest.raises(Refused, match=f"hour {hour} was posted from reports that nobody sees"):
            await house.line.step()
        assert (chain.settled, house.core.backlog.reversals) == (settled, 0)
        for signed in chain.hours[hour]:
            received = house.core.reports.add_funding(signed)
            assert isinstance(received, Received)
            assert not received.accepted
        await house.settle_all()
        made = [signed.report for signed in hours_of(house, 0)[-1]]
        assert set(median_rates(made, chain.markets)) == {-7}
        await next_round(house)
        await house.settle_all()
        assert house.all_confirmed()


async def test_what_the_chain_has_already_is_journaled(world: World, chain: ChainModel) -> None:
    """Asked before the engine: the chain's reports go before ours, ours where they are as good or the node is away, and none
    while nobody knows the chain's."""
    hours = PostedHours(chain)  # type: ignore[arg-type]
    held = reports(world, 7, 12_500)
    assert await hours.reports_for(7, held) == held
    chain.hours[7] = reports(world, 7, 12_500)[:2]
    assert await hours.reports_for(7, held) == held
    chain.hours[7] = reports(world, 7, 40_000)
    assert await hours.reports_for(7, held) == chain.hours[7]
    chain.outages = 1
    assert await hours.reports_for(7, held) == held
    chain.hidden.add(7)
    assert await hours.reports_for(7, held) == ()
