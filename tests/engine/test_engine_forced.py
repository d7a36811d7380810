"""Closes and liquidations that the inbox forces: book, fund, queue, in parts; when the entry leaves, and when it waits."""

import pytest
from engine_world import BUY, IOC, SELL, World, of_type

from evermark.protocol.batch import FILL_FORCED, FILL_FORCED_ON_BOOK, INSURANCE_FUND
from evermark.protocol.forced import close_loss, close_penalty
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import InboxEntryKind, MarketMode, SetMarketMode
from sequencer.engine.events import (
    BatchSealed,
    CancelReason,
    CommandRejected,
    Deleveraged,
    EntryApplied,
    EntrySkipped,
    ForcedClose,
    Liquidated,
    OrderCancelled,
)
from sequencer.engine.risk import margin_of
from sequencer.engine.snapshot import restore, snapshot, state_hash

MARK = 10_000
LOTS = 1_000
HOUR_S = 3_600


@pytest.fixture
def world():
    return World()


@pytest.fixture
def short(world):
    return world.trader(10)


@pytest.fixture
def long(world, short):
    """Long 1,000 lots against the short."""
    account = world.trader(11)
    world.order(short, SELL, LOTS, MARK)
    world.order(account, BUY, LOTS, MARK, IOC)
    world.next_round()
    return account


def close(world, number=11, lots=LOTS, mark=MARK, **fields):
    """One offer of the owner's close; `lots` with the position's sign."""
    return world.entry(InboxEntryKind.CLOSE, number, size=lots, mark=mark, **fields)


def refusal(events):
    (told,) = of_type(events, CommandRejected)
    return told.reject.code


def test_the_book_comes_first_then_the_queue_then_the_entry_leaves(world, long, short):
    """The account's own orders in the market go; a bid within the penalty takes its size, the short the rest; the
    next offer consumes."""
    bidder = world.trader(12)
    world.order(long, SELL, 50, MARK + 400)
    kept = world.order(long, BUY, 50, MARK - 400, market_id=1)
    world.order(bidder, BUY, 300, MARK - 10)
    world.order(bidder, BUY, 300, MARK - 400)
    events = close(world)
    (cancelled,) = of_type(events, OrderCancelled)
    assert (cancelled.account, cancelled.reason) == (long, CancelReason.FORCED_CLOSE)
    assert of_type(kept, CommandRejected) == []
    first, second = of_type(events, ForcedClose)
    market = world.state.markets[0].market
    assert (first.counterparty, first.size, first.price) == (bidder, 300, MARK - 10)
    assert first.loss == market.notional(300, 10)
    assert (second.counterparty, second.size, second.price) == (short, 700, MARK)
    assert second.loss == close_loss(close_penalty(market, market.notional(700, MARK)), 0) > 0
    (told,) = of_type(events, Deleveraged)
    assert (told.account, told.target, told.place) == (short, long, 1)
    assert world.size(long) == 0
    assert world.state.next_entry_id == 4
    events = close(world)
    assert [event.account for event in of_type(events, EntryApplied)] == [long]
    (sealed,) = of_type(events, BatchSealed)
    assert [fill.kind for fill in sealed.batch.fills] == [FILL_FORCED_ON_BOOK, FILL_FORCED]
    assert len(sealed.batch.inbox) == 1  # the bidder's deposit
    world.next_round()
    world.assert_settled()


