"""A reference feed that lies after it was set: no round with its market's price is accepted, which the keepers can limit to that
market, the governor can end, and, where nobody does either, owners can walk away from by the exit."""

from pathlib import Path
from typing import Any

import boa
import pytest
from builders import Exchange, Party
from governing import IN_FORCE, Governing
from test_exit import count_all, freeze, take_and_pay, trade

from evermark.protocol.orders import Side
from tests.compiled_contracts import deployer

MOCKS = Path(__file__).resolve().parents[1] / "mocks"
PRICE = 600_000  # of market 0, in ticks of 0.1 USDC
SCALE = 10 ** (18 + 8 - 1)  # of a feed with eight decimals
DEVIATION_PPM, HEARTBEAT_S = 20_000, 86_400
NONE = ("0x" + "00" * 20, 0, 0, 0)


class Feed:
    """An aggregator that says what a test wants, as of now."""

    def __init__(self) -> None:
        self.contract = deployer("Feed", MOCKS).deploy()

    def tell(self, exchange: Exchange, ticks: int) -> None:
        answer = ticks * SCALE // 10**18
        self.contract.tell(answer, exchange.clock, exchange.clock)

    @property
    def reference(self) -> tuple[Any, ...]:
        return (self.contract.address, DEVIATION_PPM, HEARTBEAT_S, SCALE)


def set_reference(governing: Governing, feed: Feed, *, price: int = PRICE) -> None:
    """Proposed, waited for with an honest feed, executed; in force at once."""
    exchange = governing.exchange
    proposal = governing.propose("reference", 0, feed.reference)
    governing.wait()
    feed.tell(exchange, price)
    governing.execute(proposal)
    assert governing.state(proposal) == IN_FORCE


def wait_for(governing: Governing, feed: Feed, lie: int, seconds: int) -> None:
    """Time in which the feed keeps lying, and keepers report the other markets."""
    exchange = governing.exchange
    exchange.clock += seconds
    feed.tell(exchange, lie)
    exchange.round(abstain=(0,))


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.mark.safety("A05", "contract")
@pytest.mark.parametrize(
    ("answer", "age_s", "reason"),
    [
        (None, 0, "governor: the feed is silent"),
        (0, 0, "governor: the feed is silent"),
        (-1, 0, "governor: the feed is silent"),
        (2**128, 0, "governor: the feed is silent"),
        (60_000 * 10**8, HEARTBEAT_S + 1, "governor: the feed is silent"),
        (2**128 - 1, 0, "governor: the feed disagrees"),
        (61_225 * 10**8, 0, "governor: the feed disagrees"),
        (58_823 * 10**8, 0, "governor: the feed disagrees"),
        (61_224 * 10**8, 0, None),
        (58_824 * 10**8, 0, None),
        (60_000 * 10**8, HEARTBEAT_S, None),
    ],
)
def test_a_feed_must_answer_and_agree_to_become_the_reference(
    governing: Governing, exchange: Exchange, feed: Feed, answer: int | None, age_s: int, reason: str | None
) -> None:
    """Within two percent of its own answer, as fresh as its heartbeat says, and at all: else the market keeps what it had."""
    proposal = governing.propose("reference", 0, feed.reference)
    governing.wait()
    at = boa.env.timestamp
    if answer is None:
        feed.contract.fall_silent()
    else:
        feed.contract.tell(answer, at - age_s, at - age_s)
    if reason is None:
        governing.execute(proposal)
        assert exchange.oracle.reference(0)[0] == feed.contract.address
        return
    with boa.reverts(reason):
        governing.execute(proposal)
    assert exchange.oracle.reference(0)[0] == NONE[0]


@pytest.mark.safety("A03", "contract")
def test_a_reference_needs_a_live_index(governing: Governing, exchange: Exchange, feed: Feed) -> None:
    """Not while a jump is held back, and not for a market that no round has a price of."""
    proposals = [governing.propose("reference", market, feed.reference) for market in (63, 0)]
    governing.wait()
    exchange.oracle.set_jump(0, 1_000, sender=exchange.governor)
    exchange.jumps = [1_000, *exchange.jumps[1:]]
    exchange.round({0: 2 * PRICE})
    assert exchange.last[0].clamped
    feed.tell(exchange, exchange.last[0].index_ticks)
    for proposal in proposals:
        with boa.reverts("governor: no live price"):
            governing.execute(proposal)
    for _ in range(3):  # as many rounds within the band
        exchange.round({0: exchange.last[0].index_ticks})
    assert not exchange.last[0].clamped
    feed.tell(exchange, exchange.last[0].index_ticks)
    with boa.reverts("governor: no live price"):
        governing.execute(proposals[0])
    governing.execute(proposals[1])
    assert governing.state(proposals[1]) == IN_FORCE


