"""What lies exactly on a bound is allowed, and one unit further is not."""

import pytest
from msgspec.structs import replace

import evermark.protocol.markets as module
from evermark.protocol.margin import AccountMargin
from evermark.protocol.markets import Market, Tier, load_markets
from evermark.protocol.merkle import MAX_BATCH_ORDERS, merkle_paths
from evermark.protocol.oracle import NO_PRICE
from evermark.protocol.units import PPM, USDC

BTC, ETH = load_markets()[:2]


def is_listed(market: Market) -> bool:
    try:
        module._validate(market)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "field, least, most",
    [
        ("market_id", 0, 63),
        ("mark_band_ppm", 0, BTC.tiers[0].initial_fraction_ppm // 6),
        ("maker_fee_ppm", -BTC.taker_fee_ppm, BTC.maker_fee_ppm),
        ("liquidation_fee_ppm", 0, 10_000),
        ("jump_ppm_per_s", 1_000, 100_000),
    ],
)
def test_a_market_is_listed_within_its_bounds(field, least, most):
    for value in (least, most):
        assert is_listed(replace(BTC, **{field: value}))
    if field != "maker_fee_ppm":  # which has no upper bound of its own
        assert not is_listed(replace(BTC, **{field: most + 1}))
    if least:
        assert not is_listed(replace(BTC, **{field: least - 1}))
    elif field == "market_id":
        assert not is_listed(replace(BTC, market_id=-1))


@pytest.mark.parametrize(
    "tiers, allowed",
    [
        ([(0, 25_000)], True),
        ([(0, 25_000), (1, 25_000), (2, 50_000), (3, PPM)], True),
        ([(0, 25_000), (1, 30_000), (2, 50_000), (3, 60_000), (4, PPM)], False),  # five
        ([(1, 25_000)], False),
        ([(0, 25_000), (1, PPM + 1)], False),
        ([(0, 25_000), (1, 24_999)], False),
        ([(0, 25_000), (5, 30_000), (5, 40_000)], False),
        ([(0, 25_000), (6, 30_000), (5, 40_000)], False),
    ],
)
def test_tiers_ascend_from_nothing(tiers, allowed):
    listed = tuple(Tier(lower * USDC, fraction, 0) for lower, fraction in tiers)
    assert is_listed(replace(BTC, tiers=listed)) is allowed


def test_a_mark_band_is_a_third_of_maintenance_at_most_and_a_fraction_above_nothing():
    for fraction, band, allowed in (
        (30_000, 5_000, True),
        (30_000, 5_001, False),
        (1, 0, True),
        (0, 0, False),
    ):
        market = replace(BTC, tiers=(Tier(0, fraction, 0),), mark_band_ppm=band)
        assert is_listed(market) is allowed


def test_an_account_without_positions_needs_nothing():
    for collateral in (-1, 0, 1):
        empty = AccountMargin(collateral)
        assert (empty.equity, empty.initial, empty.maintenance, empty.notional) == (collateral, 0, 0, 0)
        assert empty.liquidatable is (collateral < 0)
        assert empty.withdrawable == max(0, collateral)


def test_requirements_add_up_over_positions_and_round_up():
    """One lot of each at a tick: 1 unit and 1 unit of notional, of which any share rounds up to a whole unit."""
    account = AccountMargin(10)
    for market, size in ((BTC, 1), (ETH, -1)):
        plain = replace(market, lot_tick_value=1)
        account.add_position(plain, size, 1, owed=2)
    assert (account.equity, account.initial, account.maintenance, account.notional) == (6, 2, 2, 2)
    assert account.withdrawable == 6 - 2
    assert not account.liquidatable


def test_the_largest_order_batch_has_six_siblings():
    paths = merkle_paths([bytes([number]) * 32 for number in range(MAX_BATCH_ORDERS)])[1]
    assert MAX_BATCH_ORDERS == 64
    assert {len(path) for path in paths} == {6}


def test_no_price_has_no_part():
    assert (NO_PRICE.index_ticks, NO_PRICE.mark_ticks, NO_PRICE.updated_at) == (0, 0, 0)
