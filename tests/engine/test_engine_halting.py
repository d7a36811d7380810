"""HaltAccount: whose operation the vault refuses may only cancel, until it is let go."""

import pytest
from engine_world import BUY, SELL, USDC, World, of_type, rejection

from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import HaltAccount, TriggerLiquidation
from sequencer.engine.events import AccountHalted, CancelReason, OrderCancelled, OrderRested
from sequencer.engine.snapshot import restore, snapshot


@pytest.fixture
def world():
    return World()


@pytest.fixture
def trader(world):
    return world.trader(10)


def halt(account, halted=True, **fields):
    return HaltAccount(account=account, halted=halted, reason="vault: signature", **fields)


def test_a_halted_account_may_only_cancel(world, trader):
    """Its orders leave the book; orders and money's ways out are refused; another account goes on, and so does this one once it
    is let go."""
    other = world.trader(11)
    world.order(trader, BUY, 100, 9_900)
    events = world.apply(halt(trader))
    assert [event.reason for event in of_type(events, OrderCancelled)] == [CancelReason.ACCOUNT_HALTED]
    assert [event.halted for event in of_type(events, AccountHalted)] == [True]
    for refused in (
        rejection(world.order(trader, BUY, 100, 9_900)),
        rejection(world.transfer(trader, 3, 20 * USDC)),
    ):
        assert (refused.code, refused.details) == (RejectCode.ACCOUNT_HALTED, {"account": trader})
    assert of_type(world.order(other, BUY, 100, 9_900), OrderRested)
    assert restore(snapshot(world.state)).halted == {trader: False}
    world.apply(halt(trader, False))
    assert of_type(world.order(trader, SELL, 100, 10_100), OrderRested)
    assert world.state.halted == {}


@pytest.mark.parametrize("liquidation", [False, True])
def test_liquidation_goes_on_unless_it_was_to_blame(world, trader, liquidation):
    """Otherwise a halted account would be a refuge for its debts."""
    world.apply(halt(trader, liquidation=liquidation))
    refused = rejection(world.apply(TriggerLiquidation(account=trader, market_id=0, keeper=bytes(20))))
    expected = RejectCode.ACCOUNT_HALTED if liquidation else RejectCode.HEALTHY_ACCOUNT
    assert refused.code is expected


@pytest.mark.parametrize("account", [0, 1, 2, 99])
def test_only_users_are_halted(world, trader, account):
    """Neither the fund nor the fee account, nor nobody."""
    assert rejection(world.apply(halt(account))).code is RejectCode.UNKNOWN_ACCOUNT
    assert world.state.halted == {}
