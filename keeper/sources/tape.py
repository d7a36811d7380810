"""Recorded venues at the chain clock's time, completed by labelled synthetic ones where there are too few.

A venue's price is its last print up to now. When some, but fewer than `min_sources`, recorded spot venues of
a market are fresh, synthetic venues stand near the middle of the fresh ones; when none is fresh there is
nothing to derive them from.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from evermark.protocol.markets import Market
from evermark.protocol.units import MAX_PRICE_TICKS, PPM
from evermark.tapes.discovery import TapeFile, TapeKind, discover
from evermark.tapes.prices import Rounding, to_ticks
from evermark.tapes.reader import TapeError, TapeReader, Trade
from keeper.sources.noise import smooth_noise
from keeper.sources.quotes import Origin, Quote, SourceKind, SourceRules, SourceUnavailable, middle, unfit

SYNTHETIC_REACH_PPM = 100  # how far a synthetic venue stands from the recorded price, at most
SYNTHETIC_PERIOD_S = 15
LEAD_S = 1_800  # of tape read before the first moment asked for, so that quiet venues have a price
REMEMBERED_S = 120  # roles ask for slightly different moments; farther back a tape is opened anew
MICRO = 1_000_000


class TapeCursor:
    """One tape: the newest print at or before any moment near the furthest one asked for."""

    def __init__(self, tape: TapeFile, market: Market) -> None:
        self.tape = tape
        self._market = market
        self._trades: Iterator[Trade] | None = None
        self._next: Trade | None = None
        self._recent: deque[Trade] = deque()
        self._reached_us = 0

    def at(self, now_s: int) -> Quote | None:
        """The quote that stood at `now_s`; a time well before the furthest starts over. Raises TapeError."""
        now_us = now_s * MICRO
        if self._trades is None or now_us < self._reached_us - REMEMBERED_S * MICRO:
            self._trades = iter(TapeReader(self.tape.path, start_us=max(0, now_us - LEAD_S * MICRO)))
            self._next = next(self._trades, None)
            self._recent.clear()
            self._reached_us = 0
        self._advance(self._trades, now_us)
        for trade in reversed(self._recent):
            if trade.time_us <= now_us:
                return self._quote(trade)
        return None

    @property
    def ended(self) -> bool:
        """True when the tape holds nothing later."""
        return self._trades is not None and self._next is None

    def _advance(self, trades: Iterator[Trade], now_us: int) -> None:
        """Read up to `now_us`, and keep what stood during the last REMEMBERED_S seconds."""
        self._reached_us = max(self._reached_us, now_us)
        while self._next is not None and self._next.time_us <= now_us:
            self._recent.append(self._next)
            self._next = next(trades, None)
        kept_us = self._reached_us - REMEMBERED_S * MICRO
        while len(self._recent) > 1 and self._recent[1].time_us <= kept_us:
            self._recent.popleft()

    def _quote(self, trade: Trade) -> Quote | None:
        ticks = to_ticks(trade.price, self._market, Rounding.NEAREST)
        if ticks is None:
            return None
        kind = SourceKind.SPOT if self.tape.kind is TapeKind.SPOT else SourceKind.PERPETUAL
        return Quote(
            venue=self.tape.venue,
            market_id=self._market.market_id,
            kind=kind,
            origin=Origin.RECORDED,
            ticks=ticks,
            time_ms=trade.time_us // 1000,
        )


class TapeSource:
    """All tapes below `root` for the listed markets; `synthetic=False` runs with recorded venues alone."""

    def __init__(
        self, root: Path, markets: Sequence[Market], *, seed: int, synthetic: bool = True, rules: SourceRules
    ) -> None:
        self._root = root
        self._markets = tuple(markets)
        self._seed = seed
        self._synthetic = synthetic
        self._rules = rules
        self._cursors: list[TapeCursor] = []
        self._reading = asyncio.Lock()  # the roles of a process share the cursors

    async def start(self) -> None:
        """Find the tapes. Raises SourceUnavailable when there are none."""
        try:
            tapes = discover(self._root, self._markets)
        except OSError as error:
            raise SourceUnavailable(f"tapes: {error}") from error
        by_id = {market.market_id: market for market in self._markets}
        self._cursors = [TapeCursor(tape, by_id[tape.market_id]) for tape in tapes]

    async def quotes(self, now_s: int) -> tuple[Quote, ...]:
        """Recorded quotes and the synthetic ones derived from them.

        A tape that breaks raises SourceUnavailable.
        """
        try:
            # The first call skips to the moment, which takes a second for a large tape: not on the event
            # loop.
            async with self._reading:
                recorded = await asyncio.to_thread(self._read, now_s)
        except TapeError as error:
            raise SourceUnavailable(f"tape: {error}") from error
        if not self._synthetic:
            return tuple(recorded)
        made = [quote for market in self._markets for quote in self._complete(market, recorded, now_s)]
        return (*recorded, *made)

    async def close(self) -> None:
        """Let the files go."""
        self._cursors = []

    @property
    def exhausted(self) -> bool:
        """True when no tape holds anything later than the last moment asked for."""
        return bool(self._cursors) and all(cursor.ended for cursor in self._cursors)

    def _read(self, now_s: int) -> list[Quote]:
        found = (cursor.at(now_s) for cursor in self._cursors)
        return [quote for quote in found if quote is not None]

    def _complete(self, market: Market, recorded: Sequence[Quote], now_s: int) -> list[Quote]:
        fresh = [
            quote
            for quote in recorded
            if quote.market_id == market.market_id
            and quote.kind is SourceKind.SPOT
            and not unfit(quote, self._rules, now_s)
        ]
        venues = {quote.venue for quote in fresh}
        if not venues:
            return []
        centre = middle([quote.ticks for quote in fresh])
        newest_ms = max(quote.time_ms for quote in fresh)
        made = []
        for number in range(1, market.min_sources - len(venues) + 1):
            label = f"{market.base}/synthetic-{number}"
            skew = smooth_noise(self._seed, label, now_s, SYNTHETIC_PERIOD_S, SYNTHETIC_REACH_PPM)
            made.append(
                Quote(
                    venue=f"synthetic-{number}",
                    market_id=market.market_id,
                    kind=SourceKind.SPOT,
                    origin=Origin.SYNTHETIC,
                    ticks=max(1, min(MAX_PRICE_TICKS, centre * (PPM + skew) // PPM)),
                    time_ms=newest_ms,
                )
            )
        return made
