"""Listing at deployment: parameters outside the hard bounds are refused, inside they are stored as documented."""

import boa
import pytest
from builders import MARKETS, USDC, deployer, market_config

TEN_PERCENT = 100_000
ROLES = ("token", "oracle", "inbox", "clerk", "backstop", "reasons", "verifier", "lens", "exit", "sequencer")

# One step beyond each bound of what a market may be, and the reason.
BEYOND = [
    ({"symbol": ""}, "vault: empty symbol"),
    ({"lot_tick_value": 0}, "vault: lot tick value"),
    ({"lot_tick_value": 2**32}, "vault: lot tick value"),
    ({"price_band_ppm": 0}, "vault: price band"),
    ({"price_band_ppm": 250_001}, "vault: price band"),
    ({"liquidation_fee_ppm": 10_001}, "vault: liquidation fee"),
    ({"max_price_age_s": 0}, "vault: price age"),
    ({"max_price_age_s": 3_601}, "vault: price age"),
    ({"open_interest_cap_lots": 0}, "vault: open interest cap"),
    ({"open_interest_cap_lots": 2**62}, "vault: open interest cap"),
    ({"fund_position_cap_lots": 2**61}, "vault: fund position cap"),
    ({"tiers": []}, "vault: first tier from 0"),
    ({"tiers": [(1, TEN_PERCENT)]}, "vault: first tier from 0"),
    ({"tiers": [(0, 0)]}, "vault: fractions ascend"),
    ({"tiers": [(0, 1_000_001)]}, "vault: fraction above 1"),
    ({"tiers": [(0, TEN_PERCENT), (0, TEN_PERCENT)]}, "vault: tiers ascend"),
    ({"tiers": [(0, TEN_PERCENT), (5, TEN_PERCENT - 1)]}, "vault: fractions ascend"),
    ({"tiers": [(0, TEN_PERCENT), (2**32, TEN_PERCENT)]}, "vault: tier too high"),
]


def deploy(config=None, **roles):
    addresses = [roles.get(name) or boa.env.generate_address() for name in ROLES]
    configs = [market_config(MARKETS[0])] if config is None else config
    with boa.env.anchor():
        return deployer("MarginVault").deploy(*addresses, configs)


def newly_deployed(config):
    """A vault of one market, which lasts as long as the caller's anchor."""
    return deployer("MarginVault").deploy(*[boa.env.generate_address() for _ in ROLES], [config])


@pytest.mark.parametrize("changes, reason", BEYOND)
@pytest.mark.safety("F04", "contract")
def test_parameters_have_hard_bounds(changes: dict, reason: str) -> None:
    """Each bound is refused beyond its edge."""
    with boa.reverts(reason):
        deploy([market_config(MARKETS[0], **changes)])


@pytest.mark.safety("F04", "contract")
def test_the_edges_themselves_are_accepted() -> None:
    """The last admissible values deploy, and so do the least."""
    most = {
        "lot_tick_value": 2**32 - 1,
        "price_band_ppm": 250_000,
        "liquidation_fee_ppm": 10_000,
        "max_price_age_s": 3_600,
        "open_interest_cap_lots": 2**62 - 1,
        "fund_position_cap_lots": 2**62 - 1,
        "tiers": [(0, 1), (2**32 - 1, 10**6)],
    }
    least = {
        "lot_tick_value": 1,
        "price_band_ppm": 1,
        "liquidation_fee_ppm": 0,
        "max_price_age_s": 1,
        "open_interest_cap_lots": 1,
        "fund_position_cap_lots": 0,
        "tiers": [(0, 1)],
    }
    for edges in (most, least):
        deploy([market_config(MARKETS[0], **edges)])


def test_a_symbol_is_listed_once_and_roles_are_given() -> None:
    """Two markets of one name, no market, or a zero address for a role are refused."""
    with boa.reverts("vault: symbol listed twice"):
        deploy([market_config(MARKETS[0]), market_config(MARKETS[0])])
    with boa.reverts("vault: no markets"):
        deploy([])
    for role in ROLES:
        with boa.reverts("vault: zero address"):
            deploy(**{role: "0x" + "00" * 20})


def test_market_words_are_packed_as_documented(exchange) -> None:
    """P, T0, T1 and H of every market, from the low bits, as docs/settlement.md has them."""
    for market in exchange.markets:
        p, t0, t1, symbol, s = exchange.vault.market_words(market.market_id)
        second = market.tiers[1].lower_notional if len(market.tiers) > 1 else 2**127
        assert s >> 225 == market.tiers[0].initial_fraction_ppm | (second.bit_length() - 1) << 20
        fields = []
        for width in (32, 24, 16, 16, 64, 64, 32, 8):
            fields.append(p & (1 << width) - 1)
            p >>= width
        third = market.tiers[2].lower_notional // USDC if len(market.tiers) > 2 else 0
        assert fields == [
            market.lot_tick_value,
            market.price_band_ppm,
            market.liquidation_fee_ppm,
            market.max_price_age_s,
            market.open_interest_cap_lots,
            market.fund_position_cap_lots,
            third,
            0,
        ]
        packed = [t0 & 2**128 - 1, t0 >> 128, t1 & 2**128 - 1, t1 >> 128]
        for tier, word in zip(market.tiers, packed, strict=False):
            assert word & 2**48 - 1 == tier.lower_notional // USDC
            assert word >> 48 & 2**24 - 1 == tier.initial_fraction_ppm
            assert word >> 72 == tier.deduction
        assert not any(packed[len(market.tiers) :])
        from eth_hash.auto import keccak

        assert symbol == int.from_bytes(keccak(market.symbol.encode()), "big")
    assert exchange.vault.market_count() == len(exchange.markets)


def test_words_that_batches_rewrite_begin_above_zero() -> None:
    """A first use costs no more than any other: reserved accounts have a taker sequence of 1, markets their set bit."""
    with boa.env.anchor():
        vault = newly_deployed(market_config(MARKETS[0]))
        assert [vault.word(account) for account in (1, 2)] == [1 << 96] * 2
        assert vault.word((1 << 39) + 256) >> 224 & 1 == 1
        assert vault.word((1 << 39) + 512) == 1 << 48 | 2 << 112


@pytest.mark.parametrize("market", [0, 3])
def test_a_running_word_follows_the_first_tier(exchange, market: int) -> None:
    """Whatever it was before, when the tiers' word changes, and nothing else in it does."""
    s, t0 = ((1 << 39) + 64 * table + market for table in (4, 1))
    before = exchange.vault.word(s)
    for fraction, second in ((TEN_PERCENT + 1, 3), (TEN_PERCENT, 4), (2**20 - 1, 2**32 - 1)):
        exchange.vault.write(t0, fraction << 48 | second << 128, sender=exchange.clerk.address)
        bits = (second * USDC).bit_length() - 1
        assert exchange.vault.word(s) == before & 2**225 - 1 | fraction << 225 | bits << 245


def test_a_market_of_one_tier_says_so_in_its_running_word() -> None:
    """Every notional that there can be has fewer bits than it names, and the word's spare bits stay empty."""
    config = market_config(MARKETS[0], tiers=[(0, TEN_PERCENT)])
    with boa.env.anchor():
        vault = newly_deployed(config)
        assert vault.word((1 << 39) + 256) == 1 << 224 | TEN_PERCENT << 225 | 127 << 245
