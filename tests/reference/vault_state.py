"""The state of the vault's reference model: markets, accounts, prices, margins, with the rounding of docs/settlement.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil


@dataclass
class Tier:
    lower: int
    fraction_ppm: int
    deduction: int


@dataclass
class Market:
    lot_tick_value: int
    price_band_ppm: int
    liquidation_fee_ppm: int
    max_price_age_s: int
    open_interest_cap: int
    fund_cap: int
    tiers: list[Tier]
    cumulative: int = 0
    open_interest: int = 0
    last_hour: int = 0

    def initial(self, notional: int) -> int:
        tier = max((tier for tier in self.tiers if tier.lower <= notional), key=lambda tier: tier.lower)
        return ceil(Fraction(notional * tier.fraction_ppm, 10**6)) - tier.deduction

    def maintenance(self, notional: int) -> int:
        return ceil(Fraction(self.initial(notional), 2))

    @property
    def funding_cap(self) -> int:
        return min(40_000_000, self.tiers[0].fraction_ppm * 250)


@dataclass
class Position:
    size: int = 0
    entry_cumulative: int = 0
    entry_mark: int = 0


@dataclass
class Account:
    collateral: int = 0
    taker_sequence: int = 0
    min_sequence: int = 0
    action_sequence: int = 0
    positions: dict[int, Position] = field(default_factory=dict)
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)
    triggered: dict[int, int] = field(default_factory=dict)  # slot -> the sequence that was triggered

    def open(self) -> dict[int, Position]:
        return {market: position for market, position in self.positions.items() if position.size}


@dataclass
class Price:
    index: int
    mark: int
    updated_at: int
    clamped: bool = False


@dataclass
class Margin:
    equity: int
    initial: int = 0
    maintenance: int = 0
    notional: int = 0
    fresh: bool = True
