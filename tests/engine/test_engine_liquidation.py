"""TriggerLiquidation: orders first, then the book within the loss bound, then the insurance fund."""

import msgspec
import pytest
from engine_world import BUY, IOC, SELL, USDC, World, market, of_type, rejection

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import DepositWaits, InboxEntryKind, MarketMode
from sequencer.engine.events import BatchSealed, CancelReason, Liquidated, OrderCancelled, Trade
from sequencer.engine.risk import available, margin_of
from sequencer.engine.snapshot import restore, snapshot, state_hash

LOTS = 1_900  # 1,900 USDC at 10,000 ticks


@pytest.fixture
def world():
    return World()


@pytest.fixture
def rich(world):
    return world.trader(10)


@pytest.fixture
def debtor(world, rich):
    """Long at nearly 20x: initial margin 95 of 100 USDC, maintenance 47.5."""
    account = world.trader(11, 100)
    world.order(rich, SELL, LOTS, 10_000)
    world.order(account, BUY, LOTS, 10_000, IOC)
    assert world.size(account) == LOTS
    return account


def margin(world, account):
    return margin_of(world.state, world.state.accounts[account])


@pytest.mark.safety("B09", "sequencer")
def test_a_healthy_account_is_not_liquidated(world, debtor):
    """Strictly below maintenance only; the refusal has both numbers. Equality is healthy."""
    world.round([9_750, 10_000])
    now = margin(world, debtor)
    refused = rejection(world.liquidate(debtor))
    assert refused.code is RejectCode.HEALTHY_ACCOUNT
    assert refused.details == {"equity": now.equity, "maintenance_margin": now.maintenance}
    world.state.accounts[debtor].collateral -= now.equity - now.maintenance
    assert not margin(world, debtor).liquidatable
    world.state.accounts[debtor].collateral -= 1
    assert margin(world, debtor).liquidatable


def test_refusals(world, debtor):
    """Unknown accounts, reserved ones, positions that do not exist and halted markets are refused by name."""
    world.round([9_700, 10_000])
    assert rejection(world.liquidate(99)).code is RejectCode.UNKNOWN_ACCOUNT
    assert rejection(world.liquidate(INSURANCE_FUND)).code is RejectCode.UNKNOWN_ACCOUNT
    assert rejection(world.liquidate(debtor, 9)).code is RejectCode.UNKNOWN_MARKET
    assert rejection(world.liquidate(debtor, 1)).code is RejectCode.NOT_LIQUIDATABLE
    assert rejection(world.liquidate(debtor, keeper_account=debtor)).code is RejectCode.UNKNOWN_ACCOUNT
    assert rejection(world.liquidate(debtor, keeper_account=2)).code is RejectCode.UNKNOWN_ACCOUNT
    world.mode(MarketMode.HALTED)
    assert rejection(world.liquidate(debtor)).code is RejectCode.MARKET_HALTED


def test_orders_go_first(world, debtor, rich):
    """All orders of the account are cancelled, in every market, before anything is sold."""
    world.order(debtor, SELL, 500, 10_400)
    world.order(debtor, BUY, 10, 9_000, market_id=1)
    world.round([9_700, 10_000])
    events = world.liquidate(debtor)
    assert {event.reason for event in of_type(events, OrderCancelled)} == {CancelReason.LIQUIDATION}
    assert not world.state.accounts[debtor].orders
    world.next_round()


