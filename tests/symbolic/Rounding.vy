# pragma version 0.4.3
# Halmos runs each check with every input at once; a check that returns without Panic(1) holds for all of them.

from contracts.modules import units
from contracts.modules import liquidation


@pure
@internal
def _holds(condition: bool):
    if not condition:
        raw_revert(concat(method_id("Panic(uint256)", output_type=Bytes[4]), convert(1, bytes32)))


@pure
@external
def check_signed_reads_what_bits_wrote(number: int128):
    wide: int256 = convert(number, int256)
    self._holds(units.signed(units.bits(wide) & units.U128, 128) == wide)


@pure
@external
def check_keeper_gets_at_most_half(fee: uint128):
    share: int256 = liquidation.keeper_share(convert(fee, int256))
    self._holds(share >= 0 and 2 * share <= convert(fee, int256))


@pure
@external
def check_loss_bound_is_floor_div_of_the_products(
    equity: int256, maintenance: int256, position_maintenance: int256, closed: int256, size_abs: int256
):
    """
    @dev Products that overflow revert on both sides.
    """
    bound: int256 = liquidation.loss_bound(equity, maintenance, position_maintenance, closed, size_abs)
    numerator: int256 = equity * position_maintenance * closed
    self._holds(bound == units.floor_div(numerator, maintenance * size_abs))
