"""The oracle keeper's decision tables: which sources count, what index and mark become of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeper_cases import AVAX, BTC, MARKETS, NOW_S, RULES, perpetual, spot, view

from evermark.protocol.units import PPM
from keeper.oracle import BookTop, OracleStrategy, index_price, mark_price

THREE = (spot("a", 1_000_000), spot("b", 1_000_100), spot("c", 1_000_400))


def report_of(quotes, books=None):
    """(index, mark) of BTC for one round of a fresh keeper."""
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, books=books))
    return action.report.prices[0] >> 32, action.report.prices[0] & 0xFFFFFFFF


@pytest.mark.safety("A04", "keeper")
@pytest.mark.parametrize(
    "quotes, index",
    [
        (THREE, 1_000_100),
        ((*THREE, spot("d", 1_000_200)), 1_000_150),
        ((*THREE[:2], spot("liar", 2)), 1_000_000),
        ((*THREE[:2], spot("liar", 4_000_000_000)), 1_000_100),
        (THREE[:2], None),
        (THREE[:1], None),
        ((), None),
        ((*THREE[:2], spot("c", 1_000_400, age_s=61)), None),
        ((*THREE[:2], spot("c", 1_000_400, age_s=60)), 1_000_100),
        ((*THREE[:2], spot("c", 1_000_400, age_s=-6)), None),
        ((*THREE[:2], spot("c", 0)), None),
        ((*THREE[:2], spot("c", -5)), None),
        ((*THREE[:2], spot("c", 2**32)), None),
        ((*THREE[:2], spot("b", 1_000_300)), None),
        ((*THREE[:2], spot("c", 1_000_400, market=1)), None),
    ],
    ids=[
        "median of three",
        "mean of the middle two",
        "outlier below",
        "outlier above",
        "below the quorum",
        "a single venue",
        "nothing",
        "stale",
        "just fresh",
        "from the future",
        "zero",
        "negative",
        "too large",
        "a venue counts once",
        "of another market",
    ],
)
def test_index_is_the_median_of_a_quorum_or_nothing(quotes, index):
    """Median of at least `min_sources` fit spot venues, never a single venue's last price."""
    found, _, _ = index_price([quote for quote in quotes if quote.market_id == 0], BTC, RULES, NOW_S)
    assert found == index


@pytest.mark.safety("A05", "keeper")
def test_a_source_with_a_wide_interval_is_dropped():
    """Its middle may be anything: it neither counts nor moves the median."""
    wide = spot("c", 1_000_400, spread_ppm=RULES.max_spread_ppm + 1)
    index, used, dropped = index_price([*THREE[:2], wide], BTC, RULES, NOW_S)
    assert index is None
    assert used == ("a", "b")
    assert dropped == ("c: spread of 10001 ppm",)
    just = spot("c", 1_000_400, spread_ppm=RULES.max_spread_ppm)
    assert index_price([*THREE[:2], just], BTC, RULES, NOW_S)[0] == 1_000_100


def test_a_venues_newest_quote_counts():
    """Two quotes of one venue are one source."""
    old, new = spot("c", 5, age_s=9), spot("c", 1_000_400, age_s=2)
    assert index_price([*THREE[:2], new, old], BTC, RULES, NOW_S)[0] == 1_000_100


def test_perpetuals_never_enter_the_index():
    """Two spot venues and any number of perpetuals are below a quorum of three."""
    quotes = [*THREE[:2], perpetual("p", 1_000_000), perpetual("q", 1_000_000)]
    assert index_price(quotes, BTC, RULES, NOW_S)[0] is None


def test_abstains_per_market_and_recovers():
    """A market below its quorum is 0 in the report and says why; others are priced; it may recover."""
    strategy = OracleStrategy(MARKETS, RULES)
    others = [spot(venue, 1_000, market=1) for venue in "abc"]
    (first,) = strategy.decide(view(*THREE[:2], *others))
    assert first.report.prices[0] == 0
    assert first.report.prices[1] >> 32 == 1_000
    assert first.decisions[0].abstained == "2 of 3 spot sources"
    (second,) = strategy.decide(view(*THREE, *others))
    assert second.report.prices[0] >> 32 == 1_000_100
    assert second.decisions[0].abstained == ""


