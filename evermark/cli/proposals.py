"""A proposal's content as `evermark govern show` prints it: what is in force, what would be, and the bounds of the change."""

from typing import TYPE_CHECKING

from evermark.cli.units import format_scaled

if TYPE_CHECKING:
    from evermark.chain.governor import Reference
    from evermark.protocol.markets import Market, Tier

# Of `evermark/protocol/governance.py`, as people read them; the governor's contract decides.
BOUNDS = {
    "tiers": "leverage at most 50; the first fraction at most doubles or halves",
    "maker_fee_ppm": "at most 2,000; a rebate at most the taker fee",
    "taker_fee_ppm": "0 to 2,000",
    "min_notional": "above 0, at most 1,000 USDC",
    "max_order_lots": "within the open interest cap",
    "open_interest_cap_lots": "at most doubles; worth at most 1,000,000,000 USDC at the live index",
    "fund_position_cap_lots": "within the open interest cap",
    "price_band_ppm": "1,000 to 250,000",
    "mark_band_ppm": "at most a third of the first maintenance fraction",
    "max_price_age_s": "10 to 3,600",
    "liquidation_fee_ppm": "at most 10,000",
    "slice_notional": "1,000 to 10,000,000 USDC",
    "impact_notional": "100 to 1,000,000 USDC",
    "min_sources": "2 to 15",
    "jump_ppm_per_s": "1,000 to 100,000",
}
IN_USDC = ("min_notional", "slice_notional", "impact_notional")
REFERENCE_BOUNDS = {
    "deviation_ppm": "1,000 to 500,000",
    "heartbeat_s": "60 to 172,800",
    "tick_scale": "1 to 10^36",
}


def tuning_rows(present: "Market | None", tuned: "Market") -> dict[str, str]:
    """Every parameter that changes, with its bounds; all of them where what was in force is not known any more."""
    rows = {"market": tuned.symbol}
    for field, bounds in BOUNDS.items():
        after = _shown(tuned, field)
        before = "" if present is None else _shown(present, field)
        if after != before:
            rows[field] = f"{before} -> {after}  ({bounds})" if before else f"{after}  ({bounds})"
    return rows


def new_market_rows(market: "Market") -> dict[str, str]:
    """A market that is not listed yet."""
    decimals = {
        "base": market.base,
        "decimals": f"{market.size_decimals} of size, {market.price_decimals} of price",
    }
    return {"market": market.symbol} | decimals | {field: _shown(market, field) for field in BOUNDS}


def reference_rows(present: "Reference | None", proposed: "Reference") -> dict[str, str]:
    """The feed and what it bounds; `present` where the proposal still waits."""
    rows = {}
    if present is not None:
        rows["present feed"] = present.feed if present.is_set else "none"
    rows["feed"] = proposed.feed if proposed.is_set else "none: no reference any more"
    if proposed.is_set:
        for field, bounds in REFERENCE_BOUNDS.items():
            rows[field] = f"{getattr(proposed, field):,}  ({bounds})"
        rows["when executed"] = "must answer, and agree with the live index"
    return rows


def _shown(market: "Market", field: str) -> str:
    if field == "tiers":
        return ", ".join(_tier(tier) for tier in market.tiers)
    value = int(getattr(market, field))
    return f"{format_scaled(value, 6)} USDC" if field in IN_USDC else f"{value:,}"


def _tier(tier: "Tier") -> str:
    return (
        f"{format_scaled(tier.initial_fraction_ppm, 4)} % from {format_scaled(tier.lower_notional, 6)} USDC"
    )
