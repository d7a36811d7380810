"""Listing and tuning markets: hard bounds, thin beginnings, the live index, and what the vault then does."""

from typing import Any

import boa
import pytest
from builders import MARKETS, Exchange, Party, market_config, refused
from governing import EXECUTED, HALTED, IN_FORCE, PRICE, PROPOSED, THIN, THIN_INDEX, WITHOUT_EFFECT, Governing
from msgspec.structs import replace
from test_deploy import BEYOND

from evermark.chain.governor import listing_arguments
from evermark.protocol.governance import broken_bounds, broken_thin_bounds
from evermark.protocol.markets import Market, Tier
from evermark.protocol.orders import Side


@pytest.mark.safety("H13", "ops")
@pytest.mark.safety("F04", "contract")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price_band_ppm": 999}, "governor: price band"),
        ({"price_band_ppm": 250_001}, "vault: price band"),
        ({"max_price_age_s": 9}, "governor: price age"),
        ({"max_price_age_s": 3_601}, "vault: price age"),
        ({"liquidation_fee_ppm": 10_001}, "vault: liquidation fee"),
        ({"tiers": (Tier(0, 19_999, 0),)}, "governor: leverage"),
        ({"tiers": (Tier(0, 1_000_001, 0),)}, "vault: fraction above 1"),
        ({"taker_fee_ppm": 2_001}, "governor: taker fee"),
        ({"taker_fee_ppm": -1}, "governor: taker fee"),
        ({"maker_fee_ppm": 2_001}, "governor: maker fee"),
        ({"maker_fee_ppm": -401}, "governor: maker fee"),
        ({"min_notional": 0}, "governor: min notional"),
        ({"min_notional": 1_000_000_001}, "governor: min notional"),
        ({"max_order_lots": 0}, "governor: order size"),
        ({"max_order_lots": 2**40}, "governor: order size"),
        ({"mark_band_ppm": 0}, "governor: mark band"),
        ({"mark_band_ppm": 16_667}, "governor: mark band"),
        ({"slice_notional": 999_999_999}, "governor: slice"),
        ({"slice_notional": 10**13 + 1}, "governor: slice"),
        ({"impact_notional": 99_999_999}, "governor: impact notional"),
        ({"impact_notional": 10**12 + 1}, "governor: impact notional"),
        ({"min_sources": 1}, "governor: sources"),
        ({"min_sources": 16}, "governor: sources"),
        ({"jump_ppm_per_s": 999}, "governor: jump band"),
        ({"jump_ppm_per_s": 100_001}, "governor: jump band"),
        ({"size_decimals": 1}, "governor: decimals"),
        ({"lot_tick_value": 10}, "governor: decimals"),
        ({"symbol": "pepe-PERP"}, "governor: name"),
        ({"symbol": "PEPE PERP"}, "governor: name"),
        *(({"symbol": f"A{letter}B"}, "governor: name") for letter in ",./:@["),
        ({"base": ""}, "governor: empty name"),
        ({"fund_position_cap_lots": 400_000_000_001}, "vault: fund position cap"),
    ],
)
def test_parameters_stay_within_hard_bounds(
    governing: Governing, change: dict[str, Any], reason: str
) -> None:
    """Contract and protocol refuse the same, one unit beyond each bound; what is at the bounds is in the last test's market."""
    market = replace(THIN, **change)
    assert broken_bounds(market)
    assert not broken_bounds(THIN)
    with boa.reverts(reason):
        governing.propose_market(market)


@pytest.mark.safety("F04", "contract")
@pytest.mark.parametrize(("changes", "reason"), BEYOND)
def test_what_a_deployment_refuses_is_not_proposed(
    governing: Governing, changes: dict[str, Any], reason: str
) -> None:
    """The vault's own bounds, one step beyond each: neither listed nor tuned."""
    _, terms = listing_arguments(THIN)
    with boa.reverts(reason):
        governing.propose("listing", market_config(THIN, **changes), terms, THIN_INDEX)
    with boa.reverts(reason):
        governing.propose("tuning", 0, market_config(MARKETS[0], **changes), terms)


