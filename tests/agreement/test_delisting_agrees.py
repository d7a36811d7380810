"""A delisted market is settled in cash by engine, contracts and model alike, at one price that anybody can verify."""

import random

import boa
import pytest

from evermark.protocol.governance import NOTICE_S
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import MarketMode
from sequencer.engine.events import (
    BatchSealed,
    CancelReason,
    CashSettled,
    CommandRejected,
    MarketModeChanged,
    OrderCancelled,
    WithdrawalClaimed,
)
from sequencer.engine.snapshot import restore, snapshot
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.random_traders import PRICES, START
from tests.agreement.three_ways import ThreeWays

MARKET, OTHER = 0, 1
HOUR_S = 3_600


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(load_markets(), START)
        made.donate(500_000 * 10**6)
        made.round(PRICES)
        yield made


def priced(index: int):
    return [(index, index + 150), *PRICES[1:]]


def touch(exchange) -> None:
    """A batch, so that the round before it is in the lane."""
    exchange.round(exchange.last_prices)
    exchange.deposit(signer("visitor"), 100 * 10**6)
    exchange.order(signer("maker"), OTHER, Side.SELL, 10, PRICES[OTHER][1], slot=40)
    exchange.order(signer("visitor two"), OTHER, Side.BUY, 10, PRICES[OTHER][1], slot=0)
    exchange.round(exchange.last_prices)
    exchange.confirm()


def delist(exchange, indices) -> int:
    """Up to the end of the last hour, whose rounds are `indices` (seconds before its end, index); returns the mean by hand."""
    exchange.govern("delisting", MARKET)
    exchange.round(exchange.last_prices)
    ends_at, price, settled = exchange.oracle.ending(MARKET)
    assert (price, settled) == (0, False)
    assert NOTICE_S - 600 < ends_at - exchange.now <= NOTICE_S
    with boa.reverts("governor: no settlement price"):
        exchange.governance.settle(MARKET)
    held, seconds, area = indices[0][1], ends_at - HOUR_S, 0  # the first one counts from the beginning
    for before_end, index in indices:
        at = ends_at - before_end
        exchange.round(priced(index), at - exchange.now)
        area += held * (at - seconds)
        held, seconds = exchange.state.markets[MARKET].price.index_ticks, at
    area += held * (ends_at - seconds)
    exchange.round(priced(indices[-1][1]), ends_at + 7 - exchange.now)
    touch(exchange)
    return area // HOUR_S


def positions(exchange, names, seed: int) -> None:
    """Every pair of neighbours trades in both markets."""
    source = random.Random(seed)
    for name in names:
        exchange.deposit(signer(name), 200_000 * 10**6)
    for place, name in enumerate(names[1:], start=1):
        for market in (MARKET, OTHER):
            price, size = PRICES[market][1], source.randrange(1, 2_000)
            side = Side(source.randrange(2))
            exchange.order(signer(names[place - 1]), market, side, size, price, slot=1 + market)
            exchange.order(signer(name), market, side.opposite, size, price, slot=0)


