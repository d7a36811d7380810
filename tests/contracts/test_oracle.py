"""Oracle rounds: who may sign, when, in which order, and what the medians come to."""

import random

import boa
import pytest
from contract_cases import (
    JUMP_PPM,
    KEEPERS,
    MARKETS,
    NOBODY,
    PUBLIC_LANE,
    QUORUM,
    ROUND_S,
    SEQUENCER_LANE,
    START_S,
    STRANGER,
    compiled,
    flipped,
    price_report,
    price_row,
    rows,
    separator,
    signed,
    text,
)
from eth_hash.auto import keccak

from evermark.protocol.oracle import NO_PRICE, aggregate, pack_price, prices_hash, round_words

ROUND = START_S // ROUND_S
JUMPS = [JUMP_PPM] * MARKETS
GOOD = tuple(pack_price(100 + market, 200 + market) for market in range(MARKETS))


def reports_of(timestamps, prices=None):
    return [price_report(timestamp, prices[k] if prices else GOOD) for k, timestamp in enumerate(timestamps)]


def three(oracle, timestamp=START_S, prices=None):
    """A quorum's rows for one moment."""
    return rows(oracle, reports_of([timestamp] * 3, prices), KEEPERS)


def test_the_domain_is_the_one_that_keepers_sign(oracle):
    """Same EIP-712 domain on both sides; another chain would have another one."""
    assert oracle.domain_separator() == separator(oracle)
    assert oracle.domain_separator() != separator(oracle, chain_id=5)


def test_a_round_is_the_median_of_its_reports(oracle, sequencer):
    """Index, mark and time are lower medians, each for itself, as the Python side aggregates them."""
    prices = [
        [pack_price(30, 100), pack_price(1, 1), pack_price(2**32 - 1, 7)],
        [pack_price(10, 300), pack_price(3, 2), pack_price(5, 2**32 - 1)],
        [pack_price(20, 200), pack_price(2, 3), pack_price(6, 8)],
    ]
    reports = reports_of([START_S + 5, START_S, START_S + 1], prices)
    oracle.post_round(rows(oracle, reports, KEEPERS), sender=sequencer)
    event = oracle.get_logs()[-1]
    expected = aggregate(reports, QUORUM, [NO_PRICE] * MARKETS, JUMPS)
    assert [(p.index_ticks, p.mark_ticks) for p in expected.prices] == [(20, 200), (2, 2), (6, 8)]
    assert tuple(oracle.round_words(SEQUENCER_LANE, ROUND)) == round_words(expected)
    assert oracle.prices_hash(SEQUENCER_LANE, ROUND) == prices_hash(expected)
    assert oracle.last_round(SEQUENCER_LANE) == ROUND
    assert (event.lane, event.round, event.timestamp) == (SEQUENCER_LANE, ROUND, START_S + 1)
    assert event.prices_hash == prices_hash(expected)
    joined = b"".join(word.to_bytes(32, "big") for word in oracle.round_words(SEQUENCER_LANE, ROUND))
    assert keccak(joined) == oracle.prices_hash(SEQUENCER_LANE, ROUND)


def test_only_the_sequencer_writes_its_lane(oracle, sequencer, chain):
    """Anyone writes the public lane; each lane has its own newest round."""
    anyone = chain.generate_address("anyone")
    with boa.reverts("oracle: only the sequencer"):
        oracle.post_round(three(oracle), sender=anyone)
    oracle.post_round_public(three(oracle), sender=anyone)
    assert (oracle.last_round(SEQUENCER_LANE), oracle.last_round(PUBLIC_LANE)) == (0, ROUND)
    with boa.reverts("oracle: no such round"):
        oracle.round_words(SEQUENCER_LANE, ROUND)
    oracle.post_round(three(oracle), sender=sequencer)
    assert oracle.round_words(SEQUENCER_LANE, ROUND) == oracle.round_words(PUBLIC_LANE, ROUND)
    with boa.reverts("oracle: no such round"):
        oracle.round_words(2, ROUND)


@pytest.mark.safety("A02", "contract")
def test_rounds_only_go_forward(oracle, sequencer):
    """The same round or an older one is refused; a newer one, even far ahead in the ring, is taken."""
    oracle.post_round(three(oracle), sender=sequencer)
    for timestamp in (START_S, START_S - ROUND_S):
        with boa.reverts("oracle: round not newer"):
            oracle.post_round(three(oracle, timestamp), sender=sequencer)
    boa.env.timestamp = START_S + ROUND_S
    oracle.post_round(three(oracle, START_S + ROUND_S), sender=sequencer)
    assert oracle.last_round(SEQUENCER_LANE) == ROUND + 1


