"""Views: what gateways read."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, owner_of

from sequencer.engine.risk import margin_of
from sequencer.engine.views import (
    account_view,
    agent_expiry,
    book_levels,
    find_account,
    liquidatable,
    liquidation_price,
    open_orders,
    withdrawable,
)


@pytest.fixture
def world():
    world = World()
    seller, buyer = world.trader(10, 200), world.trader(11, 200)
    world.order(seller, SELL, 1_900, 10_000)
    world.order(buyer, BUY, 1_900, 10_000, IOC)
    return world


def test_account_view_has_the_numbers_of_margin(world):
    """Equity, requirements and positions are those that decide refusals."""
    buyer = find_account(world.state, owner_of(11), 0)
    view = account_view(world.state, buyer.account_id)
    (position,) = view.positions
    assert (position.size, position.notional, position.unrealized_pnl) == (1_900, 1_900 * USDC, 0)
    assert view.equity == 200 * USDC - 760_000
    assert (view.initial_margin, view.maintenance_margin) == (95 * USDC, 47_500_000)
    assert view.withdrawable == withdrawable(world.state, buyer.account_id) == 0
    assert find_account(world.state, owner_of(99), 0) is None


@pytest.mark.parametrize("number", [10, 11])
def test_the_liquidation_price_is_the_first_one_that_liquidates(world, number):
    """At that mark the account is below maintenance, one tick nearer it is not."""
    account = find_account(world.state, owner_of(number), 0)
    price = liquidation_price(world.state, account.account_id, 0)
    step = 1 if number == 11 else -1
    world.round([price + step, 10_000])
    assert not margin_of(world.state, account).liquidatable
    assert liquidatable(world.state) == []
    world.round([price, 10_000])
    assert margin_of(world.state, account).liquidatable
    assert liquidatable(world.state) == [account.account_id]
    assert liquidatable(world.state, after=account.account_id) == []


def test_book_levels_are_best_first(world):
    """Depth sums the orders of a price and stops at the asked number of levels."""
    maker = world.trader(12)
    for price in (9_900, 9_950, 9_950, 9_800):
        world.order(maker, BUY, 100, price)
    assert book_levels(world.state, 0, BUY, 2) == [(9_950, 200, 2), (9_900, 100, 1)]
    assert book_levels(world.state, 0, SELL, 5) == []
    assert [order.price for order in open_orders(world.state, maker)] == [9_900, 9_950, 9_950, 9_800]


def test_agents_are_visible(world):
    """Until when an agent may trade; 0 for a stranger."""
    account = find_account(world.state, owner_of(10), 0).account_id
    world.approve(account, owner_of(500), 60)
    assert agent_expiry(world.state, account, owner_of(500)) == world.now_s + 60
    assert agent_expiry(world.state, account, owner_of(501)) == 0
