"""Trigger orders: stops, take-profits, trailing orders and brackets wait outside the book until their price comes."""

import pytest
from engine_world import BUY, GTC, IOC, SELL, START_S, USDC, World, market, of_type, owner_of, rejection

from evermark.protocol.orders import Trigger
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import MarketMode
from sequencer.engine.events import (
    CancelReason,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRested,
    OrderTriggered,
    OrderWaits,
)
from sequencer.engine.snapshot import restore, snapshot, state_hash
from sequencer.engine.trigger_checks import MAX_MARK_TRIGGERS_HOUR, MAX_UNTRIGGERED
from sequencer.engine.waking import WAKES_PER_COMMAND

ABOVE, BELOW = Trigger.MARK_ABOVE, Trigger.MARK_BELOW
LAST_ABOVE, LAST_BELOW = Trigger.LAST_ABOVE, Trigger.LAST_BELOW


@pytest.fixture
def world():
    return World()


@pytest.fixture
def holder(world):
    """Long 1,000 lots from 10,000, with bids and asks around."""
    maker, holder = world.trader(11), world.trader(10, 5_000)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(holder, BUY, 1_000, 10_000, IOC)
    for distance in (50, 100, 400):
        world.order(maker, BUY, 2_000, 10_000 - distance)
        world.order(maker, SELL, 2_000, 10_000 + distance)
    return holder


def stop(world, account, price, trigger=BELOW, side=SELL, size=1_000, limit=9_600, tif=IOC, **fields):
    fields.setdefault("slot", 1)
    fields.setdefault("reduce_only", True)
    return world.order(account, side, size, limit, tif, trigger=trigger, trigger_price=price, **fields)


def reasons(events):
    return [event.reason for event in of_type(events, OrderCancelled)]


def test_a_stop_waits_and_closes_at_the_mark(world, holder):
    """Outside the book until the mark is at its price; then it trades, and the vault finds the bit in the same batch."""
    events = stop(world, holder, 9_950)
    (waits,) = of_type(events, OrderWaits)
    assert waits.trigger_price == 9_950
    assert of_type(events, OrderAccepted)
    assert not of_type(events, OrderRested)
    assert not of_type(world.round([9_951, 10_000]), OrderTriggered)
    assert world.size(holder) == 1_000
    events = world.round([9_950, 10_000])
    (woke,) = of_type(events, OrderTriggered)
    assert woke.price == 9_950
    assert of_type(events, OrderFilled)
    assert world.size(holder) == 0
    assert len(world.sealed[-1].batch.triggers) == 1
    assert world.state.batch.is_empty
    world.next_round()
    world.assert_settled()


def test_a_take_profit_and_a_short_s_stop(world, holder):
    """Mark above wakes sells that take profit and buys that stop a short."""
    stop(world, holder, 10_050, ABOVE, limit=9_900, slot=2)
    short = world.trader(12, 5_000)
    world.order(short, SELL, 500, 9_950, IOC)
    stop(world, short, 10_060, ABOVE, BUY, 500, 10_100)
    world.round([10_050, 10_000])
    assert (world.size(holder), world.size(short)) == (0, -500)
    world.round([10_060, 10_000])
    assert world.size(short) == 0
    world.next_round()
    world.assert_settled()


def test_a_triggered_limit_rests(world, holder):
    """What does not trade at once waits in the book like any order, and its later fills need no new bit."""
    stop(world, holder, 9_950, limit=9_980, tif=GTC)
    events = world.round([9_950, 10_000])
    assert of_type(events, OrderTriggered)
    assert of_type(events, OrderRested)
    world.round([9_990, 10_000])
    buyer = world.trader(13)
    world.order(buyer, BUY, 400, 9_990, IOC)
    world.next_round()
    world.order(buyer, BUY, 600, 9_990, IOC)
    assert world.size(holder) == 0
    world.next_round()
    world.assert_settled()


def test_last_price_triggers_wake_with_the_trade(world, holder):
    """In the command whose trade met them; on the chain they need no bit."""
    stop(world, holder, 9_950, LAST_BELOW)
    seller = world.trader(12)
    events = world.order(seller, SELL, 100, 9_950, IOC)
    assert of_type(events, OrderTriggered)[0].price == 9_950
    assert world.size(holder) == 0
    assert not any(sealed.batch.triggers for sealed in world.sealed)
    world.next_round()
    world.assert_settled()


def test_one_stop_wakes_the_next(world, holder):
    """A stop's own trade is a last price: cascades run in one command, in price order."""
    second = world.trader(12, 5_000)
    world.order(second, BUY, 1_500, 10_050, IOC)
    stop(world, holder, 9_950, LAST_BELOW)
    stop(world, second, 9_900, LAST_BELOW, size=1_500)
    seller = world.trader(13)
    world.order(seller, SELL, 1_500, 9_950, IOC)
    assert (world.size(holder), world.size(second)) == (0, 0)
    world.next_round()
    world.assert_settled()


