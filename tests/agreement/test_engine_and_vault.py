"""Invariant 5: the engine's state after every settled batch equals the vault's, to the last unit."""

import boa
import pytest

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from sequencer.engine.events import (
    Liquidated,
    Trade,
)
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.random_traders import PRICES, START, fallen
from tests.agreement.streams import SEED_USDC, mixed
from tests.agreement.three_ways import ThreeWays


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(load_markets(), START)
        made.donate(SEED_USDC * 10**6)
        made.round(PRICES)
        yield made


def test_a_single_fill_settles_and_agrees(exchange):
    """One maker, one taker, one batch: both signatures verified on chain, balances equal to the last unit."""
    maker, taker = signer("maker"), signer("taker")
    exchange.deposit(maker, 100_000 * 10**6)
    exchange.deposit(taker, 50_000 * 10**6)
    exchange.order(maker, 0, Side.SELL, 100_000, 1_136_500, slot=1)
    events = exchange.order(taker, 0, Side.BUY, 40_001, 1_137_000, slot=0)
    assert any(isinstance(event, Trade) for event in events)
    exchange.round(PRICES)
    assert len(exchange.settled) >= 1
    exchange.compare()


def test_funding_settles_and_agrees(exchange):
    """An hour's rate moves money from longs to shorts, rounded as the vault rounds; the pool and its dust agree."""
    long, short = signer("long"), signer("short")
    exchange.deposit(long, 50_000 * 10**6)
    exchange.deposit(short, 50_000 * 10**6)
    exchange.order(short, 0, Side.SELL, 123_457, 1_136_500, slot=1)
    exchange.order(long, 0, Side.BUY, 123_457, 1_137_000, slot=0)
    exchange.round(PRICES, 1_000)
    exchange.confirm()
    exchange.funding(exchange.now // 3600 - 1, [77_777, -5, 3, 1])
    exchange.order(short, 0, Side.SELL, 1_001, 1_136_500, slot=2)
    exchange.order(long, 0, Side.BUY, 1_001, 1_137_000, slot=0)
    exchange.round(PRICES)
    # Two equal and opposite positions: what both roundings keep back is one whole unit, and it is the fund's.
    assert exchange.state.accounts[INSURANCE_FUND].collateral == SEED_USDC * 10**6 + 1
    assert (exchange.state.funding_pool, exchange.state.dust) == (0, 0)
    exchange.compare()


def test_a_liquidation_on_the_book_a_take_over_and_the_funds_way_out_agree(exchange):
    """Below maintenance a position closes on the book; below two thirds the fund takes it over at the bound and
    sells it at the mark to whoever crosses it."""
    maker, trader, buyer = signer("maker"), signer("trader"), signer("buyer")
    for owner, usdc in ((maker, 500_000), (trader, 2_000), (buyer, 100_000)):
        exchange.deposit(owner, usdc * 10**6)
    exchange.order(maker, 0, Side.SELL, 60_000, 1_136_300, slot=1)
    exchange.order(trader, 0, Side.BUY, 60_000, 1_137_000, slot=0)
    exchange.round(fallen(20_000))
    exchange.order(maker, 0, Side.BUY, 2_000, exchange.state.markets[0].mark - 10, slot=2)
    events = exchange.liquidate(exchange.account(trader), 0, keeper_account=exchange.account(maker))
    assert [event.taken_over for event in events if isinstance(event, Liquidated)] == [False]
    exchange.round(fallen(25_500))
    exchange.compare()
    events = exchange.liquidate(exchange.account(trader), 0, keeper_account=exchange.account(maker))
    assert True in [event.taken_over for event in events if isinstance(event, Liquidated)]
    exchange.round(fallen(25_500))
    exchange.compare()
    fund = exchange.state.accounts[INSURANCE_FUND].positions[0].size
    assert fund > 0
    exchange.order(buyer, 0, Side.BUY, fund, exchange.state.markets[0].mark + 1, slot=0)
    exchange.round(fallen(25_500))
    assert exchange.state.accounts[INSURANCE_FUND].positions[0].size == 0
    exchange.compare()


@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("C02", "sequencer")
@pytest.mark.parametrize("seed", range(3))
def test_random_streams_agree_after_every_batch(seed):
    """A random stream of every operation: after each settled batch all balances, positions and sums are equal."""
    seen = mixed(seed)
    for what in ("transfers", "triggered", "slices"):
        assert seen[what] > 0, seen
    assert seen["trades"] > 40, seen
    assert seen["compared"] > 20, seen


def test_inbox_requests_agree(exchange):
    """Cancels, agents and a withdrawal that waits for a price: the same words in engine and vault."""
    maker, taker, agent = signer("maker"), signer("taker"), signer("agent")
    for owner in (maker, taker):
        exchange.deposit(owner, 50_000 * 10**6)
    exchange.round(PRICES)
    exchange.approve_by_inbox(taker, agent, exchange.now + 500, 7)
    exchange.order(maker, 0, Side.SELL, 1_000, 1_136_500, slot=1)
    exchange.order(maker, 0, Side.SELL, 1_000, 1_136_500, slot=2)
    exchange.order(taker, 0, Side.BUY, 500, 1_137_000, slot=0, by=agent)
    exchange.request_cancel(maker, 1, exchange.clock_ms)
    exchange.order(taker, 0, Side.BUY, 500, 1_137_000, slot=0, by=agent)
    exchange.request_cancel(taker, 0, exchange.clock_ms + 10)
    exchange.round([None, *PRICES[1:]], 70)
    exchange.request_withdrawal(taker, 10**6)
    exchange.deposit(maker, 10**6)
    assert len(exchange.waiting) == 2
    exchange.round(PRICES)
    exchange.retry_entry()
    assert not exchange.waiting
    exchange.revoke_by_inbox(taker, agent)
    exchange.request_cancel(maker, 65_535, exchange.clock_ms)
    exchange.round(PRICES)
    exchange.compare()
    vault, slots = exchange.vault, exchange.state.accounts[exchange.account(maker)].slots
    for slot in (1, 2):
        assert vault.slot(exchange.account(maker), slot).sequence == slots[slot].used_sequence
    assert (
        vault.account(exchange.account(taker)).taker_sequence
        == exchange.state.accounts[exchange.account(taker)].used_taker_sequence
    )
