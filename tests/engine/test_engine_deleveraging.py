"""Auto-deleveraging: what neither book nor fund can take, against the queue, only as far as needed."""

import pytest
from engine_world import BUY, GTC, IOC, SELL, USDC, World, market, of_type

from evermark.protocol.batch import FILL_DELEVERAGE, INSURANCE_FUND
from evermark.protocol.liquidation import deleveraging_score
from evermark.protocol.margin import maintenance_margin
from sequencer.engine.apply import apply
from sequencer.engine.deleveraging import queue
from sequencer.engine.events import BatchSealed, Deleveraged, Liquidated, Trade
from sequencer.engine.risk import margin_of
from sequencer.engine.snapshot import restore, snapshot, state_hash
from sequencer.engine.state import EngineState

LOTS = 1_900  # 1,900 USDC at 10,000 ticks


@pytest.fixture
def world():
    return World()


@pytest.fixture
def short(world):
    """The other side of everything: richly covered."""
    return world.trader(10)


@pytest.fixture
def debtor(world, short):
    """Long at nearly 20x: initial margin 95 of 100 USDC, maintenance 47.5. The fund holds nothing."""
    account = world.trader(11, 100)
    world.order(short, SELL, LOTS, 10_000)
    world.order(account, BUY, LOTS, 10_000, IOC)
    return account


def margin(world, account):
    return margin_of(world.state, world.state.accounts[account])


def sell(world, number, lots, price, usdc):
    """A short that sold to the rich trader 99 at this price."""
    account = world.trader(number, usdc)
    buyer = world.trader(99)
    world.order(account, SELL, lots, price)
    world.order(buyer, BUY, lots, price, IOC)
    assert world.size(account) == -lots
    return account


@pytest.mark.safety("B20", "sequencer")
def test_with_equity_it_closes_at_the_mark_and_only_what_is_needed(world, short, debtor):
    """Below two thirds of maintenance and without a fund: no loss against the mark, back to maintenance, not a
    lot more; both sides are told."""
    world.round([9_620, 10_000])
    before, short_before = margin(world, debtor), margin(world, short)
    assert 0 < before.equity * 3 < before.maintenance * 2
    events = world.liquidate(debtor)
    (closed,), (told,) = of_type(events, Liquidated), of_type(events, Deleveraged)
    (trade,) = of_type(events, Trade)
    assert (closed.deleveraged, closed.taken_over, closed.loss, closed.fee) == (True, False, 0, 0)
    assert (told.account, told.target, told.size, told.price) == (short, debtor, closed.size, 9_620)
    assert (told.place, told.of) == (1, 1)
    assert (trade.maker, trade.taker, trade.price, trade.liquidated) == (short, debtor, 9_620, debtor)
    assert margin(world, debtor).equity == before.equity
    assert margin(world, short).equity == short_before.equity
    left = LOTS - closed.size
    assert world.size(debtor) == left > 0
    at = world.state.markets[0].market
    assert maintenance_margin(at, at.notional(left, 9_620)) <= before.equity
    assert maintenance_margin(at, at.notional(left + 1, 9_620)) > before.equity
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B20", "sequencer")
def test_below_zero_the_counterparty_pays_what_is_missing(world, short, debtor):
    """At the bankruptcy amount: the target ends flat with nothing, the counterparty lost exactly the deficit."""
    world.round([9_400, 10_000])
    deficit, rich = -margin(world, debtor).equity, margin(world, short).equity
    assert deficit > 0
    (closed,) = of_type(world.liquidate(debtor), Liquidated)
    assert (closed.size, closed.loss) == (LOTS, -deficit)
    assert (world.size(debtor), world.collateral(debtor)) == (0, 0)
    assert margin(world, short).equity == rich - deficit
    assert world.state.markets[0].open_interest == 0
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B06", "sequencer")
def test_the_fund_comes_first(world, short, debtor):
    """What the fund's margin allows it takes to the last lot; only the rest is deleveraged."""
    world.donate(20)
    world.round([9_400, 10_000])
    steps = of_type(world.liquidate(debtor), Liquidated)
    assert [step.deleveraged for step in steps] == [False] * (len(steps) - 1) + [True]
    taken = world.size(INSURANCE_FUND)
    assert 0 < taken < LOTS
    assert world.size(debtor) == 0
    fund = margin(world, INSURANCE_FUND)
    assert fund.equity >= fund.initial
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B20", "sequencer")
def test_the_queue_ranks_by_profit_times_leverage():
    """Score = profit / cost x notional / equity; higher first, equal scores by account id; losers last, and the less
    leveraged loser the later."""
    world = World()
    early = sell(world, 20, 500, 10_100, 1_000)
    late = sell(world, 21, 500, 9_900, 1_000)
    leveraged = sell(world, 22, 500, 10_100, 60)
    twin = sell(world, 23, 500, 10_100, 1_000)
    losing = sell(world, 24, 500, 9_500, 1_000)
    worse = sell(world, 25, 500, 9_500, 90)
    world.round([9_700, 10_000])
    ranked = queue(world.state, 0, -1)
    assert [account for account, _ in ranked] == [leveraged, early, twin, late, worse, losing]
    scores = dict(ranked)
    assert scores[early] == scores[twin] > 0 > scores[worse] > scores[losing]
    sums = margin(world, early)
    assert scores[early] == 500 * 400 * 100 * sums.notional * 10**6 // (500 * 10_100 * 100 * sums.equity)
    assert [account for account, _ in queue(world.state, 0, 1)] == [
        world.state.account_ids[world_owner(99), 0]
    ]


