"""A market that ends: the mean index of its last hour, over both lanes, and what its rounds say once it is settled."""

import random
from fractions import Fraction
from math import floor

import boa
import pytest
from contract_cases import (
    JUMP_PPM,
    KEEPERS,
    PUBLIC_LANE,
    QUORUM,
    ROUND_S,
    SEQUENCER_LANE,
    START_S,
    price_report,
    rows,
)

from evermark.protocol.oracle import (
    NO_PRICE,
    SETTLED_BIT,
    Round,
    accepted,
    aggregate,
    pack_price,
    prices_hash,
)

ENDING = 1
HOUR_S = 3_600


class Posting:
    """Rounds of three markets in either lane, of which market 1 ends."""

    def __init__(self, oracle, sequencer) -> None:
        self.oracle, self.sequencer = oracle, sequencer
        self.told = []
        self.anyone = boa.env.generate_address("anyone")

    def post(self, timestamp, index, lane=SEQUENCER_LANE, mark=None):
        """The round's time and what it accepted as the market's index."""
        prices = [1_000, pack_price(index, mark or index) if index else 0, 1_000]
        prices = [pack_price(price, price) if at != ENDING else price for at, price in enumerate(prices)]
        boa.env.timestamp = timestamp
        report = rows(self.oracle, [price_report(timestamp, prices)] * QUORUM, KEEPERS)
        if lane == SEQUENCER_LANE:
            self.oracle.post_round(report, sender=self.sequencer)
        else:
            self.oracle.post_round_public(report, sender=self.anyone)
        self.told = [log for log in self.oracle.get_logs() if type(log).__name__ == "SettlementPrice"]
        return timestamp, self.price(lane, timestamp) & 2**32 - 1

    def price(self, lane, timestamp):
        """The market's 128 bits."""
        return self.oracle.round_words(lane, timestamp // ROUND_S)[1 + ENDING // 2] >> 128 * (ENDING % 2)


@pytest.fixture
def posting(oracle, sequencer):
    return Posting(oracle, sequencer)


def mean_by_hand(rounds, ends_at):
    """Second by second: the newest round's index, of whichever lane; before the first round of the hour its own."""
    start = ends_at - HOUR_S
    inside = sorted(entry for entry in rounds if entry[0] > start)
    area, held = 0, inside[0][1]
    for second in range(start, ends_at):
        for when, index in inside:
            if when == second:
                held = index
        area += held
    return floor(Fraction(area, HOUR_S))


@pytest.mark.safety("B27", "contract")
@pytest.mark.parametrize("seed", [1, 2])
def test_the_price_is_the_mean_over_the_last_hour(oracle, governor, posting, seed):
    """Time-weighted, of both lanes; rounds before the hour and after the end count for nothing."""
    source = random.Random(seed)
    ends_at = START_S + 5_003
    posting.post(START_S, 700)
    oracle.end_market(ENDING, ends_at, sender=governor)
    assert oracle.jump_ppm_per_s(ENDING) == JUMP_PPM
    posting.post(START_S + 900, 710)
    times = sorted(source.sample(range(START_S + 1_500, ends_at - 1, ROUND_S), 9))
    rounds, index = [], 1_000
    for when in times:
        index += source.randrange(-20, 21)
        lane = source.choice((SEQUENCER_LANE, PUBLIC_LANE))
        rounds.append(posting.post(when, index, lane))
    assert oracle.ending(ENDING) == (ends_at, 0, False)
    with boa.reverts("oracle: no market to settle"):
        oracle.settle_market(ENDING, sender=governor)
    posting.post(ends_at + 7, 5_000)
    (told,) = posting.told
    mean = mean_by_hand(rounds, ends_at)
    assert (told.market, told.price) == (ENDING, mean)
    posting.post(ends_at + 30, 1)
    posting.post(ends_at + 40, 9_000, PUBLIC_LANE)
    assert oracle.ending(ENDING) == (ends_at, mean, False)
    assert oracle.ending(0) == (0, 0, False)


@pytest.mark.parametrize(("before_s", "mean"), [(HOUR_S + 1, 1_000), (HOUR_S, 1_000), (HOUR_S - 1, 1_500)])
def test_the_hour_begins_to_the_second(oracle, governor, posting, before_s, mean):
    """A round at its beginning is from before it; one a second later counts, and for that second too."""
    ends_at = START_S + 2 * HOUR_S
    oracle.end_market(ENDING, ends_at, sender=governor)
    posting.post(START_S, 1_500)
    posting.post(ends_at - before_s, 2_000)
    posting.post(ends_at - HOUR_S // 2, 1_000)
    posting.post(ends_at, 1_000)
    assert oracle.ending(ENDING) == (ends_at, mean, False)


def test_the_highest_price_has_a_mean_too(oracle, governor, posting):
    """Of its 32 bits none is lost or read as another field's."""
    highest, ends_at = 2**32 - 1, START_S + 2 * HOUR_S
    oracle.end_market(ENDING, ends_at, sender=governor)
    for step in (0, HOUR_S, HOUR_S + HOUR_S // 2, 2 * HOUR_S):
        posting.post(START_S + step, highest)
    assert oracle.ending(ENDING) == (ends_at, highest, False)
    oracle.settle_market(ENDING, sender=governor)
    when, _ = posting.post(ends_at + ROUND_S, 5)
    assert posting.price(SEQUENCER_LANE, when) == highest | highest << 32 | when << 64


def test_an_hour_without_rounds_takes_the_first_one_after_it(oracle, governor, posting):
    """A market that never had a price ends at one tick: nobody has a position in it."""
    posting.post(START_S, 700)
    oracle.end_market(ENDING, START_S + HOUR_S, sender=governor)
    with boa.env.anchor():
        posting.post(START_S + HOUR_S + 50, 777)
        assert oracle.ending(ENDING)[1] == 777
    oracle.add_market(JUMP_PPM, sender=governor)
    oracle.end_market(3, START_S + HOUR_S, sender=governor)
    posting.post(START_S + HOUR_S + 50, 777)
    assert oracle.ending(3)[1] == 1


@pytest.mark.safety("B27", "contract")
def test_a_settled_market_has_one_price_for_good(oracle, governor, posting):
    """From the next round of each lane on, whatever is reported, as fresh as the round; the protocol makes the same words."""
    posting.post(START_S, 700)
    with boa.reverts("oracle: no market to settle"):
        oracle.settle_market(ENDING, sender=governor)
    oracle.end_market(ENDING, START_S + HOUR_S, sender=governor)
    for twice_or_never_listed in (ENDING, 3):
        with boa.reverts("oracle: no market to end"):
            oracle.end_market(twice_or_never_listed, START_S + 2 * HOUR_S, sender=governor)
    posting.post(START_S + HOUR_S, 900)
    oracle.settle_market(ENDING, sender=governor)
    with boa.reverts("oracle: no market to settle"):
        oracle.settle_market(ENDING, sender=governor)
    assert oracle.ending(ENDING) == (START_S + HOUR_S, 900, True)
    assert oracle.jump_ppm_per_s(ENDING) == JUMP_PPM
    oracle.set_jump(ENDING, 2 * JUMP_PPM if 2 * JUMP_PPM <= 100_000 else 1_000, sender=governor)
    assert oracle.ending(ENDING) == (START_S + HOUR_S, 900, True)
    for lane, step, index in (
        (SEQUENCER_LANE, 10, 5_000),
        (PUBLIC_LANE, 20, None),
        (SEQUENCER_LANE, 30, None),
    ):
        when, _ = posting.post(START_S + HOUR_S + step, index, lane)
        assert posting.price(lane, when) == 900 | 900 << 32 | when << 64
    reports = [price_report(when, [pack_price(1_000, 1_000), 0, pack_price(1_000, 1_000)])] * QUORUM
    band = JUMP_PPM | 900 << SETTLED_BIT
    lasts = [NO_PRICE, NO_PRICE, NO_PRICE]
    made = aggregate(reports, QUORUM, lasts, [JUMP_PPM, band, JUMP_PPM])
    assert made.prices[ENDING] == accepted(NO_PRICE, 1, 1, when, band)
    assert prices_hash(Round(made.round, when, made.prices)) == oracle.prices_hash(
        SEQUENCER_LANE, when // ROUND_S
    )
