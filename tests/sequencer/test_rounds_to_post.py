"""Which oracle rounds go to the chain: as few as possible, yet the lane's prices are always the engine's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evermark.protocol.oracle import NO_PRICE, Round, aggregate, prices_hash
from evermark.protocol.signing import PriceReport
from sequencer.settlement.errors import Refused
from sequencer.settlement.rounds import PostableRound, rounds_to_post

MARKETS, QUORUM, SECONDS = 3, 3, 3
NARROW, WIDE = 1_000, 100_000

# Around a price, some near the edge of the narrow band, some far beyond: jumps, compounding moves, and abstentions.
prices = st.one_of(
    st.just(0),
    st.integers(9_900, 10_100).map(lambda index: index << 32 | index + 7),
    st.integers(1, 2**20).map(lambda index: index << 32 | index + 7),
)
report = st.tuples(*[prices] * MARKETS)
one_round = st.tuples(st.lists(report, min_size=3, max_size=5), st.booleans(), st.integers(1, 4))


@given(st.lists(one_round, min_size=1, max_size=25), st.sampled_from([0, NARROW, WIDE]))
def test_posted_rounds_aggregate_to_the_engines_prices(
    rounds: list[tuple[list[tuple[int, ...]], bool, int]], jump_ppm: int
) -> None:
    """Whichever rounds batches pin, whoever abstains and whatever jumps, each pinned round's hash on the chain is
    the engine's."""
    engine = lane = Round(0, 0, (NO_PRICE,) * MARKETS)
    jumps = (jump_ppm,) * MARKETS
    history: dict[int, list[PriceReport]] = {}
    known: list[PostableRound] = []
    number = 1_000
    for reports, pinned, step in rounds:
        number += step
        stamp = number * SECONDS + 1
        history[number] = [PriceReport(round=number, timestamp=stamp, prices=item) for item in reports]
        engine = aggregate(history[number], QUORUM, engine.prices, jumps)
        known.append(PostableRound(len(known) + 1, engine, jumps))
        if not pinned:
            continue
        for posted in rounds_to_post(known, engine.round, lane.round):
            assert posted > lane.round
            lane = aggregate(history[posted], QUORUM, lane.prices, jumps)
        assert prices_hash(lane) == prices_hash(engine)


def walk(*indices: int) -> list[PostableRound]:
    """Rounds 9, 10, ... in which every market has these prices one after another, in a band of 0.1 % a second."""
    made = Round(0, 0, (NO_PRICE,) * MARKETS)
    known = []
    for number, index in enumerate(indices, 9):
        row = (index << 32 | index,) * MARKETS
        reports = [PriceReport(round=number, timestamp=number * SECONDS, prices=row)] * QUORUM
        made = aggregate(reports, QUORUM, made.prices, (NARROW,) * MARKETS)
        known.append(PostableRound(number, made, (NARROW,) * MARKETS))
    return known


def test_calm_prices_post_one_round() -> None:
    """With every market priced and within its band, the rounds in between are skipped."""
    assert rounds_to_post(walk(10_000, 10_010, 10_020), 11, 9) == [11]
    assert rounds_to_post(walk(10_000, 10_010, 10_020), 11, 0) == [11]


def test_a_jump_posts_the_rounds_that_it_depends_on() -> None:
    """The one before it, which says from where it is held back, and each after it until the market is calm."""
    jumped = walk(10_000, 10_010, 10_020, 11_000, 10_060, 10_060, 10_060, 10_060)
    assert rounds_to_post(jumped, 12, 9) == [11, 12]
    assert rounds_to_post(jumped, 14, 9) == [11, 12, 13, 14]
    assert rounds_to_post(jumped, 16, 9) == [16]


def test_posted_round_is_not_posted_again() -> None:
    """A round that the lane already holds needs nothing."""
    assert rounds_to_post(walk(10_000, 10_010), 10, 10) == []


@pytest.mark.parametrize("kept, target", [((), 9), ((10_000, 10_010), 11), ((10_000, 10_010), 8)])
def test_a_round_that_is_not_kept_is_refused_by_name(kept: tuple[int, ...], target: int) -> None:
    """It was void with a reversal, or is older than everything that is kept: no other one is posted in its place."""
    with pytest.raises(Refused, match=f"^oracle: round {target} is not among those"):
        rounds_to_post(walk(*kept), target, 0)
