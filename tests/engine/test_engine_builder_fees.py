"""Builders' fees: charged as signed on each row, paid to the builder at once, reserved like any fee.

The world settles every batch on the naive vault, which recomputes all of it from whole sums.
"""

import pytest
from engine_world import BUY, FOK, IOC, SELL, USDC, World, market, of_type, owner_of, rejection

from evermark.protocol.reject import RejectCode
from evermark.protocol.units import ceil_div
from sequencer.engine.events import CollateralChanged, Trade
from sequencer.engine.snapshot import restore, snapshot, state_hash

RATE = 333


@pytest.fixture
def world():
    return World()


@pytest.fixture
def builder(world):
    return world.trader(70)


@pytest.fixture
def built(builder):
    """Fields of an order that owner 70 built."""
    return {"builder": owner_of(70), "max_builder_fee_ppm": RATE}


def money(world, account):
    return world.state.accounts[account].collateral


def test_both_sides_pay_their_builder(world, builder, built):
    """The fee rounds up once a row, comes beside the exchange's, is told with the trade and as its own cause."""
    maker, taker = world.trader(10), world.trader(11)
    before = money(world, builder)
    world.order(maker, SELL, 3_000, 10_000, **built)
    events = world.order(taker, BUY, 1_003, 10_000, IOC, **built)
    notional = 1_003 * 10_000 * 100
    fee = ceil_div(notional * RATE, 10**6)
    (trade,) = of_type(events, Trade)
    assert (trade.maker_builder_fee, trade.taker_builder_fee) == (fee, fee)
    assert (trade.maker_fee, trade.taker_fee) == (notional * 100 // 10**6, notional * 400 // 10**6)
    told = [event for event in of_type(events, CollateralChanged) if event.cause == "builder_fee"]
    assert sorted(event.delta for event in told) == [-fee, -fee, fee, fee]
    assert money(world, builder) == before + 2 * fee
    world.order(taker, BUY, 11, 10_000, IOC)
    assert money(world, builder) - before - fee == ceil_div(1_014 * 10_000 * 100 * RATE, 10**6)
    world.round([10_000, 10_000])


def test_an_open_batch_with_builders_is_restored(world, builder, built):
    """A snapshot in the middle of a batch keeps what rows have paid, and both go on alike."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 3_000, 10_000, **built)
    world.order(taker, BUY, 17, 10_000, IOC, **built)
    copy = restore(snapshot(world.state))
    assert state_hash(copy) == state_hash(world.state)
    row = copy.batch.rows[(maker, 1, next(iter(copy.accounts[maker].orders.values())).sequence)]
    assert (row.builder, row.builder_numerator) == (builder, 17 * 10_000 * 100 * RATE)
    resting = copy.accounts[maker].orders[1]
    assert (resting.builder, resting.builder_fee_ppm) == (builder, RATE)


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"builder": owner_of(71), "max_builder_fee_ppm": 1}, RejectCode.UNKNOWN_ACCOUNT),
        ({"builder": owner_of(71)}, RejectCode.UNKNOWN_ACCOUNT),
        ({"max_builder_fee_ppm": 1}, RejectCode.BAD_COMBINATION),
    ],
)
def test_a_builder_needs_an_account(world, builder, fields, code):
    """Without one, and without a builder to a fee, the order is refused; a registered one is taken."""
    maker = world.trader(10)
    refused = rejection(world.order(maker, SELL, 1_000, 10_000, **fields))
    assert (refused.code, refused.field) == (code, "builder")
    world.order(maker, SELL, 1_000, 10_000, builder=owner_of(70), max_builder_fee_ppm=65_535)
    assert len(world.state.accounts[maker].orders) == 1


def test_the_fee_is_reserved(world, builder):
    """An order that the margin carries without its builder's fee is refused with it; what rests holds it back."""
    poor = world.trader(12, 100)
    size = 1_950  # 1,950 USDC, initial 97.5 of 100
    refused = rejection(world.order(poor, BUY, size, 10_000, builder=owner_of(70), max_builder_fee_ppm=2_000))
    assert refused.code is RejectCode.INSUFFICIENT_MARGIN
    world.order(poor, BUY, size, 10_000, builder=owner_of(70), max_builder_fee_ppm=100)
    assert world.state.accounts[poor].order_fees == ceil_div(size * 10_000 * 100 * 200, 10**6)


def test_a_rebate_does_not_pay_the_builder(builder):
    """In a market with rebates the builder's fee is reserved in full and charged beside the rebate."""
    world = World(market(0, maker_fee_ppm=-50))
    world.trader(70)
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000, builder=owner_of(70), max_builder_fee_ppm=80)
    notional = 1_000 * 10_000 * 100
    assert world.state.accounts[maker].order_fees == ceil_div(notional * 80, 10**6)
    (trade,) = of_type(world.order(taker, BUY, 1_000, 10_000, FOK), Trade)
    assert (trade.maker_fee, trade.maker_builder_fee) == (-50 * notional // 10**6, 80 * notional // 10**6)
    world.round([10_000])


def test_builders_are_paid_in_every_kind_of_fill(world, builder, built):
    """The maker of a liquidation and the taker of the fund's position pay theirs, and the batches settle."""
    rich, debtor = world.trader(10), world.trader(11, 100)
    world.order(rich, SELL, 1_900, 10_000)
    world.order(debtor, BUY, 1_900, 10_000, IOC)
    world.donate(1_000)
    world.round([9_720, 10_000])
    world.order(rich, BUY, 300, 9_720, **built)
    before = money(world, builder)
    world.liquidate(debtor)
    assert money(world, builder) - before == ceil_div(300 * 9_720 * 100 * RATE, 10**6)
    world.round([9_570, 10_000])
    world.liquidate(debtor)
    fund = world.state.accounts[1].positions[0].size
    assert fund > 0
    before = money(world, builder)
    world.order(rich, BUY, 100, 9_580, IOC, **built)
    assert world.state.accounts[1].positions[0].size == fund - 100
    assert money(world, builder) - before == ceil_div(100 * 9_570 * 100 * RATE, 10**6)
    world.round([9_570, 10_000])


def test_a_builder_may_build_for_itself(world, builder, built):
    """It pays itself, and the closing check judges it without a difference."""
    maker = world.trader(10)
    world.order(maker, SELL, 1_000, 10_000)
    before = money(world, builder)
    world.order(builder, BUY, 1_000, 10_000, IOC, **built)
    notional = 1_000 * 10_000 * 100
    assert money(world, builder) == before - notional - notional * 400 // 10**6
    world.round([10_000, 10_000])
    assert world.state.accounts[builder].positions[0].size == 1_000
    assert money(world, maker) < 100_000 * USDC + notional
