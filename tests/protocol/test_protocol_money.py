"""Margin, fees, funding and liquidation: properties that hold for every input."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from evermark.protocol.funding import (
    cumulative_step,
    hourly_rate_ppb,
    impact_price,
    median,
    premium_ppb,
)
from evermark.protocol.liquidation import (
    book_loss_bound,
    deleveraging_loss,
    keeper_share,
    liquidation_fee,
    loss_bound,
    slice_lots,
    takeover_allowed,
)
from evermark.protocol.margin import (
    AccountMargin,
    MarginTable,
    closing_check,
    fee_delta,
    funding_owed,
    funding_remainder,
    initial_margin,
    maintenance_margin,
    weighted_mean_floor,
)
from evermark.protocol.markets import Tier, load_markets
from evermark.protocol.units import FUNDING_SCALE, PPM, ceil_div, floor_div, mul_div_down, mul_div_up

MARKETS = load_markets()
MARKET = st.sampled_from(MARKETS)
NOTIONALS = st.integers(0, 10**18)
SIZES = st.integers(-(2**62), 2**62)
CUMULATIVES = st.integers(-(2**100), 2**100)


@given(st.integers(), st.integers(), st.integers(1))
def test_named_rounding(a, b, denominator):
    """Down is toward minus infinity, up toward plus infinity, and they differ by one unit at most."""
    exact = Fraction(a * b, denominator)
    assert mul_div_down(a, b, denominator) <= exact <= mul_div_up(a, b, denominator)
    assert mul_div_up(a, b, denominator) - mul_div_down(a, b, denominator) == (exact.denominator != 1)
    assert floor_div(a, denominator) == -ceil_div(-a, denominator)


@pytest.mark.safety("B04", "sequencer")
@given(MARKET, NOTIONALS, NOTIONALS)
def test_requirements_rise_with_the_notional(market, one, two):
    """More notional never needs less margin, nor a smaller share of it at a tier's step."""
    low, high = sorted((one, two))
    assert initial_margin(market, low) <= initial_margin(market, high)
    assert maintenance_margin(market, low) <= maintenance_margin(market, high)
    assert 0 <= initial_margin(market, high) <= high + 1


@given(MARKET)
def test_tiers_are_continuous(market):
    """At a step both tiers give the same requirement, to the unit that rounding costs."""
    for below, tier in zip(market.tiers, market.tiers[1:], strict=False):
        at = tier.lower_notional
        lower = ceil_div(at * below.initial_fraction_ppm, PPM) - below.deduction
        assert abs(initial_margin(market, at) - lower) <= 1


@given(MARKET, NOTIONALS, st.integers(-2, 2))
def test_the_margin_table_is_the_same_formula(market, notional, offset):
    """Anywhere, and around each step, the table gives what `initial_margin` gives; both refuse less than zero."""
    table = MarginTable(market)
    for at in (notional, *(max(0, tier.lower_notional + offset) for tier in market.tiers)):
        assert table.initial(at) == initial_margin(market, at)
    for refuse in (table.initial, lambda below: initial_margin(market, below)):
        with pytest.raises(ValueError, match="below zero"):
            refuse(-1)


@given(MARKET, NOTIONALS)
def test_maintenance_is_half_of_initial(market, notional):
    """Rounded up."""
    assert maintenance_margin(market, notional) == -(-initial_margin(market, notional) // 2)


@given(SIZES, CUMULATIVES, CUMULATIVES)
def test_funding_debits_round_up_and_credits_down(size, now, entry):
    """What is owed is at least the exact amount, and the remainder says by how much."""
    exact = Fraction(size * (now - entry), FUNDING_SCALE)
    owed = funding_owed(size, now, entry)
    assert exact <= owed < exact + 1
    assert Fraction(funding_remainder(size, now, entry), FUNDING_SCALE) == owed - exact


@pytest.mark.safety("C06", "sequencer")
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20), CUMULATIVES)
def test_funding_is_never_created(sizes, moved):
    """Over positions that sum to zero, payments cover receipts, and what is over is exactly the dust."""
    sizes = [*sizes, -sum(sizes)]
    total = sum(funding_owed(size, moved, 0) for size in sizes)
    dust = sum(funding_remainder(size, moved, 0) for size in sizes)
    assert total >= 0
    assert total * FUNDING_SCALE == dust


