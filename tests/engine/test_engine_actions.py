"""WithdrawRequest and AgentApproval."""

import pytest
from engine_world import BUY, IOC, SELL, START_S, USDC, World, of_type, owner_of, rejection

from evermark.protocol.reject import RejectCode
from sequencer.engine.events import CancelReason, OrderCancelled, OrderRested, Trade, WithdrawalClaimed

AGENT = owner_of(500)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def holder(world):
    return world.trader(10, 1_000)


def open_position(world, holder):
    maker = world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(holder, BUY, 1_000, 10_000, IOC)


def test_a_withdrawal_becomes_a_claim(world, holder):
    """The amount leaves the account; the fee goes to the fee account, the rest to the owner's claim."""
    (claimed,) = of_type(world.withdraw(holder, 100 * USDC, fee=USDC), WithdrawalClaimed)
    assert (claimed.amount, claimed.fee) == (99 * USDC, USDC)
    assert world.collateral(holder) == 900 * USDC
    assert (world.collateral(2), world.state.claimed) == (USDC, 99 * USDC)
    world.next_round()
    world.assert_settled()


@pytest.mark.safety("B01", "sequencer")
def test_a_withdrawal_leaves_initial_margin_and_a_fifth(world, holder):
    """Unrealized profit may leave only above max(initial margin, 20 % of notional)."""
    open_position(world, holder)
    free = 1_000 * USDC - 400_000 - 200 * USDC
    refused = rejection(world.withdraw(holder, free + 1))
    assert refused.code is RejectCode.INSUFFICIENT_WITHDRAWABLE
    assert refused.details == {"requested": free + 1, "withdrawable": free}
    assert of_type(world.withdraw(holder, free), WithdrawalClaimed)
    world.next_round()
    world.assert_settled()


def test_open_orders_keep_their_reservation(world, holder):
    """A withdrawal cannot take what a waiting order needs."""
    world.order(holder, BUY, 10_000, 9_900)
    refused = rejection(world.withdraw(holder, 600 * USDC))
    assert 0 < refused.details["withdrawable"] < 500 * USDC
    assert of_type(world.withdraw(holder, refused.details["withdrawable"]), WithdrawalClaimed)


@pytest.mark.safety("D13", "sequencer")
def test_the_withdrawal_fee_is_bounded_by_the_signature(world, holder):
    """A fee above the signed maximum is refused with both numbers."""
    refused = rejection(world.withdraw(holder, 100 * USDC, fee=11 * USDC, max_fee=10 * USDC))
    assert refused.code is RejectCode.FEE_ABOVE_MAXIMUM
    assert refused.details["max_fee"] == 10 * USDC


def test_actions_are_never_replayed(world, holder):
    """The action sequence grows over withdrawals and approvals alike; deadlines hold."""
    world.withdraw(holder, USDC, action_sequence=7)
    assert rejection(world.withdraw(holder, USDC, action_sequence=7)).code is RejectCode.STALE_SEQUENCE
    assert rejection(world.approve(holder, AGENT, action_sequence=6)).code is RejectCode.STALE_SEQUENCE
    assert rejection(world.withdraw(holder, USDC, deadline=START_S - 1)).code is RejectCode.EXPIRED


@pytest.mark.safety("A01", "sequencer")
def test_a_stale_price_stops_withdrawals_not_reducing(world, holder):
    """With an open position in a stale market nothing is paid out and no risk is added; reducing and deposits
    go on."""
    open_position(world, holder)
    world.round([0, 10_000], after_s=65)
    assert rejection(world.withdraw(holder, USDC)).code is RejectCode.STALE_PRICE
    assert rejection(world.order(holder, BUY, 100, 10_000)).code is RejectCode.STALE_PRICE
    elsewhere = world.order(holder, BUY, 100, 10_000, market_id=1)
    assert rejection(elsewhere).code is RejectCode.STALE_PRICE
    assert rejection(world.liquidate(holder)).code is RejectCode.STALE_PRICE
    world.order(world.state.account_ids[owner_of(11), 0], BUY, 500, 10_000)
    assert of_type(world.order(holder, SELL, 500, 10_000, IOC), Trade)
    world.trader(12)
    world.next_round()
    world.assert_settled()


def test_an_agent_trades_and_never_withdraws(world, holder):
    """An approved agent places orders until its expiry; what it signed leaves with it."""
    stranger = world.order(holder, BUY, 500, 9_900, signer=AGENT)
    assert rejection(stranger).code is RejectCode.NOT_AUTHORISED
    world.approve(holder, AGENT, life_s=30)
    assert of_type(world.order(holder, BUY, 500, 10_000, slot=1, signer=AGENT), OrderRested)
    world.round([10_000, 10_000], after_s=35)
    late = world.order(holder, BUY, 500, 9_900, signer=AGENT)
    assert rejection(late).code is RejectCode.NOT_AUTHORISED
    seller = world.trader(12)
    events = world.order(seller, SELL, 500, 10_000, IOC)
    assert of_type(events, OrderCancelled)[0].reason is CancelReason.AGENT_REVOKED


def test_revoking_an_agent_cancels_its_orders(world, holder):
    """At once, and only the agent's."""
    world.approve(holder, AGENT)
    world.order(holder, BUY, 500, 9_900, slot=1, signer=AGENT)
    world.order(holder, BUY, 500, 9_900, slot=2)
    events = world.approve(holder, AGENT, life_s=0)
    assert [event.slot for event in of_type(events, OrderCancelled)] == [1]
    world.next_round()


@pytest.mark.parametrize(
    "agent, fields, code",
    [
        (bytes(20), {}, RejectCode.BAD_COMBINATION),
        (owner_of(10), {}, RejectCode.BAD_COMBINATION),
        (AGENT, {"agent_expiry": START_S + 365 * 86_400 + 1}, RejectCode.OUT_OF_RANGE),
        (AGENT, {"agent_expiry": 2**40}, RejectCode.OUT_OF_RANGE),
        (AGENT, {"deadline": START_S - 1}, RejectCode.EXPIRED),
        (AGENT, {"deadline": 2**40}, RejectCode.EXPIRED),
    ],
)
def test_approval_refusals(world, holder, agent, fields, code):
    """What the vault would refuse, or its batch could not hold, is refused here."""
    assert rejection(world.approve(holder, agent, **fields)).code is code
