"""Which oracle rounds go to the chain: as few as possible, yet the lane's prices are always the engine's."""

from hypothesis import given
from hypothesis import strategies as st

from evermark.protocol.oracle import NO_PRICE, Round, aggregate, prices_hash
from evermark.protocol.signing import PriceReport
from sequencer.settlement.backlog import rounds_to_post

MARKETS, QUORUM, SECONDS = 3, 3, 3

prices = st.one_of(st.just(0), st.integers(1, 2**20).map(lambda index: index << 32 | index + 7))
report = st.tuples(*[prices] * MARKETS)
one_round = st.tuples(st.lists(report, min_size=3, max_size=5), st.booleans(), st.integers(1, 4))


@given(st.lists(one_round, min_size=1, max_size=25))
def test_posted_rounds_aggregate_to_the_engines_prices(
    rounds: list[tuple[list[tuple[int, ...]], bool, int]],
) -> None:
    """Whichever rounds batches pin, and whoever abstains, each pinned round's hash on the chain is the
    engine's."""
    engine = lane = Round(0, 0, (NO_PRICE,) * MARKETS)
    history: dict[int, list[PriceReport]] = {}
    number = 1_000
    for reports, pinned, step in rounds:
        number += step
        stamp = number * SECONDS + 1
        history[number] = [PriceReport(round=number, timestamp=stamp, prices=item) for item in reports]
        engine = aggregate(history[number], QUORUM, engine.prices)
        if not pinned:
            continue
        for posted in rounds_to_post(engine, lane.round, SECONDS):
            assert posted > lane.round
            lane = aggregate(history[posted], QUORUM, lane.prices)
        assert prices_hash(lane) == prices_hash(engine)


def test_full_quorum_posts_one_round() -> None:
    """With every market priced, the rounds in between are skipped."""
    last = (NO_PRICE,) * MARKETS
    full = [PriceReport(round=9, timestamp=28, prices=(1 << 32 | 1,) * MARKETS)] * QUORUM
    assert rounds_to_post(aggregate(full, QUORUM, last), 3, SECONDS) == [9]


def test_posted_round_is_not_posted_again() -> None:
    """A round that the lane already holds needs nothing."""
    full = [PriceReport(round=9, timestamp=28, prices=(1 << 32 | 1,) * MARKETS)] * QUORUM
    assert rounds_to_post(aggregate(full, QUORUM, (NO_PRICE,) * MARKETS), 9, SECONDS) == []
