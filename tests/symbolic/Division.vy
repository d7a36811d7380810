# pragma version 0.4.3
# Division after a product. A quotient is held against what was divided: the quotient's own bound keeps that product from wrapping, so the
# relation is that of whole numbers. `scripts/symbolic` has these decided as integers.

from contracts.modules import units

PPM: constant(int256) = 10**6
WIDE: constant(int256) = 2**200


@pure
@internal
def _holds(condition: bool):
    if not condition:
        raw_revert(concat(method_id("Panic(uint256)", output_type=Bytes[4]), convert(1, bytes32)))


@pure
@internal
def _floored(numerator: int256, denominator: int256):
    assert -WIDE <= numerator and numerator <= WIDE
    quotient: int256 = units.floor_div(numerator, denominator)
    self._holds(-WIDE <= quotient and quotient <= WIDE)
    over: int256 = unsafe_sub(unsafe_mul(quotient, denominator), numerator)
    self._holds(unsafe_sub(0, denominator) < over and over <= 0)


@pure
@internal
def _ceiled(numerator: int256, denominator: int256):
    assert -WIDE <= numerator and numerator <= WIDE
    quotient: int256 = units.ceil_div(numerator, denominator)
    self._holds(-WIDE <= quotient and quotient <= WIDE)
    over: int256 = unsafe_sub(unsafe_mul(quotient, denominator), numerator)
    self._holds(0 <= over and over < denominator)


@pure
@external
def check_floor_div_by_ppm(numerator: int256):
    self._floored(numerator, PPM)


@pure
@external
def check_ceil_div_by_ppm(numerator: int256):
    self._ceiled(numerator, PPM)


@pure
@external
def check_ceil_div_by_funding_scale(numerator: int256):
    self._ceiled(numerator, units.FUNDING_SCALE)


@pure
@external
def check_fees_of_parts_are_no_less_than_the_fee_of_the_sum(one: int256, other: int256):
    assert -WIDE <= one and one <= WIDE
    assert -WIDE <= other and other <= WIDE
    parts: int256 = unsafe_add(units.ceil_div(one, PPM), units.ceil_div(other, PPM))
    self._holds(units.ceil_div(unsafe_add(one, other), PPM) <= parts)
