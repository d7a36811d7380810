"""Amend and CancelOrder: one mechanism of slots and sequences."""

import pytest
from engine_world import BUY, IOC, SELL, START_S, World, of_type, owner_of, rejection

from evermark.protocol.reject import RejectCode
from sequencer.engine.events import CancelReason, OrderAccepted, OrderCancelled, Trade
from sequencer.engine.expiry_index import MINUTE_S, SPARE_MINUTES

MS = START_S * 1000


@pytest.fixture
def world():
    return World()


@pytest.fixture
def maker(world):
    return world.trader(10)


@pytest.fixture
def taker(world):
    return world.trader(11)


def test_an_amend_carries_what_was_filled(world, maker, taker):
    """Size means the total: what traded before counts against the new order, in the engine as in the
    vault."""
    world.order(maker, SELL, 1_000, 10_000, slot=1)
    world.order(taker, BUY, 300, 10_000, IOC)
    events = world.order(maker, SELL, 800, 10_010, slot=1, amend=True)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.REPLACED
    assert of_type(events, OrderAccepted)[0].filled == 300
    world.order(taker, BUY, 900, 10_010, IOC)
    assert world.size(maker) == -800
    world.next_round()
    world.assert_settled()


def test_an_amend_that_only_shrinks_keeps_its_place(world, maker, taker):
    """Time priority survives a smaller size at the same price, and nothing else."""
    second = world.trader(12)
    world.order(maker, SELL, 500, 10_000, slot=1)
    world.order(second, SELL, 500, 10_000)
    world.order(maker, SELL, 400, 10_000, slot=1, amend=True)
    assert of_type(world.order(taker, BUY, 100, 10_000, IOC), Trade)[0].maker == maker
    world.order(maker, SELL, 900, 10_000, slot=1, amend=True)
    assert of_type(world.order(taker, BUY, 100, 10_000, IOC), Trade)[0].maker == second


def test_ended_orders_leave_nothing_behind(world, maker):
    """However many orders come and go, the engine remembers expiries in proportion to those that wait, and ends those."""
    short = world.order(maker, SELL, 500, 10_100, slot=1, expiry=world.state.now + 60)
    world.order(maker, SELL, 500, 10_100, slot=2)
    later = world.state.now + 3_600
    for number in range(2 * SPARE_MINUTES):
        world.order(maker, SELL, 500, 10_100, slot=3, expiry=later + number * MINUTE_S)
        world.cancel(maker, 3)
    index = world.state.expiries
    assert sum(len(basket) for basket in index.baskets.values()) == 2
    assert len(index.baskets) <= 2
    assert len(index.minutes) <= SPARE_MINUTES + 6
    events = world.round([10_000], 61)
    ended = of_type(events, OrderCancelled)
    assert [event.order_hash for event in ended] == [of_type(short, OrderAccepted)[0].order_hash]
    assert set(world.state.accounts[maker].orders) == {2}


def test_an_amend_may_trade_at_once(world, maker, taker):
    """A better price that crosses takes."""
    world.order(maker, SELL, 500, 10_050, slot=1)
    world.order(taker, BUY, 500, 10_000)
    assert of_type(world.order(maker, SELL, 500, 10_000, slot=1, amend=True), Trade)


def test_an_amend_carries_what_the_chain_remembers(world, maker, taker):
    """A cancelled order's successor that never traded leaves the chain's filled amount; an amend meets it
    again."""
    world.order(maker, SELL, 1_000, 10_000, slot=1)
    world.order(taker, BUY, 300, 10_000, IOC)
    world.cancel(maker, 1)
    world.order(maker, SELL, 500, 10_000, slot=1)
    assert of_type(world.order(maker, SELL, 500, 10_001, slot=1, amend=True), OrderAccepted)[0].filled == 300
    world.order(taker, BUY, 500, 10_001, IOC)
    world.next_round()
    world.assert_settled()


def test_amend_refusals(world, maker, taker):
    """An amend keeps market and side, and a total above what has traded."""
    world.order(maker, SELL, 1_000, 10_000, slot=1)
    world.order(taker, BUY, 300, 10_000, IOC)
    assert (
        rejection(world.order(maker, BUY, 1_000, 9_000, slot=1, amend=True)).code
        is RejectCode.BAD_COMBINATION
    )
    refused = rejection(world.order(maker, SELL, 300, 10_000, slot=1, amend=True))
    assert (refused.code, refused.details["filled"]) == (RejectCode.ALREADY_FILLED, 300)


def test_cancel_ends_the_order_and_its_sequence(world, maker):
    """After the cancel the same or an older sequence of the slot is refused."""
    world.order(maker, BUY, 500, 9_900, slot=2, sequence=MS + 10)
    events = world.cancel(maker, 2, sequence=MS + 10)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.USER
    assert rejection(world.cancel(maker, 2, sequence=MS + 10)).code is RejectCode.UNKNOWN_ORDER
    late = world.order(maker, BUY, 500, 9_900, slot=2, sequence=MS + 10)
    assert rejection(late).code is RejectCode.STALE_SEQUENCE


@pytest.mark.safety("G16", "sequencer")
def test_a_cancel_that_overtakes_its_order_wins(world, maker):
    """Delivered first, the cancel voids the sequence, so the late order is refused."""
    assert not of_type(world.cancel(maker, 5, sequence=MS + 20), OrderCancelled)
    late = world.order(maker, BUY, 500, 9_900, slot=5, sequence=MS + 20)
    assert rejection(late).code is RejectCode.STALE_SEQUENCE
    assert of_type(world.order(maker, BUY, 500, 9_900, slot=5, sequence=MS + 21), OrderAccepted)


def test_cancel_all_voids_every_slot(world, maker):
    """All waiting orders end, and nothing at or below the sequence is accepted in any slot."""
    for slot in (1, 2, 3):
        world.order(maker, BUY, 500, 9_900, slot=slot, sequence=MS + slot)
    events = world.cancel(maker, 0, sequence=MS + 2, all_slots=True)
    assert len(of_type(events, OrderCancelled)) == 2
    assert (
        rejection(world.order(maker, BUY, 500, 9_900, slot=9, sequence=MS + 2)).code
        is RejectCode.STALE_SEQUENCE
    )


def test_cancel_refusals(world, maker, taker):
    """Signer, deadline and sequence are checked as for orders."""
    world.order(maker, BUY, 500, 9_900, slot=1)
    assert rejection(world.cancel(maker, 1, signer=owner_of(99))).code is RejectCode.NOT_AUTHORISED
    assert rejection(world.cancel(maker, 1, deadline=START_S - 1)).code is RejectCode.EXPIRED
    far = rejection(world.cancel(maker, 1, sequence=MS + 86_400_001))
    assert far.code is RejectCode.SEQUENCE_TOO_FAR
    assert world.state.accounts[maker].orders
