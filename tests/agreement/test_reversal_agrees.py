"""Reversals across what governor and guardian changed: engine, contracts and naive model agree again, to the last unit."""

import random

import boa
import pytest
from msgspec.structs import replace

from evermark.chain.governor import listing_arguments
from evermark.protocol.markets import load_markets
from sequencer.engine.commands import MarketMode, ReversalCause
from sequencer.engine.events import CashSettled, CommandRejected, MarketListed, Trade
from sequencer.engine.snapshot import restore, snapshot
from tests.agreement.random_traders import PRICES, START
from tests.agreement.reversing import Reversing
from tests.agreement.test_delisting_agrees import delist, of_type, positions, priced, touch
from tests.agreement.test_governance_agrees import PEPE, PEPE_PRICE, trade, words_agree

MARKET, OTHER = 0, 1
NAMES = ["maker", "taker", "visitor two", "holder"]


@pytest.fixture
def exchange():
    with boa.swap_env(boa.Env()):
        made = Reversing(load_markets(), START)
        made.donate(500_000 * 10**6)
        made.round(PRICES)
        yield made


def compare(exchange) -> None:
    """What waits is settled, and all three agree; the state survives a snapshot."""
    exchange.round(exchange.last_prices)
    exchange.confirm()
    exchange.compare()
    assert snapshot(restore(snapshot(exchange.state))) == snapshot(exchange.state)


def delisted(exchange) -> int:
    """Positions in two markets, the first of which waits for its settlement; the price that it will have."""
    positions(exchange, NAMES, 7)
    exchange.round(PRICES)
    exchange.confirm()
    mean = delist(exchange, [(3_000, 1_136_500), (60, 1_136_100)])
    exchange.round(exchange.last_prices)
    exchange.confirm()
    exchange.compare()
    return mean


def settled_sizes(exchange) -> dict[int, int]:
    return {
        key: account.positions[MARKET].size
        for key, account in exchange.state.accounts.items()
        if MARKET in account.positions and account.positions[MARKET].size
    }


@pytest.mark.safety("B27", "sequencer")
@pytest.mark.safety("G26", "sequencer")
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_settlement_in_cash_is_reversed_and_happens_again(exchange, rounds):
    """Positions that had ended are there again at the price that keepers report, and end at the same settlement price: the
    round in force after the reversal is the one that the chain makes, which knows no settlement yet."""
    mean = delisted(exchange)
    sizes = settled_sizes(exchange)
    assert len(sizes) > 2
    exchange.holding = True
    exchange.settle_market(MARKET)
    told = []
    for step in range(rounds):
        told += of_type(exchange.round(priced(1_136_900 + step)), CashSettled)
        trade(exchange, OTHER, PRICES[OTHER][1], 100 + step)
    assert bool(told) == bool(rounds) == (not settled_sizes(exchange))
    exchange.reverse(ReversalCause.MISSED_WINDOW)
    at = exchange.state.markets[MARKET]
    assert settled_sizes(exchange) == sizes
    assert (at.mode_for_good, at.settlement_price) == (MarketMode.SETTLED, mean)
    assert at.price.index_ticks == exchange.last_prices[MARKET][0] != mean
    assert exchange.oracle.ending(MARKET)[2] is False
    assert of_type(exchange.round(exchange.last_prices), CashSettled)
    exchange.confirm()
    exchange.compare()
    assert exchange.oracle.ending(MARKET)[1:] == (mean, True)
    assert not settled_sizes(exchange)
    assert trade(exchange, OTHER, PRICES[OTHER][1], 200)
    compare(exchange)


@pytest.mark.parametrize("known", [True, False])
def test_a_strangers_batch_settles_the_market_whether_the_engine_had_or_not(exchange, known):
    """His batch holds the governor's entry: from then on the chain makes its rounds by the settlement price, and so does the
    engine of the newest one."""
    mean = delisted(exchange)
    exchange.holding = True
    entry = queue_settlement(exchange)
    if known:
        exchange.send(entry)
        exchange.round(exchange.last_prices)
    exchange.round(exchange.last_prices, 3_700)
    foreign = exchange.execute_overdue([entry])
    exchange.round(exchange.last_prices, 10)
    trade(exchange, OTHER, PRICES[OTHER][1], 110)
    exchange.reverse(ReversalCause.FOREIGN_BATCH, foreign)
    assert exchange.state.markets[MARKET].price.index_ticks == mean
    assert exchange.state.entry_count == entry.entry_id
    assert trade(exchange, OTHER, PRICES[OTHER][1], 300)
    compare(exchange)
    assert not settled_sizes(exchange)


