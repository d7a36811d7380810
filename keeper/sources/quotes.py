"""A price as some venue states it, in a market's ticks, with everything that says whether it may be used."""

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from evermark.protocol.units import MAX_PRICE_TICKS


class SourceKind(enum.StrEnum):
    """Only spot enters an index; perpetuals enter the mark."""

    SPOT = "spot"
    PERPETUAL = "perpetual"


class Origin(enum.StrEnum):
    """Where a quote comes from; shown beside it, so that nothing made up passes for a market."""

    LIVE = "live"
    RECORDED = "recorded"
    SYNTHETIC = "synthetic"
    SIMULATED = "simulated"


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's price of one market at `time_ms` (unix milliseconds of the chain's clock)."""

    venue: str
    market_id: int
    kind: SourceKind
    origin: Origin
    ticks: int
    time_ms: int
    spread_ppm: int = 0  # ask - bid over the middle; 0 when the venue states only a last price


class SourceRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a quote counts. A source with a wide interval is dropped, whatever its middle says."""

    max_age_s: int = 60
    max_spread_ppm: int = 10_000
    max_ahead_s: int = 5  # of the report's time; a venue's clock may differ a little


class SourceUnavailable(Exception):
    """A source cannot work at all; the message says why, for the person who started it."""


class PriceSource(Protocol):
    """Where a keeper's prices come from."""

    async def start(self) -> None:
        """Open what is needed. Raises SourceUnavailable within ten seconds when it cannot work."""

    async def quotes(self, now_s: int) -> tuple[Quote, ...]:
        """Newest quote of every venue and market known at chain time `now_s`, stale ones included."""

    async def close(self) -> None:
        """Release what was opened."""


def unfit(quote: Quote, rules: SourceRules, now_s: int) -> str:
    """Why a quote does not count; empty when it does."""
    age_ms = now_s * 1000 - quote.time_ms
    if not 0 < quote.ticks <= MAX_PRICE_TICKS:
        return f"price {quote.ticks} out of range"
    if age_ms > rules.max_age_s * 1000:
        return f"stale by {age_ms // 1000 - rules.max_age_s} s"
    if age_ms < -rules.max_ahead_s * 1000:
        return f"{-age_ms // 1000} s in the future"
    if quote.spread_ppm > rules.max_spread_ppm:
        return f"spread of {quote.spread_ppm} ppm"
    return ""


def middle(values: Sequence[int]) -> int:
    """Median; of an even number the mean of the middle two, floored."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2
