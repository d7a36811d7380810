# pragma version 0.4.3
"""
@title medians
@license Apache-2.0
@notice What a round makes of keepers' reports: medians, and medians held back where they jump; see `evermark/protocol/oracle.py`.
"""

MAX_VALUES: constant(uint256) = 15
CALM_ROUNDS: constant(uint256) = 3  # within the band since the last jump, until a market counts as calm again
CLAMPED: constant(uint256) = 1 << 104  # in a market's 128 bits, below its count of calm rounds
PPM: constant(uint256) = 1_000_000
U32: constant(uint256) = 2**32 - 1
U40: constant(uint256) = 2**40 - 1


@pure
@internal
def median(values: DynArray[int256, MAX_VALUES]) -> int256:
    """
    @dev The lower median, by insertion sort.
    """
    ordered: DynArray[int256, MAX_VALUES] = values
    for i: uint256 in range(1, len(values), bound=MAX_VALUES):
        value: int256 = ordered[i]
        at: uint256 = i
        for _: uint256 in range(MAX_VALUES):
            if at == 0 or ordered[at - 1] <= value:
                break
            ordered[at] = ordered[at - 1]
            at -= 1
        ordered[at] = value
    return ordered[(len(values) - 1) // 2]


@pure
@internal
def accepted(old: uint256, index: uint256, mark: uint256, timestamp: uint256, jump_ppm: uint256) -> uint256:
    """
    @dev Medians after a market's 128 bits `old`: moved no further than the band allows, and marked until calm again.
    """
    updated_at: uint256 = old >> 64 & U40
    if updated_at == 0:
        return index | mark << 32 | timestamp << 64
    reach_ppm: uint256 = jump_ppm * (timestamp - updated_at)
    new_index: uint256 = self._held_back(index, old & U32, reach_ppm)
    new_mark: uint256 = self._held_back(mark, old >> 32 & U32, reach_ppm)
    price: uint256 = new_index | new_mark << 32 | timestamp << 64
    if new_index != index or new_mark != mark:
        return price | CLAMPED
    calm: uint256 = (old >> 105 & 3) + 1
    if old & CLAMPED == 0 or calm == CALM_ROUNDS:
        return price
    return price | CLAMPED | calm << 105


@pure
@internal
def _held_back(ticks: uint256, last: uint256, reach_ppm: uint256) -> uint256:
    reach: uint256 = (last * reach_ppm + PPM - 1) // PPM
    return min(max(ticks, last - min(reach, last)), last + reach)