def world_owner(number):
    return number.to_bytes(20, "big")


def test_a_score_of_a_loss_is_divided_by_leverage():
    """Twice the leverage doubles the score of a gain and halves that of a loss."""
    assert deleveraging_score(10, 100, 200, 100) == 200_000
    assert deleveraging_score(10, 100, 400, 100) == 400_000
    assert deleveraging_score(-10, 100, 200, 100) == -50_000
    assert deleveraging_score(-10, 100, 400, 100) == -25_000


@pytest.mark.safety("B20", "sequencer")
def test_a_counterparty_stays_above_maintenance_and_the_next_one_follows():
    """The first of the queue takes only what its own margin bears of a bankruptcy; the second takes the rest."""
    world = World()
    buyer = world.trader(30, 450)
    weak, strong = world.trader(31, 80), world.trader(32, 5_000)
    for account, lots in ((weak, 1_500), (strong, 6_500)):
        world.order(buyer, BUY, lots, 10_000)
        world.order(account, SELL, lots, 10_000, IOC)
    assert world.size(buyer) == 8_000
    # The strong one is the more profitable: it sold nothing at a worse price, but the weak one is leveraged.
    world.round([9_200, 10_000])
    assert margin(world, buyer).equity < 0
    assert [account for account, _ in queue(world.state, 0, -1)] == [weak, strong]
    world.withdraw(weak, 130 * USDC)
    world.next_round()
    events = world.liquidate(buyer)
    told = of_type(events, Deleveraged)
    assert [event.account for event in told] == [weak, strong]
    assert [event.place for event in told] == [1, 2]
    for account in (weak, strong):
        assert not margin(world, account).liquidatable
    assert (world.size(buyer), world.collateral(buyer)) == (0, 0)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B21", "sequencer")
def test_a_hedged_account_is_told_and_its_other_leg_is_margined_at_once(world, short, debtor):
    """Deleveraging one leg of a hedge: an event for the account, and its margin counts what is left from then on."""
    hedger = world.trader(13, 300)
    world.order(short, BUY, 1_000, 10_000)
    world.order(hedger, SELL, 1_000, 10_000, IOC)
    world.order(short, SELL, 1_000, 10_000, market_id=1)
    world.order(hedger, BUY, 1_000, 10_000, IOC, market_id=1)
    world.round([9_300, 10_000])
    before = margin(world, hedger)
    told = of_type(world.liquidate(debtor), Deleveraged)
    (mine,) = [event for event in told if event.account == hedger]
    assert (mine.market_id, mine.size, mine.target) == (0, 1_000, debtor)
    after = margin(world, hedger)
    assert (world.size(hedger), world.size(hedger, 1)) == (0, 1_000)
    assert after.maintenance < before.maintenance
    assert after.maintenance == maintenance_margin(world.markets[1], world.markets[1].notional(1_000, 10_000))
    world.round([9_300, 6_200])
    assert margin(world, hedger).liquidatable
    world.next_round()
    world.assert_settled()


