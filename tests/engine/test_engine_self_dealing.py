"""An attacker on both sides: trading with oneself and liquidating oneself makes nobody richer, and costs the fund nothing."""

import pytest
from engine_world import BUY, GTC, IOC, SELL, World, market, of_type
from hypothesis import example, given
from hypothesis import strategies as st

from evermark.protocol.batch import FEE_ACCOUNT, INSURANCE_FUND
from sequencer.engine.events import Liquidated
from sequencer.engine.risk import margin_of

WHO = st.integers(0, 2)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("trade", "trade", "rest", "liquidate", "liquidate", "withdraw", "move")),
        WHO,
        WHO,
        st.integers(1, 4_000),
        st.integers(-480, 480),
    ),
    max_size=30,
)
# A long of 120 USDC falls below maintenance and closes against its own owner's bid; the rest is the fund's to take.
LIQUIDATED = [
    ("trade", 2, 1, 2_300, 0),
    ("move", 0, 0, 1, -300),
    ("rest", 2, 0, 500, 2),
    ("liquidate", 1, 0, 1, 0),
    ("move", 0, 0, 1, -130),
    ("liquidate", 1, 0, 1, 0),
]


@pytest.mark.safety("B10", "sequencer")
@given(steps=STEPS, donated=st.sampled_from((0, 3, 5_000)))
@example(steps=LIQUIDATED, donated=5_000)
@example(steps=LIQUIDATED, donated=0)
def test_dealing_with_oneself_earns_nothing(steps, donated):
    """Three accounts of one owner: whatever they trade with each other within the band, and however they trigger each
    other's liquidation as keepers, together they only lose, and the fund only gains. Prices move while nobody falls
    below zero by it and the fund holds nothing: beyond that the fund bears a risk of its own."""
    dealer = Dealer(donated)
    for step in steps:
        dealer.do(*step)
        dealer.check()
    if steps is LIQUIDATED:
        assert dealer.liquidations >= 2


class Dealer:
    """One owner's accounts in one market, and what all of it was worth before."""

    def __init__(self, donated: int) -> None:
        self.world = World(market(0))
        if donated:
            self.world.donate(donated)
        self.mine = [self.world.trader(10 + number, usdc) for number, usdc in enumerate((60, 120, 3_000))]
        self.taken = self.liquidations = 0
        self.wealth, self.fund = self.owned(), self.equity(INSURANCE_FUND)

    def do(self, kind: str, first: int, second: int, number: int, offset: int) -> None:
        world, one, other = self.world, self.mine[first], self.mine[second]
        price = world.state.markets[0].mark + offset
        if kind == "trade" and one != other:
            world.cancel(one, all_slots=True)
            world.order(one, SELL, number, price, GTC)
            world.order(other, BUY, number, price, IOC)
        elif kind == "rest":
            world.order(one, SELL if second else BUY, number, price, GTC)
        elif kind == "liquidate" and one != other:
            self.liquidations += len(of_type(world.liquidate(one, keeper_account=other), Liquidated))
        elif kind == "withdraw":
            before = world.collateral(one)
            world.withdraw(one, number * 10**5)
            self.taken += before - world.collateral(one)
        elif kind == "move" and self.may_move(offset):
            world.round([price])

    def may_move(self, offset: int) -> bool:
        """Nobody falls below zero by it, and the fund has no position."""
        after = [self.equity(account) + self.world.size(account) * offset * 100 for account in self.mine]
        return self.world.size(INSURANCE_FUND) == 0 and min(after) >= 0

    def check(self) -> None:
        fund, fees = self.equity(INSURANCE_FUND), self.world.collateral(FEE_ACCOUNT)
        assert self.owned() <= self.wealth
        assert fund >= self.fund
        assert self.owned() + fund + fees == self.wealth + self.fund

    def owned(self) -> int:
        """Equity of all accounts and what was withdrawn."""
        return sum(map(self.equity, self.mine)) + self.taken

    def equity(self, account: int) -> int:
        return margin_of(self.world.state, self.world.state.accounts[account]).equity
