"""The one edge where human units become integers: exact, or refused. Floats are never accepted.

A size of "0.5" of a market with 5 size decimals is 50,000 lots; a price of "64000.1" with 1 price decimal is
640,001 ticks; an amount of "12.5" USDC is 12,500,000 quote units.
"""

from decimal import Decimal, InvalidOperation

from evermark.client.errors import NotRepresentable
from evermark.protocol.markets import Market
from evermark.protocol.units import MAX_COLLATERAL, MAX_PRICE_TICKS, MAX_SIZE_LOTS

Human = Decimal | str | int
USDC_DECIMALS = 6
MAX_DIGITS = 40  # no exact amount here needs more; bounds the work that a hostile string can cause


def to_lots(market: Market, size: Human) -> int:
    """Size in base units -> lots. Raises NotRepresentable (OFF_LOT) when inexact, not above 0 or too
    large.
    """
    return _scaled(size, market.size_decimals, MAX_SIZE_LOTS, "OFF_LOT", f"{market.symbol} size", 1)


def to_ticks(market: Market, price: Human) -> int:
    """Price in quote per base -> ticks. Raises NotRepresentable (OFF_TICK) when inexact, not above 0 or too
    large.
    """
    return _scaled(price, market.price_decimals, MAX_PRICE_TICKS, "OFF_TICK", f"{market.symbol} price", 1)


def to_quote_units(amount: Human) -> int:
    """USDC -> quote units of 1e-6. Raises NotRepresentable (OFF_UNIT)."""
    return _scaled(amount, USDC_DECIMALS, MAX_COLLATERAL, "OFF_UNIT", "USDC amount", 0)


def from_lots(market: Market, lots: int) -> Decimal:
    """Lots, signed -> base units, exact."""
    return Decimal(lots).scaleb(-market.size_decimals)


def from_ticks(market: Market, ticks: int | Decimal) -> Decimal:
    """Ticks -> quote per base, exact for whole ticks."""
    return Decimal(ticks).scaleb(-market.price_decimals)


def from_quote_units(amount: int) -> Decimal:
    """Quote units, signed -> USDC, exact."""
    return Decimal(amount).scaleb(-USDC_DECIMALS)


def _scaled(value: Human, decimals: int, most: int, name: str, what: str, least: int) -> int:
    number = _decimal(value, name, what)
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or len(digits) > MAX_DIGITS or abs(exponent) > MAX_DIGITS:
        raise NotRepresentable(name, f"{what} {value!r} is not a usable number")
    magnitude = int("".join(map(str, digits)))
    shift = exponent + decimals
    scaled: int = magnitude * 10 ** max(0, shift) // 10 ** max(0, -shift)
    if magnitude % 10 ** max(0, -shift):
        raise NotRepresentable(name, f"{what} {value} has more than {decimals} decimals")
    if (sign and scaled) or not least <= scaled <= most:
        raise NotRepresentable(name, f"{what} {value} is outside the permitted range")
    return scaled


def _decimal(value: Human, name: str, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int):
        raise TypeError(f"{what}: pass a Decimal, str or int, not {type(value).__name__}")
    if isinstance(value, str) and not value.isascii():
        raise NotRepresentable(name, f"{what} {value!r} is not a number")
    try:
        return Decimal(value)
    except InvalidOperation:
        raise NotRepresentable(name, f"{what} {value!r} is not a number") from None
