"""Candles without the trades that a reversal took back.

Trades follow one another in time, so of each market everything from its first void trade on is void: of each length the candle in
which that trade lies keeps what came before it, and the ones behind it are gone.
"""

from itertools import pairwise

from sqlalchemy import Connection, Select, func, select

from sequencer.history import tables
from sequencer.history.candles import INTERVALS_S, Candle, CandleBuilder, bucket, merged
from sequencer.history.store import VoidedCandles, fetch

PAGE = 1_000  # trades that are read at once
SHORTEST = next(iter(INTERVALS_S))


def recount(
    connection: Connection, first_trade: int, last_trade: int
) -> list[tuple[VoidedCandles, list[Candle]]]:
    """Of each market with void trades: which stored candles go, and what is left of the one in which the first void trade lies,
    one a length. Everything counted before has to be stored."""
    trades = tables.trades.c
    void = (
        select(trades.market, func.min(trades.time_ms).label("since_ms"))
        .where(trades.trade_id.between(first_trade, last_trade))
        .group_by(trades.market)
        .order_by(trades.market)
    )
    found = []
    for row in fetch(connection, void):
        market, since_s = str(row["market"]), int(row["since_ms"]) // 1000
        found.append((VoidedCandles(market, since_s), _left(connection, market, first_trade, since_s)))
    return found


def newest_candles(connection: Connection) -> list[Candle]:
    """Of each market and length, as the last run left it."""
    table = tables.candles.c
    newest = select(table.market, table.interval, func.max(table.t).label("t"))
    last = newest.group_by(table.market, table.interval).subquery().c
    same = table.market == last.market, table.interval == last.interval, table.t == last.t
    return [Candle(**row) for row in fetch(connection, select(tables.candles).where(*same))]


def _left(connection: Connection, market: str, first_trade: int, since_s: int) -> list[Candle]:
    left = _shortest(connection, market, first_trade, since_s)
    candles = [left] if left is not None else []
    table = tables.candles.c
    for shorter, interval in pairwise(INTERVALS_S):
        t = bucket(interval, since_s)
        before: Select[tuple[object, ...]] = (
            select(tables.candles)
            .where(table.market == market, table.interval == shorter)
            .where(table.t >= t, table.t < bucket(shorter, since_s))
            .order_by(table.t)
        )
        parts = [Candle(**row) for row in fetch(connection, before)]
        parts += [left] if left is not None else []
        left = merged(interval, t, parts) if parts else None
        candles += [left] if left is not None else []
    return candles


def _shortest(connection: Connection, market: str, first_trade: int, since_s: int) -> Candle | None:
    t, before = bucket(SHORTEST, since_s), first_trade
    standing, trades = [], tables.trades.c
    while True:
        page = select(tables.trades).where(trades.market == market, trades.trade_id < before)
        rows = fetch(connection, page.order_by(trades.trade_id.desc()).limit(PAGE))
        inside = [row for row in rows if row["time_ms"] >= t * 1000]
        standing += [row for row in inside if not row["voided"]]
        if len(inside) < PAGE:
            break
        before = inside[-1]["trade_id"]
    builder = CandleBuilder()
    for row in reversed(standing):
        builder.add(market, row["price"], row["size"], row["time_ms"])
    return builder.changed.get((market, SHORTEST, t))
