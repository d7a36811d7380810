"""A price that jumps: its market only reduces and nobody who holds it is liquidated, until it was calm for three rounds."""

import pytest
from engine_world import IOC, World, market, of_type, rejection

from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.events import Liquidated, MarketModeChanged, Trade

BUY, SELL = Side.BUY, Side.SELL


@pytest.fixture
def world():
    """Two markets whose prices may move 1 % a second."""
    return World(market(0, jump_ppm_per_s=10_000), market(1, jump_ppm_per_s=10_000))


@pytest.mark.safety("A03", "sequencer")
def test_a_jump_makes_a_market_reduce_only_and_liquidates_nobody(world):
    """A print far below holds back, tells so, and ends when three rounds were calm; the other market goes on."""
    maker, taker = world.trader(10), world.trader(11, 60)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    (changed,) = of_type(world.round([3_000, 10_000]), MarketModeChanged)
    assert (changed.market_id, changed.reason) == (0, "price jumped")
    assert world.state.markets[0].price.clamped
    assert world.state.markets[0].mark > 3_000
    assert rejection(world.liquidate(taker)).code is RejectCode.STALE_PRICE
    bystander, other = world.trader(12), world.trader(13)
    assert rejection(world.order(bystander, BUY, 10, world.state.markets[0].mark))
    world.order(bystander, SELL, 10, 10_000, market_id=1)
    assert of_type(world.order(other, BUY, 10, 10_000, IOC, market_id=1), Trade)
    modes = [event for _ in range(5) for event in of_type(world.round([10_000, 10_000]), MarketModeChanged)]
    assert [event.reason for event in modes] == ["price is fresh"]
    assert not world.state.markets[0].price.clamped
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("A03", "sequencer")
def test_a_fall_that_lasts_is_reached_step_by_step_and_then_liquidates(world):
    """Clamped rounds move at most by the band; once the price is calm, who is below maintenance is closed out."""
    maker, taker = world.trader(10), world.trader(11, 60)
    world.donate(10_000)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    rounds = 0
    while world.state.markets[0].price.clamped or world.state.markets[0].mark != 9_500:
        world.round([9_500, 10_000], after_s=1 if rounds == 0 else 5)
        rounds += 1
        assert rounds < 10
    assert of_type(world.liquidate(taker), Liquidated)
    world.next_round()
    world.assert_settled()
