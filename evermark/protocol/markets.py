"""Market parameters. `markets.toml` beside this file is the one list that genesis, deploy and docs read."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from evermark.protocol.units import PPM, USDC

MAX_MARKETS: Final = 64
MAX_OPEN_MARKETS: Final = 16  # open positions of one account
MAX_TIERS: Final = 4  # two storage words on-chain
MIN_JUMP_PPM, MAX_JUMP_PPM = 1_000, 100_000  # bounds of `jump_ppm_per_s`


class Tier(msgspec.Struct, frozen=True):
    """One step of the margin table: from `lower_notional` quote units on, `initial_fraction_ppm` applies."""

    lower_notional: int
    initial_fraction_ppm: int
    deduction: int  # quote units; keeps the requirement continuous at the step


class Market(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that engine, vault, keepers and clients must agree on about one perpetual."""

    market_id: int
    symbol: str
    base: str
    size_decimals: int  # one lot is 10^-size_decimals of base
    price_decimals: int  # one tick is 10^-price_decimals of quote per base
    lot_tick_value: int  # quote units per lot per tick, exact
    tiers: tuple[Tier, ...]
    maker_fee_ppm: int  # negative: rebate
    taker_fee_ppm: int
    min_notional: int  # quote units, smallest order that is not reduce-only
    max_order_lots: int
    open_interest_cap_lots: int
    fund_position_cap_lots: int  # most the insurance fund holds in this market
    price_band_ppm: int  # fills stay within this distance of the mark
    mark_band_ppm: int  # the mark stays within this distance of the index
    max_price_age_s: int
    liquidation_fee_ppm: int
    slice_notional: int  # above it a liquidation closes 20 % at a time
    impact_notional: int  # quote units, for the funding premium
    min_sources: int  # spot venues an oracle keeper needs
    jump_ppm_per_s: int = 0  # how far its price may move in a second; 0, in old journals only, is no limit

    @property
    def max_leverage(self) -> int:
        """Leverage of the first tier, whole number."""
        return PPM // self.tiers[0].initial_fraction_ppm

    @property
    def funding_cap_ppb(self) -> int:
        """Hourly bound on the funding rate, either sign: min(4 %, half the first maintenance fraction)."""
        return min(40_000_000, self.tiers[0].initial_fraction_ppm * 250)

    def notional(self, size_lots: int, price_ticks: int) -> int:
        """Exact notional in quote units; sign follows `size_lots`."""
        return size_lots * price_ticks * self.lot_tick_value


def _tiers(rows: list[list[int]]) -> tuple[Tier, ...]:
    """Rows of [lower notional in whole USDC, leverage] -> tiers with their deductions."""
    tiers: list[Tier] = []
    for lower_usdc, leverage in rows:
        lower, fraction = lower_usdc * USDC, PPM // leverage
        deduction = 0
        if tiers:
            last = tiers[-1]
            deduction = last.deduction + lower * (fraction - last.initial_fraction_ppm) // PPM
        tiers.append(Tier(lower, fraction, deduction))
    return tuple(tiers)


def _market(row: dict[str, Any]) -> Market:
    fields = dict(row)
    fields["tiers"] = _tiers(fields["tiers"])
    scale = 6 - fields["size_decimals"] - fields["price_decimals"]
    if scale < 0:
        raise ValueError(f"{row['symbol']}: lot x tick is finer than one quote unit")
    fields["lot_tick_value"] = 10**scale
    for name in ("min_notional", "slice_notional", "impact_notional"):
        fields[name] = fields.pop(name + "_usdc") * USDC
    market = msgspec.convert(fields, Market)
    _validate(market)
    return market


def _validate(market: Market) -> None:
    """Hard bounds of a listing; the vault enforces the same ones."""
    first = market.tiers[0].initial_fraction_ppm
    fractions = [tier.initial_fraction_ppm for tier in market.tiers]
    lowers = [tier.lower_notional for tier in market.tiers]
    rules = {
        "market_id below 64": 0 <= market.market_id < MAX_MARKETS,
        "1 to 4 tiers": 1 <= len(fractions) <= MAX_TIERS,
        "first tier from 0": lowers[0] == 0,
        "tiers ascend": sorted(set(lowers)) == lowers and sorted(fractions) == fractions,
        "fractions within 1": all(0 < fraction <= PPM for fraction in fractions),
        "mark band at most a third of maintenance": market.mark_band_ppm * 6 <= first,
        "rebate at most the taker fee": -market.maker_fee_ppm <= market.taker_fee_ppm,
        "liquidation fee at most 1 %": market.liquidation_fee_ppm <= 10_000,
        "jump within 0.1 % and 10 % a second": MIN_JUMP_PPM <= market.jump_ppm_per_s <= MAX_JUMP_PPM,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"{market.symbol}: {rule}")


def load_market(path: Path) -> Market:
    """The one market of a file that proposes a listing; whatever id it has means nothing.

    Raises ValueError, KeyError or TypeError saying what is wrong.
    """
    (row,) = tomllib.loads(path.read_text())["market"]
    return _market({"market_id": 0, **row})


def load_markets(path: Path | None = None) -> tuple[Market, ...]:
    """Read a markets file (default: the packaged one), ordered by id; ids are dense from 0.

    Raises ValueError naming the market and the bound that it breaks.
    """
    text = path.read_text() if path else resources.files(__package__).joinpath("markets.toml").read_text()
    markets = tuple(_market(row) for row in tomllib.loads(text)["market"])
    if [market.market_id for market in markets] != list(range(len(markets))):
        raise ValueError("market ids must be dense and ascending from 0")
    if len({market.symbol for market in markets}) != len(markets):
        raise ValueError("market symbols must be unique")
    return markets
