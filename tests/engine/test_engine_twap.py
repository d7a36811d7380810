"""TWAP orders: slices at their times, catching up, bounded from the mark, and their end; all settles on the naive vault."""

import random

import pytest
from engine_world import BUY, GTC, IOC, SELL, World, market, of_type, owner_of, rejection

from evermark.protocol.orders import Trigger
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import MarketMode, SetMarketMode
from sequencer.engine.events import CancelReason, OrderCancelled, OrderFilled, Trade, TwapSliced, TwapStarted
from sequencer.engine.snapshot import restore, snapshot, state_hash

SIZE = 1_000


@pytest.fixture
def world():
    return World(market(0))


@pytest.fixture
def maker(world):
    account = world.trader(10, 10**6)
    world.order(account, SELL, 100_000, 10_000)
    return account


@pytest.fixture
def trader(world, maker):
    return world.trader(11)


def twap(world, account, side=BUY, size=SIZE, price=10_100, interval=30, slices=10, **fields):
    fields.setdefault("slot", 1)
    fields.setdefault("expiry", world.state.now + slices * interval)
    return world.order(account, side, size, price, fields.pop("tif", IOC), twap_interval=interval, **fields)


def sliced(events):
    return [(event.number, event.filled) for event in of_type(events, TwapSliced)]


def test_slices_come_at_their_times(world, trader):
    """The first at once, then one each interval, each its share of the size, until the whole is filled."""
    events = twap(world, trader)
    (started,) = of_type(events, TwapStarted)
    assert (started.slices, started.interval_s) == (10, 30)
    assert sliced(events) == [(1, 100)]
    told = [sliced(world.round([10_000], after_s=10)) for _ in range(26)]
    assert [found for found in told if found] == [[(number, 100)] for number in range(2, 10)]
    last = world.round([10_000], after_s=10)
    assert sliced(last) == [(10, 100)]
    assert of_type(last, OrderFilled)
    assert world.size(trader) == SIZE
    assert not world.state.accounts[trader].untriggered


def test_what_was_missed_is_caught_up_with(world, trader, maker):
    """Slices that found nothing are made good, at most three slices' worth at once; the last one ends the order."""
    world.cancel(maker, all_slots=True)
    events = twap(world, trader)
    assert [(event.filled, event.size) for event in of_type(events, TwapSliced)] == [(0, 100)]
    for _ in range(5):
        world.round([10_000], after_s=30)
    world.order(maker, SELL, 100_000, 10_000)
    found = [sliced(world.round([10_000], after_s=30))[0] for _ in range(3)]
    assert found == [(7, 300), (8, 300), (9, 300)]
    assert sliced(world.round([10_000], after_s=30)) == [(10, 100)]


def test_an_end_without_the_whole(world, trader, maker):
    """After its last slice what did not trade is cancelled, with the reason."""
    world.cancel(maker, all_slots=True)
    twap(world, trader, slices=2)
    (cancelled,) = of_type(world.round([10_000], after_s=30), OrderCancelled)
    assert (cancelled.reason, cancelled.remaining) == (CancelReason.TWAP_ENDED, SIZE)


def test_rounds_that_are_missing_merge_slices(world, trader):
    """Between two rounds far apart at most one suborder is sent; its number is that of the newest slice."""
    twap(world, trader)
    told = [sliced(world.round([10_000], after_s=seconds)) for seconds in (5, 50, 4, 61)]
    assert told == [[], [(2, 100)], [], [(5, 300)]]


def test_no_slice_is_worse_than_three_per_cent_from_the_mark(world, trader, maker):
    """Whatever limit was signed."""
    world.cancel(maker, all_slots=True)
    world.order(maker, SELL, 500, 10_301)
    events = twap(world, trader, price=11_000)
    (slice_,) = of_type(events, TwapSliced)
    assert (slice_.price, slice_.filled) == (10_300, 0)
    world.order(maker, SELL, 500, 10_300)
    assert sliced(world.round([10_000], after_s=30)) == [(2, 200)]
    world.order(maker, BUY, 500, 9_700)
    seller = world.trader(12)
    (slice_,) = of_type(twap(world, seller, SELL, price=9_000), TwapSliced)
    assert (slice_.price, slice_.filled) == (9_700, 100)


def test_the_signed_limit_holds(world, trader):
    """A slice never trades beyond it."""
    (slice_,) = of_type(twap(world, trader, price=9_990), TwapSliced)
    assert (slice_.price, slice_.filled) == (9_990, 0)


def test_a_slice_that_margin_refuses_is_told_and_the_order_goes_on(world, maker):
    """Each slice is checked as an order that comes then; the reason is in its event."""
    poor = world.trader(12, 50)
    events = twap(world, poor, size=2_000, slices=2)
    assert [event.reason for event in of_type(events, TwapSliced)] == ["INSUFFICIENT_MARGIN"]
    assert world.state.accounts[poor].untriggered


