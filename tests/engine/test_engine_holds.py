"""What holds collateral for a while: the hour after an outage of the chain, and an account that is below zero."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, of_type, rejection

from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import InboxEntryKind
from sequencer.engine.events import EntryApplied, Liquidated, Transferred, WithdrawalClaimed
from sequencer.engine.holds import HOLD_S
from sequencer.engine.snapshot import restore, snapshot, state_hash

LOTS = 1_900


@pytest.fixture
def world():
    return World()


@pytest.fixture
def rich(world):
    return world.trader(10)


@pytest.fixture
def poor(world, rich):
    """Long with little margin against `rich`."""
    account = world.trader(11, 100)
    world.order(rich, SELL, LOTS, 10_000)
    world.order(account, BUY, LOTS, 10_000, IOC)
    world.next_round()
    return account


@pytest.fixture
def flat(world):
    return world.trader(12, 1_000)


@pytest.mark.safety("A09", "contract")
def test_after_an_outage_positions_keep_their_collateral(world, rich, poor, flat):
    """Withdrawals, transfers and forced withdrawals of accounts with positions wait; the others, deposits and orders go on."""
    world.outage()
    for answer in (world.withdraw(rich, USDC), world.transfer(rich, 5, 10 * USDC)):
        assert rejection(answer).code is RejectCode.CHAIN_RESTARTED
    assert of_type(world.withdraw(flat, USDC), WithdrawalClaimed)
    assert of_type(world.transfer(flat, 5, 10 * USDC), Transferred)
    refused = rejection(world.entry(InboxEntryKind.WITHDRAWAL, 10, USDC))
    assert (refused.code, refused.details["positions"]) == (RejectCode.CHAIN_RESTARTED, 1)
    assert of_type(world.entry(InboxEntryKind.DEPOSIT, 11, 50 * USDC), EntryApplied)
    world.order(rich, SELL, 10, 10_000)
    assert world.order(flat, BUY, 10, 10_000, IOC)
    world.next_round()
    world.assert_settled()
    world.outage(False)
    assert of_type(world.entry(InboxEntryKind.WITHDRAWAL, 10, USDC), EntryApplied)
    assert of_type(world.withdraw(rich, USDC), WithdrawalClaimed)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("A09", "contract")
def test_after_an_outage_nobody_is_liquidated(world, rich, poor):
    """However deep; a deposit within the hour saves the account, and without one it goes on when the hour is over."""
    world.donate(10_000)
    world.round([9_400, 10_000])
    world.outage()
    assert rejection(world.liquidate(poor)).code is RejectCode.CHAIN_RESTARTED
    world.outage(False)
    assert of_type(world.liquidate(poor), Liquidated)
    world.next_round()
    world.assert_settled()


def test_what_is_known_of_the_chain_is_part_of_the_state(world, rich, poor):
    """A snapshot knows of the outage and of the hold."""
    world.round([9_400, 10_000])
    world.liquidate(poor)
    world.outage()
    again = restore(snapshot(world.state))
    assert again.chain_restarted
    assert (again.hold_began, again.negatives) == (world.state.hold_began, {poor})
    assert state_hash(again) == state_hash(world.state)


def ruined(world, rich, number: int) -> int:
    """An account that closed its own long below zero equity: flat, and in a debt that no fund pays."""
    account = world.trader(number, 100)
    world.order(rich, SELL, LOTS, 10_000)
    world.order(account, BUY, LOTS, 10_000, IOC)
    world.round([9_400, 10_000])
    world.order(rich, BUY, LOTS, 9_430)
    world.order(account, SELL, LOTS, 9_420, IOC, reduce_only=True)
    assert world.size(account) == 0 > world.collateral(account)
    return account


@pytest.fixture
def negative(world, rich):
    """Below zero, and seen so with a round."""
    account = ruined(world, rich, 11)
    world.next_round()
    assert world.state.negatives == {account}
    return account


@pytest.mark.safety("B17", "sequencer")
def test_an_account_below_zero_holds_withdrawals_for_five_minutes(world, rich, flat, negative):
    """Everybody's, with positions or without, and transfers; after five minutes they pass though nothing is resolved."""
    for answer in (world.withdraw(flat, USDC), world.transfer(flat, 5, 10 * USDC)):
        refused = rejection(answer)
        assert refused.code is RejectCode.WITHDRAWALS_HELD
        assert refused.details["until"] == world.state.now + HOLD_S
    for _ in range(HOLD_S // 60 - 1):
        world.round([9_400, 10_000], 60)
        assert rejection(world.withdraw(flat, USDC)).code is RejectCode.WITHDRAWALS_HELD
    world.round([9_400, 10_000], 60)
    assert of_type(world.withdraw(flat, USDC), WithdrawalClaimed)
    assert of_type(world.transfer(flat, 5, 10 * USDC), Transferred)
    world.round([9_400, 10_000])
    world.assert_settled()


@pytest.mark.safety("B17", "sequencer")
def test_the_inbox_does_not_wait_for_anybody(world, rich, flat, negative):
    """A forced withdrawal takes effect while signed ones are held."""
    assert rejection(world.withdraw(flat, USDC)).code is RejectCode.WITHDRAWALS_HELD
    (applied,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 12, 7 * USDC), EntryApplied)
    assert applied.amount == 7 * USDC
    world.round([9_400, 10_000])
    world.assert_settled()