@pytest.mark.safety("A02", "contract")
def test_a_report_is_not_of_the_future(oracle, sequencer):
    """Five seconds ahead of the block are tolerated, six are not, of any single report."""
    boa.env.timestamp = START_S
    late = rows(oracle, reports_of([START_S, START_S, START_S + 6]), KEEPERS)
    with boa.reverts("oracle: time in the future"):
        oracle.post_round(late, sender=sequencer)
    oracle.post_round(rows(oracle, reports_of([START_S, START_S, START_S + 5]), KEEPERS), sender=sequencer)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"timestamp": START_S - 1}, "oracle: time outside the round"),
        ({"timestamp": START_S + ROUND_S}, "oracle: time outside the round"),
        ({"round_": ROUND - 1}, "oracle: rounds differ"),
        ({"prices": (*GOOD, GOOD[0])}, "oracle: too many markets"),
        ({"prices": (1 << 64, *GOOD[1:])}, "oracle: price too large"),
        ({"prices": (pack_price(0, 5), *GOOD[1:])}, "oracle: zero price"),
        ({"prices": (pack_price(0, 2**32 - 1), *GOOD[1:])}, "oracle: zero price"),
        ({"prices": (pack_price(2**32 - 1, 0), *GOOD[1:])}, "oracle: zero price"),
    ],
)
def test_one_bad_report_spoils_the_round(oracle, sequencer, change, reason):
    """Though its keeper signed it; the good ones alone are accepted."""
    facts = {"timestamp": START_S, "prices": GOOD, "round_": ROUND, **change}
    bad = price_report(**facts)
    given = three(oracle)
    given[2] = price_row(bad, signed(oracle, KEEPERS[2], bad))
    with boa.reverts(reason):
        oracle.post_round(given, sender=sequencer)
    oracle.post_round(three(oracle), sender=sequencer)


@pytest.mark.safety("A03", "contract")
def test_a_price_of_zero_is_never_accepted(oracle, sequencer):
    """A zero is an abstention: with fewer prices than the quorum the market keeps its last one."""
    oracle.post_round(three(oracle), sender=sequencer)
    boa.env.timestamp = START_S + ROUND_S
    zeros = [[0, GOOD[1], GOOD[2]]] * 3
    oracle.post_round(three(oracle, START_S + ROUND_S, zeros), sender=sequencer)
    words = oracle.round_words(SEQUENCER_LANE, ROUND + 1)
    assert words[1] & (2**64 - 1) == 100 | 200 << 32
    assert words[1] >> 64 & (2**40 - 1) == START_S
    assert words[1] >> 192 & (2**40 - 1) == START_S + ROUND_S


def test_signers_ascend_and_none_counts_twice(oracle, sequencer):
    """Each keeper once, in order of address; otherwise the round is refused."""
    given = three(oracle)
    for wrong in (
        [given[1], given[0], given[2]],
        [given[0], given[1], given[1]],
        [given[0], given[0], given[1]],
    ):
        with boa.reverts("oracle: signers not ascending"):
            oracle.post_round(wrong, sender=sequencer)
    oracle.post_round(given, sender=sequencer)


def test_a_quorum_is_needed(oracle, sequencer):
    """Two of three are too few, none as well; five are welcome."""
    for few in (three(oracle)[:2], []):
        with boa.reverts("oracle: below the quorum"):
            oracle.post_round(few, sender=sequencer)
    oracle.post_round(rows(oracle, reports_of([START_S] * 5), KEEPERS), sender=sequencer)


@pytest.mark.safety("A10", "contract")
@pytest.mark.parametrize("lane", [SEQUENCER_LANE, PUBLIC_LANE])
def test_only_registered_keepers_count(oracle, sequencer, lane):
    """Whoever carries the reports, what matters is who signed them."""
    keepers = sorted([*KEEPERS[:2], STRANGER], key=lambda signer: signer.address)
    post = oracle.post_round if lane == SEQUENCER_LANE else oracle.post_round_public
    with boa.reverts("oracle: unknown keeper"):
        post(rows(oracle, reports_of([START_S] * 3), keepers), sender=sequencer)
    post(three(oracle), sender=sequencer)


@pytest.mark.safety("D01", "contract")
def test_signatures_of_another_domain_are_refused(oracle, sequencer):
    """A report for another chain or another oracle recovers somebody else."""
    report = price_report(START_S, GOOD)
    for domain in (separator(oracle, chain_id=5), b"\x01" * 32):
        given = three(oracle)
        foreign = KEEPERS[0].sign(keccak(b"\x19\x01" + domain))
        given[0] = price_row(report, foreign)
        with boa.reverts("oracle: unknown keeper"):
            oracle.post_round(given, sender=sequencer)
    oracle.post_round(three(oracle), sender=sequencer)


@pytest.mark.safety("D03", "contract")
@pytest.mark.safety("D04", "contract")
def test_malleable_and_empty_signatures_are_refused(oracle, sequencer):
    """High s, a v that is none, and zeros, which recover nobody."""
    report = price_report(START_S, GOOD)
    good = signed(oracle, KEEPERS[0], report)
    row = price_row(report, good)
    for wrong, reason in (
        (price_row(report, flipped(good)), "oracle: high s"),
        ((*row[:5], 29), "oracle: no signer"),
        ((*row[:3], 0, 0, 27), "oracle: no signer"),
    ):
        with boa.reverts(reason):
            oracle.post_round([wrong, *three(oracle)[1:]], sender=sequencer)
    oracle.post_round(three(oracle), sender=sequencer)


