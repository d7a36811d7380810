"""The market maker's quotes: where they stand, how they lean, which are moved first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evermark.actors.config import MakerConfig
from evermark.actors.quoting import Quote, quotes_to_move, slot_of, wanted_quotes
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from evermark.protocol.units import PPM

MARKETS = load_markets()
BTC, _, _, AVAX = MARKETS
CONFIG = MakerConfig(url="http://x", rpc_url="http://x", manifest="x", dev_account=1)
MARK = 1_200_000


def sides(quotes):
    """(bids, asks) by level."""
    bids = [quote for quote in quotes if quote.side is Side.BUY]
    return bids, [quote for quote in quotes if quote.side is Side.SELL]


def test_flat_quotes_surround_the_mark():
    """Levels on both sides at the configured distances, bids rounded down and asks up."""
    bids, asks = sides(wanted_quotes(BTC, MARK, 0, CONFIG))
    assert [quote.price for quote in bids] == [1_199_640, 1_199_160, 1_198_680]
    assert [quote.price for quote in asks] == [1_200_360, 1_200_840, 1_201_320]
    assert {quote.size for quote in (*bids, *asks)} == {10_000}


@pytest.mark.parametrize("lots", [200_000, -200_000])
def test_quotes_lean_against_the_position(lots):
    """A long maker quotes lower, a short one higher, so that others take the position off its hands."""
    flat, leaning = wanted_quotes(BTC, MARK, 0, CONFIG), wanted_quotes(BTC, MARK, lots, CONFIG)
    for before, after in zip(flat, leaning, strict=True):
        assert (after.price < before.price) == (lots > 0)


def test_at_its_limit_the_maker_only_reduces():
    """No bids for a position at the limit, no asks for one at its negative."""
    limit = CONFIG.max_position_usdc * 10**6 // MARK
    bids, asks = sides(wanted_quotes(BTC, MARK, limit + 1, CONFIG))
    assert (len(bids), len(asks)) == (0, 3)
    bids, asks = sides(wanted_quotes(BTC, MARK, -limit - 1, CONFIG))
    assert (len(bids), len(asks)) == (3, 0)


@given(mark=st.integers(100, 4_000_000_000), lots=st.integers(-(10**9), 10**9))
def test_quotes_never_cross_each_other(mark, lots):
    """For any mark and position every bid stands below every ask, in the market's own price band."""
    bids, asks = sides(wanted_quotes(AVAX, mark, lots, CONFIG))
    if bids and asks:
        assert max(quote.price for quote in bids) < min(quote.price for quote in asks)
    for quote in (*bids, *asks):
        assert abs(quote.price - mark) * PPM <= mark * AVAX.price_band_ppm + PPM


def test_every_quote_has_a_slot_of_its_own():
    """Over all markets, from 1 on: slot 0 is for orders that never rest."""
    slots = [quote.slot for market in MARKETS for quote in wanted_quotes(market, 50_000, 0, CONFIG)]
    assert sorted(slots) == list(range(1, len(slots) + 1))


def quote(level: int, price: int, side: Side = Side.BUY, size: int = 100) -> Quote:
    """A quote of BTC."""
    return Quote(slot_of(0, side, level, 3), 0, side, level, price, size)


def test_the_dangerous_quote_moves_first():
    """A bid that stands too high before a missing one before one too low; near enough stays."""
    live = [quote(0, 10_000), quote(1, 10_300), quote(2, 9_700)]
    wanted = [quote(0, 10_001), quote(1, 9_900), quote(2, 9_800), quote(0, 10_200, Side.SELL)]
    moves, ended = quotes_to_move({one.slot: one for one in live}, wanted, 120)
    assert [(one.side, one.level) for one in moves] == [(Side.BUY, 1), (Side.SELL, 0), (Side.BUY, 2)]
    assert ended == ()


def test_a_quote_mostly_traded_is_filled_up():
    """Below half of its size it is renewed at its price."""
    live = {1: quote(0, 10_000, size=49)}
    moves, _ = quotes_to_move(live, [quote(0, 10_000)], 120)
    assert [one.size for one in moves] == [100]
    assert quotes_to_move({1: quote(0, 10_000, size=50)}, [quote(0, 10_000)], 120) == ((), ())


def test_what_is_not_wanted_is_cancelled():
    """A side that ended, or a market whose price went stale."""
    live = {one.slot: one for one in (quote(0, 10_000), quote(1, 9_000))}
    assert quotes_to_move(live, [], 120) == ((), tuple(sorted(live)))
