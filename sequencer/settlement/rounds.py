"""Which oracle rounds go to the chain: as few as possible, yet the lane's prices are always the engine's.

A market without a quorum keeps its last price, and a price that jumps is held back to its last one's band: in the
engine from the round before, on the chain from the last *posted* round. A round may therefore follow an earlier one
in the lane only where both make the same of it.
"""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from evermark.protocol.oracle import NO_PRICE, MarketPrice, Round, accepted
from sequencer.settlement.errors import unknown_round

KEPT_ROUNDS = 4_096  # as many as the lane itself holds


class PostableRound(msgspec.Struct, frozen=True):
    """A round of the engine, the journal record that holds its reports, and the bands it was made with."""

    sequence: int
    round: Round
    jumps_ppm: tuple[int, ...]


def rounds_to_post(rounds: Sequence[PostableRound], target: int, lane_round: int) -> list[int]:
    """Rounds that have to be in the sequencer lane, ascending, so that round `target` of `rounds` (ascending)
    aggregates to the engine's prices after `lane_round` (0: an empty lane). Raises Refused when it is none of them."""
    numbers = [known.round.round for known in rounds]
    at = bisect_left(numbers, target)
    if at == len(numbers) or numbers[at] != target:
        raise unknown_round(target)
    first = bisect_left(numbers, lane_round)
    held = rounds[first].round if first < len(rounds) and numbers[first] == lane_round else None
    if lane_round == 0:
        held = Round(0, 0, ())
    oldest = first + (held is not None and lane_round > 0)
    wanted: list[int] = []
    while at >= oldest:
        wanted.append(numbers[at])
        if held is not None and _follows(rounds[at], held):
            break
        at = next((k for k in range(oldest, at - 1) if _follows(rounds[at], rounds[k].round)), at - 1)
    return wanted[::-1]


def _follows(later: PostableRound, earlier: Round) -> bool:
    """Whether the lane makes of the later round's reports what the engine did, when `earlier` is the last one
    in it."""
    known = len(earlier.prices)
    return all(
        _same(earlier.prices[market] if market < known else NO_PRICE, price, later, jump_ppm)
        for market, (price, jump_ppm) in enumerate(zip(later.round.prices, later.jumps_ppm, strict=True))
    )


def _same(last: MarketPrice, price: MarketPrice, later: PostableRound, jump_ppm: int) -> bool:
    timestamp = later.round.timestamp
    if price.updated_at != timestamp:
        return price == last
    if price.clamped and price.calm_rounds == 0:
        return (
            False  # its medians are not known here: only the round before it is sure to hold them back alike
        )
    return accepted(last, price.index_ticks, price.mark_ticks, timestamp, jump_ppm) == price
