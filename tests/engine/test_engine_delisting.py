"""A market that is settled in cash: its orders end, nobody trades there, and positions end pair by pair, a batch a round."""

import pytest
from engine_world import BUY, IOC, SELL, World, market, of_type, rejection

from evermark.protocol.batch import FILL_CASH, INSURANCE_FUND
from evermark.protocol.governance import DelistMarket, PauseMarket, SettleMarket
from evermark.protocol.orders import Trigger
from evermark.protocol.reject import RejectCode
from sequencer.engine.batch_builder import FILL_CAP
from sequencer.engine.commands import InboxEntryKind, MarketMode
from sequencer.engine.events import (
    BatchSealed,
    CancelReason,
    CashSettled,
    MarketModeChanged,
    OrderCancelled,
    Trade,
    WithdrawalClaimed,
)

PRICE = 9_876


@pytest.fixture
def world():
    return World(market(0), market(1))


def govern(world, change):
    return world.entry(InboxEntryKind.GOVERNOR, 0, change=change)


def end_market(world):
    """Delisted and settled; the events of the second."""
    govern(world, DelistMarket(0))
    return govern(world, SettleMarket(0, PRICE))


@pytest.mark.safety("B27", "sequencer")
def test_orders_of_the_market_end_and_others_stay(world):
    """In the book, untriggered, and in slices; no new one is taken, and no command undoes it."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 400, 10_000, IOC)
    world.order(
        taker,
        SELL,
        400,
        10_100,
        IOC,
        slot=5,
        trigger=Trigger.MARK_ABOVE,
        trigger_price=10_050,
        reduce_only=True,
    )
    world.order(maker, SELL, 10, 10_200, market_id=1)
    events = end_market(world)
    cancelled = of_type(events, OrderCancelled)
    assert {(event.account, event.market_id) for event in cancelled} == {(maker, 0), (taker, 0)}
    assert {event.reason for event in cancelled} == {CancelReason.MARKET_SETTLED}
    assert [event.mode for event in of_type(events, MarketModeChanged)] == [MarketMode.SETTLED]
    assert [order.market_id for order in world.state.accounts[maker].orders.values()] == [1]
    refused = rejection(world.order(maker, BUY, 10, 10_000, reduce_only=True))
    assert (refused.code, refused.details["mode"]) == (RejectCode.MARKET_HALTED, MarketMode.SETTLED)
    assert rejection(world.liquidate(taker)).code is RejectCode.MARKET_HALTED
    assert rejection(world.mode(MarketMode.SETTLED, 1)).code is RejectCode.MALFORMED
    world.mode(MarketMode.NORMAL, 0)
    for mode, until in ((MarketMode.POST_ONLY, world.now_s + 5), (MarketMode.NORMAL, 0)):
        world.entry(InboxEntryKind.GUARDIAN, 0, change=PauseMarket(0, mode, until))
        assert world.state.markets[0].effective_mode is MarketMode.SETTLED
    (told,) = of_type(world.round([10_000, 10_000]), CashSettled)
    assert (told.account, told.counterparty, told.size, told.price) == (taker, maker, 400, PRICE)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B27", "sequencer")
def test_positions_end_in_order_over_several_rounds(world):
    """Longs and shorts by account id, at most a command's fills each round, without a trade; orders elsewhere go on."""
    short = world.trader(10, 1_000_000)
    longs = [world.trader(20 + place, 1_000) for place in range(FILL_CAP + 3)]
    for place, long in enumerate(longs):
        world.order(short, SELL, 10 + place, 10_000)
        world.order(long, BUY, 10 + place, 10_000, IOC)
    world.order(longs[0], SELL, 50, 10_000, market_id=1)
    before = {account: world.collateral(account) for account in (short, *longs)}
    end_market(world)
    steps = []
    while world.state.markets[0].holders:
        events = world.round([20_000, 10_000])
        assert world.state.markets[0].mark == PRICE
        assert not of_type(events, Trade)
        steps.append(of_type(events, CashSettled))
        (sealed,) = of_type(events, BatchSealed)[-1:]
        assert {fill.kind for fill in sealed.batch.fills} == {FILL_CASH}
    assert [len(step) for step in steps] == [FILL_CAP, 3]
    assert [event.account for step in steps for event in step] == longs
    for place, long in enumerate(longs):
        assert world.collateral(long) == before[long] + (10 + place) * PRICE * market(0).lot_tick_value
    assert sum(map(world.collateral, before)) == sum(before.values())
    assert of_type(world.withdraw(longs[1], world.collateral(longs[1])), WithdrawalClaimed)
    buyer = world.trader(11)
    assert of_type(world.order(buyer, BUY, 50, 10_000, IOC, market_id=1), Trade)
    world.next_round()
    world.assert_settled()


def test_a_stale_market_lets_nobody_out_until_it_is_settled(world):
    """Without a price a withdrawal is refused; with the settlement price, which never ages, it is not, positions or none."""
    world.donate(10_000)
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    govern(world, DelistMarket(0))
    world.round([0, 10_000], after_s=market(0).max_price_age_s + 100)
    assert rejection(world.withdraw(taker, 10)).code is RejectCode.STALE_PRICE
    govern(world, SettleMarket(0, PRICE))
    world.round([0, 10_000])
    assert of_type(world.withdraw(taker, 10), WithdrawalClaimed)
    world.round([0, 10_000], after_s=market(0).max_price_age_s + 100)
    assert not world.state.markets[0].stale
    assert not world.size(INSURANCE_FUND)
    world.next_round()
    world.assert_settled()
