# pragma version 0.4.3
"""
@title units
@license Apache-2.0
@notice Integer scales and named rounding; the mirror of `evermark/protocol/units.py`.
@dev Signed `//` truncates in Vyper, so rounding is always by these names. Denominators are positive, and a numerator stays
     below 2^255 by more than its denominator: every caller multiplies with overflow checks or within known widths.
"""

PPM: constant(uint256) = 1_000_000
PPB: constant(uint256) = 1_000_000_000
FUNDING_SCALE: constant(int256) = 10**12
USDC: constant(uint256) = 1_000_000
DAY_S: constant(uint256) = 86_400

MAX_SIZE_LOTS: constant(uint256) = 2**62 - 1
MAX_NOTIONAL: constant(uint256) = 2**90 - 1
MAX_COLLATERAL: constant(int256) = 2**95 - 1

# Masks of the packed words.
U8: constant(uint256) = 2**8 - 1
U16: constant(uint256) = 2**16 - 1
U20: constant(uint256) = 2**20 - 1
U24: constant(uint256) = 2**24 - 1
U32: constant(uint256) = 2**32 - 1
U38: constant(uint256) = 2**38 - 1  # key of a position: account id << 6 | market id
U40: constant(uint256) = 2**40 - 1
U48: constant(uint256) = 2**48 - 1
U62: constant(uint256) = 2**62 - 1
U63: constant(uint256) = 2**63 - 1
U64: constant(uint256) = 2**64 - 1
U72: constant(uint256) = 2**72 - 1
U96: constant(uint256) = 2**96 - 1
U104: constant(uint256) = 2**104 - 1
U128: constant(uint256) = 2**128 - 1
U160: constant(uint256) = 2**160 - 1
U184: constant(uint256) = 2**184 - 1
U225: constant(uint256) = 2**225 - 1


@pure
@internal
def fail(reason: String[32]):
    """
    @dev One place that reverts with a reason: half the code size of an `assert` with a reason at every check.
    """
    raise reason


@pure
@internal
def floor_div(numerator: int256, denominator: int256) -> int256:
    if numerator < 0:
        return unsafe_div(unsafe_sub(numerator, unsafe_sub(denominator, 1)), denominator)
    return unsafe_div(numerator, denominator)


@pure
@internal
def ceil_div(numerator: int256, denominator: int256) -> int256:
    if numerator > 0:
        return unsafe_div(unsafe_add(numerator, unsafe_sub(denominator, 1)), denominator)
    return unsafe_div(numerator, denominator)


@pure
@internal
def bits(number: int256) -> uint256:
    """
    @dev Two's complement; the caller masks to the field's width after checking the range.
    """
    return convert(convert(number, bytes32), uint256)


@pure
@internal
def signed(field: uint256, unused_bits: uint256) -> int256:
    """
    @dev Reads the low 256 - `unused_bits` bits as a signed integer.
    """
    return convert(convert(field << unused_bits, bytes32), int256) >> unused_bits