def test_waiting_orders_of_a_deleveraged_account_trade_in_the_next_batch(world, short, debtor):
    """The vault exempts it from the closing check, so none of its orders may fill in the same batch."""
    buyer = world.trader(14)
    world.order(short, SELL, 300, 9_700)
    world.order(short, BUY, 100, 9_300, reduce_only=True)
    world.round([9_400, 10_000])
    world.liquidate(debtor)
    assert not [order for order in world.state.accounts[short].orders.values() if order.reduce_only]
    assert of_type(world.order(buyer, BUY, 300, 9_700, IOC), BatchSealed)
    assert world.size(buyer) == 300
    world.next_round()
    world.assert_settled()


def test_an_account_that_traded_is_deleveraged_in_the_next_batch(world, short, debtor):
    """Its order fills are settled first, in a batch that ends with the command before: whoever replays up to a batch's last
    command finds what the chain has."""
    other = world.trader(15)
    world.round([9_400, 10_000])
    world.order(short, BUY, 50, 9_390)
    world.order(other, SELL, 50, 9_390, IOC)
    assert short in world.state.batch.row_accounts
    events = world.liquidate(debtor)
    (sealed,) = of_type(events, BatchSealed)
    assert sealed.batch.journal_sequence == world.state.sequence - 1
    assert of_type(events, Deleveraged)
    assert {fill.kind for fill in world.state.batch.fills} == {FILL_DELEVERAGE}
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B07", "sequencer")
@pytest.mark.safety("B13", "sequencer")
def test_a_whole_market_is_liquidated_with_an_empty_fund():
    """Forty small longs fall below zero at once and the fund has nothing: all are closed against the shorts, dust
    positions too, sums stay right, and the market trades on."""
    world = World(market(0, min_notional=1))
    short = world.trader(10, 10_000)
    longs = [world.trader(100 + number, 10) for number in range(40)]
    for number, account in enumerate(longs):
        lots = 1 + 4 * number
        world.order(short, SELL, lots, 10_000)
        world.order(account, BUY, lots, 10_000, IOC)
        world.withdraw(account, 10 * USDC - lots * 10_000 * 100 * 22 // 100)
    world.round([9_000])
    world.next_round()
    for account in longs:
        world.liquidate(account)
    assert world.state.markets[0].open_interest == sum(world.size(account) for account in longs)
    world.round([2_000])
    for account in longs:
        world.liquidate(account)
    assert world.state.markets[0].open_interest == 0
    assert world.size(INSURANCE_FUND) == world.collateral(INSURANCE_FUND) == 0
    assert all(world.collateral(account) >= 0 for account in longs)
    buyer = world.trader(11)
    world.order(short, SELL, 100, 2_000)
    assert of_type(world.order(buyer, BUY, 100, 2_000, IOC), Trade)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B19", "sequencer")
@pytest.mark.safety("B20", "sequencer")
def test_a_replay_deleverages_the_same_accounts(world, short, debtor):
    """The same journal gives the same queue, events and state; a restored snapshot goes on the same."""
    for number in range(16, 26):
        sell(world, number, 100 + 10 * number, 10_000 + number % 3, 400)
    kept = restore(snapshot(world.state))
    at = len(world.log)
    world.round([9_400, 10_000])
    world.order(short, SELL, 10, 9_900, GTC)
    events = world.liquidate(debtor)
    assert len(of_type(events, Deleveraged)) > 1
    for state, log in ((EngineState(), world.log), (kept, world.log[at:])):
        for command, stamp_ms in log:
            again = apply(state, command, state.sequence + 1, stamp_ms)
        assert again == events
        assert state_hash(state) == state_hash(world.state)
        assert restore(snapshot(state)).batch.deleveraged
