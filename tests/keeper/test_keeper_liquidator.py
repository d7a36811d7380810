"""The liquidation keeper's decisions: its own arithmetic, order, backoff."""

import pytest
from keeper_cases import MARKETS

from evermark.protocol.margin import AccountMargin
from evermark.protocol.signing import Liquidate
from keeper.actions import Outcome
from keeper.liquidator import (
    DEADLINE_S,
    LAST_BACKOFF_S,
    AccountView,
    LiquidatorStrategy,
    LiquidatorView,
    OpenPosition,
    judge,
)

BY_ID = {market.market_id: market for market in MARKETS}
MARKS = {0: 1_200_000, 1: 430_000, 2: 22_000, 3: 28_000}
LOTS = 10_000  # 0.1 BTC: 12,000 USDC of notional, 150 USDC of maintenance


def long_btc(account: int, equity: int, lots: int = LOTS) -> AccountView:
    """An account with one long BTC position and this equity at MARKS."""
    value = BY_ID[0].notional(lots, MARKS[0])
    return AccountView(account, equity - value, (OpenPosition(0, lots, 0),))


def maintenance(lots: int = LOTS) -> int:
    """Maintenance margin of the position of `long_btc`."""
    margin = AccountMargin(0)
    margin.add_position(BY_ID[0], lots, MARKS[0], 0)
    return margin.maintenance


def look(*accounts: AccountView, wall_s: float = 0.0, marks: dict[int, int] | None = None) -> LiquidatorView:
    """A look at these accounts."""
    return LiquidatorView(7, 1_000, wall_s, MARKS if marks is None else marks, accounts)


@pytest.mark.safety("B09", "keeper")
def test_equality_is_healthy():
    """Equity at maintenance is left alone; one unit below it is liquidatable."""
    assert judge(long_btc(5, maintenance()), BY_ID, MARKS) is None
    assert judge(long_btc(5, maintenance() - 1), BY_ID, MARKS) == (0, 999_999)


def test_the_gateways_list_is_not_believed():
    """An account that is listed but healthy by its own numbers gets no trigger."""
    assert LiquidatorStrategy(MARKETS).decide(look(long_btc(5, 2 * maintenance()))) == ()


def test_funding_owed_counts():
    """Unsettled funding is part of the equity."""
    healthy = long_btc(5, maintenance())
    owing = AccountView(5, healthy.collateral, (OpenPosition(0, LOTS, 1),))
    assert judge(owing, BY_ID, MARKS) is not None


@pytest.mark.safety("A01", "keeper")
def test_no_trigger_without_every_price():
    """A position whose price is stale hides what the account is worth: nothing is liquidated."""
    assert LiquidatorStrategy(MARKETS).decide(look(long_btc(5, 0), marks={1: 430_000})) == ()


def test_the_largest_requirement_is_closed_first():
    """Of several positions the one with the largest maintenance; the trigger says round and deadline."""
    account = AccountView(9, 0, (OpenPosition(1, -10, 0), OpenPosition(0, -LOTS, 0)))
    (trigger,) = LiquidatorStrategy(MARKETS).decide(look(account))
    assert trigger == Liquidate(account=9, market="BTC-PERP", round=7, deadline=1_000 + DEADLINE_S)


def test_the_deepest_deficit_goes_first_and_looks_are_bounded():
    """Order by equity to maintenance, then account; at most so many triggers a look."""
    accounts = [long_btc(number, number * 1_000) for number in (9, 5, 7, 6)]
    found = LiquidatorStrategy(MARKETS, most_per_look=3).decide(look(*accounts))
    assert [trigger.account for trigger in found] == [5, 6, 7]


@pytest.mark.safety("B23", "keeper")
def test_two_keepers_decide_alike():
    """A second keeper sends the same triggers; that duplicates are harmless is the engine's part."""
    accounts = [long_btc(number, number * 1_000) for number in (9, 5, 7)]
    first, second = LiquidatorStrategy(MARKETS), LiquidatorStrategy(MARKETS)
    assert first.decide(look(*accounts)) == second.decide(look(*reversed(accounts)))


@pytest.mark.safety("H11", "keeper")
def test_refusals_are_backed_off_from():
    """A refused account waits 1, 2, 4 ...

    seconds up to a minute; others are not held up; acceptance resets it.
    """
    strategy, bad, good = LiquidatorStrategy(MARKETS), long_btc(5, 0), long_btc(6, 0)
    wall, waits = 0.0, []
    for _ in range(9):
        assert 5 in {trigger.account for trigger in strategy.decide(look(bad, good, wall_s=wall))}
        strategy.learn(Liquidate(account=5, market="BTC-PERP", round=7, deadline=0), Outcome(False, "", "X"))
        began = wall
        while 5 not in {trigger.account for trigger in strategy.decide(look(bad, good, wall_s=wall))}:
            assert [trigger.account for trigger in strategy.decide(look(bad, good, wall_s=wall))] == [6]
            wall += 0.5
        waits.append(wall - began)
    assert waits == [1, 2, 4, 8, 16, 32, LAST_BACKOFF_S, LAST_BACKOFF_S, LAST_BACKOFF_S]
    strategy.learn(Liquidate(account=5, market="BTC-PERP", round=7, deadline=0), Outcome(True, "done"))
    assert 5 in {trigger.account for trigger in strategy.decide(look(bad, wall_s=wall))}


def test_what_left_the_list_is_forgotten():
    """Memory stays bounded by the accounts that are listed or still waiting."""
    strategy = LiquidatorStrategy(MARKETS)
    for account in range(100):
        strategy.decide(look(long_btc(account, 0)))
        strategy.learn(Liquidate(account=account, market="BTC-PERP", round=7, deadline=0), Outcome(False, ""))
    strategy.decide(look(wall_s=100.0))
    assert strategy.waiting == 0
