# pragma version 0.4.3
# Halmos runs each check with every input at once; a check that returns without Panic(1) holds for all of them.

from contracts.modules import units
from contracts.modules import liquidation

LIMIT: constant(int256) = 2**120


@pure
@internal
def _holds(condition: bool):
    if not condition:
        raw_revert(concat(method_id("Panic(uint256)", output_type=Bytes[4]), convert(1, bytes32)))


@pure
@external
def check_floor_div_rounds_down(numerator: int256):
    """
    @dev Within one denominator below the exact quotient, for both signs.
    """
    if abs(numerator) < LIMIT:
        rest: int256 = numerator - units.floor_div(numerator, 10**6) * 10**6
        self._holds(rest >= 0 and rest < 10**6)


@pure
@external
def check_ceil_div_rounds_up(numerator: int256):
    if abs(numerator) < LIMIT:
        rest: int256 = units.ceil_div(numerator, 10**6) * 10**6 - numerator
        self._holds(rest >= 0 and rest < 10**6)


@pure
@external
def check_funding_rounds_up(numerator: int256):
    if abs(numerator) < LIMIT:
        rest: int256 = units.ceil_div(numerator, 10**12) * 10**12 - numerator
        self._holds(rest >= 0 and rest < 10**12)


@pure
@external
def check_two_fees_are_no_less_than_one(first: uint64, second: uint64):
    """
    @dev No sequence of small operations beats one operation of the sum (invariant 9).
    """
    a: int256 = convert(first, int256)
    b: int256 = convert(second, int256)
    self._holds(units.ceil_div(a, 10**6) + units.ceil_div(b, 10**6) >= units.ceil_div(a + b, 10**6))


@pure
@external
def check_signed_reads_what_bits_wrote(number: int128):
    wide: int256 = convert(number, int256)
    self._holds(units.signed(units.bits(wide) & units.U128, 128) == wide)


@pure
@external
def check_liquidation_fee_is_bounded(notional: uint64, fee_ppm: uint16, room: int128):
    """
    @dev Never negative, never above the room that the margin ratio leaves, never above the market's rate.
    """
    fee: int256 = liquidation.liquidation_fee(convert(notional, int256), convert(fee_ppm, int256), convert(room, int256))
    self._holds(fee >= 0 and fee <= max(0, convert(room, int256)))
    self._holds(fee * 10**6 <= convert(notional, int256) * convert(fee_ppm, int256))


@pure
@external
def check_keeper_gets_at_most_half(fee: uint128):
    share: int256 = liquidation.keeper_share(convert(fee, int256))
    self._holds(share >= 0 and 2 * share <= convert(fee, int256))


@pure
@external
def check_loss_bound_rounds_down(equity: int16, maintenance: uint8, position: uint8, closed: uint8, size: uint8):
    """
    @dev Small widths: a product of five unknowns and a division by two of them is beyond the solvers at full width.
    """
    if maintenance != 0 and closed <= size and closed != 0:
        exact: int256 = convert(equity, int256) * convert(position, int256) * convert(closed, int256)
        by: int256 = convert(maintenance, int256) * convert(size, int256)
        bound: int256 = liquidation.loss_bound(
            convert(equity, int256), convert(maintenance, int256), convert(position, int256), convert(closed, int256), convert(size, int256)
        )
        self._holds(bound * by <= exact and exact < (bound + 1) * by)