def queue_settlement(exchange):
    """On the chain alone; the entry as the sequencer would read it."""
    sent, exchange.send = exchange.send, lambda command: hold_back(exchange, command)
    exchange.settle_market(MARKET)
    exchange.send = sent
    exchange.waiting.clear()
    return exchange.queue[exchange.entries]


def hold_back(exchange, command):
    exchange.queue[command.entry_id] = command
    return [CommandRejected(account=0, reject=None)]


def test_a_strangers_batch_lists_a_market(exchange):
    """It is the fifth for all three, gets a price with the next round, and trades; the engine had listed it before him."""
    positions(exchange, NAMES, 9)
    exchange.round(PRICES)
    exchange.confirm()
    proposal = exchange.govern("listing", *listing_arguments(PEPE), 12, execute=False)
    exchange.now += 172_800
    exchange.round(PRICES)
    touch(exchange)
    exchange.holding = True
    exchange.execute(proposal)
    entry = exchange.queue[exchange.entries]
    exchange.round(PRICES, 3_700)
    foreign = exchange.execute_overdue([entry])
    exchange.round(PRICES, 10)
    exchange.reverse(ReversalCause.FOREIGN_BATCH, foreign)
    assert [at.market.symbol for at in exchange.state.markets].count(PEPE.symbol) == 1
    assert len(exchange.state.round.prices) == 5
    assert trade(exchange, OTHER, PRICES[OTHER][1], 300)
    compare(exchange)
    exchange.round([*PRICES, PEPE_PRICE])
    assert trade(exchange, 4, PEPE_PRICE[1], 2_000)
    compare(exchange)
    words_agree(exchange)


@pytest.mark.parametrize("change", ["listing", "tuning"])
def test_a_listing_or_a_tuning_and_a_pause_are_reversed_and_happen_again(exchange, change):
    """A market that was listed, or another jump band, and a market that was halted, in batches that are given up."""
    positions(exchange, NAMES, 9)
    exchange.round(PRICES)
    exchange.confirm()
    tuned = replace(exchange.markets[1], jump_ppm_per_s=1_000, taker_fee_ppm=700)
    arguments = {"listing": (*listing_arguments(PEPE), 12), "tuning": (1, *listing_arguments(tuned))}
    proposal = exchange.govern(change, *arguments[change], execute=False)
    exchange.now += 172_800
    exchange.round(PRICES)
    touch(exchange)
    exchange.holding = True
    exchange.execute(proposal)
    exchange.round(PRICES)
    assert trade(exchange, 3, PRICES[3][1], 1_000)
    exchange.pause(2, MarketMode.HALTED, 3_600)
    moved = [PRICES[0], (PRICES[1][0] + 6_000, PRICES[1][1] + 6_000), *PRICES[2:]]
    exchange.round(moved)
    assert exchange.state.markets[1].price.clamped == (change == "tuning")
    events = exchange.reverse(ReversalCause.MISSED_WINDOW)
    assert bool(of_type(events, MarketListed)) == (change == "listing")
    assert not of_type(events, CommandRejected)
    assert len(exchange.state.round.prices) == 4
    assert not exchange.state.markets[1].price.clamped
    assert exchange.state.markets[2].effective_mode is MarketMode.HALTED
    compare(exchange)
    words_agree(exchange)
    if change == "listing":
        exchange.round([*moved, PEPE_PRICE])
        assert trade(exchange, 4, PEPE_PRICE[1], 2_000)
        compare(exchange)
    assert exchange.vault.market_words(2)[0] >> 248 == MarketMode.HALTED


@pytest.mark.parametrize("seed", range(2))
def test_streams_with_changes_and_reversals_agree(exchange, seed):
    """Trades, pauses and a settlement in a seeded order, given up again and again at any point."""
    source = random.Random(seed)
    delisted(exchange)
    begun = False
    for _ in range(4):
        exchange.holding = True
        for _ in range(source.randrange(1, 5)):
            choice = source.randrange(4)
            if choice == 0 and not begun:
                exchange.settle_market(MARKET)
                begun = True
            elif choice == 1:
                exchange.pause(2, source.choice([MarketMode.HALTED, MarketMode.REDUCE_ONLY]), 120)
            else:
                trade(exchange, OTHER, PRICES[OTHER][1], source.randrange(100, 600))
            exchange.round(priced(1_136_000 + source.randrange(900)))
        exchange.reverse(ReversalCause.MISSED_WINDOW)
        compare(exchange)
    assert not begun or not settled_sizes(exchange)
    assert of_type(trade(exchange, OTHER, PRICES[OTHER][1], 150), Trade)
    compare(exchange)