def test_a_trailing_stop_follows_and_never_moves_back(world, holder):
    """Its trigger stays an offset behind the last price of each round."""
    stop(world, holder, 9_800, LAST_BELOW, trailing_offset=60)
    order = world.state.accounts[holder].untriggered[1]
    world.next_round()
    assert order.trigger_price == 9_940  # the last trade was at 10,000
    buyer = world.trader(13)
    world.order(buyer, BUY, 100, 10_050, IOC)
    world.next_round()
    assert order.trigger_price == 9_990
    again = restore(snapshot(world.state))
    assert state_hash(again) == state_hash(world.state)
    assert again.accounts[holder].untriggered[1].trigger_price == 9_990
    world.order(world.state.account_ids[owner_of(11), 0], BUY, 100, 9_989)
    events = world.order(buyer, SELL, 100, 9_989, IOC)
    assert of_type(events, OrderTriggered)
    assert world.size(holder) == 0
    world.next_round()
    world.assert_settled()


def test_a_bracket_cancels_its_sibling(world, holder):
    """When one is filled, the order in the slot that it names leaves; mutual links make one cancel the other."""
    stop(world, holder, 9_900, slot=1, bracket_link=2)
    world.order(holder, SELL, 900, 10_020, slot=2, bracket_link=1)
    buyer = world.trader(13)
    events = world.order(buyer, BUY, 400, 10_020, IOC)
    assert not of_type(events, OrderCancelled)
    events = world.order(buyer, BUY, 500, 10_020, IOC)
    assert reasons(events) == [CancelReason.BRACKET]
    assert not world.state.accounts[holder].untriggered
    world.next_round()
    world.assert_settled()


def test_a_stop_without_a_position_left_is_cancelled(world, holder):
    """Reduce-only orders leave when the position closes, waiting or not; before one is open they may be placed."""
    stop(world, holder, 9_900, slot=1)
    events = world.order(holder, SELL, 1_000, 9_900, IOC)
    assert reasons(events) == [CancelReason.REDUCE_ONLY]
    stop(world, holder, 9_900, slot=1)
    world.round([9_900, 10_000])
    assert not world.state.accounts[holder].untriggered
    assert world.size(holder) == 0


def test_margin_is_looked_at_when_it_wakes(world, holder):
    """An untriggered order reserves nothing; without margin at its moment it is cancelled."""
    poor = world.trader(14, 20)
    stop(world, poor, 10_050, ABOVE, BUY, 10_000, 10_100, reduce_only=False)
    assert world.state.accounts[poor].worst == 0
    events = world.round([10_050, 10_000])
    assert reasons(events) == [CancelReason.MARGIN]
    world.next_round()
    world.assert_settled()


def test_an_amend_moves_the_trigger(world, holder):
    """By slot, untriggered or not; the older order's bit is worth nothing to the newer one."""
    stop(world, holder, 9_900, tif=GTC, limit=9_990)
    assert rejection(stop(world, holder, 9_950)).code is RejectCode.SLOT_OCCUPIED
    events = stop(world, holder, 9_950, tif=GTC, limit=9_990, amend=True)
    assert reasons(events) == [CancelReason.REPLACED]
    world.round([9_950, 10_000])
    assert world.state.accounts[holder].orders[1].order.trigger is BELOW
    world.round([10_000, 10_000])
    stop(world, holder, 9_940, tif=GTC, limit=9_990, amend=True)
    assert world.state.accounts[holder].untriggered[1].trigger_price == 9_940
    assert not world.state.accounts[holder].orders
    world.order(holder, SELL, 1_000, 10_010, GTC, slot=1, amend=True, reduce_only=True)
    assert not world.state.accounts[holder].untriggered
    buyer = world.trader(13)
    world.order(buyer, BUY, 1_000, 10_010, IOC)
    world.next_round()
    world.assert_settled()


def test_cancels_and_expiry_reach_untriggered_orders(world, holder):
    """By slot, by all slots, by a revoked agent, by time."""
    agent = owner_of(500)
    stop(world, holder, 9_900)
    assert reasons(world.cancel(holder, 1)) == [CancelReason.USER]
    stop(world, holder, 9_900)
    assert reasons(world.cancel(holder, all_slots=True)) == [CancelReason.USER]
    world.approve(holder, agent)
    stop(world, holder, 9_900, signer=agent)
    assert reasons(world.approve(holder, agent, life_s=0)) == [CancelReason.AGENT_REVOKED]
    stop(world, holder, 9_900, expiry=world.now_s + 7)
    world.next_round()
    assert reasons(world.next_round()) == [CancelReason.EXPIRED]
    world.approve(holder, agent, life_s=7)
    stop(world, holder, 9_900, signer=agent)
    world.next_round()
    assert reasons(world.round([9_900, 10_000])) == [CancelReason.AGENT_REVOKED]