@given(SIZES, st.integers(-(2**80), 2**80), st.integers(-(2**80), 2**80))
def test_settling_often_never_pays_better(size, first, second):
    """Two settlements cost at least one of the whole."""
    assert funding_owed(size, first, 0) + funding_owed(size, second, 0) >= funding_owed(
        size, first + second, 0
    )


@pytest.mark.safety("C01", "sequencer")
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=30), st.integers(-1_000, 1_000))
def test_fees_of_one_row_are_the_fee_of_the_sum(notionals, rate_ppm):
    """Charged fill by fill or at once: the same total, never less than exact."""
    numerator = charged = 0
    for notional in notionals:
        numerator, fee = fee_delta(numerator, notional, rate_ppm)
        charged += fee
    assert charged == ceil_div(sum(notionals) * rate_ppm, PPM)
    assert charged >= Fraction(sum(notionals) * rate_ppm, PPM)


def margin(equity, initial, maintenance):
    made = AccountMargin(equity)
    made.initial, made.maintenance = initial, maintenance
    return made


AMOUNTS = st.integers(-(10**15), 10**15)
REQUIREMENTS = st.integers(0, 10**15)


@given(AMOUNTS, REQUIREMENTS, AMOUNTS, REQUIREMENTS, st.booleans())
def test_the_closing_check_lets_no_account_get_worse(was, was_needed, now, needed, grew):
    """Above initial margin all is allowed; below it nothing grows and the ratio (or the deficit) does not
    fall."""
    before, after = margin(was, 2 * was_needed, was_needed), margin(now, 2 * needed, needed)
    allowed = closing_check(before, after, grew)
    if now >= 2 * needed:
        assert allowed
    elif grew:
        assert not allowed
    elif was < 0:
        assert allowed == (now >= was)
    elif was_needed and needed:
        assert allowed == (Fraction(now, needed) >= Fraction(was, was_needed))


@given(AMOUNTS, REQUIREMENTS)
def test_doing_nothing_passes_the_closing_check(equity, needed):
    """An unchanged account is always accepted."""
    state = margin(equity, 2 * needed, needed)
    assert closing_check(state, state, False)


@pytest.mark.safety("B09", "sequencer")
def test_equality_is_healthy():
    """Equity equal to maintenance is not liquidatable; one unit less is."""
    assert not margin(100, 200, 100).liquidatable
    assert margin(99, 200, 100).liquidatable
    assert not takeover_allowed(2, 3)
    assert takeover_allowed(1, 3)


