"""What an account is worth: collateral at par, positions at the round's mark, never at what this book last traded."""

import msgspec
import pytest
from engine_world import BUY, IOC, SELL, USDC, World, market, of_type, rejection

from evermark.protocol.funding import impact_price, premium_ppb
from evermark.protocol.markets import load_markets
from evermark.protocol.oracle import prices_hash
from evermark.protocol.reject import RejectCode
from keeper.oracle import BookTop, mark_price
from sequencer.engine.commands import InboxEntryKind
from sequencer.engine.events import BatchSealed, OrderAccepted, OrderCancelled, Trade
from sequencer.engine.risk import margin_of
from sequencer.engine.views import book_levels

INDEX = 10_000


@pytest.fixture
def world():
    return World()


@pytest.fixture
def rich(world):
    return world.trader(10)


@pytest.mark.safety("A06", "sequencer")
def test_collateral_is_worth_itself_whatever_trades(world, rich):
    """USDC counts one for one: no market has it as its base, and no price, trade or round changes what a flat account has."""
    assert not any("USD" in listed.base for listed in load_markets())
    flat, taker = world.trader(11, 500), world.trader(12)
    for price in (10_000, 9_600, 10_400):
        world.order(rich, SELL, 100, price)
        world.order(taker, BUY, 100, price, IOC)
        world.round([price, 10_000])
        margin = margin_of(world.state, world.state.accounts[flat])
        assert (margin.equity, margin.withdrawable) == (500 * USDC, 500 * USDC)


def swept_mark(last: int) -> int:
    """What an oracle keeper makes of a book that was swept up to `last` while the index stands."""
    return mark_price(market(0), INDEX, 2 * (last - INDEX), BookTop(last - 1, last + 1, last), [])


@pytest.mark.safety("A07", "sequencer")
def test_a_book_swept_threefold_liquidates_nobody(world, rich):
    """The mark stays in its band around the index; what is left of the book's prices decides neither margin nor liquidation."""
    short = world.trader(11, 60)
    world.order(rich, BUY, 1_000, INDEX)
    world.order(short, SELL, 1_000, INDEX, IOC)
    world.order(rich, SELL, 10, 10_450)
    sweeper = world.trader(12)
    assert rejection(world.order(sweeper, BUY, 10, 30_000, IOC)).code is RejectCode.OUTSIDE_PRICE_BAND
    assert of_type(world.order(sweeper, BUY, 10, 10_490, IOC), Trade)
    assert world.state.markets[0].last_price == 10_450
    for _ in range(12):
        world.round([swept_mark(3 * INDEX), 10_000], index=[INDEX, 10_000])
        assert world.state.markets[0].mark == INDEX * 1_008 // 1_000
        margin = margin_of(world.state, world.state.accounts[short])
        # At the swept price, even at the last trade's, it would be below maintenance.
        assert margin.maintenance < margin.equity < 52 * USDC
        assert margin.equity - 1_000 * 100 * (10_450 - world.state.markets[0].mark) < margin.maintenance
        assert rejection(world.liquidate(short)).code is RejectCode.HEALTHY_ACCOUNT
    world.assert_settled()


@pytest.mark.safety("A08", "sequencer")
def test_without_an_index_nothing_is_liquidated_and_risk_only_shrinks(world, rich):
    """The last mark stays, however low the book trades; when prices come back, so do liquidations."""
    long = world.trader(11, 60)
    world.order(rich, SELL, 1_000, INDEX)
    world.order(long, BUY, 1_000, INDEX, IOC)
    world.next_round()
    world.order(rich, BUY, 500, 9_600)
    world.round([0, 10_000], after_s=90)
    assert of_type(world.order(long, SELL, 200, 9_600, IOC, reduce_only=True), Trade)
    assert (world.state.markets[0].last_price, world.state.markets[0].mark) == (9_600, INDEX)
    assert rejection(world.liquidate(long)).code is RejectCode.STALE_PRICE
    refused = rejection(world.order(world.trader(12), BUY, 100, INDEX))
    assert (refused.code, refused.message) == (RejectCode.STALE_PRICE, "a price is stale: reducing only")
    world.round([9_500, 10_000])
    assert not rejected_as_stale(world.liquidate(long))
    world.next_round()
    world.assert_settled()


def rejected_as_stale(events) -> bool:
    return any(
        getattr(event, "reject", None) and event.reject.code is RejectCode.STALE_PRICE for event in events
    )


@pytest.mark.safety("A11", "sequencer")
def test_a_fill_settles_at_the_prices_that_it_was_matched_at(world, rich):
    """Whoever knows the next price trades at the book's price within the band, and the batch pins the round of its fills."""
    early = world.trader(11)
    world.order(rich, SELL, 1_000, INDEX)
    (trade,) = of_type(world.order(early, BUY, 1_000, 10_300, IOC), Trade)
    assert trade.price == INDEX
    matched = world.state.round
    (sealed,) = of_type(world.round([10_300, 10_000]), BatchSealed)
    assert (sealed.round, sealed.batch.round) == (matched, matched.round)
    assert sealed.batch.prices_hash == prices_hash(matched) != prices_hash(world.state.round)
    # A quote that the new price has left behind lies outside the band and is out of reach.
    world.order(rich, SELL, 100, 10_350)
    world.round([11_000, 10_000])
    assert not of_type(world.order(early, BUY, 100, 10_350, IOC), Trade)
    world.assert_settled()