@pytest.mark.safety("B17", "sequencer")
def test_the_hold_ends_when_the_account_is_whole_again(world, flat, negative):
    """By a deposit of its owner's, or because the price came back."""
    assert rejection(world.withdraw(flat, USDC)).code is RejectCode.WITHDRAWALS_HELD
    world.entry(InboxEntryKind.DEPOSIT, 11, 2_000 * USDC)
    assert of_type(world.withdraw(flat, USDC), WithdrawalClaimed)


@pytest.mark.safety("B17", "sequencer")
def test_nobody_can_hold_withdrawals_for_good(world, rich, flat, negative):
    """One account holds once, however long it stays below zero; another's hold begins no sooner than five minutes after
    the last one ended."""
    began = world.state.hold_began
    world.round([10_000, 10_000], HOLD_S - 20)
    other = ruined(world, rich, 13)
    for _ in range(2 * HOLD_S // 60):
        world.round([9_400, 10_000], 60)
        assert world.collateral(other) < 0
        assert (world.state.now < began + HOLD_S) or of_type(world.withdraw(flat, USDC), WithdrawalClaimed)
    assert world.state.negatives == {negative, other}
    assert world.state.hold_began == began
    world.round([10_000, 10_000])
    third = ruined(world, rich, 14)
    world.next_round()
    assert world.state.hold_began > began + 2 * HOLD_S
    assert third in world.state.negatives
    assert rejection(world.withdraw(flat, USDC)).code is RejectCode.WITHDRAWALS_HELD


@pytest.mark.safety("B17", "sequencer")
def test_a_liquidation_that_resolves_it_holds_nobody(world, rich, poor, flat):
    """Seen below zero by a keeper, deleveraged at the bankruptcy amount: there is nothing to wait for."""
    world.round([9_400, 10_000])
    assert of_type(world.liquidate(poor), Liquidated)
    assert world.state.negatives == {poor}
    assert of_type(world.withdraw(flat, USDC), WithdrawalClaimed)


@pytest.mark.safety("B17", "sequencer")
def test_the_fund_that_pays_the_debt_ends_the_hold(world, flat, negative):
    """With the next round."""
    assert rejection(world.withdraw(flat, USDC)).code is RejectCode.WITHDRAWALS_HELD
    world.donate(10_000)
    world.next_round()
    assert world.collateral(negative) == 0
    assert of_type(world.withdraw(flat, USDC), WithdrawalClaimed)