def test_the_ring_keeps_4096_rounds(oracle, sequencer):
    """The round 4,096 later, and no earlier one, takes the place of the old one, which is then gone; prices carry over."""
    oracle.post_round(three(oracle), sender=sequencer)
    for step in (4_095, 4_096):
        if step == 4_096:
            assert len(oracle.round_words(SEQUENCER_LANE, ROUND)) == 3
        later = START_S + step * ROUND_S
        boa.env.timestamp = later
        abstain = [[0] * MARKETS] * 3
        oracle.post_round(three(oracle, later, abstain), sender=sequencer)
        words = oracle.round_words(SEQUENCER_LANE, ROUND + step)
        assert words[1] & (2**64 - 1) == 100 | 200 << 32
        assert words[2] >> 64 & (2**40 - 1) == START_S
    with boa.reverts("oracle: no such round"):
        oracle.round_words(SEQUENCER_LANE, ROUND)
    for missing in (0, ROUND + 1, 2**256 - 1):
        with boa.reverts("oracle: no such round"):
            oracle.prices_hash(SEQUENCER_LANE, missing)


def test_random_rounds_agree_with_python(oracle, sequencer):
    """Twenty rounds of random reports, some keepers abstaining: the same words on both sides."""
    dice = random.Random(7)
    last = [NO_PRICE] * MARKETS
    for step in range(20):
        start = START_S + ROUND_S * (step + 1)
        boa.env.timestamp = start + ROUND_S
        count = dice.randint(3, 5)
        reports = []
        for _ in range(count):
            prices = [
                0
                if dice.random() < 0.3
                else pack_price(dice.randint(1, 2**32 - 1), dice.randint(1, 2**32 - 1))
                for _ in range(dice.randint(1, MARKETS))
            ]
            reports.append(price_report(start + dice.randint(0, ROUND_S - 1), prices))
        keepers = sorted(dice.sample(KEEPERS, count), key=lambda signer: signer.address)
        expected = aggregate(reports, QUORUM, last, JUMPS)
        oracle.post_round(rows(oracle, reports, keepers), sender=sequencer)
        assert tuple(oracle.round_words(SEQUENCER_LANE, expected.round)) == round_words(expected)
        last = list(expected.prices)


def test_sixty_four_markets_fit(chain, sequencer):
    """The greatest number of markets, fifteen keepers: 33 words, within a transaction's gas."""
    keepers = sorted(KEEPERS[:3], key=lambda signer: signer.address)
    names = [text(keeper.address) for keeper in keepers]
    oracle = compiled("PriceOracle").deploy(
        ROUND_S, 3, [JUMP_PPM] * 64, names, 3, names, sequencer, sequencer, NOBODY
    )
    prices = [[pack_price(k + market + 1, 1) for market in range(64)] for k in range(3)]
    reports = reports_of([START_S] * 3, prices)
    oracle.post_round(rows(oracle, reports, keepers), sender=sequencer)
    expected = aggregate(reports, 3, [NO_PRICE] * 64, [JUMP_PPM] * 64)
    assert tuple(oracle.round_words(SEQUENCER_LANE, ROUND)) == round_words(expected)
    assert len(round_words(expected)) == 33
    assert oracle._computation.get_gas_used() < 2**24


KEEPER_NAMES = [text(keeper.address) for keeper in KEEPERS]


@pytest.mark.safety("F04", "contract")
@pytest.mark.parametrize(
    "change, reason",
    [
        ({0: 0}, "oracle: bad parameters"),
        ({2: []}, "oracle: bad parameters"),
        ({2: [999]}, "oracle: jump band"),
        ({2: [100_001]}, "oracle: jump band"),
        ({6: NOBODY}, "oracle: zero address"),
        ({7: NOBODY}, "oracle: zero address"),
        ({1: 2}, "oracle: bad quorum"),
        ({1: 7}, "oracle: bad quorum"),
        ({4: 0}, "oracle: bad funding quorum"),
        ({3: [*KEEPER_NAMES[:4], KEEPER_NAMES[0]]}, "oracle: keeper repeated"),
        ({5: [*KEEPER_NAMES[:2], "0x" + "00" * 20]}, "oracle: keeper repeated"),
    ],
)
def test_impossible_oracles_are_not_made(chain, sequencer, governor, change, reason):
    """Parameters outside their bounds are refused at deployment; the right ones are not."""
    arguments = [ROUND_S, 3, JUMPS, KEEPER_NAMES, 3, KEEPER_NAMES[:3], sequencer, governor, NOBODY]
    compiled("PriceOracle").deploy(*arguments)
    compiled("PriceOracle").deploy(1, *arguments[1:])
    for place, value in change.items():
        arguments[place] = value
    with boa.reverts(reason):
        compiled("PriceOracle").deploy(*arguments)
