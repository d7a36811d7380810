"""Trades -> candles of several lengths, in integers: prices in ticks, volume in lots."""

import msgspec

INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}


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


class CandleBuilder:
    """Holds the last candle of each market and length; `changed` is what the next write has to store."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Candle] = {}
        self.changed: dict[tuple[str, str, int], Candle] = {}

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
