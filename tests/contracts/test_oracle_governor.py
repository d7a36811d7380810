"""What the governor, and nobody else, may change of the oracle; references, the uptime feed, and the views over both lanes."""

import boa
import pytest
from contract_cases import (
    FUNDING_KEEPERS,
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
    price_report,
    rows,
    text,
)

from evermark.protocol.oracle import pack_price

ROUND = START_S // ROUND_S
NEW = text(STRANGER.address)


def quorum_of(oracle, timestamp=START_S, prices=(1_000, 1_000, 1_000), keepers=KEEPERS):
    report = price_report(timestamp, [pack_price(price, price) for price in prices])
    return rows(oracle, [report] * QUORUM, keepers)


@pytest.mark.safety("F01", "contract")
@pytest.mark.parametrize(
    "call, arguments",
    [
        ("set_sequencer", [NEW]),
        ("add_oracle_keeper", [NEW]),
        ("remove_oracle_keeper", [text(KEEPERS[0].address)]),
        ("add_funding_keeper", [NEW]),
        ("remove_funding_keeper", [text(FUNDING_KEEPERS[0].address)]),
        ("set_quorums", [5, 3]),
        ("add_market", [JUMP_PPM]),
        ("set_jump", [0, 2_000]),
        ("set_reference", [0, (NEW, 10_000, 3_600, 10**18)]),
        ("end_market", [0, START_S + 3_600]),
    ],
)
def test_only_the_governor_changes_the_oracle(oracle, sequencer, governor, chain, call, arguments):
    """Neither the sequencer nor anyone else; the governor itself may, but for removing below a quorum."""
    for stranger in (sequencer, chain.generate_address("anyone"), text(KEEPERS[0].address)):
        with boa.reverts("oracle: only the governor"):
            getattr(oracle, call)(*arguments, sender=stranger)
    if call == "remove_funding_keeper":
        with boa.reverts("oracle: bad funding quorum"):
            getattr(oracle, call)(*arguments, sender=governor)
        oracle.add_funding_keeper(NEW, sender=governor)
    getattr(oracle, call)(*arguments, sender=governor)
    assert oracle.get_logs() or call == "add_market"


def test_a_registered_keeper_counts_and_a_removed_one_does_not(oracle, sequencer, governor):
    """From the change on; a keeper is not registered twice, and below the quorum none is removed."""
    signers = sorted([*KEEPERS[:2], STRANGER], key=lambda signer: signer.address)
    with boa.reverts("oracle: unknown keeper"):
        oracle.post_round(quorum_of(oracle, keepers=signers), sender=sequencer)
    oracle.add_oracle_keeper(NEW, sender=governor)
    with boa.reverts("oracle: keeper repeated"):
        oracle.add_oracle_keeper(NEW, sender=governor)
    oracle.post_round(quorum_of(oracle, keepers=signers), sender=sequencer)
    for keeper in KEEPERS[2:]:
        oracle.remove_oracle_keeper(text(keeper.address), sender=governor)
    with boa.reverts("oracle: unknown keeper"):
        oracle.remove_oracle_keeper(text(KEEPERS[2].address), sender=governor)
    with boa.reverts("oracle: bad quorum"):
        oracle.remove_oracle_keeper(NEW, sender=governor)
    boa.env.timestamp = START_S + ROUND_S
    with boa.reverts("oracle: unknown keeper"):
        oracle.post_round(quorum_of(oracle, START_S + ROUND_S), sender=sequencer)


@pytest.mark.parametrize("quorums", [(2, 3), (3, 2), (7, 3), (3, 5), (0, 3)])
def test_quorums_are_odd_and_reachable(oracle, governor, quorums):
    """Even numbers and more than there are keepers are refused; the allowed ones stand."""
    with boa.reverts():
        oracle.set_quorums(*quorums, sender=governor)
    oracle.set_quorums(5, 1, sender=governor)
    assert (oracle.oracle_quorum(), oracle.funding_quorum()) == (5, 1)


def test_a_named_sequencer_writes_the_lane(oracle, sequencer, governor):
    """The old key stops, the new one goes on."""
    with boa.reverts("oracle: zero address"):
        oracle.set_sequencer(NOBODY, sender=governor)
    oracle.set_sequencer(NEW, sender=governor)
    with boa.reverts("oracle: only the sequencer"):
        oracle.post_round(quorum_of(oracle), sender=sequencer)
    oracle.post_round(quorum_of(oracle), sender=NEW)


