# pragma version 0.4.3
"""
@title market_bounds
@license Apache-2.0
@notice The hard bounds of what a governor may propose for a market; the mirror of `evermark/protocol/governance.py`.
"""

from . import market_terms
from . import units
from ..interfaces import IGovernor
from ..interfaces import IMarginVault

MIN_PRICE_BAND_PPM: constant(uint256) = 1_000
MIN_PRICE_AGE_S: constant(uint256) = 10
MIN_FRACTION_PPM: constant(uint256) = 20_000  # leverage of 50
MAX_FEE_PPM: constant(int256) = 2_000
MAX_MIN_NOTIONAL: constant(uint256) = 1_000 * units.USDC
MIN_SLICE: constant(uint256) = 1_000 * units.USDC
MAX_SLICE: constant(uint256) = 10_000_000 * units.USDC
MIN_IMPACT: constant(uint256) = 100 * units.USDC
MAX_IMPACT: constant(uint256) = 1_000_000 * units.USDC
MIN_SOURCES: constant(uint256) = 2  # never a single venue's price
MAX_SOURCES: constant(uint256) = 15
MIN_JUMP_PPM: constant(uint256) = 1_000
MAX_JUMP_PPM: constant(uint256) = 100_000
MAX_INTEREST: constant(uint256) = 1_000_000_000 * units.USDC  # open interest of one market at its live index

# What a market begins with at most, until it was tuned.
THIN_INTEREST: constant(uint256) = 5_000_000 * units.USDC
THIN_FRACTION_PPM: constant(uint256) = 100_000  # leverage of 10
THIN_FUND_SHARE: constant(uint256) = 10  # the insurance fund holds at most a tenth of the cap


@pure
@internal
def check(config: IMarginVault.MarketConfig, terms: IGovernor.Terms):
    packed: market_terms.Words = market_terms.pack(config)
    first: uint256 = config.tiers[0].initial_fraction_ppm
    self._check_name(convert(config.symbol, Bytes[32]))
    self._check_name(convert(terms.base, Bytes[32]))
    assert terms.size_decimals + terms.price_decimals <= 6, "governor: decimals"
    assert config.lot_tick_value == 10 ** (6 - terms.size_decimals - terms.price_decimals), "governor: decimals"
    assert config.price_band_ppm >= MIN_PRICE_BAND_PPM, "governor: price band"
    assert config.max_price_age_s >= MIN_PRICE_AGE_S, "governor: price age"
    assert first >= MIN_FRACTION_PPM, "governor: leverage"
    assert terms.taker_fee_ppm >= 0 and terms.taker_fee_ppm <= MAX_FEE_PPM, "governor: taker fee"
    assert terms.maker_fee_ppm <= MAX_FEE_PPM and terms.maker_fee_ppm >= -terms.taker_fee_ppm, "governor: maker fee"
    assert 0 < terms.min_notional and terms.min_notional <= MAX_MIN_NOTIONAL, "governor: min notional"
    assert 0 < terms.max_order_lots and terms.max_order_lots <= config.open_interest_cap_lots, "governor: order size"
    assert 0 < terms.mark_band_ppm and terms.mark_band_ppm * 6 <= first, "governor: mark band"
    assert MIN_SLICE <= terms.slice_notional and terms.slice_notional <= MAX_SLICE, "governor: slice"
    assert MIN_IMPACT <= terms.impact_notional and terms.impact_notional <= MAX_IMPACT, "governor: impact notional"
    assert MIN_SOURCES <= terms.min_sources and terms.min_sources <= MAX_SOURCES, "governor: sources"
    assert MIN_JUMP_PPM <= terms.jump_ppm_per_s and terms.jump_ppm_per_s <= MAX_JUMP_PPM, "governor: jump band"


@pure
@internal
def check_thin(config: IMarginVault.MarketConfig, index_ticks: uint256):
    """
    @dev A new market is thin: little leverage, a small cap, and little of it for the insurance fund.
    """
    assert 0 < index_ticks and index_ticks <= units.U32, "governor: index"
    assert config.tiers[0].initial_fraction_ppm >= THIN_FRACTION_PPM, "governor: leverage of a new one"
    assert self._interest(config, index_ticks) <= THIN_INTEREST, "governor: cap of a new one"
    assert config.fund_position_cap_lots * THIN_FUND_SHARE <= config.open_interest_cap_lots, "governor: fund in a new one"


@pure
@internal
def check_interest(config: IMarginVault.MarketConfig, index_ticks: uint256):
    assert self._interest(config, index_ticks) <= MAX_INTEREST, "governor: cap at the live index"


@pure
@internal
def _interest(config: IMarginVault.MarketConfig, index_ticks: uint256) -> uint256:
    return config.open_interest_cap_lots * index_ticks * config.lot_tick_value


@pure
@internal
def _check_name(name: Bytes[32]):
    """
    @dev Capital letters, digits and dashes: what wallets, addresses and columns show alike.
    """
    assert len(name) != 0, "governor: empty name"
    for i: uint256 in range(len(name), bound=32):
        letter: uint256 = convert(slice(name, i, 1), uint256)
        is_letter: bool = letter >= 65 and letter <= 90
        assert is_letter or letter == 45 or (letter >= 48 and letter <= 57), "governor: name"