@pytest.fixture
def lying(governing: Governing, exchange: Exchange, maker: Party, taker: Party, feed: Feed) -> int:
    """Two open positions, a reference that has been honest, and then is a tenth too low; its price."""
    trade(exchange, maker, taker, Side.BUY, 100)
    set_reference(governing, feed)
    exchange.round({0: PRICE + 6_000})
    lie = PRICE * 9 // 10
    feed.tell(exchange, lie)
    return lie


@pytest.mark.safety("A05", "contract")
def test_a_lying_feed_refuses_every_round_with_its_markets_price(exchange: Exchange, lying: int) -> None:
    """In both lanes, whoever posts; only keepers who reported what the feed says would get through. When they abstain from the
    market, the others go on."""
    before = exchange.oracle.last_round(0)
    with boa.env.anchor(), boa.reverts("oracle: far from its reference"):
        exchange.branch().round()
    with boa.env.anchor(), boa.reverts("oracle: far from its reference"):
        exchange.branch().post_public({})
    assert exchange.oracle.last_round(0) == before
    held = exchange.last
    exchange.round({1: 251_000}, abstain=(0,))
    assert exchange.last[0] == held[0]
    assert exchange.last[1].mark_ticks == 251_000
    with boa.env.anchor():
        lower = exchange.branch()
        lower.round({0: lying})
        assert lower.last[0].index_ticks == lying


@pytest.mark.safety("A05", "contract")
def test_the_governor_ends_and_replaces_a_lying_feed(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, feed: Feed, lying: int
) -> None:
    """Not by an honest one at once: a new feed has to agree with a live index, which the lying one prevents. So the reference is
    ended, which needs nothing, rounds have prices again, and then the honest one is set."""
    honest = Feed()
    replacing = governing.propose("reference", 0, honest.reference)
    ending = governing.propose("reference", 0, NONE)
    wait_for(governing, feed, lying, 172_800)
    honest.tell(exchange, PRICE)
    with boa.reverts("governor: no live price"):
        governing.execute(replacing)
    governing.execute(ending)
    exchange.round({0: PRICE})
    honest.tell(exchange, PRICE)
    governing.execute(replacing)
    assert governing.state(replacing) == IN_FORCE
    assert exchange.oracle.reference(0)[0] == honest.contract.address
    exchange.round()
    trade(exchange, maker, taker, Side.SELL, 100)
    assert exchange.vault.position(maker.account, 0).size == 0


def test_a_lie_that_ages_bounds_nothing(
    governing: Governing, exchange: Exchange, feed: Feed, lying: int
) -> None:
    """A feed that stopped at its lie is passed over after its heartbeat, and an honest one replaces it in one step."""
    honest = Feed()
    replacing = governing.propose("reference", 0, honest.reference)
    exchange.round(seconds=HEARTBEAT_S + 1)
    exchange.round(seconds=172_800 - HEARTBEAT_S)
    honest.tell(exchange, PRICE)
    governing.execute(replacing)
    assert exchange.oracle.reference(0)[0] == honest.contract.address


@pytest.mark.safety("E11", "contract")
def test_owners_get_out_while_the_feed_lies_for_good(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, feed: Feed, lying: int
) -> None:
    """Nobody ends the reference and no round comes any more: withdrawals wait in the inbox for a day, anybody freezes, and
    everybody is paid by the last prices that were accepted, to the unit."""
    last = exchange.last[0].mark_ticks
    equities = {party.account: exchange.margin(party.account).equity for party in (maker, taker)}
    assert len(set(equities.values())) == 2  # one has won what the other has lost
    freeze(exchange, maker)
    feed.tell(exchange, lying)
    with boa.reverts("oracle: far from its reference"):
        exchange.branch().post_public({})
    count_all(exchange)
    assert last == PRICE + 6_000
    for party in (maker, taker):
        assert take_and_pay(exchange, party) == equities[party.account]


def test_a_market_of_abstaining_keepers_is_dead_after_a_week(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, feed: Feed, lying: int
) -> None:
    """Keepers who abstain from the market for good keep the others alive, but lock nobody in: its holders leave after a week."""
    wait_for(governing, feed, lying, 7 * 86_400 - 60)
    with boa.reverts("exit: not a week without a price"):
        exchange.exit.freeze_dead_market(0)
    wait_for(governing, feed, lying, 60)
    exchange.exit.freeze_dead_market(0)
    count_all(exchange)
    assert take_and_pay(exchange, taker) > 0
    assert take_and_pay(exchange, maker) > 0