def test_a_new_market_begins_without_a_price(oracle, sequencer, governor):
    """Older rounds keep their hash, older reports are still taken, and the market's first price stands as it is."""
    oracle.post_round(quorum_of(oracle), sender=sequencer)
    before = oracle.round_words(SEQUENCER_LANE, ROUND), oracle.prices_hash(SEQUENCER_LANE, ROUND)
    for market in range(MARKETS, MARKETS + 2):
        with boa.reverts("oracle: no such market"):
            oracle.set_jump(market, JUMP_PPM, sender=governor)
        oracle.add_market(JUMP_PPM, sender=governor)
    assert (oracle.market_count(), oracle.jump_ppm_per_s(MARKETS)) == (MARKETS + 2, JUMP_PPM)
    assert (oracle.round_words(SEQUENCER_LANE, ROUND), oracle.prices_hash(SEQUENCER_LANE, ROUND)) == before
    boa.env.timestamp = START_S + 2 * ROUND_S
    oracle.post_round(quorum_of(oracle, START_S + ROUND_S), sender=sequencer)
    assert oracle.round_words(SEQUENCER_LANE, ROUND + 1)[2] >> 128 == 0
    longer = quorum_of(oracle, START_S + 2 * ROUND_S, (1_000,) * 5)
    oracle.post_round(longer, sender=sequencer)
    words = oracle.round_words(SEQUENCER_LANE, ROUND + 2)
    assert len(words) == 4
    assert words[3] == 1_000 | 1_000 << 32 | (START_S + 2 * ROUND_S) << 64


@pytest.mark.safety("F04", "contract")
@pytest.mark.parametrize("jump_ppm", [0, 999, 100_001])
def test_bands_are_bounded(oracle, governor, jump_ppm):
    """Neither so narrow that a market stands still nor so wide that the band means nothing."""
    with boa.reverts("oracle: jump band"):
        oracle.set_jump(1, jump_ppm, sender=governor)
    with boa.reverts("oracle: jump band"):
        oracle.add_market(jump_ppm, sender=governor)
    for allowed in (1_000, 100_000):
        oracle.set_jump(1, allowed, sender=governor)
        assert oracle.jump_ppm_per_s(1) == allowed


def test_at_most_64_markets_and_15_keepers(oracle, governor, chain):
    """The ring has no room for more of the one, a round for more of the other."""
    for _ in range(64 - MARKETS):
        oracle.add_market(JUMP_PPM, sender=governor)
    with boa.reverts("oracle: too many markets"):
        oracle.add_market(JUMP_PPM, sender=governor)
    for add, there in (
        (oracle.add_oracle_keeper, KEEPERS),
        (oracle.add_funding_keeper, FUNDING_KEEPERS),
    ):
        for number in range(15 - len(there)):
            add(chain.generate_address(f"keeper {number}"), sender=governor)
        with boa.reverts("oracle: too many keepers"):
            add(NEW, sender=governor)
    assert (oracle.oracle_keeper_count(), oracle.funding_keeper_count()) == (15, 15)
    assert not oracle.is_oracle_keeper(NEW)
    assert not oracle.is_funding_keeper(NEW)


def test_nobody_is_no_keeper_and_none_is_one_twice(oracle, governor):
    """Of either kind: the zero address and who is registered already are refused, a new one is added and may be removed again;
    both are announced."""
    kinds = (
        (oracle.add_oracle_keeper, oracle.remove_oracle_keeper, oracle.is_oracle_keeper, KEEPERS),
        (oracle.add_funding_keeper, oracle.remove_funding_keeper, oracle.is_funding_keeper, FUNDING_KEEPERS),
    )
    for role, (add, remove, is_keeper, there) in enumerate(kinds):
        for refused in (NOBODY, text(there[0].address)):
            with boa.reverts("oracle: keeper repeated"):
                add(refused, sender=governor)
        for change, registered in ((add, True), (remove, False)):
            change(NEW, sender=governor)
            (event,) = oracle.get_logs()
            assert (event.keeper.lower(), event.role, event.registered) == (NEW, role, registered)
            assert is_keeper(NEW) == registered


# ------------------------------------------------------------------------------------------------------------- references


@pytest.fixture
def feed(chain):
    """Speaks 8 decimals; a tick of market 0 is a cent, so its 1,000 ticks are 10 dollars."""
    made = compiled("Feed").deploy()
    made.tell(10 * 10**8, START_S, START_S)
    return made


