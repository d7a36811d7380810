"""Random streams of everything an exchange takes, on fresh contracts each: after every batch that settled engine, vault and naive
model are compared to the last unit. `scripts/agree` runs any number of them."""

from collections import Counter

import boa

from evermark.protocol.markets import load_markets
from tests import fast_evm
from tests.agreement.random_traders import PRICES, START, Leavers, RandomTraders
from tests.agreement.three_ways import ThreeWays

SEED_USDC = 2_000_000


def mixed(seed: int, steps: int = 400) -> Counter:
    """Every kind of order, money in and out, transfers, agents, triggers, funding, liquidations on the book and by the fund."""
    with boa.swap_env(fast_evm.fresh()):
        exchange = ThreeWays(load_markets(), START)
        exchange.donate(SEED_USDC * 10**6)
        exchange.round(PRICES)
        traders = RandomTraders(exchange, seed)
        exchange.round(PRICES)
        for step in range(steps):
            traders.step()
            if step % 15 == 0:
                traders._count(traders._between_accounts())
            compare_settled(traders)
            exchange.retry_entry()
        return traders.seen


def without_a_fund(seed: int, steps: int = 150) -> Counter:
    """Prices that jump, and a fund with next to nothing: deleveraging and write-offs."""
    with boa.swap_env(fast_evm.fresh()):
        exchange = ThreeWays(load_markets(), START)
        exchange.round(PRICES)
        traders = RandomTraders(exchange, seed, violence=6)
        exchange.round(PRICES)
        for step in range(steps):
            if step % 30 == 0:
                traders.pair_up()
            traders.step()
            compare_settled(traders)
        return traders.seen


def leaving(seed: int, steps: int = 120) -> Counter:
    """Closes and liquidations by the inbox among everything else."""
    with boa.swap_env(fast_evm.fresh()):
        exchange = ThreeWays(load_markets(), START)
        exchange.donate(20_000 * 10**6)
        exchange.round(PRICES)
        traders = Leavers(exchange, seed, violence=3)
        exchange.round(PRICES)
        for step in range(steps):
            if step % 30 == 0:
                traders.pair_up()
            traders.step()
            if step % 5 == 0:
                traders.leave()
            exchange.confirm()
            exchange.retry_entry()
            compare_settled(traders)
        return traders.seen


def compare_settled(traders: RandomTraders) -> None:
    """Once something more has settled and no fill is open, everything is equal on all three sides."""
    exchange, seen = traders.exchange, traders.seen
    exchange.confirm()
    if len(exchange.settled) > seen["batches"] and not exchange.state.batch.fills:
        traders.finish_batches()
        seen["batches"] = len(exchange.settled)
        if not exchange.state.batch.fills:  # the round woke nobody who traded
            exchange.compare()
            seen["compared"] += 1


STREAMS = {"mixed": mixed, "without_a_fund": without_a_fund, "leaving": leaving}