@pytest.mark.safety("H17", "ops")
@pytest.mark.parametrize(
    ("change", "index", "reason"),
    [
        ({"tiers": (Tier(0, 99_999, 0),)}, THIN_INDEX, "governor: leverage of a new one"),
        ({}, 13, "governor: cap of a new one"),
        ({}, 0, "governor: index"),
        ({"fund_position_cap_lots": 40_000_000_001}, THIN_INDEX, "governor: fund in a new one"),
    ],
)
def test_a_new_market_is_thin(governing: Governing, change: dict[str, Any], index: int, reason: str) -> None:
    """Leverage of 10, five million of open interest at its index, a tenth of it for the insurance fund: no more to begin with."""
    market = replace(THIN, **change)
    assert broken_thin_bounds(market, index)
    assert not broken_thin_bounds(THIN, THIN_INDEX)
    with boa.reverts(reason):
        governing.propose_market(market, index)
    governing.propose_market()


def test_a_listed_market_trades(governing: Governing, exchange: Exchange, maker: Party, taker: Party) -> None:
    """From its first price on, margined by its own tiers; a second market of that symbol is refused, or has no effect."""
    proposal, again = governing.propose_market(), governing.propose_market()
    assert governing.state(proposal) == PROPOSED
    governing.wait()
    governing.execute(proposal)
    assert governing.state(proposal) == EXECUTED
    with boa.reverts("inbox: one of this kind is open"):
        governing.execute(again)
    assert exchange.vault.market_count() == 4
    governing.consume()
    exchange.list_market(THIN)
    governing.execute(again)
    governing.consume()
    assert (governing.state(proposal), governing.state(again)) == (IN_FORCE, WITHOUT_EFFECT)
    assert exchange.vault.market_count() == exchange.oracle.market_count() == 5
    with boa.reverts("governor: symbol is listed"):
        governing.propose_market()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000_000, THIN_INDEX, market=4)
    with refused("vault: price outside band"):  # no price yet: its mark is zero
        batch.settle()
    exchange.round({4: THIN_INDEX})
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000_000, THIN_INDEX, market=4)
    batch.settle()
    assert exchange.vault.position(taker.account, 4).size == 1_000_000
    assert exchange.margin(taker.account).initial == 1_200_000  # a tenth of 12 USDC


def tuned(change: dict[str, Any], market: Market = MARKETS[0]) -> tuple[Any, ...]:
    return (market.market_id, *listing_arguments(replace(market, **change)))


@pytest.mark.safety("B18", "contract")
@pytest.mark.safety("F09", "contract")
def test_parameters_of_a_market_are_tuned(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Margins, band and jump from the next round on; the market's index, interest and symbol stay."""
    before = exchange.vault.market_words(0)
    change = {"tiers": (Tier(0, 50_000, 0),), "price_band_ppm": 1_000, "jump_ppm_per_s": 2_000}
    proposal = governing.propose("tuning", *tuned(change))
    governing.wait()
    governing.execute(proposal)
    governing.consume()
    after = exchange.vault.market_words(0)
    assert after[1] & 2**128 - 1 == 50_000 << 48
    assert after[4] >> 225 & 2**20 - 1 == 50_000
    assert (after[0] ^ before[0]) & ~(0xFFFFFF << 32 | 0xFFFFFFFF << 216) == 0
    assert after[3] == before[3]
    assert (after[4] ^ before[4]) & 2**224 - 1 == 0
    assert exchange.oracle.jump_ppm_per_s(0) == 2_000
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE + 601)
    with refused("vault: price outside band"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE + 600)
    batch.settle()


@pytest.mark.safety("H13", "ops")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"open_interest_cap_lots": 2 * MARKETS[0].open_interest_cap_lots + 1}, "governor: too large a step"),
        ({"tiers": (Tier(0, 50_001, 0),)}, "governor: too large a step"),
        ({"size_decimals": 4, "lot_tick_value": 10}, "governor: too large a step"),
        ({"open_interest_cap_lots": 2 * MARKETS[0].open_interest_cap_lots}, None),
        ({"tiers": (Tier(0, 50_000, 0),)}, None),
    ],
)
def test_a_tuning_goes_one_step_at_most(
    governing: Governing, change: dict[str, Any], reason: str | None
) -> None:
    """A cap at most doubles, the first fraction at most doubles or halves, in 48 hours."""
    proposal = governing.propose("tuning", *tuned(change | {"max_order_lots": 10}))
    governing.wait()
    if reason is None:
        governing.execute(proposal)
        return
    with boa.reverts(reason):
        governing.execute(proposal)