@pytest.mark.parametrize(
    "basis, book, perpetuals, mark",
    [
        (None, None, (), 1_000_000),
        (None, None, (1_001_000,), 1_000_500),
        (600, None, (), 1_000_300),
        (None, BookTop(1_000_100, 1_000_300, 0), (), 1_000_100),
        (None, BookTop(1_000_100, 1_000_300, 1_000_120), (1_002_000,), 1_000_120),
        (4_000, BookTop(1_000_100, 1_000_300, 1_000_120), (1_002_000, 1_002_200, 1), 1_002_000),
        (None, BookTop(1_000_100, 0, 1_000_120), (), 1_000_000),
        (None, BookTop(1_000_300, 1_000_100, 1_000_120), (), 1_000_000),
        (-(10**6), None, (1,), 996_000),
        (10**6, None, (4_000_000_000,), 1_004_000),
    ],
    ids=[
        "nothing but the index",
        "index and perpetual: their mean",
        "half of the doubled basis",
        "book without a trade: its mid",
        "the median of all three",
        "the median of the perpetuals is one input",
        "one-sided book",
        "crossed book",
        "band below",
        "band above",
    ],
)
def test_mark_of_what_exists(basis, book, perpetuals, mark):
    """The median of the three inputs, of those that exist, within 4,000 ppm of an index of 1,000,000."""
    assert mark_price(BTC, 1_000_000, basis, book, perpetuals) == mark


@pytest.mark.safety("A07", "keeper")
@given(
    index=st.integers(1, 2**32 - 1),
    prices=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
    basis=st.none() | st.integers(-(2**33), 2**33),
    perpetuals=st.lists(st.integers(1, 2**32 - 1), max_size=4),
)
def test_mark_stays_in_the_band(index, prices, basis, perpetuals):
    """Whatever the book and the perpetuals show, the mark is within the band around the index."""
    mark = mark_price(BTC, index, basis, BookTop(*prices), perpetuals)
    assert abs(mark - index) * PPM <= index * BTC.mark_band_ppm
    assert mark >= 1


@pytest.mark.safety("A07", "keeper")
def test_a_swept_book_does_not_carry_the_mark():
    """A book swept threefold for a minute with an unchanged index: the mark ends at the band at most."""
    strategy = OracleStrategy(MARKETS, RULES)
    marks = []
    for second in range(60):
        quotes = [msgspec.structs.replace(quote, time_ms=(NOW_S + second) * 1000) for quote in THREE]
        swept = {0: BookTop(3_000_000, 3_000_100, 3_000_050)}
        (action,) = strategy.decide(view(*quotes, books=swept, now_s=NOW_S + second))
        marks.append(action.report.prices[0] & 0xFFFFFFFF)
    assert max(marks) <= 1_000_100 * (PPM + BTC.mark_band_ppm) // PPM


def test_a_perpetual_that_printed_a_fraction_moves_nothing():
    """With a book, an absurd perpetual is the outlier of three; without one, the band holds."""
    quotes = [spot(venue, 20_800, market=3) for venue in "abc"]
    crashed = perpetual("p", 6_020, market=3)
    book = {3: BookTop(20_790, 20_810, 20_800)}
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, crashed, books=book))
    assert action.report.prices[3] == 20_800 << 32 | 20_800
    (action,) = OracleStrategy(MARKETS, RULES).decide(view(*quotes, crashed))
    mark = action.report.prices[3] & 0xFFFFFFFF
    assert (20_800 - mark) * PPM <= 20_800 * AVAX.mark_band_ppm


def test_stale_perpetuals_are_left_out():
    """A perpetual that stopped printing does not enter the mark."""
    assert report_of((*THREE, perpetual("p", 1_003_000, age_s=100)))[1] == 1_000_100
    assert report_of((*THREE, perpetual("p", 1_003_000)))[1] == 1_001_550


def test_a_market_is_abstained_from_as_configured():
    """Whatever its sources say; the others are reported."""
    quotes = (*THREE, *(spot(venue, 400_000, market=1) for venue in "abc"))
    (action,) = OracleStrategy(MARKETS, RULES, ("BTC-PERP",)).decide(view(*quotes))
    assert [bool(price) for price in action.report.prices] == [False, True, False, False]
    assert action.decisions[0].abstained == "as configured"