def reference(feed, deviation_ppm=50_000, heartbeat_s=3_600):
    return (feed.address, deviation_ppm, heartbeat_s, 10**6 * 10**18)


@pytest.mark.safety("A05", "contract")
def test_a_reference_bounds_the_deviation(oracle, sequencer, governor, feed):
    """5 % are allowed, a tick more is refused, above and below; other markets have no reference."""
    oracle.set_reference(0, reference(feed), sender=governor)
    for index in (949, 1_051, 2**32 - 1):
        with boa.reverts("oracle: far from its reference"):
            oracle.post_round(quorum_of(oracle, prices=(index, 7, 2**31)), sender=sequencer)
    for index in (950, 1_050):
        with boa.env.anchor():
            oracle.post_round(quorum_of(oracle, prices=(index, 7, 2**31)), sender=sequencer)
    with boa.env.anchor():  # to the tick, of a billion too
        feed.tell(10**9 * 10**6, START_S, START_S)
        for index in (949_999_999, 1_050_000_001):
            with boa.reverts("oracle: far from its reference"):
                oracle.post_round(quorum_of(oracle, prices=(index, 7, 2**31)), sender=sequencer)
        oracle.post_round(quorum_of(oracle, prices=(1_050_000_000, 7, 2**31)), sender=sequencer)
    with boa.env.anchor():
        feed.tell(2**128 - 1, START_S, START_S)  # the largest answer that counts
        with boa.reverts("oracle: far from its reference"):
            oracle.post_round(quorum_of(oracle), sender=sequencer)
    oracle.set_reference(0, (NOBODY, 0, 0, 0), sender=governor)
    oracle.post_round(quorum_of(oracle, prices=(949, 7, 2**31)), sender=sequencer)


@pytest.mark.safety("A12", "contract")
def test_each_reference_has_its_own_heartbeat(oracle, sequencer, governor, feed, chain):
    """At the same age one feed still bounds its market, another no longer does."""
    slow = compiled("Feed").deploy()
    slow.tell(10 * 10**8, START_S, START_S)
    oracle.set_reference(0, reference(feed, heartbeat_s=60), sender=governor)
    oracle.set_reference(1, reference(slow, heartbeat_s=86_400), sender=governor)
    chain.timestamp = START_S + 60
    with boa.reverts("oracle: far from its reference"):
        oracle.post_round(quorum_of(oracle, START_S + 60, (2_000, 1_000, 1)), sender=sequencer)
    chain.timestamp = START_S + 61
    with boa.reverts("oracle: far from its reference"):
        oracle.post_round(quorum_of(oracle, START_S + 61, (2_000, 2_000, 1)), sender=sequencer)
    oracle.post_round(quorum_of(oracle, START_S + 61, (2_000, 1_000, 1)), sender=sequencer)


@pytest.mark.parametrize("broken", ["silent", "no contract", "zero", "negative", "large", "huge", "future"])
def test_a_dead_reference_bounds_nothing(oracle, sequencer, governor, feed, broken):
    """A feed that reverts, is no contract or answers nonsense cannot stop the exchange."""
    given = reference(feed)
    if broken == "silent":
        feed.fall_silent()
    elif broken == "no contract":
        given = (NEW, *given[1:])
    elif broken == "future":
        feed.tell(10 * 10**8, START_S, 2**256 - 1)
    else:
        answers = {"zero": 0, "negative": -1, "large": 2**128, "huge": 2**255 - 1}
        feed.tell(answers[broken], START_S, START_S)
    oracle.set_reference(0, given, sender=governor)
    prices = (1_000, 1, 1) if broken == "future" else (2_000, 1, 1)
    oracle.post_round(quorum_of(oracle, prices=prices), sender=sequencer)


@pytest.mark.parametrize(
    "change, reason",
    [
        ((0, 999, 3_600, 1), "oracle: reference deviation"),
        ((0, 500_001, 3_600, 1), "oracle: reference deviation"),
        ((0, 10_000, 59, 1), "oracle: reference heartbeat"),
        ((0, 10_000, 172_801, 1), "oracle: reference heartbeat"),
        ((0, 10_000, 3_600, 0), "oracle: reference scale"),
        ((0, 10_000, 3_600, 10**36 + 1), "oracle: reference scale"),
        ((MARKETS, 10_000, 3_600, 1), "oracle: no such market"),
    ],
)
def test_references_are_bounded(oracle, governor, feed, change, reason):
    """Deviation, heartbeat and scale within hard bounds, and a market that there is."""
    market, *rest = change
    with boa.reverts(reason):
        oracle.set_reference(market, (feed.address, *rest), sender=governor)
    for edge in ((1_000, 60, 1), (500_000, 172_800, 10**36)):
        oracle.set_reference(0, (feed.address, *edge), sender=governor)
        assert tuple(oracle.reference(0)[1:]) == edge