@pytest.mark.safety("H13", "ops")
def test_a_tuning_is_measured_by_the_live_index(governing: Governing, exchange: Exchange) -> None:
    """A cap worth more than a billion at the index of the moment that queues it, or a stale price: refused."""
    change = {"open_interest_cap_lots": MARKETS[0].open_interest_cap_lots * 2}
    proposal = governing.propose("tuning", *tuned(change))
    governing.wait()
    exchange.round({0: 1_000_001})
    with boa.reverts("governor: cap at the live index"):
        governing.execute(proposal)
    exchange.round({0: 1_000_000})
    boa.env.timestamp += MARKETS[0].max_price_age_s + 1
    with boa.reverts("governor: no live price"):
        governing.execute(proposal)
    boa.env.timestamp = exchange.clock
    governing.execute(proposal)


def test_a_first_fraction_at_most_halves(governing: Governing) -> None:
    """A tenth becomes a twentieth in one step, and no less."""
    avax = MARKETS[3]
    assert avax.tiers[0].initial_fraction_ppm == 100_000
    for fraction in (49_999, 50_000):
        change = {"tiers": (Tier(0, fraction, 0),), "mark_band_ppm": 8_000}
        proposal = governing.propose("tuning", *tuned(change, avax))
        governing.wait()
        if fraction == 50_000:
            governing.execute(proposal)
            return
        with boa.reverts("governor: too large a step"):
            governing.execute(proposal)


def test_a_tuning_that_no_longer_fits_has_no_effect(governing: Governing, exchange: Exchange) -> None:
    """The queue goes on when the market changed after the step that queued it: here its lot is worth something else."""
    proposal = governing.propose("tuning", *tuned({"price_band_ppm": 1_000}))
    governing.wait()
    governing.execute(proposal)
    before = exchange.vault.word(1 << 39)
    exchange.vault.write(1 << 39, before ^ 8, sender=exchange.clerk.address)
    with boa.env.anchor():
        governing.consume()
        assert governing.state(proposal) == WITHOUT_EFFECT
        assert exchange.vault.word(1 << 39) == before ^ 8
    exchange.clock = boa.env.timestamp
    exchange.vault.write(1 << 39, before, sender=exchange.clerk.address)
    governing.exchange.round()
    governing.consume()
    assert governing.state(proposal) == IN_FORCE


@pytest.mark.parametrize("paused", [False, True])
def test_a_market_that_ends_is_neither_tuned_nor_delisted_again(
    governing: Governing, exchange: Exchange, paused: bool
) -> None:
    """From the batch on that consumed its delisting, whether a pause still runs or not; other markets are."""
    proposals = [governing.propose("delisting", 0) for _ in range(2)]
    proposals += [governing.propose("tuning", *tuned({"price_band_ppm": 1_000}))]
    proposals += [governing.propose("tuning", *tuned({"price_band_ppm": 1_000}, MARKETS[1]))]
    governing.wait()
    if paused:
        governing.pause(HALTED, 3_600)
        governing.consume()
    for proposal in proposals[:2]:
        governing.execute(proposal)
        governing.consume()
    assert [governing.state(proposal) for proposal in proposals[:2]] == [IN_FORCE, WITHOUT_EFFECT]
    with boa.reverts("governor: too large a step"):
        governing.execute(proposals[2])
    governing.execute(proposals[3])


def test_a_sixty_fifth_market_has_no_effect(governing: Governing, exchange: Exchange) -> None:
    """The oracle has room for 64: the queue goes on, and with a place left the market is listed."""
    proposal = governing.propose_market()
    governing.wait()
    for _ in range(59):
        exchange.oracle.add_market(1_000, sender=exchange.governor)
    governing.execute(proposal)
    for room in (False, True):
        with boa.env.anchor():
            if not room:
                exchange.oracle.add_market(1_000, sender=exchange.governor)
            batch = exchange.batch()
            batch.inbox(None)
            batch.settle()
            assert governing.state(proposal) == (IN_FORCE if room else WITHOUT_EFFECT)
            assert exchange.oracle.market_count() == 64
            assert (exchange.vault.word((1 << 39) + 63) != 0) == room
