"""Forced closes: what an owner's close in the inbox may cost, and how much of them an hour takes. Mirrored by the vault.

A close loses at most its penalty against the mark: the market's liquidation fee, and no more than its first maintenance
fraction, so that a healthy account stays healthy.
"""

from evermark.protocol.markets import Market
from evermark.protocol.units import PPM, USDC, ceil_div

HOUR_S = 3_600
SHARE = 10  # an hour's closes are at most a tenth of a market's open interest,
LEAST_CAP = 25_000 * USDC  # but never less than this at the mark: a small market shall not hold up the queue


def close_penalty(market: Market, notional: int) -> int:
    """What closing `notional` may lose against the mark, quote units, rounded up."""
    rate_ppm = min(market.liquidation_fee_ppm, market.tiers[0].initial_fraction_ppm // 2)
    return ceil_div(notional * rate_ppm, PPM)


def close_loss(penalty: int, moved: int) -> int:
    """What closing against the fund or an opposite position loses against the mark: half the penalty below the worse, for the
    closer, of the mark and the mark when the entry was made, but no more than the penalty.

    `moved`: how far the mark went the closer's way since then, quote units of what is closed.
    """
    return min(penalty, ceil_div(penalty, 2) + max(moved, 0))


def hour_cap(market: Market, open_interest: int, mark_ticks: int) -> int:
    """Lots that forced closes may take in an hour, by open interest and mark at its first."""
    return max(open_interest // SHARE, LEAST_CAP // market.notional(1, mark_ticks), 1)
