"""Integer scales and named rounding. Every money figure in Evermark is an integer in the units below.

quote amounts: 1e-6 USDC; sizes: lots; prices: ticks; notional = lots * ticks * lot_tick_value, always exact.
"""

from typing import Final

from mypy_extensions import i64

PPM: Final = 1_000_000  # margin fractions and fees
PPB: Final = 1_000_000_000  # hourly funding rates
FUNDING_SCALE: Final = 10**12  # cumulative funding is quote units per lot, scaled by this
USDC: Final = 1_000_000  # one whole USDC in quote units
MIN_FIRST_DEPOSIT: Final = 10 * USDC  # what opens an account: no dust accounts

MAX_SIZE_LOTS: Final = 2**62 - 1  # sums of two sizes still fit a signed 64-bit word
MAX_PRICE_TICKS: Final = 2**32 - 1
MAX_NOTIONAL: Final = 2**90 - 1
MAX_COLLATERAL: Final = 2**95 - 1
MAX_SEQUENCE: Final = 2**48 - 1

# Compiled code multiplies what lies within 0 and 2**30 by itself and asks Python for the rest, at ten times the cost. The product
# of two numbers within these two bounds fits a machine word.
WIDE: Final = 2**41  # more than two million USDC in quote units
NARROW: Final = 2**20  # more than any rate in ppm


class BrokenInvariant(Exception):
    """A rule that can only fail through a bug; the sequencer stops on it and never catches it."""


def check(condition: bool, why: str) -> None:
    """Stop on a broken invariant. Unlike `assert`, it survives `python -O`."""
    if not condition:
        raise BrokenInvariant(why)


def floor_div(numerator: int, denominator: int) -> int:
    """Signed division rounding toward minus infinity; `denominator` > 0."""
    return numerator // denominator


def ceil_div(numerator: int, denominator: int) -> int:
    """Signed division rounding toward plus infinity; `denominator` > 0."""
    return -(-numerator // denominator)


def ppm_of(amount: int, rate_ppm: int) -> int:
    """amount * rate, either of any sign, in millionths of the amount's unit."""
    if -WIDE < amount < WIDE and -NARROW < rate_ppm < NARROW:
        wide: i64 = amount
        return wide * rate_ppm
    return amount * rate_ppm


def mul_div_down(a: int, b: int, denominator: int) -> int:
    """floor(a * b / denominator), signed, `denominator` > 0."""
    return a * b // denominator


def mul_div_up(a: int, b: int, denominator: int) -> int:
    """ceil(a * b / denominator), signed, `denominator` > 0."""
    return -(-(a * b) // denominator)