def test_a_halted_market_pauses_it(world, trader):
    """While the market takes no orders slices are refused; afterwards they catch up."""
    twap(world, trader)
    world.apply(SetMarketMode(market_id=0, mode=MarketMode.HALTED, reason="test"))
    assert sliced(world.round([10_000], after_s=30)) == [(2, 0)]
    world.apply(SetMarketMode(market_id=0, mode=MarketMode.NORMAL, reason="test"))
    assert not of_type(world.round([10_000], after_s=5), Trade)


def test_a_reduce_only_twap_ends_with_the_position(world, trader, maker):
    """It sells no more than there is, and leaves once the position is closed by something else."""
    world.order(trader, BUY, 300, 10_000, IOC)
    world.order(maker, BUY, 10_000, 9_990)
    world.round([10_000])  # who grew in a batch shrinks in the next one
    twap(world, trader, SELL, size=SIZE, price=9_900, reduce_only=True)
    assert world.size(trader) == 200
    events = world.order(trader, SELL, 200, 9_900, IOC, reduce_only=True)
    (cancelled,) = [e for e in of_type(events, OrderCancelled) if e.slot == 1]
    assert (cancelled.reason, cancelled.filled) == (CancelReason.REDUCE_ONLY, 100)
    assert world.state.accounts[trader].positions[0].reduce_orders == 0


def test_a_revoked_agent_ends_it(world, trader):
    """Its slices are no longer signed for."""
    world.approve(trader, owner_of(900))
    twap(world, trader, signer=owner_of(900))
    world.approve(trader, owner_of(900), 0)
    assert not world.state.accounts[trader].untriggered


def test_cancel_and_amend(world, trader):
    """A cancel ends it; an amend begins anew with what has filled."""
    twap(world, trader)
    events = twap(world, trader, size=1_500, amend=True, slices=5)
    assert sliced(events) == [(1, 200)]
    assert world.state.accounts[trader].untriggered[1].filled == 300
    world.cancel(trader, 1)
    assert not of_type(world.round([10_000], after_s=30), TwapSliced)
    assert not world.state.twaps or all(entry[0] > world.state.now for entry in world.state.twaps)


def test_a_snapshot_keeps_its_clock(world, trader):
    """Restored between two slices, the next one comes when it would have."""
    twap(world, trader)
    world.round([10_000], after_s=20)
    copy = restore(snapshot(world.state))
    assert state_hash(copy) == state_hash(world.state)
    assert sorted(copy.twaps) == sorted(world.state.twaps)


@pytest.mark.parametrize(
    "fields, code, field",
    [
        ({"interval": 9}, RejectCode.OUT_OF_RANGE, "twap_interval"),
        ({"interval": 3_601}, RejectCode.OUT_OF_RANGE, "twap_interval"),
        ({"slices": 1}, RejectCode.OUT_OF_RANGE, "expiry"),
        ({"slices": 2_881}, RejectCode.OUT_OF_RANGE, "expiry"),
        ({"size": 99}, RejectCode.BELOW_MIN_NOTIONAL, "size"),
        ({"tif": GTC}, RejectCode.BAD_COMBINATION, "time_in_force"),
        ({"slot": 0}, RejectCode.BAD_COMBINATION, "time_in_force"),
        (
            {"trigger": Trigger.MARK_ABOVE, "trigger_price": 10_500},
            RejectCode.BAD_COMBINATION,
            "twap_interval",
        ),
    ],
)
def test_refusals(world, trader, fields, code, field):
    """Each with its field; the edge itself is accepted elsewhere in this file or below."""
    refused = rejection(twap(world, trader, **fields))
    assert (refused.code, refused.field) == (code, field)
    assert of_type(twap(world, trader, size=10 * 3_600, interval=10, slices=2_880), TwapStarted)


def test_ten_of_an_account(world, trader):
    """An eleventh is refused."""
    for slot in range(1, 11):
        assert of_type(twap(world, trader, slot=slot), TwapStarted)
    assert rejection(twap(world, trader, slot=11)).code is RejectCode.TOO_MANY_ORDERS


@pytest.mark.parametrize("seed", range(3))
def test_filled_follows_the_plain_schedule(seed):
    """Against a deep book the filled size after any stream of rounds is what the schedule alone says, counted slowly."""
    rng = random.Random(seed)
    world = World(market(0))
    maker, trader = world.trader(10, 10**7), world.trader(11, 10**6)
    world.order(maker, SELL, 10**6, 10_000)
    size, interval, count = rng.randint(500, 5_000), rng.randint(10, 40), rng.randint(3, 25)
    start = world.state.now
    twap(world, trader, size=size, interval=interval, slices=count)
    part, filled, sent = -(-size // count), 0, 0
    for _ in range(60):
        now = world.state.now
        reached = max((k for k in range(1, count + 1) if start + (k - 1) * interval <= now), default=0)
        if reached > sent and now < start + count * interval:  # what comes later finds it expired
            filled += min(size * reached // count - filled, 3 * part)
            sent = reached
        assert world.size(trader) == filled
        world.round([10_000], after_s=rng.randint(1, 28))
