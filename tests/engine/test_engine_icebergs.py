"""Icebergs: a part is shown, the next one stands at the back of its price. `test_engine_naive_book` checks the matching."""

import pytest
from engine_world import BUY, FOK, GTC, IOC, SELL, World, market, of_type, owner_of, rejection

from evermark.protocol.reject import RejectCode
from evermark.protocol.units import ceil_div
from sequencer.engine.events import LevelChanged, Trade
from sequencer.engine.snapshot import restore, snapshot, state_hash


@pytest.fixture
def world():
    return World()


def sizes(events):
    return [(trade.maker, trade.size) for trade in of_type(events, Trade)]


def test_the_book_shows_a_part(world):
    """Market data hears of the shown lots alone; margin is reserved for all of them."""
    maker = world.trader(10)
    events = world.order(maker, SELL, 1_000, 10_000, display_size=150)
    assert [event.size for event in of_type(events, LevelChanged)] == [150]
    account = world.state.accounts[maker]
    assert account.positions[0].sell_lots == 1_000
    assert account.order_fees == ceil_div(1_000 * 10_000 * 100 * 100, 10**6)


def test_the_next_part_stands_at_the_back(world):
    """Whoever came between trades before the iceberg's next part; one sweep meets part after part."""
    iceberg, other, taker = (world.trader(number) for number in (10, 11, 12))
    world.order(iceberg, SELL, 400, 10_000, display_size=150)
    world.order(other, SELL, 100, 10_000)
    assert sizes(world.order(taker, BUY, 150, 10_000, IOC)) == [(iceberg, 150)]
    assert sizes(world.order(taker, BUY, 200, 10_000, IOC)) == [(other, 100), (iceberg, 100)]
    events = world.order(taker, BUY, 1_000, 10_000, GTC)
    assert sizes(events) == [(iceberg, 50), (iceberg, 100)]
    assert not world.state.accounts[iceberg].orders
    world.round([10_000, 10_000])


def test_a_fok_order_may_use_what_is_hidden(world):
    """What does not show can still trade."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 400, 10_000, display_size=40)
    assert len(of_type(world.order(taker, BUY, 400, 10_000, FOK), Trade)) == 10


def test_fees_of_many_parts_round_up_once(world):
    """Ten parts in one batch, taken in two sweeps, cost the ceiling of their sum; so does their builder's fee."""
    world = World(market(0, maker_fee_ppm=1, lot_tick_value=1, min_notional=0))
    world.trader(70)
    maker, taker = world.trader(10), world.trader(11)
    built = {"builder": owner_of(70), "max_builder_fee_ppm": 3}
    world.order(maker, SELL, 67, 9_999, display_size=7, **built)
    trades = of_type(world.order(taker, BUY, 40, 10_000, IOC), Trade)
    trades += of_type(world.order(taker, BUY, 27, 10_000, IOC), Trade)
    assert len(trades) == 11  # a part that the first sweep left halfway
    assert sum(trade.maker_fee for trade in trades) == ceil_div(67 * 9_999, 10**6)
    assert sum(trade.maker_builder_fee for trade in trades) == ceil_div(67 * 9_999 * 3, 10**6)
    world.round([10_000])


def test_a_snapshot_keeps_what_is_shown(world):
    """A half-traded part comes back as it was."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000, display_size=150)
    world.order(taker, BUY, 70, 10_000, IOC)
    copy = restore(snapshot(world.state))
    assert state_hash(copy) == state_hash(world.state)
    assert copy.markets[0].book.asks.best().total == 80


def test_an_amended_iceberg_goes_to_the_back(world):
    """Its place belongs to the part that was in sight, so no amend keeps it."""
    iceberg, other, taker = (world.trader(number) for number in (10, 11, 12))
    world.order(iceberg, SELL, 400, 10_000, slot=1, display_size=150)
    world.order(other, SELL, 100, 10_000)
    world.order(iceberg, SELL, 300, 10_000, slot=1, amend=True, display_size=150)
    assert sizes(world.order(taker, BUY, 100, 10_000, IOC)) == [(other, 100)]


def test_liquidations_meet_parts_too(world):
    """A liquidation takes what shows, then what comes after it."""
    rich, debtor = world.trader(10), world.trader(11, 100)
    world.order(rich, SELL, 1_900, 10_000)
    world.order(debtor, BUY, 1_900, 10_000, IOC)
    world.round([9_690, 10_000])
    world.order(rich, BUY, 600, 9_690, display_size=100)
    events = world.liquidate(debtor)
    assert [trade.size for trade in of_type(events, Trade)][:2] == [100, 100]
    world.round([9_690, 10_000])


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"display_size": 99}, RejectCode.OUT_OF_RANGE),
        ({"display_size": 500, "tif": IOC}, RejectCode.BAD_COMBINATION),
        ({"display_size": 500, "tif": FOK}, RejectCode.BAD_COMBINATION),
    ],
)
def test_refusals(world, fields, code):
    """At most ten parts, and an iceberg rests; a tenth is accepted."""
    maker = world.trader(10)
    refused = rejection(world.order(maker, SELL, 1_000, 10_000, fields.pop("tif", GTC), **fields))
    assert (refused.code, refused.field) == (code, "display_size")
    world.order(maker, SELL, 1_000, 10_000, display_size=100)
    assert len(world.state.accounts[maker].orders) == 1


def test_a_part_has_the_least_notional(world):
    """A part below the market's minimum is no order either."""
    maker = world.trader(10)
    refused = rejection(world.order(maker, SELL, 50, 10_000, display_size=9))
    assert refused.code is RejectCode.BELOW_MIN_NOTIONAL
    world.order(maker, SELL, 50, 10_000, display_size=10)
    assert len(world.state.accounts[maker].orders) == 1