# ---------------------------------------------------------------------------------------------------- uptime and the views


def test_an_outage_of_the_chain_is_seen_for_an_hour(oracle, sequencer, governor, feed, chain):
    """Down, or up for less than an hour, or silent; without a feed the chain is never said to have been down."""
    assert not oracle.restarted()
    keepers = [text(keeper.address) for keeper in KEEPERS]
    watched = compiled("PriceOracle").deploy(
        ROUND_S, 3, [JUMP_PPM], keepers, 3, keepers, sequencer, governor, feed.address
    )
    feed.tell(0, START_S, START_S)
    for seconds, restarted in ((0, True), (3_599, True), (3_600, False), (10**6, False)):
        chain.timestamp = START_S + seconds
        assert watched.restarted() == restarted
    feed.tell(1, START_S, START_S)
    assert watched.restarted()
    feed.tell(0, START_S, START_S)
    assert not watched.restarted()
    feed.fall_silent()
    assert watched.restarted()


@pytest.mark.parametrize("gas", [99_999, 100_000, 100_001])
def test_a_feed_has_a_hundred_thousand_gas(sequencer, governor, chain, gas):
    """However much the transaction has: none can make a round dear, and nobody starve one into silence."""
    # GAS PUSH3 what-is-left XOR PUSH1 32 MSTORE PUSH1 160 PUSH1 0 RETURN: the answer is 0, for up, where both are the same.
    code = bytes.fromhex(f"5a62{gas - 2:06x}18602052" + "60a06000f3")
    exact = chain.generate_address("feed")
    boa.env.set_code(exact, code)
    keepers = [text(keeper.address) for keeper in KEEPERS]
    watched = compiled("PriceOracle").deploy(
        ROUND_S, 3, [JUMP_PPM], keepers, 3, keepers, sequencer, governor, exact
    )
    assert watched.restarted() == (gas != 100_000)


def test_the_newest_round_of_both_lanes(oracle, sequencer, chain):
    """Whichever lane is ahead; the sequencer's when both have the same round."""
    assert oracle.newest_round() == (SEQUENCER_LANE, 0)
    chain.timestamp = START_S + 9 * ROUND_S
    for lane, step, newest in (
        (PUBLIC_LANE, 1, (PUBLIC_LANE, ROUND + 1)),
        (SEQUENCER_LANE, 1, (SEQUENCER_LANE, ROUND + 1)),
        (PUBLIC_LANE, 3, (PUBLIC_LANE, ROUND + 3)),
        (SEQUENCER_LANE, 2, (PUBLIC_LANE, ROUND + 3)),
        (SEQUENCER_LANE, 5, (SEQUENCER_LANE, ROUND + 5)),
    ):
        reports = quorum_of(oracle, START_S + step * ROUND_S)
        if lane == PUBLIC_LANE:
            oracle.post_round_public(reports)
        else:
            oracle.post_round(reports, sender=sequencer)
        assert oracle.newest_round() == newest


def test_some_words_are_those_of_the_round(oracle, sequencer):
    """The header with the hash's upper bits, once whether it is wanted or not, and the wanted words alone."""
    oracle.post_round(quorum_of(oracle), sender=sequencer)
    header, first, second = oracle.round_words(SEQUENCER_LANE, ROUND)
    hash_ = int.from_bytes(oracle.prices_hash(SEQUENCER_LANE, ROUND), "big")
    for wanted, expected in ((0, []), (2, [first]), (4, [second]), (6, [first, second]), (8, [0]), (1, [])):
        got = oracle.some_words(SEQUENCER_LANE, ROUND, wanted)
        assert got[1:] == expected
        assert got[0] == header | MARKETS << 80 | hash_ >> 88 << 88
    with boa.reverts("oracle: no such round"):
        oracle.some_words(SEQUENCER_LANE, ROUND + 1, 2)
