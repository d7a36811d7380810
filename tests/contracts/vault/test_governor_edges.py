"""What is just allowed to the governor: each bound itself, the last second, the largest step; and what a proposal says."""

from typing import Any

import boa
import pytest
from builders import MARKETS, Exchange, deployer, market_config
from eth_hash.auto import keccak
from governing import HALTED, HOUR_S, IN_FORCE, PROPOSED, THIN, THIN_INDEX, Governing
from msgspec.structs import replace
from test_deploy import newly_deployed
from test_governor import NEW, PROPOSALS
from test_governor_markets import tuned
from test_lying_reference import DEVIATION_PPM, Feed

from evermark.chain.governor import Action
from evermark.protocol.governance import DELAY_S, broken_bounds, broken_thin_bounds
from evermark.protocol.markets import Tier

P, T0, T1, H, S, M = ((1 << 39) + 64 * table for table in range(6))
FULL = MARKETS[0].open_interest_cap_lots


@pytest.mark.safety("H13", "ops")
@pytest.mark.parametrize(
    "change",
    [
        *({"price_band_ppm": bound} for bound in (1_000, 250_000)),
        *({"max_price_age_s": bound} for bound in (10, 3_600)),
        *({"liquidation_fee_ppm": bound} for bound in (0, 10_000)),
        {"tiers": (Tier(0, 20_000, 0),), "mark_band_ppm": 3_333},
        {"tiers": (Tier(0, 30_000, 0), Tier(2**32 - 1, 10**6, 0)), "mark_band_ppm": 5_000},
        {"taker_fee_ppm": 0, "maker_fee_ppm": 0},
        *({"taker_fee_ppm": 2_000, "maker_fee_ppm": bound} for bound in (-2_000, 2_000)),
        *({"min_notional": bound} for bound in (1, 10**9)),
        *({"max_order_lots": bound} for bound in (1, FULL)),
        {"mark_band_ppm": 1},
        *({"slice_notional": bound} for bound in (10**9, 10**13)),
        *({"impact_notional": bound} for bound in (10**8, 10**12)),
        *({"min_sources": bound} for bound in (2, 15)),
        *({"jump_ppm_per_s": bound} for bound in (1_000, 100_000)),
        {"size_decimals": 0, "price_decimals": 0, "lot_tick_value": 10**6},
        {"fund_position_cap_lots": FULL},
        {"base": "AZ-09"},
    ],
)
def test_each_bound_itself_may_be_proposed(governing: Governing, change: dict[str, Any]) -> None:
    """By contract and protocol alike."""
    assert not broken_bounds(replace(MARKETS[0], **change))
    assert governing.state(governing.propose("tuning", *tuned(change))) == PROPOSED


