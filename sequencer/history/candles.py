"""Trades -> candles of several lengths, in integers: prices in ticks, volume in lots."""

from collections.abc import Sequence

import msgspec

from sequencer.history.records import Row

# Each is a multiple of the one before it, so that shorter candles make the longer ones.
INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}

Key = tuple[str, str, int]  # market, interval, t


class Candle(msgspec.Struct, kw_only=True):
    """One candle from second `t` on: open, high, low, close, volume, number of trades."""

    market: str
    interval: str
    t: int
    o: int
    h: int
    l: int  # noqa: E741  the five letters are the wire names
    c: int
    v: int
    n: int

    def row(self) -> Row:
        """For the table `candles`."""
        return self.market, self.interval, self.t, self.o, self.h, self.l, self.c, str(self.v), self.n


class CandleBuilder:
    """Holds the last candle of each market and length; `changed` is what the next write has to store."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Candle] = {}
        self.changed: dict[Key, Candle] = {}

    def resume(self, candle: Candle) -> None:
        """Go on with a stored candle after a restart."""
        self._last[candle.market, candle.interval] = candle

    def add(self, market: str, price: int, size: int, time_ms: int) -> None:
        """Count one trade. Times come from the journal and never fall."""
        for interval, seconds in INTERVALS_S.items():
            t = time_ms // 1000 // seconds * seconds
            candle = self._last.get((market, interval))
            if candle is None or candle.t < t:
                candle = Candle(
                    market=market, interval=interval, t=t, o=price, h=price, l=price, c=price, v=0, n=0
                )
                self._last[market, interval] = candle
            candle.h = max(candle.h, price)
            candle.l = min(candle.l, price)
            candle.c = price
            candle.v += size
            candle.n += 1
            self.changed[market, interval, candle.t] = candle

    def replace(self, market: str, candles: Sequence[Candle]) -> None:
        """The market's newest candles are these now, of each length one or none: what followed on them is void."""
        for interval in INTERVALS_S:
            self._last.pop((market, interval), None)
        for candle in candles:
            self._last[market, candle.interval] = candle
            self.changed[market, candle.interval, candle.t] = candle


def merged(interval: str, t: int, shorter: Sequence[Candle]) -> Candle:
    """One candle of consecutive shorter ones, at least one."""
    return Candle(
        market=shorter[0].market,
        interval=interval,
        t=t,
        o=shorter[0].o,
        h=max(candle.h for candle in shorter),
        l=min(candle.l for candle in shorter),
        c=shorter[-1].c,
        v=sum(candle.v for candle in shorter),
        n=sum(candle.n for candle in shorter),
    )


def bucket(interval: str, time_s: int) -> int:
    """The second at which the candle of this time begins."""
    return time_s // INTERVALS_S[interval] * INTERVALS_S[interval]