def test_the_book_closes_within_the_bound(world, debtor, rich):
    """A bid near the mark takes the position; the loss stays within the bound and the ratio does not fall."""
    keeper = world.trader(12, 100)
    world.round([9_720, 10_000])
    before = margin(world, debtor)
    assert before.liquidatable
    world.order(rich, BUY, 5_000, 9_715)
    events = world.liquidate(debtor, keeper_account=keeper)
    closed = of_type(events, Liquidated)
    assert closed
    assert not any(event.taken_over for event in closed)
    after = margin(world, debtor)
    assert after.equity * before.maintenance >= before.equity * after.maintenance
    fees = sum(event.fee for event in closed)
    assert world.collateral(keeper) == 100 * USDC + sum(event.fee // 2 for event in closed)
    assert world.collateral(INSURANCE_FUND) == fees - sum(event.fee // 2 for event in closed)
    assert all(trade.liquidated == debtor and not trade.taker_hash for trade in of_type(events, Trade))
    world.next_round()
    world.assert_settled()


def test_the_book_stops_when_healthy(world):
    """Above the slice threshold a fifth is closed at a time, and closing stops at health."""
    world = World(market(0, slice_notional=100 * USDC))
    rich, debtor = world.trader(10), world.trader(11, 100)
    world.order(rich, SELL, LOTS, 10_000)
    world.order(debtor, BUY, LOTS, 10_000, IOC)
    world.round([9_715])
    world.order(rich, BUY, 5_000, 9_715)
    world.liquidate(debtor)
    assert 0 < world.size(debtor) < LOTS
    assert not margin(world, debtor).liquidatable
    assert rejection(world.liquidate(debtor)).code is RejectCode.HEALTHY_ACCOUNT
    assert of_type(world.order(debtor, SELL, 50, 9_715, IOC), BatchSealed)
    world.next_round()
    world.assert_settled()


def test_a_bid_beyond_the_bound_is_left_alone(world, debtor, rich):
    """A sequencer trading against the target cannot take its equity: too low a bid is not hit."""
    world.round([9_720, 10_000])
    world.order(rich, BUY, 5_000, 9_400)
    before = state_hash(world.state)
    assert rejection(world.liquidate(debtor)).code is RejectCode.NOT_LIQUIDATABLE
    world.state.sequence -= 1
    assert state_hash(world.state) == before


def test_the_fund_takes_over_below_two_thirds(world, debtor):
    """At the mark, for the loss bound; then the fund's position is offered to takers at the mark."""
    world.donate(10_000)
    world.round([9_620, 10_000])
    before = margin(world, debtor)
    assert 0 <= before.equity * 3 < before.maintenance * 2
    (taken,) = of_type(world.liquidate(debtor), Liquidated)
    assert (taken.taken_over, taken.size, taken.loss) == (True, LOTS, before.equity)
    assert (world.size(debtor), world.size(INSURANCE_FUND)) == (0, LOTS)
    buyer = world.trader(13)
    (trade,) = of_type(world.order(buyer, BUY, LOTS, 9_620, IOC), Trade)
    assert (trade.maker, trade.price, trade.size) == (INSURANCE_FUND, 9_620, LOTS)
    world.next_round()
    world.assert_settled()


def test_a_negative_account_costs_the_fund(world, debtor):
    """Below zero the fund pays the deficit, so that the account ends at nothing."""
    world.donate(10_000)
    world.round([9_400, 10_000])
    deficit = -margin(world, debtor).equity
    assert deficit > 0
    world.liquidate(debtor)
    assert world.collateral(debtor) == 0
    assert margin(world, INSURANCE_FUND).equity == 10_000 * USDC - deficit
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B06", "sequencer")
def test_the_fund_keeps_its_own_margin_and_cap():
    """The fund takes only what its cap and its own initial margin allow, to the lot; deleveraging takes the rest."""
    for donated, held in ((0, 0), (20, 441), (1_000, 700)):
        world = World(market(0, fund_position_cap_lots=700))
        rich, debtor = world.trader(10), world.trader(11, 100)
        world.order(rich, SELL, LOTS, 10_000)
        world.order(debtor, BUY, LOTS, 10_000, IOC)
        world.round([9_500])
        if donated:
            world.donate(donated)
        steps = of_type(world.liquidate(debtor), Liquidated)
        assert world.size(INSURANCE_FUND) == held
        assert steps[-1].deleveraged
        assert rejection(world.liquidate(debtor)).code is RejectCode.HEALTHY_ACCOUNT
        world.next_round()
        world.assert_settled()


@pytest.mark.safety("B07", "sequencer")
def test_liquidating_the_whole_open_interest_keeps_the_engine_running(world, debtor, rich):
    """The only long is taken over; open interest, pools and sums stay right."""
    world.donate(10_000)
    world.round([9_400, 10_000])
    world.liquidate(debtor)
    assert world.state.markets[0].open_interest == LOTS
    world.order(rich, BUY, LOTS, 9_400, IOC)
    assert world.state.markets[0].open_interest == 0
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B12", "sequencer")
def test_dust_positions_are_liquidatable(world):
    """A position of one lot, far below the minimum order, is closed like any other."""
    rich, debtor = world.trader(10), world.trader(11, 100)
    world.donate(1_000)
    world.order(rich, SELL, 10, 10_000)
    world.order(debtor, BUY, 10, 10_000, IOC)
    world.order(rich, BUY, 9, 10_000, post_only=True, reduce_only=True)
    world.order(debtor, SELL, 9, 10_000, IOC, reduce_only=True)
    assert world.size(debtor) == 1
    world.withdraw(debtor, available(world.state, world.state.accounts[debtor]))
    world.round([8_100, 10_000])
    assert margin(world, debtor).liquidatable
    assert of_type(world.liquidate(debtor), Liquidated)
    assert world.size(debtor) == 0
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B16", "sequencer")
def test_a_target_never_shares_a_batch_with_its_orders(world, debtor, rich):
    """Orders before and after a liquidation lie in other batches, so that the vault's exemption is not
    abused."""
    world.round([9_700, 10_000])
    world.order(rich, BUY, 5_000, 9_698)
    world.order(debtor, SELL, 10, 9_695, IOC, reduce_only=True)
    events = world.liquidate(debtor)
    assert of_type(events, BatchSealed)
    assert of_type(events, Liquidated)
    world.entry(InboxEntryKind.DEPOSIT, 11, 1_000 * USDC)
    world.order(debtor, BUY, 100, 9_700)
    assert debtor not in world.state.batch.targets
    world.order(rich, SELL, 100, 9_700, IOC)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B23", "keeper")
def test_duplicate_triggers_are_harmless(world, debtor):
    """A second keeper's trigger for the same position finds a healthy account and changes nothing."""
    world.donate(10_000)
    world.round([9_500, 10_000])
    world.liquidate(debtor)
    assert rejection(world.liquidate(debtor)).code is RejectCode.HEALTHY_ACCOUNT


def test_nobody_is_liquidated_while_a_deposit_waits_for_long(world, debtor):
    """Behind an entry that cannot apply yet a deposit may wait: after ten minutes its owner is left alone until the entry is
    consumed. A snapshot remembers it; a deposit that is consumed already is refused."""
    world.donate(10_000)
    owner = world.state.accounts[debtor].owner
    created = world.now_s
    waiting = DepositWaits(entry_id=world.state.next_entry_id, owner=owner, sub_account=0, created=created)
    world.apply(waiting)
    world.apply(msgspec.structs.replace(waiting, entry_id=waiting.entry_id + 1, owner=owner[:19] + b"x"))
    world.round([9_720, 10_000], 600)
    assert "equity" in rejection(world.liquidate(debtor)).details
    world.round([9_620, 10_000])
    assert world.state.now == created + 605
    world.state = restore(snapshot(world.state))
    refused = rejection(world.liquidate(debtor))
    assert (refused.code, refused.details["created"]) == (RejectCode.NOT_LIQUIDATABLE, created)
    world.entry(InboxEntryKind.DEPOSIT, 11, 1, created=created)
    assert len(world.state.waiting_deposits) == 1
    assert of_type(world.liquidate(debtor), Liquidated)
    assert rejection(world.apply(waiting)).code is RejectCode.STALE_SEQUENCE
    world.next_round()
    world.assert_settled()
