"""InboxEntry: deposits, donations and forced withdrawals, once each and in order."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, of_type, owner_of, rejection

from evermark.protocol.batch import FIRST_USER_ACCOUNT, INSURANCE_FUND
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.engine.events import AccountRegistered, BatchSealed, EntryApplied, EntrySkipped


@pytest.fixture
def world():
    return World()


def test_the_first_deposit_registers_under_the_next_id(world):
    """Ids count up from 3; a later deposit of the same owner credits the same account."""
    events = world.entry(InboxEntryKind.DEPOSIT, 10, 50 * USDC)
    assert of_type(events, AccountRegistered)[0].account == FIRST_USER_ACCOUNT
    events = world.entry(InboxEntryKind.DEPOSIT, 10, 50 * USDC)
    assert not of_type(events, AccountRegistered)
    assert world.collateral(FIRST_USER_ACCOUNT) == 100 * USDC
    events = world.entry(InboxEntryKind.DEPOSIT, 10, 50 * USDC, sub_account=1)
    assert of_type(events, AccountRegistered)[0].account == FIRST_USER_ACCOUNT + 1


def test_donations_go_to_the_fund(world):
    """Whoever donates, the insurance fund is credited."""
    world.donate(5)
    assert world.collateral(INSURANCE_FUND) == 5 * USDC
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("E06", "sequencer")
def test_entries_come_in_order_and_once(world):
    """A repeated or skipped entry id is refused."""
    world.entry(InboxEntryKind.DEPOSIT, 10, 50 * USDC)
    for entry_id in (1, 3):
        entry = InboxEntry(
            entry_id=entry_id,
            entry_kind=InboxEntryKind.DEPOSIT,
            owner=owner_of(10),
            sub_account=0,
            amount=USDC,
        )
        refused = rejection(world.apply(entry))
        assert (refused.code, refused.details["expected"]) == (RejectCode.MALFORMED, 2)


def test_a_forced_withdrawal_claims_what_is_free(world):
    """min(requested, withdrawable): positions keep their margin, and the rest can leave."""
    maker, taker = world.trader(10), world.trader(11, 1_000)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    (applied,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 11, 10_000 * USDC), EntryApplied)
    # 1,000 USDC less the fee, less 20 % of the position's notional of 1,000 USDC
    assert applied.amount == 1_000 * USDC - 400_000 - 200 * USDC
    (skipped,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 11, 1), EntrySkipped)
    assert skipped.reason == "nothing withdrawable"
    world.next_round()
    world.assert_settled()


def test_entries_that_cannot_apply_are_skipped(world):
    """An unknown account and a stale price consume the entry without effect."""
    (skipped,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 99, USDC), EntrySkipped)
    assert skipped.reason == "unknown account"
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    world.round([0, 10_000], after_s=65)
    (skipped,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 11, USDC), EntrySkipped)
    assert skipped.reason == "stale price"
    world.next_round()
    world.assert_settled()


def test_deposits_without_a_recent_round_wait_for_the_next(world):
    """A batch of nothing but deposits is pinned to the round that ends it, so it cannot grow too old."""
    world.next_round()
    world.now_s += 1_000
    world.entry(InboxEntryKind.DEPOSIT, 10, 50 * USDC)
    withdrawal = world.entry(InboxEntryKind.WITHDRAWAL, 10, USDC)
    assert rejection(withdrawal).code is RejectCode.STALE_PRICE
    sealed = of_type(world.next_round(), BatchSealed)[-1]
    assert sealed.round.timestamp == world.state.now
    world.assert_settled()


def test_at_most_32_entries_a_batch(world):
    """The Inbox contract hands out 32 at once; a 33rd without a recent round is refused until one comes."""
    world.next_round()
    world.now_s += 1_000
    for number in range(32):
        world.entry(InboxEntryKind.DEPOSIT, 100 + number, 50 * USDC)
    assert rejection(world.entry(InboxEntryKind.DEPOSIT, 200, 50 * USDC)).code is RejectCode.NOT_READY
    world.next_round()
    world.entry(InboxEntryKind.DEPOSIT, 200, 50 * USDC)
    world.next_round()
    world.assert_settled()
