# pragma version 0.4.3
"""
@title market_terms
@license Apache-2.0
@notice Checks a market's parameters against hard bounds and packs them; the mirror of `evermark/protocol/markets.py`.
"""

from . import ledger
from . import units
from ..interfaces import IMarginVault

MAX_LIQUIDATION_FEE_PPM: constant(uint256) = 10_000  # 1 %
MAX_PRICE_BAND_PPM: constant(uint256) = 250_000  # a fill a quarter away from the mark is no market price
MAX_PRICE_AGE_S: constant(uint256) = 3_600


struct Words:
    p: uint256
    t0: uint256
    t1: uint256


@pure
@internal
def pack(config: IMarginVault.MarketConfig) -> Words:
    """
    @dev Words P (mode normal), T0 and T1. Tiers ascend from 0; deductions keep the requirement continuous.
    """
    assert len(config.symbol) != 0, "vault: empty symbol"
    assert 0 < config.lot_tick_value and config.lot_tick_value <= units.U32, "vault: lot tick value"
    assert 0 < config.price_band_ppm and config.price_band_ppm <= MAX_PRICE_BAND_PPM, "vault: price band"
    assert config.liquidation_fee_ppm <= MAX_LIQUIDATION_FEE_PPM, "vault: liquidation fee"
    assert 0 < config.max_price_age_s and config.max_price_age_s <= MAX_PRICE_AGE_S, "vault: price age"
    assert 0 < config.open_interest_cap_lots, "vault: open interest cap"
    assert config.open_interest_cap_lots <= units.MAX_SIZE_LOTS, "vault: open interest cap"
    assert config.fund_position_cap_lots <= config.open_interest_cap_lots, "vault: fund position cap"
    tiers: uint256[4] = self._tiers(config.tiers)
    third_tier: uint256 = 0
    if len(config.tiers) > 2:
        third_tier = config.tiers[2].lower_usdc
    p: uint256 = (
        config.lot_tick_value
        | config.price_band_ppm << ledger.P_PRICE_BAND
        | config.liquidation_fee_ppm << ledger.P_LIQUIDATION_FEE
        | config.max_price_age_s << ledger.P_MAX_PRICE_AGE
        | config.open_interest_cap_lots << ledger.P_OPEN_INTEREST_CAP
        | config.fund_position_cap_lots << ledger.P_FUND_CAP
        | third_tier << ledger.P_THIRD_TIER
    )
    return Words(p=p, t0=tiers[0] | tiers[1] << 128, t1=tiers[2] | tiers[3] << 128)


@pure
@internal
def running_word(t0: uint256) -> uint256:
    """
    @dev Word S of a new market. A bit that is set keeps it from ever being zero, so that no first trade pays for a fresh word.
    """
    return 1 << 224 | ledger.first_tier(t0)


@pure
@internal
def _tiers(tiers: DynArray[IMarginVault.Tier, 4]) -> uint256[4]:
    assert len(tiers) != 0 and tiers[0].lower_usdc == 0, "vault: first tier from 0"
    packed: uint256[4] = empty(uint256[4])
    lower: uint256 = 0
    fraction: uint256 = 0
    deduction: uint256 = 0
    for i: uint256 in range(len(tiers), bound=4):
        tier: IMarginVault.Tier = tiers[i]
        assert i == 0 or tier.lower_usdc > lower, "vault: tiers ascend"
        assert tier.lower_usdc <= units.U32, "vault: tier too high"
        assert tier.initial_fraction_ppm >= max(fraction, 1), "vault: fractions ascend"
        assert tier.initial_fraction_ppm <= units.PPM, "vault: fraction above 1"
        lower = tier.lower_usdc
        if i != 0:
            deduction += lower * units.USDC * (tier.initial_fraction_ppm - fraction) // units.PPM
        fraction = tier.initial_fraction_ppm
        packed[i] = lower | fraction << 48 | deduction << 72
    return packed
