"""Simulated venues: a seeded walk, a pure function of seed and chain time, so that all keepers see the same.

Straight-line noise of several periods, wider for longer ones, plus jumps that come within seconds and fade
over minutes.
"""

from collections.abc import Sequence

from evermark.protocol.markets import Market
from evermark.protocol.units import MAX_PRICE_TICKS, PPM
from keeper.sources.noise import noise, smooth_noise
from keeper.sources.quotes import Origin, Quote, SourceKind

START_DOLLARS = {"BTC": 120_000, "ETH": 4_300, "SOL": 220, "AVAX": 28}
# (period in seconds, reach in ppm): each period four times the last, its reach about twice, as a random
# walk's.
WAVES = ((4, 150), (16, 350), (64, 900), (256, 2_200), (1_024, 5_000), (4_096, 11_000), (16_384, 25_000))
JUMP_EVERY_S = 600  # one jump in each such span, at a moment of its own
JUMP_RISE_S = 4
JUMP_FADE_S = 240
JUMP_REACH_PPM = 25_000
VENUES = ("sim-a", "sim-b", "sim-c", "sim-d", "sim-e")  # as many as a market needs; the last ones rarely
PERPETUAL_VENUE = "sim-perp"
VENUE_REACH_PPM = 60
BASIS_REACH_PPM = 800


class SimSource:
    """`min_sources` spot venues a market and one perpetual, all labelled simulated."""

    def __init__(self, markets: Sequence[Market], seed: int) -> None:
        self._markets = tuple(markets)
        self._seed = seed

    async def start(self) -> None:
        """Nothing to open."""

    async def quotes(self, now_s: int) -> tuple[Quote, ...]:
        """Every venue's price at `now_s`, never stale."""
        made = []
        for market in self._markets:
            middle = simulated_ticks(market, self._seed, now_s)
            for venue in VENUES[: market.min_sources]:
                made.append(self._quote(market, venue, SourceKind.SPOT, middle, VENUE_REACH_PPM, now_s))
            basis = smooth_noise(self._seed, f"{market.base}/basis", now_s, 900, BASIS_REACH_PPM)
            based = middle * (PPM + basis) // PPM
            made.append(
                self._quote(market, PERPETUAL_VENUE, SourceKind.PERPETUAL, based, VENUE_REACH_PPM, now_s)
            )
        return tuple(made)

    async def close(self) -> None:
        """Nothing to release."""

    def _quote(
        self, market: Market, venue: str, kind: SourceKind, ticks: int, reach_ppm: int, now_s: int
    ) -> Quote:
        skew = noise(self._seed, f"{market.base}/{venue}", now_s, reach_ppm)
        return Quote(
            venue=venue,
            market_id=market.market_id,
            kind=kind,
            origin=Origin.SIMULATED,
            ticks=max(1, min(MAX_PRICE_TICKS, ticks * (PPM + skew) // PPM)),
            time_ms=now_s * 1000,
        )


def simulated_ticks(market: Market, seed: int, now_s: int) -> int:
    """The walk's price of `market` in ticks at chain time `now_s`."""
    start: int = START_DOLLARS.get(market.base, 100) * 10**market.price_decimals
    label = market.base
    moved = sum(smooth_noise(seed, f"{label}/{period}", now_s, period, reach) for period, reach in WAVES)
    moved += _jump(seed, label, now_s)
    return max(1, min(MAX_PRICE_TICKS, start * (PPM + moved) // PPM))


def _jump(seed: int, label: str, now_s: int) -> int:
    """What this span's jump and the rest of the last one's add, in ppm."""
    total = 0
    for span in (now_s // JUMP_EVERY_S - 1, now_s // JUMP_EVERY_S):
        offset = (noise(seed, f"{label}/jump-at", span, JUMP_EVERY_S) + JUMP_EVERY_S) // 2
        since = now_s - span * JUMP_EVERY_S - offset
        reach = noise(seed, f"{label}/jump", span, JUMP_REACH_PPM)
        if 0 <= since < JUMP_RISE_S:
            total += reach * since // JUMP_RISE_S
        elif JUMP_RISE_S <= since < JUMP_RISE_S + JUMP_FADE_S:
            total += reach * (JUMP_RISE_S + JUMP_FADE_S - since) // JUMP_FADE_S
    return total