@pytest.mark.safety("H17", "ops")
@pytest.mark.parametrize(("cap", "index"), [(500_000_000_000, 10), (1_000, 2**32 - 1)])
def test_a_new_market_may_be_as_large_as_thin_allows(governing: Governing, cap: int, index: int) -> None:
    """Five million of open interest to the unit, at any index that a price can have."""
    market = replace(THIN, open_interest_cap_lots=cap, fund_position_cap_lots=cap // 10, max_order_lots=cap)
    assert not broken_thin_bounds(market, index)
    governing.propose_market(market, index)
    if index == 10:
        market = replace(market, open_interest_cap_lots=cap + 1)
        with boa.reverts("governor: cap of a new one"):
            governing.propose_market(market, index)
    else:
        with boa.reverts("governor: index"):
            governing.propose_market(market, index + 1)


def test_a_market_may_be_proposed_to_a_full_exchange(governing: Governing, exchange: Exchange) -> None:
    """All 64 are looked through, of four no more than there are; when it takes effect there may be room."""
    with boa.env.anchor():
        governing.propose_market()
        gas_of_four = governing.contract._computation.get_gas_used()
    for market in range(4, 64):
        exchange.vault.write(H | market, market, sender=exchange.clerk.address)
    governing.propose_market()
    assert governing.contract._computation.get_gas_used() > gas_of_four + 60 * 500


def test_a_listed_market_is_stored_as_a_deployed_one(governing: Governing, exchange: Exchange) -> None:
    """All of its words, with four tiers."""
    tiers = tuple(Tier(place * 10**12, 100_000 * (place + 1), 0) for place in range(4))
    market = replace(THIN, tiers=tiers)
    proposal = governing.propose_market(market)
    governing.wait()
    governing.execute(proposal)
    governing.consume()
    with boa.env.anchor():
        deployed = newly_deployed(market_config(market))
        for table in (P, T0, T1, H, S, M):
            assert exchange.vault.word(table | 4) == deployed.word(table)


@pytest.mark.safety("H13", "ops")
def test_a_tuning_is_measured_by_the_index_of_its_own_market(
    governing: Governing, exchange: Exchange
) -> None:
    """Of the second market in a word of prices too: its doubled cap may be worth a billion and no more."""
    avax = MARKETS[3]
    proposal = governing.propose("tuning", *tuned({"open_interest_cap_lots": 400_000_000}, avax))
    exchange.round({3: 250_001}, seconds=DELAY_S)
    with boa.reverts("governor: cap at the live index"):
        governing.execute(proposal)
    exchange.round({3: 250_000})
    governing.execute(proposal)


def test_a_tuning_leaves_a_pause_as_it_is(governing: Governing, exchange: Exchange) -> None:
    """Mode and end, while the other parameters change."""
    proposal = governing.propose("tuning", *tuned({"price_band_ppm": 1_000}))
    governing.wait()
    governing.pause(HALTED, HOUR_S)
    governing.consume()
    before = exchange.vault.word(M)
    governing.execute(proposal)
    governing.consume()
    p = exchange.vault.word(P)
    assert (p >> 32 & 2**24 - 1, p >> 248, exchange.vault.word(M)) == (1_000, HALTED, before)


@pytest.mark.safety("A05", "contract")
def test_a_feed_may_differ_by_its_deviation_to_the_unit(governing: Governing, exchange: Exchange) -> None:
    """By two percent of what it says, and by no tick more."""
    feed = Feed()
    assert DEVIATION_PPM == 20_000
    proposal = governing.propose("reference", 0, feed.reference)
    governing.wait()
    exchange.round({0: 510_001})
    feed.tell(exchange, 500_000)
    with boa.reverts("governor: the feed disagrees"):
        governing.execute(proposal)
    exchange.round({0: 510_000})
    feed.tell(exchange, 500_000)
    governing.execute(proposal)


def test_quorums_take_effect(governing: Governing, exchange: Exchange) -> None:
    """Each for its kind, up to fifteen, where there are keepers enough."""
    governing.propose("quorums", 15, 15, slow=True)
    oracle = exchange.oracle
    for add, count in ((oracle.add_oracle_keeper, 2), (oracle.add_funding_keeper, 4)):
        for number in range(count):
            add(boa.env.generate_address(f"keeper {number}"), sender=exchange.governor)
    proposal = governing.carry_out("quorums", 3, 5, slow=True)
    assert governing.state(proposal) == IN_FORCE
    assert (oracle.oracle_quorum(), oracle.funding_quorum()) == (3, 5)


def test_a_proposal_may_be_carried_out_in_the_last_second(governing: Governing, exchange: Exchange) -> None:
    """Its deadline included."""
    proposal = governing.propose("sequencer", NEW)
    boa.env.timestamp = governing.deadline()
    governing.execute(proposal)


@pytest.mark.parametrize(
    ("name", "action", "subject", "detail"),
    [
        ("listing", Action.LIST, int.from_bytes(keccak(THIN.symbol.encode()), "big"), THIN_INDEX),
        ("tuning", Action.TUNE, 0, 0),
        ("removal", Action.KEEPER, int(NEW, 16), 0),
        ("sequencer", Action.SEQUENCER, int(NEW, 16), 0),
        ("reference", Action.REFERENCE, 0, 0),
        ("addition", Action.KEEPER, int(NEW, 16), 1 | 1 << 8),
        ("quorums", Action.QUORUMS, 0, 1 | 1 << 8),
        ("guardian", Action.GUARDIAN, int(NEW, 16), 0),
        ("governor", Action.GOVERNOR, int(NEW, 16), 0),
    ],
)
def test_a_proposal_says_what_it_changes(
    governing: Governing, name: str, action: Action, subject: int, detail: int
) -> None:
    """As the interface has it: whom or which market it is about, and the rest."""
    call, arguments, slow = PROPOSALS[name]
    proposal = governing.contract.proposal(governing.propose(call, *arguments, slow=slow))
    assert (proposal.action, proposal.subject, proposal.detail) == (action, subject, detail)


def test_governor_and_guardian_are_two_at_deployment() -> None:
    """As they are for ever after."""
    roles = [boa.env.generate_address(role) for role in ("vault", "inbox", "oracle", "governor", "guardian")]
    with boa.env.anchor():
        deployer("Governor").deploy(*roles)
        with boa.reverts("governor: one for two roles"):
            deployer("Governor").deploy(*roles[:4], roles[3])