def buy_all(world, buyer, seller, price: int) -> int:
    """Buys as much as the margin allows, in ever smaller pieces; lots held afterwards."""
    for size in (4_096 >> shift for shift in range(10)):
        while True:
            world.order(seller, SELL, size, price, slot=50)
            if not of_type(world.order(buyer, BUY, size, price, IOC), Trade):
                world.cancel(seller, slot=50)
                break
    return world.size(buyer)


@pytest.mark.safety("B05", "sequencer")
def test_a_self_made_profit_does_not_compound(world, rich):
    """An owner of both sides who carries the mark from one edge of its band to the other again and again, always putting the
    unrealised profit into more of the same: the position stays below one and a half times what its own money buys, and no
    more comes out than 20 % of notional leave."""
    attacker = world.trader(11, 100)
    low, high = INDEX * 992 // 1_000, INDEX * 1_008 // 1_000
    world.round([low, 10_000], index=[INDEX, 10_000])
    first = held = buy_all(world, attacker, rich, low)
    for _ in range(5):
        for edge in (high, low):
            world.round([edge, 10_000], index=[INDEX, 10_000])
            held = buy_all(world, attacker, rich, edge)
    assert first < held <= first * 3 // 2
    world.round([high, 10_000], index=[INDEX, 10_000])
    refused = rejection(world.withdraw(attacker, USDC))
    assert (refused.code, refused.details["withdrawable"]) == (RejectCode.INSUFFICIENT_WITHDRAWABLE, 0)
    world.assert_settled()


@pytest.mark.safety("B15", "sequencer")
def test_over_a_lowered_cap_positions_only_shrink(world, rich):
    """Open interest is above the cap after it was lowered: who reduces may, who would add may not."""
    taker = world.trader(11)
    world.order(rich, SELL, 1_000, INDEX)
    world.order(taker, BUY, 1_000, INDEX, IOC)
    world.next_round()
    lowered = msgspec.structs.replace(world.markets[0], open_interest_cap_lots=400)
    world.state.markets[0].market = world.vault.markets[0] = lowered
    assert rejection(world.order(taker, BUY, 100, INDEX)).code is RejectCode.OPEN_INTEREST_CAP
    for reducing in (300, 500):
        world.order(rich, BUY, reducing, INDEX)
        assert of_type(world.order(taker, SELL, reducing, INDEX, IOC), Trade)
        world.next_round()
    assert world.state.markets[0].open_interest == 200
    world.order(rich, SELL, 100, INDEX)
    assert of_type(world.order(taker, BUY, 100, INDEX, IOC), Trade)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B24", "sequencer")
def test_a_wall_needs_margin_and_moves_no_funding(world, rich):
    """A wall reserves the margin of its worst case from the moment it rests until it is pulled; and far from the index it is no
    part of the impact price that funding is made of."""
    spoofer = world.trader(11, 1_000)
    assert rejection(world.order(spoofer, BUY, 30_000, 9_900)).code is RejectCode.INSUFFICIENT_MARGIN
    world.order(rich, BUY, 12_000, 9_990)
    before = book_impact(world)
    assert of_type(world.order(spoofer, BUY, 19_000, 9_800, slot=7), OrderAccepted)
    assert rejection(world.withdraw(spoofer, 200 * USDC)).code is RejectCode.INSUFFICIENT_WITHDRAWABLE
    assert book_impact(world) == before
    assert of_type(world.cancel(spoofer, slot=7), OrderCancelled)
    assert book_impact(world) == before


def book_impact(world) -> int:
    """The premium in ppb that funding keepers would sample."""
    levels = [(price, lots) for price, lots, _ in book_levels(world.state, 0, BUY, 50)]
    bid = impact_price(levels, market(0).impact_notional, 100) or INDEX
    return premium_ppb(bid, INDEX, INDEX)


@pytest.mark.safety("A09", "contract")
def test_after_an_outage_a_forced_liquidation_waits(world, rich):
    """A keeper's entry at the head stays there for the hour, as the vault would have it."""
    world.donate(5_000)
    debtor = world.trader(11, 100)
    world.order(rich, SELL, 1_900, INDEX)
    world.order(debtor, BUY, 1_900, INDEX, IOC)
    world.round([9_600, 10_000])
    world.outage()
    refused = rejection(world.entry(InboxEntryKind.LIQUIDATE, 77, target=debtor))
    assert refused.code is RejectCode.CHAIN_RESTARTED
    world.outage(False)
    world.entry(InboxEntryKind.LIQUIDATE, 77, target=debtor)
    assert world.size(debtor) == 0
    world.next_round()
    world.assert_settled()
