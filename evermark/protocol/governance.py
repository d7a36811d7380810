"""What governor and guardian may change of a running exchange, and how far: the mirror of `contracts/modules/market_bounds.vy`
and of the checks in `contracts/Governor.vy`."""

from collections.abc import Sequence

import msgspec

from evermark.protocol.markets import MAX_JUMP_PPM, MAX_MARKETS, MIN_JUMP_PPM, Market, Tier
from evermark.protocol.units import PPM, USDC

DELAY_S = 172_800  # 48 hours from proposing to executing
LONG_DELAY_S = 1_209_600  # 14 days: adding a keeper, quorums, guardian, governor
WINDOW_S = 86_400  # in which a proposal may be executed, at most
MAX_PAUSE_S = 259_200  # 72 hours, all pauses of a market that belong together
NOTICE_S = 259_200  # 72 hours from a delisting in force to the end of the hour whose mean index settles it
PAUSE_REST_S = 604_800  # a week between them and the next

MAX_KEEPERS = 15
THIN_INTEREST = 5_000_000 * USDC  # open interest of a new market at its index, at most
THIN_FRACTION_PPM = 100_000  # its leverage is at most 10
THIN_FUND_SHARE = 10  # the insurance fund holds at most a tenth of its cap
MAX_INTEREST = 1_000_000_000 * USDC  # open interest of any market at its live index
ORACLE_ROLE, FUNDING_ROLE = 0, 1


class Change(msgspec.Struct, frozen=True, tag=True, tag_field="change"):
    """Base of what an inbox entry of governor or guardian changes."""


class ListMarket(Change, frozen=True):
    """A further market; it gets the next id, whatever `market_id` says."""

    market: Market


class TuneMarket(Change, frozen=True):
    """Other parameters of a market."""

    market: Market


class DelistMarket(Change, frozen=True):
    """Reduce-only, until the market is settled in cash."""

    market_id: int


class SettleMarket(Change, frozen=True):
    """A delisted market is closed; its positions end in cash at `price`, in ticks, which the oracle's contract has found."""

    market_id: int
    price: int


class SetKeeper(Change, frozen=True):
    """Register or remove an oracle (0) or funding (1) keeper."""

    role: int
    keeper: bytes
    registered: bool


class SetQuorums(Change, frozen=True):
    """Reports that a round and a funding hour take."""

    oracle_quorum: int
    funding_quorum: int


class SetSequencer(Change, frozen=True):
    """Who settles from the next batch on."""

    sequencer: bytes


class PauseMarket(Change, frozen=True):
    """A guardian's mode until a time in unix seconds; mode 0 lifts it."""

    market_id: int
    mode: int
    until: int


AnyChange = (
    ListMarket
    | TuneMarket
    | DelistMarket
    | SettleMarket
    | SetKeeper
    | SetQuorums
    | SetSequencer
    | PauseMarket
)


def fits(present: Market, tuned: Market) -> bool:
    """Whether parameters are within reach of those in force: a cap at most doubles, the first fraction at most doubles or
    halves, and a lot's worth stays."""
    was, first = present.tiers[0].initial_fraction_ppm, tuned.tiers[0].initial_fraction_ppm
    return (
        present.lot_tick_value == tuned.lot_tick_value
        and tuned.open_interest_cap_lots <= 2 * present.open_interest_cap_lots
        and was <= 2 * first
        and first <= 2 * was
    )


def tiers_of(rows: Sequence[tuple[int, int]]) -> tuple[Tier, ...]:
    """Rows of (lower notional in whole USDC, initial fraction in ppm), as the vault's config has them -> tiers."""
    tiers: list[Tier] = []
    for lower_usdc, fraction in rows:
        lower, deduction = lower_usdc * USDC, 0
        if tiers:
            last = tiers[-1]
            deduction = last.deduction + lower * (fraction - last.initial_fraction_ppm) // PPM
        tiers.append(Tier(lower, fraction, deduction))
    return tuple(tiers)


def broken_bounds(market: Market) -> list[str]:
    """The hard bounds that a proposal's parameters break, by name; empty for a proposal that the governor's contract takes."""
    first, cap = market.tiers[0].initial_fraction_ppm, market.open_interest_cap_lots
    decimals = market.size_decimals + market.price_decimals
    rules = {
        "symbol of capital letters, digits and dashes": _is_name(market.symbol, 32),
        "base of capital letters, digits and dashes": _is_name(market.base, 16),
        "size and price decimals together at most 6": min(market.size_decimals, market.price_decimals) >= 0
        and decimals <= 6
        and market.lot_tick_value == 10 ** (6 - decimals),
        "price band from 0.1 % to 25 %": 1_000 <= market.price_band_ppm <= 250_000,
        "price age from 10 s to an hour": 10 <= market.max_price_age_s <= 3_600,
        "leverage at most 50": first >= 20_000,
        "margin fractions at most 1": all(tier.initial_fraction_ppm <= PPM for tier in market.tiers),
        "liquidation fee at most 1 %": 0 <= market.liquidation_fee_ppm <= 10_000,
        "taker fee at most 0.2 %": 0 <= market.taker_fee_ppm <= 2_000,
        "maker fee at most 0.2 %, a rebate at most the taker fee": -market.taker_fee_ppm
        <= market.maker_fee_ppm
        <= 2_000,
        "smallest order up to 1,000 USDC": 0 < market.min_notional <= 1_000 * USDC,
        "largest order within the open interest cap": 0 < market.max_order_lots <= cap < 2**62,
        "fund's cap within the open interest cap": 0 <= market.fund_position_cap_lots <= cap,
        "mark band at most a third of maintenance": market.mark_band_ppm > 0
        and market.mark_band_ppm * 6 <= first,
        "slice from 1,000 to 10,000,000 USDC": 1_000 * USDC <= market.slice_notional <= 10_000_000 * USDC,
        "impact notional from 100 to 1,000,000 USDC": 100 * USDC
        <= market.impact_notional
        <= 1_000_000 * USDC,
        "2 to 15 sources": 2 <= market.min_sources <= 15,
        "jump from 0.1 % to 10 % a second": MIN_JUMP_PPM <= market.jump_ppm_per_s <= MAX_JUMP_PPM,
    }
    return [rule for rule, holds in rules.items() if not holds]


def broken_thin_bounds(market: Market, index_ticks: int) -> list[str]:
    """What a new market breaks beyond `broken_bounds`."""
    first, cap = market.tiers[0].initial_fraction_ppm, market.open_interest_cap_lots
    rules = {
        "leverage of a new market at most 10": first >= THIN_FRACTION_PPM,
        "cap of a new market at most 5,000,000 USDC at its index": index_ticks > 0
        and market.notional(cap, index_ticks) <= THIN_INTEREST,
        "fund holds at most a tenth of a new market's cap": market.fund_position_cap_lots * THIN_FUND_SHARE
        <= cap,
    }
    return [rule for rule, holds in rules.items() if not holds]


def may_list(markets: Sequence[Market], symbol: str) -> bool:
    """Whether a symbol can become a further market."""
    return len(markets) < MAX_MARKETS and all(market.symbol != symbol for market in markets)


def _is_name(name: str, longest: int) -> bool:
    return 0 < len(name) <= longest and all(
        letter == "-" or "A" <= letter <= "Z" or "0" <= letter <= "9" for letter in name
    )