def test_a_closed_market_lets_them_wait(world, holder):
    """Halted, post-only or stale: nothing wakes; once it trades again, the mark of that moment decides."""
    stop(world, holder, 9_950)
    world.mode(MarketMode.POST_ONLY)
    assert not of_type(world.round([9_940, 10_000]), OrderTriggered)
    assert not of_type(world.round([9_960, 10_000]), OrderTriggered)
    assert not of_type(world.mode(MarketMode.NORMAL), OrderTriggered)
    assert not of_type(world.round([0, 10_000], after_s=65), OrderTriggered)
    world.mode(MarketMode.POST_ONLY)
    world.round([9_940, 10_000])
    assert of_type(world.mode(MarketMode.NORMAL), OrderTriggered)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("H11", "ops")
def test_waiting_orders_are_bounded(world, holder):
    """At most 32 wait, and at most 200 mark triggers are placed in an hour, however often they are cancelled."""
    for slot in range(1, MAX_UNTRIGGERED + 1):
        assert of_type(stop(world, holder, 9_000, slot=slot), OrderWaits)
    assert rejection(stop(world, holder, 9_000, slot=99)).code is RejectCode.TOO_MANY_ORDERS
    assert of_type(stop(world, holder, 9_001, slot=1, amend=True), OrderWaits)
    world.cancel(holder, all_slots=True)
    for _ in range(MAX_UNTRIGGERED + 1, MAX_MARK_TRIGGERS_HOUR):
        stop(world, holder, 9_000)
        world.cancel(holder, 1)
    refused = rejection(stop(world, holder, 9_000))
    assert refused.details["most"] == MAX_MARK_TRIGGERS_HOUR
    assert of_type(stop(world, holder, 9_000, LAST_BELOW), OrderWaits)
    world.cancel(holder, 1)
    world.round([10_000, 10_000], after_s=3_600)
    assert of_type(stop(world, holder, 9_000), OrderWaits)


@pytest.mark.safety("H11", "ops")
def test_a_crowd_wakes_in_turns():
    """A round wakes a bounded number, in price order; the others wake with the next one, and no batch grows too large."""
    world = World(market(0), market(1))
    maker = world.trader(11, 10**7)
    world.order(maker, BUY, 10**6, 9_950)
    crowd = [world.trader(100 + number, 1_000) for number in range(WAKES_PER_COMMAND + 9)]
    for number, account in enumerate(crowd):
        stop(world, account, 9_960 - number % 3, side=SELL, size=100, limit=9_940, reduce_only=False)
    events = world.round([9_950, 10_000])
    first = of_type(events, OrderTriggered)
    assert 0 < len(first) <= WAKES_PER_COMMAND
    assert [crowd.index(event.account) % 3 for event in first] == sorted(
        crowd.index(event.account) % 3 for event in first
    )
    for _ in range(3):
        world.next_round()
    assert all(world.size(account) == -100 for account in crowd)
    world.next_round()
    world.assert_settled()


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"slot": 0}, RejectCode.BAD_COMBINATION),
        ({"trigger_price": 0}, RejectCode.OUT_OF_RANGE),
        ({"trigger_price": 10_000}, RejectCode.WOULD_TRIGGER_AT_ONCE),
        ({"trigger": ABOVE}, RejectCode.WOULD_TRIGGER_AT_ONCE),
        ({"trigger": Trigger.NONE}, RejectCode.BAD_COMBINATION),
        ({"trailing_offset": 5}, RejectCode.BAD_COMBINATION),
        ({"bracket_link": 1}, RejectCode.BAD_COMBINATION),
        ({"bracket_link": 2**16}, RejectCode.OUT_OF_RANGE),
        ({"trailing_offset": 2**32}, RejectCode.OUT_OF_RANGE),
        ({"display_size": 500}, RejectCode.BAD_COMBINATION),
        ({"twap_interval": 5}, RejectCode.OUT_OF_RANGE),
        ({"twap_interval": 30}, RejectCode.BAD_COMBINATION),
        ({"expiry": START_S}, RejectCode.EXPIRED),
        ({"max_fee_ppm": 1}, RejectCode.FEE_ABOVE_MAXIMUM),
    ],
)
def test_trigger_refusals(world, holder, fields, code):
    """What makes no sense, is not built, or would wake at once, is refused and leaves nothing."""
    plain = {"slot": 1, "trigger": BELOW, "trigger_price": 9_900, "reduce_only": True}
    assert rejection(world.order(holder, SELL, 1_000, 9_600, IOC, **plain | fields)).code is code
    assert not world.state.accounts[holder].untriggered


def test_a_batch_holds_a_bit_without_a_fill(world, holder):
    """The bit settles when its mark is pinned, though the order trades in a later batch, or never."""
    stop(world, holder, 9_950, limit=9_999, tif=GTC)
    world.round([9_950, 10_000])
    world.next_round()
    sealed = world.sealed[-1].batch
    assert (len(sealed.orders), len(sealed.triggers), sealed.fills) == (1, 1, ())
    world.assert_settled()
    assert world.collateral(holder) < 5_000 * USDC
