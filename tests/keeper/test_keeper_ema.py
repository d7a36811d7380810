"""The integer moving average against the same formula in 60 digits."""

from decimal import Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.ema import DECAY_1S, SCALE, Ema, decay

DIGITS = Context(prec=60)


def exp(seconds: int) -> Fraction:
    """exp(-seconds/150) to 60 digits."""
    return Fraction(DIGITS.exp(DIGITS.divide(Decimal(-seconds), Decimal(150))))


def test_the_constant_is_the_exponential():
    """exp(-1/150) rounded down to 24 digits."""
    assert int(exp(1) * SCALE) == DECAY_1S


@pytest.mark.parametrize("seconds", [0, 1, 2, 149, 150, 151, 3_600, 8_400])
def test_decay_is_the_power_of_the_constant(seconds):
    """Within 1e-20, and never above the exact value."""
    assert 0 <= exp(seconds) - Fraction(decay(seconds), SCALE) < Fraction(1, 10**20)


def test_decay_ends():
    """After fifty-six time constants nothing is left."""
    assert decay(10_000) == 0


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-(10**6), 10**6)), min_size=1, max_size=60))
def test_average_equals_the_formula(samples):
    """num = num*exp(-t/150) + x*t and den alike, floored; off by at most one unit of the last place."""
    ema, now = Ema(), 0
    num = den = Fraction(0)
    for number, (elapsed, value) in enumerate(samples):
        now += elapsed
        ema.add(value, now)
        counted = 1 if number == 0 else elapsed
        factor = exp(counted)
        num = num * factor + value * counted
        den = den * factor + counted
    found = ema.value(now, max_age_s=1)
    assert found is not None
    assert abs(num / den - found) < 1 + Fraction(1, 10**9)


def test_a_constant_stays_itself():
    """The average of a constant is the constant, whatever the gaps."""
    ema = Ema()
    for now in (10, 11, 500, 501, 2_000):
        ema.add(-37, now)
    assert ema.value(2_000, 10) in (-37, -38)  # floored, and the last digit may be one below


def test_times_that_do_not_grow_are_ignored():
    """A repeated or older moment changes nothing."""
    ema = Ema()
    ema.add(100, 50)
    ema.add(900, 50)
    ema.add(900, 40)
    assert ema.value(50, 10) == 100


def test_old_averages_are_forgotten():
    """Without a sample for longer than allowed there is no average, and the next sample starts afresh."""
    ema = Ema()
    ema.add(100, 50)
    assert ema.value(200, 150) == 100
    assert ema.value(201, 150) is None
    ema.add(7, 300)
    assert ema.value(300, 150) == 7
