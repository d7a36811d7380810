"""The market maker's decisions: where quotes should stand, and which of the resting ones to move. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from evermark.actors.common import least_lots, lots_for
from evermark.actors.config import MakerConfig
from evermark.protocol.markets import Market
from evermark.protocol.orders import Side
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div, floor_div


class Quote(msgspec.Struct, frozen=True):
    """A quote in its slot: price in ticks, size in lots still to trade."""

    slot: int
    market_id: int
    side: Side
    level: int
    price: int
    size: int


def slot_of(market_id: int, side: Side, level: int, levels: int) -> int:
    """Every quote has a slot of its own, so that moving it rewrites one storage word."""
    return 1 + (2 * market_id + side) * levels + level


def wanted_quotes(
    market: Market, mark_ticks: int, position_lots: int, config: MakerConfig
) -> tuple[Quote, ...]:
    """Quotes around the mark, moved against the position; none on the side that would exceed the limit.

    Bids round down and asks up, and the nearest two are at least a tick apart.
    """
    held = market.notional(position_lots, mark_ticks)
    limit = config.max_position_usdc * 10**6
    lean_ppm = max(-config.skew_ppm, min(config.skew_ppm, -held * config.skew_ppm // limit))
    centre = mark_ticks * (PPM + lean_ppm)  # in ticks of 1e-6
    size = max(lots_for(market, config.level_usdc, mark_ticks), least_lots(market, mark_ticks))
    quotes = []
    for side in (Side.BUY, Side.SELL):
        if side.sign * held >= limit:
            continue
        for level in range(config.levels):
            away_ppm = config.half_spread_ppm + level * config.step_ppm
            exact = centre * (PPM - side.sign * away_ppm)
            price = floor_div(exact, PPM * PPM) if side is Side.BUY else ceil_div(exact, PPM * PPM)
            if 0 < price <= MAX_PRICE_TICKS:
                slot = slot_of(market.market_id, side, level, config.levels)
                quotes.append(Quote(slot, market.market_id, side, level, price, size))
    return tuple(quotes)


def quotes_to_move(
    live: Mapping[int, Quote], wanted: Sequence[Quote], requote_ppm: int
) -> tuple[tuple[Quote, ...], tuple[int, ...]]:
    """(quotes to place or amend, slots to cancel); what stands on the wrong side of danger goes first.

    A bid that stands too high, or an ask too low, is what others pick off.
    """
    moves = []
    for quote in wanted:
        standing = live.get(quote.slot)
        if standing is None:
            moves.append((1, quote.level, quote.slot, quote))
            continue
        off = (standing.price - quote.price) * quote.side.sign  # above 0: too generous
        thin = standing.size * 2 < quote.size
        if abs(off) * PPM > quote.price * requote_ppm or thin:
            moves.append((0 if off > 0 else 2, quote.level, quote.slot, quote))
    moves.sort(key=lambda move: move[:3])
    keep = {quote.slot for quote in wanted}
    return tuple(move[3] for move in moves), tuple(sorted(slot for slot in live if slot not in keep))
