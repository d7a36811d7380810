"""Outflow limits as a formula: what may leave within an hour and a day, and how long anything waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evermark.protocol.outflow import DAY_S, HOUR_S, MAX_DELAY_S, Outflow, after_claim
from evermark.protocol.units import MAX_COLLATERAL, USDC

DEPOSITS = 200_000_000 * USDC  # an hour's limit is 2,000,000 USDC, a day's 20,000,000
AMOUNTS = st.one_of(st.integers(1, 10**7), st.integers(1, DEPOSITS // 50), st.integers(1, DEPOSITS))
STEPS = st.lists(st.tuples(AMOUNTS, st.sampled_from([0, 1, 7, 600, HOUR_S, 5 * HOUR_S, DAY_S])), max_size=40)


@pytest.mark.safety("B18", "contract")
@given(STEPS)
def test_no_period_pays_more_than_two_limits_and_nothing_waits_longer_than_a_week(
    steps: list[tuple[int, int]],
) -> None:
    """While levels are below what a week drains, any window of an hour or a day lets at most two limits become payable; and a
    claim never waits for more than seven days, nor becomes payable before one that was made earlier."""
    outflow, now, paid, last, full = Outflow(), 1_000_000, [], 0, False
    for amount, pause_s in steps:
        now += pause_s
        outflow, due = after_claim(outflow, DEPOSITS, amount, now)
        at = due or now
        assert now <= at <= now + MAX_DELAY_S
        assert at >= last
        full = full or at == now + MAX_DELAY_S
        last = at
        paid.append((at, amount))
    for period_s, limit in ((HOUR_S, DEPOSITS // 100), (DAY_S, DEPOSITS // 10)):
        for start, first in paid:
            window = [amount for at, amount in paid if start <= at < start + period_s]
            # A claim larger than the limit itself is paid whole once its excess has drained.
            assert full or sum(window) - max(window) <= 2 * limit, (start, first)


@given(st.integers(0, 2**104 - 1), st.integers(-(2**127), 2**127), st.integers(1, MAX_COLLATERAL))
def test_levels_always_fit_their_words(deposits: int, less: int, amount: int) -> None:
    """Whatever is deposited and claimed, both levels stay within 104 bits, and time goes with the newest claim."""
    outflow = Outflow()
    for _ in range(3):
        outflow, due = after_claim(outflow, deposits + less, amount, 7)
        assert 0 < outflow.hour < 2**104
        assert 0 < outflow.day < 2**104
        assert outflow.at == 7
        assert due <= 7 + MAX_DELAY_S


def test_time_does_not_run_backwards() -> None:
    """A claim at an older time drains nothing, and counts from its own time."""
    first, _ = after_claim(Outflow(), 0, 100_000 * USDC, 1_000)
    second, due = after_claim(first, 0, 1, 900)
    assert second.at == 1_000
    assert second.hour == first.hour + 1
    assert due == 901
