"""What a freeze pins and how it counts: the newer price of both lanes, of odd markets too, and a thousand accounts a call."""

import boa
import pytest
from builders import MARKETS, USDC, Exchange, Party
from msgspec.structs import replace
from test_exit import ANYBODY, PRICE, freeze, take_and_pay, trade
from test_market_modes import clamp

from evermark.protocol.orders import Side

COUNTERS = (1 << 39) + 512
WEEK_S = 7 * 86_400


@pytest.mark.safety("E11", "contract")
@pytest.mark.parametrize("apart_s", [1, 10])
@pytest.mark.parametrize("held_back", [False, True])
def test_each_market_is_pinned_at_its_newer_price(
    exchange: Exchange, maker: Party, taker: Party, apart_s: int, held_back: bool
) -> None:
    """By a second or a round, whichever lane it is in, also where the older one is marked as held back."""
    trade(exchange, maker, taker, Side.BUY, 100)
    exchange.round({0: PRICE + 10, 1: 250_010})
    if held_back:
        clamp(exchange)
    exchange.post_public({0: PRICE + 20}, abstain=(1,), seconds=apart_s)
    freeze(exchange, taker)
    assert (exchange.exit.marks(0), exchange.exit.marks(1)) == (PRICE + 20, 250_010)


@pytest.mark.safety("E11", "contract")
def test_of_equally_new_prices_the_sequencers_lane_counts(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Who posts other reports of the same second in the public lane changes nothing."""
    trade(exchange, maker, taker, Side.BUY, 100)
    exchange.round({0: PRICE + 10})
    exchange.post_public({0: PRICE + 20}, seconds=0)
    freeze(exchange, taker)
    assert exchange.exit.marks(0) == PRICE + 10


@pytest.mark.safety("E11", "contract")
@pytest.mark.parametrize("market", [0, 1, 2, 3])
def test_any_market_freezes_after_a_week_without_a_price(
    exchange: Exchange, maker: Party, taker: Party, market: int
) -> None:
    """Not a second earlier, wherever in a round's words its price lies."""
    batch = exchange.batch()
    mark = exchange.last[market].mark_ticks
    batch.trade(maker, taker, Side.BUY, 10, mark, market=market)
    batch.settle()
    at = exchange.clock
    exchange.round(seconds=100, abstain=(market,))
    boa.env.timestamp = at + WEEK_S
    with boa.reverts("exit: not a week without a price"):
        exchange.exit.freeze_dead_market(market)
    boa.env.timestamp = at + WEEK_S + 1
    exchange.exit.freeze_dead_market(market)
    assert exchange.exit.marks(market) == mark


@pytest.mark.safety("E11", "contract")
def test_a_position_in_the_last_of_64_markets_counts() -> None:
    """It is pinned, valued and paid like one in any other; who holds only the first is counted without a look at the rest."""
    with boa.env.anchor():
        markets = tuple(replace(MARKETS[0], market_id=at, symbol=f"M{at}-PERP") for at in range(64))
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(64), PRICE))
        parties = [exchange.deposit(number, 1_000 * USDC) for number in (1, 2, 3, 4)]
        batch = exchange.batch()
        batch.trade(*parties[:2], Side.BUY, 100, PRICE, market=63)
        batch.trade(*parties[2:], Side.BUY, 100, PRICE, market=0)
        batch.settle()
        exchange.round({63: PRICE + 1_000})
        expected = [exchange.margin(party.account).equity for party in parties]
        freeze(exchange, parties[0])
        assert exchange.exit.marks(63) == PRICE + 1_000
        assert [exchange.exit.equity(party.account) for party in parties] == expected
        exchange.exit.push(2)
        of_last, _, of_first, _ = (gas_of_a_count(exchange) for _ in parties)
        assert of_last > 3 * of_first
        assert [take_and_pay(exchange, party) for party in parties] == expected


def gas_of_a_count(exchange: Exchange) -> int:
    exchange.exit.push(1, sender=ANYBODY)
    return int(exchange.exit._computation.get_gas_used())


def test_a_thousand_accounts_are_counted_at_once(exchange: Exchange, maker: Party) -> None:
    """However many were asked for; then the rest. The accounts that a test can afford hold nothing."""
    with boa.env.anchor():
        counters = exchange.vault.word(COUNTERS) & ~((2**32 - 1) << 112)
        exchange.vault.write(COUNTERS, counters | 1_500 << 112, sender=exchange.backstop.address)
        freeze(exchange, maker)
        assert exchange.exit.accounts() == 1_500
        exchange.exit.push(10**6, sender=ANYBODY)
        assert exchange.exit.cursor() == 1_001
        exchange.exit.push(1_000, sender=ANYBODY)
        assert exchange.exit.complete()
        assert exchange.exit.pot() == exchange.vault.totals().credited
