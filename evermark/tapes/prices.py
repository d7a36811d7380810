"""Exact decimal prices and amounts -> ticks and lots, with the rounding in the call. No float anywhere."""

import enum
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation

from evermark.protocol.markets import Market
from evermark.protocol.units import MAX_PRICE_TICKS, MAX_SIZE_LOTS

# Wide enough for any number of a tape to be scaled exactly; only the last step rounds, and says how.
_EXACT = Context(prec=60, traps=[InvalidOperation, Inexact])


class Rounding(enum.StrEnum):
    """Direction in which a value between two steps goes."""

    DOWN = ROUND_FLOOR
    UP = ROUND_CEILING
    NEAREST = ROUND_HALF_UP


def to_steps(value: Decimal, decimals: int, rounding: Rounding) -> int:
    """`value` in steps of 10^-decimals. Raises ArithmeticError for NaN, infinity or absurd sizes."""
    if not value.is_finite():
        raise ArithmeticError(f"{value} is no amount")
    scaled = value.scaleb(decimals, _EXACT)
    return int(scaled.to_integral_value(rounding=rounding.value))


def to_ticks(price: Decimal, market: Market, rounding: Rounding) -> int | None:
    """Price in quote per base -> ticks of `market`; None when it is not within 1 .. MAX_PRICE_TICKS."""
    try:
        ticks = to_steps(price, market.price_decimals, rounding)
    except ArithmeticError:
        return None
    return ticks if 0 < ticks <= MAX_PRICE_TICKS else None


def to_lots(amount: Decimal, market: Market, rounding: Rounding) -> int | None:
    """Amount in base -> lots of `market`; None when it is not within 1 .. MAX_SIZE_LOTS."""
    try:
        lots = to_steps(amount, market.size_decimals, rounding)
    except ArithmeticError:
        return None
    return lots if 0 < lots <= MAX_SIZE_LOTS else None
