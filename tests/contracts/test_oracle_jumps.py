"""Prices that jump: held back to the market's band, marked until calm again, the same in the contract, in Python and in a
model written from docs/oracle.md."""

import random

import boa
import pytest
from contract_cases import (
    JUMP_PPM,
    KEEPERS,
    MARKETS,
    PUBLIC_LANE,
    QUORUM,
    ROUND_S,
    SEQUENCER_LANE,
    START_S,
    price_report,
    rows,
)

from evermark.protocol.oracle import NO_PRICE, Round, aggregate, pack_price, prices_hash, round_words
from tests.reference import naive_oracle

JUMPS = [JUMP_PPM] * MARKETS
ROUND = START_S // ROUND_S


class Poster:
    """Posts rounds of equal reports, one after another."""

    def __init__(self, oracle, sequencer):
        self.oracle, self.sequencer = oracle, sequencer
        self.clock = START_S
        self.last = Round(0, 0, (NO_PRICE,) * MARKETS)

    def post(self, *prices, rounds=1):
        """(index, mark) by market, or None; the round after the last, or `rounds` later. Returns market 0's price."""
        self.clock += ROUND_S * rounds
        boa.env.timestamp = self.clock
        packed = [pack_price(*price) if price else 0 for price in prices]
        reports = [price_report(self.clock, packed)] * 3
        self.oracle.post_round(rows(self.oracle, reports, KEEPERS), sender=self.sequencer)
        self.last = aggregate(reports, QUORUM, self.last.prices, JUMPS)
        words = self.oracle.round_words(SEQUENCER_LANE, self.last.round)
        assert tuple(words) == round_words(self.last)
        return self.last.prices[0]


@pytest.fixture
def poster(oracle, sequencer):
    return Poster(oracle, sequencer)


CALM = ((1_000, 1_000),) * 2


@pytest.mark.safety("A03", "contract")
@pytest.mark.parametrize("jump, held", [(1_051, 1_050), (949, 950), (1, 950), (2**32 - 1, 1_050)])
def test_a_jump_is_held_back_to_the_band(poster, jump, held):
    """5 % in a round of 10 s, upward and downward, of the index and of the mark; the edge itself is no jump."""
    poster.post((1_000, 1_000), *CALM)
    for index, mark, clamped in ((held, held, False), (jump, 1_000, True), (1_000, jump, True)):
        before = poster.clock, poster.last
        with boa.env.anchor():
            price = poster.post((index, mark), *CALM)
        poster.clock, poster.last = before
        expected = held if index == jump else index, held if mark == jump else mark
        assert (price.index_ticks, price.mark_ticks, price.clamped) == (*expected, clamped)
        assert not poster.last.prices[1].clamped


def test_time_widens_the_band(poster):
    """Twelve rounds without a price allow twelve times the move."""
    poster.post((1_000, 1_000), *CALM)
    for _ in range(11):
        poster.post(None, *CALM)
    assert poster.post((1_600, 1_600), *CALM) == poster.last.prices[0]
    assert not poster.last.prices[0].clamped
    assert poster.post((2_081, 1_600), *CALM).clamped


@pytest.mark.safety("A03", "contract")
def test_a_market_is_calm_after_three_rounds(poster):
    """Three rounds in a row within the band; another jump starts again, and a round without a quorum does not count."""
    poster.post((1_000, 1_000), *CALM)
    seen = []
    for price in (1_100, 1_100, 1_200, 1_150, 1_150, None, 1_150, 1_150):
        after = poster.post((price, price) if price else None, *CALM)
        seen.append((after.index_ticks, after.clamped, after.calm_rounds))
    assert seen == [
        (1_050, True, 0),
        (1_100, True, 1),
        (1_155, True, 0),
        (1_150, True, 1),
        (1_150, True, 2),
        (1_150, True, 2),
        (1_150, False, 0),
        (1_150, False, 0),
    ]
    assert not any(price.clamped for price in poster.last.prices[1:])


def test_a_price_of_one_tick_can_move(poster):
    """A band is at least a tick, so no market is stuck."""
    poster.post((1, 1), *CALM)
    assert poster.post((3, 1), *CALM).index_ticks == 2
    assert poster.post((3, 1), *CALM).index_ticks == 3


def test_each_lane_holds_back_after_its_own_last_price(oracle, sequencer, chain):
    """What one lane accepted long ago says nothing about the other's newest price."""
    steady = rows(oracle, [price_report(START_S, [pack_price(1_000, 1_000)] * 3)] * 3, KEEPERS)
    oracle.post_round(steady, sender=sequencer)
    chain.timestamp = START_S + ROUND_S
    jumped = rows(oracle, [price_report(START_S + ROUND_S, [pack_price(2_000, 2_000)] * 3)] * 3, KEEPERS)
    oracle.post_round(jumped, sender=sequencer)
    oracle.post_round_public(jumped, sender=chain.generate_address("anyone"))
    held = 1_050 | 1_050 << 32 | (START_S + ROUND_S) << 64 | 1 << 104
    assert oracle.round_words(SEQUENCER_LANE, ROUND + 1)[1] & (2**128 - 1) == held
    assert oracle.round_words(PUBLIC_LANE, ROUND + 1)[1] & (2**64 - 1) == 2_000 | 2_000 << 32


@pytest.mark.safety("C02", "contract")
@pytest.mark.parametrize("seed", range(3))
def test_random_walks_agree_three_ways(oracle, sequencer, seed):
    """Walks with jumps, gaps, abstentions and keepers that differ: contract, Python and the naive model, to the last bit."""
    dice = random.Random(seed)
    walk = [dice.randint(1, 10**6) for _ in range(MARKETS)]
    last, naive = [NO_PRICE] * MARKETS, [naive_oracle.NEVER] * MARKETS
    clock, jumped, calmed = START_S, 0, 0
    for _ in range(40):
        clock += ROUND_S * dice.choice([1, 1, 1, 2, 7])
        boa.env.timestamp = clock + ROUND_S
        for market in range(MARKETS):
            step = dice.choice([1, 2, 2, 5, 20])
            walk[market] = max(1, walk[market] * dice.randint(100 - step, 100 + step) // 100)
        count = dice.randint(3, 5)
        reports, plain = [], []
        for _ in range(count):
            row = [
                None
                if dice.random() < 0.1
                else (price + dice.randint(0, 1), max(1, price - dice.randint(0, 1)))
                for price in walk[: dice.choice([MARKETS, MARKETS, MARKETS - 1])]
            ]
            when = clock + dice.randint(0, ROUND_S - 1)
            reports.append(price_report(when, [pack_price(*price) if price else 0 for price in row]))
            plain.append((when, row))
        keepers = sorted(dice.sample(KEEPERS, count), key=lambda signer: signer.address)
        made = aggregate(reports, QUORUM, last, JUMPS)
        oracle.post_round(rows(oracle, reports, keepers), sender=sequencer)
        assert oracle.prices_hash(SEQUENCER_LANE, made.round) == prices_hash(made)
        naive_time, naive = naive_oracle.make_round(plain, QUORUM, naive, JUMPS)
        mirrored = [
            (p.index_ticks, p.mark_ticks, p.updated_at, p.clamped, p.calm_rounds) for p in made.prices
        ]
        assert (naive_time, naive) == (made.timestamp, mirrored)
        jumped += sum(price.clamped for price in made.prices)
        calmed += sum(old.clamped and not new.clamped for old, new in zip(last, made.prices, strict=True))
        last = list(made.prices)
    assert jumped > 5
    assert calmed > 1