@pytest.mark.safety("B27", "contract")
@pytest.mark.safety("B27", "sequencer")
def test_a_delisted_market_is_settled_at_the_mean_of_its_last_hour(exchange):
    """Nobody picks the price; positions end in several batches, equity is as it was at that price, and money can leave."""
    names = ["maker", "visitor two", *(f"holder {place}" for place in range(44))]
    positions(exchange, names, 5)
    exchange.round(PRICES)
    exchange.confirm()
    exchange.compare()
    mean = delist(exchange, [(3_000, 1_136_500), (1_777, 1_135_003), (60, 1_136_100)])
    assert exchange.oracle.ending(MARKET)[1:] == (mean, False)
    exchange.order(signer("maker"), OTHER, Side.SELL, 50, PRICES[OTHER][1] + 20, slot=30)
    exchange.round(exchange.last_prices)
    interest = exchange.state.markets[MARKET].open_interest
    assert interest > 0
    resting = exchange.state.accounts[exchange.account(signer("maker"))].positions[MARKET].size
    closing = Side.SELL if resting > 0 else Side.BUY
    far = PRICES[MARKET][1] + (3_000 if closing is Side.SELL else -3_000)
    exchange.order(signer("maker"), MARKET, closing, 1, far, slot=31, reduce_only=True)

    events = exchange.settle_market(MARKET)
    (cancelled,) = of_type(events, OrderCancelled)
    assert (cancelled.reason, cancelled.market_id) == (CancelReason.MARKET_SETTLED, MARKET)
    assert [event.mode for event in of_type(events, MarketModeChanged)] == [MarketMode.SETTLED]
    refused = of_type(
        exchange.order(signer("maker"), MARKET, closing, 1, far, slot=31, reduce_only=True), CommandRejected
    )
    assert refused[0].reject.code is RejectCode.MARKET_HALTED
    collateral = {key: account.collateral for key, account in exchange.state.accounts.items()}
    sizes = {
        key: account.positions[MARKET].size
        for key, account in exchange.state.accounts.items()
        if MARKET in account.positions
    }
    steps = []
    for _ in range(8):
        # What keepers report of it is of no account any more.
        events = exchange.round(priced(1_200_000))
        assert exchange.state.markets[MARKET].price.index_ticks == mean
        assert exchange.state.markets[MARKET].mark == mean
        assert len(of_type(events, BatchSealed)) <= 2
        steps.append(len(of_type(events, CashSettled)))
        exchange.confirm()
        exchange.compare()
        assert snapshot(restore(snapshot(exchange.state))) == snapshot(exchange.state)
        if not exchange.state.markets[MARKET].holders:
            break
    assert sum(step > 0 for step in steps) >= 2
    assert exchange.state.markets[MARKET].open_interest == 0
    value = exchange.state.markets[MARKET].market.lot_tick_value
    for key, size in sizes.items():
        assert exchange.state.accounts[key].collateral == collateral[key] + size * mean * value
    assert (sum(sizes.values()), sum(map(abs, sizes.values()))) == (0, 2 * interest)
    assert exchange.oracle.ending(MARKET)[1:] == (mean, True)
    assert exchange.vault.market_words(MARKET)[0] >> 248 == MarketMode.SETTLED
    with boa.reverts("governor: settled"):
        exchange.governance.settle(MARKET)
    assert of_type(exchange.withdraw(signer("holder 3"), 1_000 * 10**6), WithdrawalClaimed)
    exchange.pause(MARKET, MarketMode.REDUCE_ONLY, 300)
    exchange.pause(MARKET, 0, 0)
    assert exchange.state.markets[MARKET].effective_mode == MarketMode.SETTLED
    exchange.order(signer("maker"), OTHER, Side.SELL, 10, PRICES[OTHER][1], slot=40)
    exchange.order(signer("holder 5"), OTHER, Side.BUY, 10, PRICES[OTHER][1], slot=0)
    exchange.round(exchange.last_prices)
    exchange.compare()


@pytest.mark.safety("B27", "sequencer")
def test_the_insurance_fund_is_settled_too(exchange):
    """A position that it took over ends like any other."""
    side = Side.BUY
    poor, rich = signer("poor"), signer("maker")
    exchange.deposit(poor, 2_000 * 10**6)
    exchange.deposit(rich, 500_000 * 10**6)
    exchange.deposit(signer("visitor two"), 100_000 * 10**6)
    price = PRICES[MARKET][1]
    exchange.order(rich, MARKET, side.opposite, 30_000, price, slot=1)
    exchange.order(poor, MARKET, side, 30_000, price, slot=0)
    exchange.round(PRICES)
    exchange.confirm()
    move = -61_000
    exchange.round(priced(PRICES[MARKET][0] + move))
    exchange.liquidate(exchange.account(poor), MARKET)
    exchange.round(priced(PRICES[MARKET][0] + move))
    exchange.confirm()
    assert exchange.state.accounts[1].positions[MARKET].size != 0
    delist(exchange, [(1_000, PRICES[MARKET][0] + move)])
    exchange.settle_market(MARKET)
    told = of_type(exchange.round(exchange.last_prices), CashSettled)
    assert any(event.counterparty == 1 for event in told)
    exchange.confirm()
    exchange.compare()
    assert exchange.state.markets[MARKET].open_interest == 0
    assert not exchange.state.accounts[1].positions[MARKET].size
