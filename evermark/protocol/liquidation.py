"""Liquidation arithmetic: what closing part of a position may lose, and the fee. Mirrored by the vault.

Closing q of |s| lots of position i may lose at most floor(E * MM_i * q / (MM * |s|)) against the mark, which
keeps the margin ratio; below zero equity the same floor is a gain that the account must at least receive.
"""

from evermark.protocol.markets import Market
from evermark.protocol.units import PPM, floor_div

BOOK_MAINTENANCE_SHARE = 3  # on the book, at most a third of the position's maintenance
DEPOSIT_GRACE_S = 600  # whose deposit waits for longer in the inbox is not liquidated


def loss_bound(equity: int, maintenance: int, position_maintenance: int, closed: int, size_abs: int) -> int:
    """Most that closing `closed` of `size_abs` lots may lose against the mark, quote units, signed floor."""
    return floor_div(equity * position_maintenance * closed, maintenance * size_abs)


def book_loss_bound(
    equity: int, maintenance: int, position_maintenance: int, closed: int, size_abs: int
) -> int:
    """The bound for closing on the book: `loss_bound`, and a third of the closed part's maintenance."""
    return min(
        loss_bound(equity, maintenance, position_maintenance, closed, size_abs),
        floor_div(position_maintenance * closed, BOOK_MAINTENANCE_SHARE * size_abs),
    )


def liquidation_fee(market: Market, notional: int, room: int) -> int:
    """floor(notional * fee / 1e6), capped so that the margin ratio never falls; `room` is bound - loss >=
    0."""
    return max(0, min(floor_div(notional * market.liquidation_fee_ppm, PPM), room))


def keeper_share(fee: int) -> int:
    """The keeper's half of a liquidation fee, rounded down; the fund keeps the rest."""
    return fee // 2


def takeover_allowed(equity: int, maintenance: int) -> bool:
    """The insurance fund takes over strictly below two thirds of maintenance."""
    return equity * 3 < maintenance * 2


def deleveraging_loss(
    equity: int, maintenance: int, position_maintenance: int, closed: int, size_abs: int
) -> int:
    """What a deleveraged target loses against the mark: nothing with equity, below zero it gains
    `loss_bound`."""
    return min(0, loss_bound(equity, maintenance, position_maintenance, closed, size_abs))


def deleveraging_score(profit: int, cost: int, notional: int, equity: int) -> int:
    """How early a position is deleveraged, in ppm: profit on its cost times leverage, divided by it for a
    loss.

    `profit` and `cost` > 0 are the position's, `notional` and `equity` > 0 the account's; floor.
    """
    if profit > 0:
        return floor_div(profit * notional * PPM, cost * equity)
    return floor_div(profit * equity * PPM, cost * max(notional, 1))


def slice_lots(market: Market, size_abs: int, mark_ticks: int) -> int:
    """Lots that one book liquidation closes: all, or a fifth (rounded up) above the slice threshold."""
    if market.notional(size_abs, mark_ticks) <= market.slice_notional:
        return size_abs
    return -(-size_abs // 5)
