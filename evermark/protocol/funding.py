"""Funding: premium, hourly rate and cumulative index. Rates are ppb (1e-9) per hour; positive: longs pay
shorts."""

from collections.abc import Sequence

from evermark.protocol.markets import Market
from evermark.protocol.units import FUNDING_SCALE, PPB, ceil_div, floor_div

HOUR_S = 3600
INTEREST_8H_PPB = 100_000  # 0.0001 per 8 hours
CLAMP_8H_PPB = 500_000  # interest - premium is held within +-0.0005
MEAN_SCALE = 8  # rate_hour = rate_8h / 8


def premium_ppb(impact_bid_ticks: int, impact_ask_ticks: int, index_ticks: int) -> int:
    """(max(impact_bid - index, 0) - max(index - impact_ask, 0)) / index in ppb, rounded toward zero.

    A side of the book too thin for the impact notional counts as the index itself (pass `index_ticks`).
    """
    above = max(impact_bid_ticks - index_ticks, 0)
    below = max(index_ticks - impact_ask_ticks, 0)
    return above * PPB // index_ticks - below * PPB // index_ticks


def hourly_rate_ppb(premiums_ppb: Sequence[int], market: Market) -> int:
    """rate_8h = mean + clamp(interest - mean, +-0.0005); the hour's rate is an eighth, clamped to the cap.

    The formula is Binance's and Hyperliquid's; the mean floors, the eighth rounds toward zero.
    Raises ValueError without samples.
    """
    if not premiums_ppb:
        raise ValueError("an hour without samples has no rate")
    mean = floor_div(sum(premiums_ppb), len(premiums_ppb))
    rate_8h = mean + max(-CLAMP_8H_PPB, min(CLAMP_8H_PPB, INTEREST_8H_PPB - mean))
    rate = rate_8h // MEAN_SCALE if rate_8h >= 0 else -(-rate_8h // MEAN_SCALE)
    return max(-market.funding_cap_ppb, min(market.funding_cap_ppb, rate))


def cumulative_step(market: Market, index_ticks: int, rate_ppb: int) -> int:
    """What one hour adds to the cumulative index: quote units per lot scaled by 1e12, exact."""
    return index_ticks * market.lot_tick_value * rate_ppb * (FUNDING_SCALE // PPB)


def median(values: Sequence[int]) -> int:
    """Middle of an odd number of values. Raises ValueError for an even number."""
    if len(values) % 2 == 0:
        raise ValueError("a median here needs an odd number of values")
    return sorted(values)[len(values) // 2]


def impact_price(levels: Sequence[tuple[int, int]], notional: int, lot_tick_value: int) -> int | None:
    """Average price in ticks of trading `notional` into `levels` of (price, size), best first; None if too
    thin.

    Rounded against the taker is immaterial here: the average floors for both sides.
    """
    spent = lots_tick = lots = 0
    for price, size in levels:
        value = price * size * lot_tick_value
        if spent + value >= notional:
            take = ceil_div(notional - spent, price * lot_tick_value)
            return floor_div(lots_tick + take * price, lots + take)
        spent += value
        lots_tick += size * price
        lots += size
    return None
