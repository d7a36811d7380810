"""Margin arithmetic: tiered requirements, funding owed, equity. Mirrored by `contracts/modules/margin.vy`.

Equity is collateral + sum(size * mark * lot_tick_value) - funding owed: a cash model, entry price plays no
part.
"""

from collections.abc import Iterable
from typing import Final

from mypy_extensions import i64, mypyc_attr

from evermark.protocol.markets import Market
from evermark.protocol.units import FUNDING_SCALE, PPM, WIDE, ceil_div, floor_div, ppm_of

UP: Final = PPM - 1  # added before a division by PPM, it rounds up


def initial_margin(market: Market, notional: int) -> int:
    """Initial margin in quote units of one position of `notional` >= 0, rounded up.

    N * fraction_n - deduction_n for the highest tier whose lower bound is at most N (protocol, section 7).
    """
    tiers = market.tiers
    at = len(tiers) - 1
    while at >= 0:
        tier = tiers[at]
        if notional >= tier.lower_notional:
            return ceil_div(notional * tier.initial_fraction_ppm, PPM) - tier.deduction
        at -= 1
    raise ValueError("notional below zero")


class MarginTable:
    """One market's tiers as plain integers, for who asks often: `initial` is `initial_margin` of that market."""

    __slots__ = ("deduction", "fraction_ppm", "higher", "simple_below")

    def __init__(self, market: Market) -> None:
        first, *above = market.tiers
        self.fraction_ppm = first.initial_fraction_ppm
        self.deduction = first.deduction
        # Nearly every position is within the first tier, and its margin within a machine word: one comparison says so.
        self.simple_below = min(WIDE, above[0].lower_notional) if above else WIDE
        self.higher = [
            (tier.lower_notional, tier.initial_fraction_ppm, tier.deduction)
            for tier in reversed(market.tiers)
        ]

    def initial(self, notional: int) -> int:
        """Initial margin in quote units of one position of `notional` >= 0, rounded up."""
        if 0 <= notional < self.simple_below:
            wide: i64 = notional
            return (wide * self.fraction_ppm + UP) // PPM - self.deduction
        for lower, fraction_ppm, deduction in self.higher:
            if notional >= lower:
                return ceil_div(notional * fraction_ppm, PPM) - deduction
        raise ValueError("notional below zero")


def maintenance_margin(market: Market, notional: int) -> int:
    """Half of the initial margin, rounded up."""
    return ceil_div(initial_margin(market, notional), 2)


def funding_owed(size_lots: int, cumulative: int, entry_cumulative: int) -> int:
    """What a position owes (positive) or is owed (negative), quote units: debits up, credits down."""
    return ceil_div(size_lots * (cumulative - entry_cumulative), FUNDING_SCALE)


def funding_remainder(size_lots: int, cumulative: int, entry_cumulative: int) -> int:
    """What `funding_owed` rounded away, in 1e-12 quote units: 0 <= remainder < 1e12."""
    exact = size_lots * (cumulative - entry_cumulative)
    return ceil_div(exact, FUNDING_SCALE) * FUNDING_SCALE - exact


@mypyc_attr(acyclic=True)
class AccountMargin:
    """Equity and requirements of one account, summed over its open positions."""

    __slots__ = ("equity", "initial", "maintenance", "notional")

    def __init__(self, collateral: int) -> None:
        self.equity = collateral
        self.initial = 0
        self.maintenance = 0
        self.notional = 0

    def add_position(self, market: Market, size_lots: int, mark_ticks: int, owed: int) -> None:
        """Count one position at the mark; `owed` is its unsettled funding."""
        value = market.notional(size_lots, mark_ticks)
        notional = abs(value)
        self.equity += value - owed
        initial = initial_margin(market, notional)
        self.initial += initial
        self.maintenance += ceil_div(initial, 2)
        self.notional += notional

    @property
    def liquidatable(self) -> bool:
        """Strictly below maintenance: equality is healthy in every implementation."""
        return self.equity < self.maintenance

    @property
    def withdrawable(self) -> int:
        """Quote units that may leave: equity above max(initial margin, 20 % of notional), not below zero."""
        return max(0, self.equity - max(self.initial, ceil_div(self.notional, 5)))


def closing_check(before: AccountMargin, after: AccountMargin, grew: bool) -> bool:
    """The rule every account whose risk changed must pass (protocol, section 5).

    `grew`: some position of the account grew or flipped since `before`.
    """
    if after.equity >= after.initial:
        return True
    if grew:
        return False
    if before.equity < 0:
        return after.equity >= before.equity
    return after.equity * before.maintenance >= before.equity * after.maintenance


def fee_delta(numerator_before: int, notional: int, rate_ppm: int) -> tuple[int, int]:
    """Fee of one more fill on an order's row -> (new numerator, quote units to charge now).

    A row's fee in a batch is ceil(sum(notional * rate) / 1e6), negative when it is a rebate; charging the
    difference fill by fill keeps every intermediate balance equal to what the vault computes at once.
    """
    numerator = numerator_before + ppm_of(notional, rate_ppm)
    return numerator, (numerator + UP) // PPM - (numerator_before + UP) // PPM


def weighted_mean_floor(pairs: Iterable[tuple[int, int]]) -> int:
    """floor(sum(value * weight) / sum(weight)); 0 without weight. For displayed averages only."""
    total = weight = 0
    for value, share in pairs:
        total += value * share
        weight += share
    return floor_div(total, weight) if weight else 0
