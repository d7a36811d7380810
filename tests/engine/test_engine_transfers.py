"""TransferRequest: collateral between one owner's sub-accounts."""

import pytest
from engine_world import BUY, IOC, SELL, START_S, USDC, World, of_type, owner_of, rejection

from evermark.protocol.reject import RejectCode
from sequencer.engine.events import AccountRegistered, CollateralChanged, Transferred
from sequencer.engine.snapshot import restore, snapshot

AGENT = owner_of(500)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def holder(world):
    return world.trader(10, 1_000)


def settled(world):
    """The naive vault has reached the same integers."""
    world.next_round()
    world.assert_settled()


def test_a_transfer_opens_the_other_account(world, holder):
    """10 USDC register it; afterwards any amount goes there and back."""
    refused = rejection(world.transfer(holder, 3, 10 * USDC - 1))
    assert (refused.code, refused.details["least"]) == (RejectCode.BELOW_FIRST_DEPOSIT, 10 * USDC)
    events = world.transfer(holder, 3, 10 * USDC)
    (opened,), (moved,) = of_type(events, AccountRegistered), of_type(events, Transferred)
    assert (opened.account, opened.sub_account) == (holder + 1, 3)
    assert (moved.account, moved.target, moved.amount) == (holder, holder + 1, 10 * USDC)
    assert [event.cause for event in of_type(events, CollateralChanged)] == ["transfer", "transfer"]
    world.transfer(holder, 3, 1)
    world.transfer(holder + 1, 0, 10 * USDC + 1)
    assert (world.collateral(holder), world.collateral(holder + 1)) == (1_000 * USDC, 0)
    settled(world)


@pytest.mark.safety("B01", "sequencer")
@pytest.mark.safety("B02", "sequencer")
def test_an_isolated_position_keeps_its_margin(world, holder):
    """After the transfer equity covers max(initial margin, 20 % of notional); open orders keep their reservation."""
    world.transfer(holder, 1, 500 * USDC)
    isolated, maker = world.state.account_ids[owner_of(10), 1], world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(isolated, BUY, 1_000, 10_000, IOC)
    free = 500 * USDC - 400_000 - 200 * USDC
    refused = rejection(world.transfer(isolated, 0, free + 1))
    assert refused.code is RejectCode.INSUFFICIENT_WITHDRAWABLE
    assert refused.details == {"requested": free + 1, "withdrawable": free}
    assert of_type(world.transfer(isolated, 0, free), Transferred)
    world.order(holder, BUY, 8_000, 9_900)
    waiting = rejection(world.transfer(holder, 1, 700 * USDC))
    assert 0 < waiting.details["withdrawable"] < 700 * USDC
    settled(world)


@pytest.mark.safety("A01", "sequencer")
def test_a_stale_price_holds_a_position_s_collateral(world, holder):
    """An account without positions moves on."""
    maker = world.trader(11)
    world.order(maker, SELL, 1_000, 10_000)
    world.order(holder, BUY, 1_000, 10_000, IOC)
    other = world.trader(12)
    world.round([0, 10_000], after_s=65)
    assert rejection(world.transfer(holder, 1, 10 * USDC)).code is RejectCode.STALE_PRICE
    assert of_type(world.transfer(other, 1, 10 * USDC), Transferred)
    settled(world)


@pytest.mark.safety("D12", "sequencer")
def test_an_agents_cap_counts_down(world, holder):
    """In sum at most its cap, until its expiry; without a cap nothing. The owner's transfers cost no cap."""
    stranger = world.transfer(holder, 1, 10 * USDC, signer=AGENT)
    assert rejection(stranger).code is RejectCode.NOT_AUTHORISED
    world.approve(holder, AGENT)
    assert rejection(world.transfer(holder, 1, 10 * USDC, signer=AGENT)).details["cap"] == 0
    world.approve(holder, AGENT, life_s=30, transfer_cap=100 * USDC)
    world.transfer(holder, 1, 60 * USDC, signer=AGENT)
    world.transfer(holder, 1, 200 * USDC)
    refused = rejection(world.transfer(holder, 1, 40 * USDC + 1, signer=AGENT))
    assert (refused.code, refused.details["cap"]) == (RejectCode.ABOVE_TRANSFER_CAP, 40 * USDC)
    (moved,) = of_type(world.transfer(holder, 1, 40 * USDC, signer=AGENT), Transferred)
    assert moved.signer == AGENT
    assert restore(snapshot(world.state)).agents == world.state.agents
    settled(world)
    world.round([10_000, 10_000], after_s=35)
    assert rejection(world.transfer(holder, 1, 1, signer=AGENT)).code is RejectCode.NOT_AUTHORISED


@pytest.mark.safety("D12", "sequencer")
def test_an_agent_takes_the_next_sequence(world, holder):
    """So a stolen key cannot use up the sequences with which the owner would revoke it."""
    world.approve(holder, AGENT, transfer_cap=100 * USDC)
    leap = world.transfer(holder, 1, 10 * USDC, signer=AGENT, action_sequence=2**48 - 1)
    assert rejection(leap).code is RejectCode.STALE_SEQUENCE
    assert of_type(world.transfer(holder, 1, 10 * USDC, action_sequence=99), Transferred)
    assert of_type(world.transfer(holder, 1, 10 * USDC, signer=AGENT, action_sequence=100), Transferred)
    settled(world)


@pytest.mark.parametrize(
    "to, amount, fields, code",
    [
        (0, 10 * USDC, {}, RejectCode.BAD_COMBINATION),
        (2**16, 10 * USDC, {}, RejectCode.OUT_OF_RANGE),
        (1, 0, {}, RejectCode.OUT_OF_RANGE),
        (1, 2**95, {}, RejectCode.OUT_OF_RANGE),
        (1, 1_001 * USDC, {}, RejectCode.INSUFFICIENT_WITHDRAWABLE),
        (1, 10 * USDC, {"deadline": START_S - 1}, RejectCode.EXPIRED),
        (1, 10 * USDC, {"action_sequence": 0}, RejectCode.STALE_SEQUENCE),
    ],
)
def test_transfer_refusals(world, holder, to, amount, fields, code):
    """What the vault would refuse is refused here, and changes nothing."""
    before = snapshot(world.state)
    assert rejection(world.transfer(holder, to, amount, **fields)).code is code
    changed = restore(before)
    changed.sequence += 1
    assert snapshot(changed) == snapshot(world.state)


def test_a_full_section_seals(world, holder):
    """The 33rd action of a batch begins the next one, and an earlier section's operation does too."""
    for _ in range(33):
        world.transfer(holder, 1, 10 * USDC)
    assert [len(sealed.batch.actions) for sealed in world.sealed[-1:]] == [32]
    world.trader(12)
    assert len(world.sealed[-1].batch.actions) == 1
    settled(world)
