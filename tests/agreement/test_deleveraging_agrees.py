"""Auto-deleveraging agrees between engine, vault and naive model, by hand and on random streams."""

from collections import Counter

import boa
import pytest

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from sequencer.engine.events import Liquidated
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.random_traders import PRICES, START, fallen
from tests.agreement.streams import without_a_fund
from tests.agreement.three_ways import ThreeWays


@pytest.fixture
def exchange_without_a_fund():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(load_markets(), START)
        made.round(PRICES)
        yield made


def test_deleveraging_agrees(exchange_without_a_fund):
    """With equity at the mark, below zero at the bankruptcy amount, against two accounts of the queue."""
    exchange = exchange_without_a_fund
    long, short, other = signer("long"), signer("short"), signer("other")
    for owner, usdc in ((long, 2_000), (short, 50_000), (other, 3_000)):
        exchange.deposit(owner, usdc * 10**6)
    for owner, lots in ((short, 20_000), (other, 40_000)):
        exchange.order(owner, 0, Side.SELL, lots, 1_136_300, slot=1)
        exchange.order(long, 0, Side.BUY, lots, 1_137_000, slot=0)
    for share, wanted in ((26_000, False), (40_000, True)):
        exchange.round(fallen(share))
        exchange.confirm()
        events = exchange.liquidate(exchange.account(long), 0, keeper_account=exchange.account(short))
        steps = [event for event in events if isinstance(event, Liquidated)]
        assert steps
        assert all(step.deleveraged and (step.loss < 0) == wanted for step in steps)
        exchange.round(fallen(share))
        exchange.compare()
    assert exchange.state.accounts[exchange.account(long)].positions[0].size == 0
    assert exchange.state.markets[0].open_interest == 0


@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("C02", "sequencer")
@pytest.mark.safety("B20", "contract")
def test_random_streams_without_a_fund_agree():
    """Prices that jump and a fund that has next to nothing: deleveraging and write-offs, equal after every batch. As many
    streams as it takes to see enough of both, at most eight."""
    seen = Counter()
    for seed in range(11, 19):
        if seen["deleveraged"] >= 5 and seen["written off"] >= 1:
            break
        seen += without_a_fund(seed)
    assert seen["deleveraged"] >= 5, seen
    assert seen["written off"] >= 1, seen
    assert seen["batches"] > 10, seen