@pytest.mark.parametrize("moved", [-200, 10, 900])
def test_it_never_pays_more_than_the_worse_of_both_marks_nor_less_than_the_penalty_below(
    world, long, short, moved
):
    """The mark of the entry bounds what the closer gets; the penalty bounds what it loses against the mark of now."""
    world.round([MARK + moved, MARK])
    before = margin_of(world.state, world.state.accounts[long]).equity
    (part,) = of_type(close(world), ForcedClose)
    market = world.state.markets[0].market
    penalty = close_penalty(market, market.notional(LOTS, MARK + moved))
    assert -(-penalty // 2) <= part.loss <= penalty
    assert (part.loss == penalty) == (moved == 900)
    assert margin_of(world.state, world.state.accounts[long]).equity == before - part.loss


def test_a_counterparty_that_traded_in_the_batch_waits_for_the_next_part(world, long, short):
    """The short's own bid takes some on the book; as a target it may not trade in the same batch, so the rest follows."""
    world.order(short, BUY, 100, MARK)
    (part,) = of_type(close(world), ForcedClose)
    assert (part.counterparty, part.size) == (short, 100)
    assert world.size(long) == LOTS - 100
    (part,) = of_type(close(world), ForcedClose)
    assert (part.counterparty, part.size) == (short, LOTS - 100)
    assert of_type(close(world), EntryApplied)
    world.next_round()
    world.assert_settled()


def test_a_crash_between_the_parts_changes_nothing(world, long, short):
    """The lots closed so far and the hour's are state."""
    world.order(short, BUY, 100, MARK)
    close(world)
    copy = restore(snapshot(world.state))
    assert state_hash(copy) == state_hash(world.state)
    assert (copy.closed_lots, copy.closing_entry) == (100, world.state.next_entry_id)
    assert copy.markets[0].forced_lots == 100
    assert copy.batch.deleveraged


def test_the_entry_leaves_without_effect_where_nothing_can_be_closed(world, long, short):
    """No position, the other side, an account below maintenance; the same owner's next entry works."""
    for size in (-LOTS, LOTS):
        number = 11 if size < 0 else 10
        (skipped,) = of_type(close(world, number, size), EntrySkipped)
        assert skipped.reason == "no position"
    poor = world.trader(12, 100)
    world.order(short, SELL, 1_900, MARK)
    world.order(poor, BUY, 1_900, MARK, IOC)
    world.round([9_700, MARK])
    (skipped,) = of_type(close(world, 12, 1_900), EntrySkipped)
    assert skipped.reason == "below maintenance"
    assert of_type(close(world), ForcedClose)


@pytest.mark.safety("A01", "sequencer")
def test_a_stale_price_a_halt_and_the_cap_of_the_hour_wait(world, long, short):
    """Refused for now, and still the next entry; when it can go on it does."""
    next_id = world.state.next_entry_id
    world.apply(SetMarketMode(market_id=0, mode=MarketMode.HALTED, reason="test"))
    assert refusal(close(world)) == RejectCode.NOT_READY
    world.apply(SetMarketMode(market_id=0, mode=MarketMode.NORMAL, reason="test"))
    world.round([0, MARK], after_s=120)
    assert refusal(close(world)) == RejectCode.STALE_PRICE
    world.round([MARK, MARK])
    assert world.state.next_entry_id == next_id
    whale = world.trader(12)
    world.order(short, SELL, 30_000, MARK)
    world.order(whale, BUY, 30_000, MARK, IOC)
    world.next_round()
    (part,) = of_type(close(world, 12, 30_000), ForcedClose)
    assert part.size == world.state.markets[0].forced_cap == 25_000
    assert of_type(close(world, 12, 30_000), EntryApplied)
    assert refusal(close(world)) == RejectCode.NOT_READY
    world.round([MARK, MARK], after_s=HOUR_S)
    (part,) = of_type(close(world), ForcedClose)
    assert part.size == LOTS


def test_the_fund_takes_before_the_queue(world, short):
    """Its own opposite position shrinks, and it earns what the closer loses."""
    world.donate(5_000)
    debtor = world.trader(11, 100)
    world.order(short, SELL, 1_900, MARK)
    world.order(debtor, BUY, 1_900, MARK, IOC)
    world.round([9_600, MARK])
    world.liquidate(debtor)
    held = world.size(INSURANCE_FUND)
    assert held > 0
    before = margin_of(world.state, world.state.accounts[INSURANCE_FUND]).equity
    (part,) = of_type(close(world, 10, -1_900), ForcedClose)
    assert (part.counterparty, part.size) == (INSURANCE_FUND, held)
    fund = margin_of(world.state, world.state.accounts[INSURANCE_FUND])
    assert fund.equity == before + part.loss
    world.next_round()
    world.assert_settled()


def test_a_liquidation_by_the_inbox_is_done_and_leaves(world, short):
    """Below two thirds the account is closed out as by a keeper's trigger; whoever needs none leaves at once."""
    world.donate(5_000)
    debtor = world.trader(11, 100)
    world.order(short, SELL, 1_900, MARK)
    world.order(debtor, BUY, 1_900, MARK, IOC)

    def name():
        return world.entry(InboxEntryKind.LIQUIDATE, 77, target=debtor)

    (skipped,) = of_type(name(), EntrySkipped)
    assert skipped.reason == "above two thirds of maintenance"
    world.round([9_600, MARK])
    assert of_type(name(), Liquidated)
    assert of_type(name(), EntrySkipped)
    assert world.size(debtor) == 0
    world.next_round()
    world.assert_settled()


def test_a_liquidation_waits_for_a_price_and_for_the_end_of_a_halt(world, short):
    """It stays the next entry meanwhile."""
    debtor = world.trader(11, 100)
    world.order(short, SELL, 1_900, MARK)
    world.order(debtor, BUY, 1_900, MARK, IOC)
    world.round([9_600, MARK])

    def name():
        return world.entry(InboxEntryKind.LIQUIDATE, 77, target=debtor)

    world.apply(SetMarketMode(market_id=0, mode=MarketMode.HALTED, reason="test"))
    assert refusal(name()) == RejectCode.NOT_READY
    world.apply(SetMarketMode(market_id=0, mode=MarketMode.NORMAL, reason="test"))
    world.round([0, MARK], after_s=120)
    assert refusal(name()) == RejectCode.STALE_PRICE
    world.round([9_600, MARK])
    assert of_type(name(), Liquidated)