@given(AMOUNTS, REQUIREMENTS, REQUIREMENTS)
def test_withdrawable_keeps_a_fifth(equity, needed, notional):
    """Equity above max(initial margin, 20 % of notional), never below zero."""
    state = margin(equity, needed, needed // 2)
    state.notional = notional
    assert state.withdrawable == max(0, equity - max(needed, -(-notional // 5)))


@given(
    st.integers(1, 10**13), st.integers(1, 10**13), st.integers(0, 10**13), st.integers(1, 10**9), st.data()
)
def test_closing_at_the_bound_keeps_the_ratio(position_maintenance, others, equity, size, data):
    """A loss of exactly the bound leaves equity over maintenance no smaller, with the requirement falling in
    proportion."""
    closed = data.draw(st.integers(1, size))
    maintenance = position_maintenance + others
    assume(equity < maintenance)
    loss = loss_bound(equity, maintenance, position_maintenance, closed, size)
    left = maintenance - Fraction(position_maintenance * closed, size)
    assert 0 <= loss <= equity
    assert Fraction(equity - loss) * maintenance >= equity * left
    book = book_loss_bound(equity, maintenance, position_maintenance, closed, size)
    assert book <= loss
    assert book <= Fraction(position_maintenance * closed, 3 * size)


@given(st.integers(1, 10**13), st.integers(1, 10**13), st.integers(1, 10**9), st.data())
def test_below_zero_the_bound_is_a_gain(maintenance, deficit, size, data):
    """A negative account must receive at least its share of the deficit, rounded up."""
    closed = data.draw(st.integers(1, size))
    assert -loss_bound(-deficit, maintenance, maintenance, closed, size) >= Fraction(deficit * closed, size)


@pytest.mark.safety("B08", "sequencer")
@given(MARKET, NOTIONALS, st.integers(-(10**12), 10**15))
def test_liquidation_fees_stay_in_their_room(market, notional, room):
    """Never negative, at most 1 %, never beyond what keeps the ratio; the keeper's half rounds down."""
    fee = liquidation_fee(market, notional, room)
    assert 0 <= fee <= max(0, room)
    assert fee * 100 <= notional
    assert keeper_share(fee) * 2 <= fee


@pytest.mark.safety("B20", "sequencer")
@pytest.mark.parametrize(("equity", "lost"), [(900, 0), (1, 0), (0, 0), (-1, -1), (-900, -450), (-901, -451)])
def test_a_deleveraged_target_loses_nothing_and_gains_what_it_lacks(equity, lost):
    """Half of a position of which all is the account's: with equity at the mark, below zero by its share, rounded its way."""
    assert deleveraging_loss(equity, 1_000, 1_000, 5, 10) == lost


@pytest.mark.safety("B11", "sequencer")
@given(MARKET, st.integers(1, 10**9), st.integers(1, 2**32 - 1))
def test_slices_never_exceed_the_position(market, size, mark):
    """All of a small position, a fifth of a large one, at least one lot."""
    lots = slice_lots(market, size, mark)
    assert 1 <= lots <= size
    assert lots in (size, -(-size // 5))


@given(MARKET, st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=50))
def test_hourly_rates_stay_within_the_cap(market, premiums):
    """Whatever was sampled."""
    assert abs(hourly_rate_ppb(premiums, market)) <= market.funding_cap_ppb


@pytest.mark.safety("C03", "sequencer")
@pytest.mark.parametrize(
    ("fraction_ppm", "cap_ppb"), [(20_000, 5_000_000), (159_996, 39_999_000), (160_000, 40_000_000)]
)
def test_the_cap_is_half_the_first_maintenance_fraction(fraction_ppm, cap_ppb):
    """And four percent an hour at most."""
    for fraction, cap in ((fraction_ppm, cap_ppb), (10**6, 40_000_000)):
        market = replace(MARKETS[0], tiers=(Tier(0, fraction, 0),))
        assert market.funding_cap_ppb == cap


def test_a_flat_premium_pays_the_interest():
    """No premium: 0.0001 per 8 hours, an eighth of it an hour; without samples there is no rate."""
    assert hourly_rate_ppb([0, 0, 0], MARKETS[0]) == 12_500
    with pytest.raises(ValueError, match="without samples"):
        hourly_rate_ppb([], MARKETS[0])


@given(st.integers(1, 2**31), st.integers(1, 2**31), st.integers(1, 2**31))
def test_premium_is_zero_inside_the_impact_prices(low, index, high):
    """Else it is how far the impact bid lies above the index or the impact ask below it, as a share of the index, toward zero."""
    bid, ask = min(low, high), max(low, high)
    premium = premium_ppb(bid, ask, index)
    distance = max(bid - index, 0) - max(index - ask, 0)
    assert premium * distance >= 0
    assert abs(premium) == abs(distance) * 10**9 // index


@given(MARKET, st.integers(1, 2**32 - 1), st.integers(-40_000_000, 40_000_000))
def test_a_step_of_the_index_is_exact(market, index, rate):
    """One lot pays index x lot_tick_value x rate."""
    step = cumulative_step(market, index, rate)
    assert Fraction(step, FUNDING_SCALE) == Fraction(index * market.lot_tick_value * rate, 10**9)


def test_impact_price_and_medians():
    """The average price of the impact notional, None when the book is too thin; medians need an odd
    number."""
    assert impact_price([(100, 10), (110, 10)], 1_000, 1) == 100
    assert impact_price([(100, 10), (110, 10)], 2_100, 1) == 105
    assert impact_price([(100, 10)], 1_001, 1) is None
    assert median([3, 1, 2]) == 2
    with pytest.raises(ValueError, match="odd"):
        median([1, 2])
    assert weighted_mean_floor([(10, 1), (11, 2)]) == 10
    assert weighted_mean_floor([]) == 0
