"""What the keeper tests share: markets, quotes in one line, a view of a round."""

from evermark.protocol.markets import load_markets
from keeper.oracle import BookTop, OracleView
from keeper.sources.quotes import Origin, Quote, SourceKind, SourceRules

MARKETS = load_markets()
BTC, ETH, SOL, AVAX = MARKETS
NOW_S = 1_760_129_400  # 2025-10-10T20:50:00Z
RULES = SourceRules()


def spot(venue: str, ticks: int, *, age_s: int = 1, spread_ppm: int = 0, market: int = 0) -> Quote:
    """A spot venue's quote, a second old unless told."""
    return Quote(
        venue=venue,
        market_id=market,
        kind=SourceKind.SPOT,
        origin=Origin.SIMULATED,
        ticks=ticks,
        time_ms=(NOW_S - age_s) * 1000,
        spread_ppm=spread_ppm,
    )


def perpetual(venue: str, ticks: int, *, age_s: int = 1, market: int = 0) -> Quote:
    """A perpetual's quote."""
    return Quote(
        venue=venue,
        market_id=market,
        kind=SourceKind.PERPETUAL,
        origin=Origin.SIMULATED,
        ticks=ticks,
        time_ms=(NOW_S - age_s) * 1000,
    )


def view(*quotes: Quote, books: dict[int, BookTop] | None = None, now_s: int = NOW_S) -> OracleView:
    """A round's view at `now_s`, rounds of one second."""
    return OracleView(now_s, now_s, quotes, books or {})
