"""InboxEntry: deposits, withdrawals, cancels and agents through the chain's queue, once each and in order."""

import pytest
from engine_world import BUY, IOC, SELL, START_S, USDC, World, of_type, owner_of, rejection

from evermark.protocol.batch import FIRST_USER_ACCOUNT, INSURANCE_FUND
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.engine.events import (
    AccountRegistered,
    AgentChanged,
    BatchSealed,
    CancelReason,
    EntryApplied,
    EntrySkipped,
    OrderCancelled,
)
from sequencer.engine.inbox import ALL_SLOTS


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


def test_what_can_never_apply_is_skipped(world):
    """An unknown account consumes the entry without effect, whatever it asks for."""
    for kind in (InboxEntryKind.WITHDRAWAL, InboxEntryKind.CANCEL, InboxEntryKind.REVOKE_AGENT):
        (skipped,) = of_type(world.entry(kind, 99, USDC), EntrySkipped)
        assert skipped.reason == "unknown account"
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("E12", "sequencer")
def test_a_withdrawal_on_a_stale_price_stays_the_next_entry(world):
    """It is refused and not consumed, nothing overtakes it, and with a price again it pays."""
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC)
    world.round([0, 10_000], after_s=65)
    entry_id = world.state.next_entry_id
    assert rejection(world.entry(InboxEntryKind.WITHDRAWAL, 11, USDC)).code is RejectCode.STALE_PRICE
    assert world.state.next_entry_id == entry_id
    world.round([10_000, 10_000])
    (applied,) = of_type(world.entry(InboxEntryKind.WITHDRAWAL, 11, USDC), EntryApplied)
    assert (applied.entry_id, applied.amount) == (entry_id, USDC)
    world.next_round()
    world.assert_settled()


def cancelled(events):
    return [(event.slot, event.reason) for event in of_type(events, OrderCancelled)]


@pytest.mark.safety("D06", "sequencer")
def test_an_inbox_cancel_voids_a_slot(world):
    """Its order ends, the vault counts the slot as filled, and only a higher sequence trades there again."""
    maker, taker = world.trader(10), world.trader(11)
    sequence = START_S * 1000 + 500
    for slot in (1, 2):
        world.order(maker, SELL, 1_000, 10_000, slot=slot, sequence=sequence)
    events = world.entry(InboxEntryKind.CANCEL, 10, slot=1, order_sequence=sequence)
    assert cancelled(events) == [(1, CancelReason.USER)]
    assert list(world.state.accounts[maker].orders) == [2]
    again = world.order(maker, SELL, 1_000, 10_000, slot=1, sequence=sequence)
    assert rejection(again).code is RejectCode.STALE_SEQUENCE
    world.order(maker, SELL, 1_000, 10_000, slot=1, sequence=sequence + 1)
    world.order(taker, BUY, 2_000, 10_000, IOC)
    world.next_round()
    assert world.size(taker) == 2_000
    world.assert_settled()


def test_a_void_below_an_amended_order_ends_it(world):
    """The vault would carry over that the voided slot is filled; so neither it nor an amend of it can trade."""
    maker = world.trader(10)
    sequence = START_S * 1000 + 500
    world.order(maker, SELL, 1_000, 10_000, slot=1, sequence=sequence)
    world.order(maker, SELL, 900, 10_000, slot=1, sequence=sequence + 2, amend=True)
    world.order(maker, SELL, 1_000, 10_000, slot=2, sequence=sequence + 2)
    for slot in (1, 2):
        world.entry(InboxEntryKind.CANCEL, 10, slot=slot, order_sequence=sequence + 1)
    assert list(world.state.accounts[maker].orders) == [2]
    amend = world.order(maker, SELL, 900, 10_000, slot=2, sequence=sequence + 3, amend=True)
    assert rejection(amend).code is RejectCode.ALREADY_FILLED
    world.order(world.trader(11), BUY, 1_000, 10_000, IOC)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("D06", "sequencer")
def test_an_inbox_cancel_of_everything_voids_signed_actions_too(world):
    """Every order up to the sequence ends, and withdrawals signed up to it are refused afterwards."""
    maker = world.trader(10)
    sequence = START_S * 1000 + 500
    for slot in (1, 2):
        world.order(maker, SELL, 1_000, 10_000, slot=slot, sequence=sequence + slot)
    events = world.entry(InboxEntryKind.CANCEL, 10, slot=ALL_SLOTS, order_sequence=sequence + 1)
    assert cancelled(events) == [(1, CancelReason.USER)]
    late = world.withdraw(maker, USDC, action_sequence=sequence + 1)
    assert rejection(late).code is RejectCode.STALE_SEQUENCE
    world.withdraw(maker, USDC, action_sequence=sequence + 2)
    world.next_round()
    world.assert_settled()


def test_an_inbox_cancel_of_slot_0_voids_orders_on_their_way(world):
    """An immediate order with a lower sequence is refused when it arrives late."""
    taker = world.trader(11)
    world.entry(InboxEntryKind.CANCEL, 11, slot=0, order_sequence=START_S * 1000 + 900)
    late = world.order(taker, BUY, 1, 10_000, IOC, sequence=START_S * 1000 + 900)
    assert rejection(late).code is RejectCode.STALE_SEQUENCE
    world.order(world.trader(10), SELL, 1_000, 10_000)
    world.order(taker, BUY, 1_000, 10_000, IOC, sequence=START_S * 1000 + 901)
    world.next_round()
    assert world.size(taker) == 1_000
    world.assert_settled()


@pytest.mark.safety("D12", "sequencer")
def test_agents_are_approved_and_revoked_through_the_inbox(world):
    """The approved one trades; a revoke ends its orders, and what the owner signed before it is void."""
    maker, agent = world.trader(10), owner_of(700)
    entry = {"agent": agent, "agent_expiry": world.now_s + 1_000}
    (changed,) = of_type(world.entry(InboxEntryKind.APPROVE_AGENT, 10, 5 * USDC, **entry), AgentChanged)
    assert (changed.account, changed.agent, changed.expiry) == (maker, agent, world.now_s + 1_000)
    world.order(maker, SELL, 1_000, 10_000, slot=1, signer=agent)
    world.order(maker, SELL, 1_000, 10_000, slot=2)
    world.next_round()
    world.assert_settled()
    events = world.entry(InboxEntryKind.REVOKE_AGENT, 10, agent=agent)
    assert cancelled(events) == [(1, CancelReason.AGENT_REVOKED)]
    refused = world.order(maker, SELL, 1_000, 10_000, slot=1, signer=agent)
    assert rejection(refused).code is RejectCode.NOT_AUTHORISED
    signed_before = world.approve(maker, agent, action_sequence=world.now_s * 1000)
    assert rejection(signed_before).code is RejectCode.STALE_SEQUENCE
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
