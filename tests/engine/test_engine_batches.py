"""The open batch: when it ends, what it holds, and that its bounds are kept."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, market, of_type, owner_of

from sequencer.engine.batch_builder import FILL_CAP, MAX_ACCOUNTS, MAX_FILLS, MAX_PAIRS, MAX_ROWS
from sequencer.engine.commands import InboxEntryKind, MarketMode
from sequencer.engine.events import BatchSealed, CancelReason, CollateralChanged, OrderCancelled, Trade


@pytest.fixture
def world():
    return World()


def trade(world, maker, taker, size=500, price=10_000):
    world.order(maker, SELL, size, price)
    return world.order(taker, BUY, size, price, IOC)


def test_resting_orders_need_no_batch(world):
    """Only what trades or moves money is settled."""
    maker = world.trader(10)
    world.next_round()
    world.order(maker, BUY, 500, 9_900)
    world.cancel(maker)
    assert not of_type(world.next_round(), BatchSealed)


def test_sections_only_go_forward(world):
    """Deposit, approval, funding, fills, withdrawal share a batch in this order; going back ends it."""
    maker, taker = world.trader(10), world.trader(11)
    world.approve(maker, owner_of(500))
    assert not world.sealed
    trade(world, maker, taker)
    world.withdraw(taker, USDC)
    assert not world.sealed
    world.withdraw(taker, USDC)
    assert of_type(trade(world, maker, taker), BatchSealed)
    assert of_type(world.approve(maker, owner_of(500)), BatchSealed)
    assert of_type(world.entry(InboxEntryKind.DEPOSIT, 10, USDC), CollateralChanged)
    assert len(world.sealed) == 3
    world.next_round()
    world.assert_settled()


def test_fees_round_once_per_row_and_batch(world):
    """Many small fills of one order cost what one of the sum costs, as long as they lie in one batch."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 9_999)
    before = world.collateral(maker)
    for _ in range(10):
        world.order(taker, BUY, 33, 9_999, IOC)
    notional = 330 * 9_999 * 100
    fee = notional - (world.collateral(maker) - before)
    assert fee == -(-notional * 100 // 10**6)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("C01", "sequencer")
def test_small_trades_never_beat_one_large(world):
    """A thousand small trades leave the trader with no more than one trade of the sum."""
    maker, one, many = world.trader(10, 10**6), world.trader(11), world.trader(12)
    world.order(maker, SELL, 20_000, 10_001)
    world.order(one, BUY, 10_000, 10_001, IOC)
    for number in range(1_000):
        world.order(many, BUY, 10, 10_001, IOC)
        if number % 50 == 0:
            world.next_round()
            world.confirm(world.state.sealed_batch)
    assert world.size(many) == world.size(one) == 10_000
    assert world.collateral(many) <= world.collateral(one)
    world.next_round()
    world.assert_settled()


def test_a_taker_stops_at_the_fill_cap(world):
    """All fills of a command lie in one batch, so their number is bounded; the remainder ends."""
    taker = world.trader(11, 10**6)
    for number in range(40):
        world.order(world.trader(100 + number), SELL, 10, 10_000 + number)
    events = world.order(taker, BUY, 400, 10_100, IOC)
    assert len(of_type(events, Trade)) == FILL_CAP
    assert of_type(events, OrderCancelled)[-1].reason is CancelReason.FILL_CAP
    world.next_round()
    world.assert_settled()


def test_a_full_batch_is_sealed_before_the_next_command():
    """Row, fill, account and pair tables keep their bounds under any load."""
    world = World(*(market(number) for number in range(8)))
    makers = [world.trader(100 + number, 10**6) for number in range(60)]
    for number in range(400):
        maker, taker = makers[number % 60], makers[(number * 7 + 1) % 60]
        if maker == taker:
            continue
        world.order(maker, SELL, 100, 10_000, market_id=number % 8)
        world.order(taker, BUY, 100, 10_000, IOC, market_id=number % 8)
        if world.state.sealed_batch > world.state.confirmed_batch:
            world.confirm(world.state.sealed_batch)
    world.next_round()
    world.assert_settled()
    full = [sealed.batch for sealed in world.sealed]
    assert len(full) > 3
    for batch in full:
        assert len(batch.orders) <= MAX_ROWS
        assert len(batch.fills) <= MAX_FILLS
        assert len(batch.accounts) <= MAX_ACCOUNTS
        assert len(batch.pairs) <= MAX_PAIRS


def test_many_positions_stop_a_sweep_at_the_pair_table():
    """Each maker brings all its open positions; a sweep ends before the table overflows."""
    world = World(*(market(number) for number in range(16)))
    makers = [world.trader(100 + number, 10**6) for number in range(20)]
    taker = world.trader(11, 10**6)
    for number in range(16):
        for maker in makers:
            world.order(maker, SELL, 100, 10_000, market_id=number)
            world.order(taker, BUY, 100, 10_000, IOC, market_id=number)
            if world.state.sealed_batch > world.state.confirmed_batch:
                world.confirm(world.state.sealed_batch)
    for maker in makers:
        world.order(maker, BUY, 20, 9_990)
    events = world.order(taker, SELL, 400, 9_990, IOC)
    assert 10 <= len(of_type(events, Trade)) < 20
    assert of_type(events, OrderCancelled)[-1].reason is CancelReason.FILL_CAP
    world.next_round()
    world.assert_settled()


def test_without_rounds_the_batch_ends_by_itself(world):
    """When no price round comes, a batch is sealed while its round is young enough to settle."""
    maker, taker = world.trader(10), world.trader(11)
    trade(world, maker, taker)
    world.now_s += 21
    assert of_type(world.mode(MarketMode.NORMAL), BatchSealed)
    world.assert_settled()


def test_an_account_that_grew_gets_a_fresh_baseline_to_shrink(world):
    """Growing and then shrinking below initial margin would fail in one batch, so the engine splits them."""
    maker, taker = world.trader(10), world.trader(11, 100)
    trade(world, maker, taker, 1_900)
    world.order(maker, BUY, 500, 9_900)
    events = world.order(taker, SELL, 500, 9_900, IOC)
    assert of_type(events, BatchSealed)
    world.next_round()
    world.assert_settled()


def test_every_collateral_change_is_told(world):
    """The deltas of the events add up to the balances."""
    sums: dict[int, int] = {}
    plain = world.apply

    def counting(command):
        events = plain(command)
        for event in of_type(events, CollateralChanged):
            sums[event.account] = sums.get(event.account, 0) + event.delta
            assert event.delta
        return events

    world.apply = counting
    maker, taker = world.trader(10), world.trader(11)
    trade(world, maker, taker)
    world.now_s += 3_600 - world.now_s % 3_600
    world.next_round()
    world.funding([12_345, 1])
    trade(world, taker, maker, 777)
    world.withdraw(taker, USDC, fee=3)
    assert sums == {key: account.collateral for key, account in world.state.accounts.items() if key in sums}
    assert set(sums) >= {2, maker, taker}
