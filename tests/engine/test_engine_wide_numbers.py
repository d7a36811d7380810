"""Products that fit a machine word are made there, compiled; all others by Python's integers. Both give the same numbers."""

import pytest

from evermark.protocol.margin import MarginTable, fee_delta, initial_margin
from evermark.protocol.markets import load_markets
from evermark.protocol.units import MAX_NOTIONAL, NARROW, PPM, WIDE, ppm_of

EDGES = (0, 1, 2**30, 2**31, WIDE, 2**61, 2**62, 2**63, MAX_NOTIONAL)
AROUND = sorted({sign * edge + step for edge in EDGES for sign in (1, -1) for step in (-1, 0, 1)})
RATES = (0, 1, -1, 450, -450, PPM, -PPM, NARROW - 1, NARROW, -NARROW, 1 - NARROW, 2**40, -(2**40))


def rounded_up(millionths: int) -> int:
    """To whole units."""
    return -(-millionths // PPM)


def test_rates_multiply_exactly():
    """On either side of the bounds, with either sign."""
    for amount in AROUND:
        for rate_ppm in RATES:
            assert ppm_of(amount, rate_ppm) == amount * rate_ppm


@pytest.mark.parametrize("market", load_markets(), ids=lambda market: market.symbol)
def test_margin_table_is_initial_margin(market):
    """Around every tier's bound and around the widest notional of a machine word; none below zero has a margin."""
    table = MarginTable(market)
    bounds = [tier.lower_notional + step for tier in market.tiers for step in (-1, 0, 1)]
    for notional in (number for number in (*bounds, *AROUND) if number >= 0):
        assert table.initial(notional) == initial_margin(market, notional)
    with pytest.raises(ValueError, match="below zero"):
        table.initial(-1)


def test_fees_round_up_once():
    """What a fill adds is the difference of the row's fees, each rounded up by itself."""
    for before in (0, 1, PPM - 1, -PPM, -1, 2**62, -(2**62), 2**70):
        for notional in AROUND:
            for rate_ppm in (100, -50, 0, 65_535):
                numerator = before + notional * rate_ppm
                fee = rounded_up(numerator) - rounded_up(before)
                assert fee_delta(before, notional, rate_ppm) == (numerator, fee)
