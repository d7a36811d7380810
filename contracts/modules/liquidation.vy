# pragma version 0.4.3
"""
@title liquidation
@license Apache-2.0
@notice What closing part of a position may lose, and the fee; the mirror of `evermark/protocol/liquidation.py`.
"""

from . import units


@pure
@internal
def loss_bound(
    equity: int256, maintenance: int256, position_maintenance: int256, closed: int256, size_abs: int256
) -> int256:
    """
    @dev floor(E * MM_i * q / (MM * |s|)): the loss against the mark that keeps the margin ratio; negative below zero equity.
    """
    return units.floor_div(equity * position_maintenance * closed, maintenance * size_abs)


@pure
@internal
def deleveraging_loss(bound: int256) -> int256:
    """
    @dev What a deleveraged target loses against the mark: nothing with equity; below zero it gains `loss_bound`.
    """
    return min(0, bound)


@pure
@internal
def book_loss_bound(bound: int256, position_maintenance: int256, closed: int256, size_abs: int256) -> int256:
    """
    @dev On the book: `loss_bound`, and at most a third of the closed part's maintenance.
    """
    return min(bound, (position_maintenance * closed) // (3 * size_abs))


@pure
@internal
def liquidation_fee(notional: int256, fee_ppm: int256, room: int256) -> int256:
    return max(0, min(notional * fee_ppm // convert(units.PPM, int256), room))


@pure
@internal
def keeper_share(fee: int256) -> int256:
    """
    @dev The keeper's half of a liquidation fee, rounded down; the fund keeps the rest.
    """
    return fee // 2
