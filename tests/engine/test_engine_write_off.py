"""Write-off: with a round the insurance fund pays the debts of users without positions, as far as it can spare it."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, of_type

from evermark.protocol.batch import INSURANCE_FUND, WriteOff
from sequencer.engine.events import BatchSealed, WrittenOff
from sequencer.engine.risk import margin_of
from sequencer.engine.snapshot import restore, snapshot

LOTS = 1_900


@pytest.fixture
def world():
    return World()


@pytest.fixture
def debtor(world):
    """Closed its own long at a price better than the mark while below zero equity: flat, and in debt."""
    rich, account = world.trader(10), world.trader(11, 100)
    world.order(rich, SELL, LOTS, 10_000)
    world.order(account, BUY, LOTS, 10_000, IOC)
    world.round([9_400, 10_000])
    world.order(rich, BUY, LOTS, 9_430)
    world.order(account, SELL, LOTS, 9_420, IOC, reduce_only=True)
    assert world.size(account) == 0 > world.collateral(account)
    return account


def test_the_debt_is_paid_with_the_next_round(world, debtor):
    """A fund that can: the account stands at zero, the fund lost the debt, and a batch of its own says so."""
    world.donate(1_000)
    debt = -world.collateral(debtor)
    world.donate(1)
    events = world.next_round()
    (told,), (sealed,) = of_type(events, WrittenOff), of_type(events, BatchSealed)
    assert (told.account, told.amount) == (debtor, debt)
    assert (world.collateral(debtor), world.collateral(INSURANCE_FUND)) == (0, 1_001 * USDC - debt)
    assert [type(action) for action in sealed.batch.actions] == [WriteOff]
    assert len(sealed.batch.inbox) == 2
    assert sealed.batch.journal_sequence == world.state.sequence - 1  # the confirmation follows
    assert world.state.batch.is_empty
    world.assert_settled()
    assert not of_type(world.next_round(), WrittenOff)


def test_a_poor_fund_pays_what_it_has_and_the_rest_later(world, debtor):
    """Nothing without a fund; then what it has; then what is left; a restored snapshot remembers the debt."""
    assert not of_type(world.next_round(), WrittenOff)
    debt = -world.collateral(debtor)
    world.donate(2)
    world.state = restore(snapshot(world.state))
    (told,) = of_type(world.next_round(), WrittenOff)
    assert told.amount == 2 * USDC < debt
    assert world.collateral(INSURANCE_FUND) == 0
    world.donate(100)
    (told,) = of_type(world.next_round(), WrittenOff)
    assert (told.amount, world.collateral(debtor)) == (debt - 2 * USDC, 0)
    world.next_round()
    world.assert_settled()


def test_the_funds_own_margin_is_kept(world, debtor):
    """A fund with a position spares only what exceeds its initial margin."""
    world.donate(60)
    rich, second = world.trader(12), world.trader(13, 100)
    world.state.debtors.clear()  # looked at later
    world.order(rich, SELL, LOTS, 9_400)
    world.order(second, BUY, LOTS, 9_400, IOC)
    world.round([9_020, 10_000])
    world.liquidate(second)
    held = world.size(INSURANCE_FUND)
    assert held > 0
    before = margin_of(world.state, world.state.accounts[INSURANCE_FUND])
    spare = before.equity - before.initial
    world.state.debtors.add(debtor)
    debt = -world.collateral(debtor)
    told = of_type(world.next_round(), WrittenOff)
    assert sum(event.amount for event in told) == min(debt, spare)
    after = margin_of(world.state, world.state.accounts[INSURANCE_FUND])
    assert after.equity >= after.initial
    world.next_round()
    world.assert_settled()


def test_a_deposit_before_the_round_pays_the_debt_itself(world, debtor):
    """Whoever deposits to a flat account in debt owes the debt first; nothing is left to write off."""
    world.donate(1_000)
    debt = -world.collateral(debtor)
    owner = world.state.accounts[debtor].owner
    world.trader(int.from_bytes(owner, "big"), 50)
    assert world.collateral(debtor) == 50 * USDC - debt
    assert not of_type(world.next_round(), WrittenOff)
    world.next_round()
    world.assert_settled()
