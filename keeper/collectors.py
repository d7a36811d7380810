"""What each role waits for and gathers before it decides."""

import asyncio
import time
from collections.abc import Sequence

from evermark.protocol.markets import Market
from evermark.status import RoleStatus
from keeper.clock import Clock, next_multiple
from keeper.exchange import Exchange
from keeper.funding import FundingRules, FundingView
from keeper.liquidator import LiquidatorView
from keeper.oracle import OracleView, index_price
from keeper.sources.quotes import PriceSource, Quote, SourceRules

LOOK_S = 0.5  # wall seconds between two looks for liquidatable accounts
SHOWN_SOURCES = 40


class OracleCollector:
    """Waits for the next round that keepers report, then reads the sources and the books."""

    def __init__(
        self,
        markets: Sequence[Market],
        source: PriceSource,
        exchange: Exchange,
        clock: Clock,
        *,
        round_seconds: int,
        stride: int,
        status: RoleStatus,
    ) -> None:
        self._markets, self._source, self._exchange, self._clock = tuple(markets), source, exchange, clock
        self._round_seconds, self._stride = round_seconds, stride
        self._last = 0
        self._status = status

    async def collect(self) -> OracleView:
        """The view of the newest round; its time is the round's first second."""
        self._last = await next_multiple(self._clock, self._round_seconds * self._stride, self._last)
        round_ = self._last * self._stride
        timestamp = round_ * self._round_seconds
        quotes, books = await asyncio.gather(
            self._source.quotes(timestamp), self._exchange.books(self._markets)
        )
        self._status.facts["sources"] = [shown(quote, timestamp) for quote in quotes[:SHOWN_SOURCES]]
        return OracleView(round_, timestamp, quotes, {key: book.top for key, book in books.items()})


class FundingCollector:
    """Waits for the next sampling moment, then reads the sources and the books."""

    def __init__(
        self,
        markets: Sequence[Market],
        source: PriceSource,
        exchange: Exchange,
        clock: Clock,
        *,
        rules: FundingRules,
        source_rules: SourceRules,
    ) -> None:
        self._markets, self._source, self._exchange, self._clock = tuple(markets), source, exchange, clock
        self._rules, self._source_rules = rules, source_rules
        self._last = 0

    async def collect(self) -> FundingView:
        """The view of the sampling interval that has just begun."""
        self._last = await next_multiple(self._clock, self._rules.sample_s, self._last)
        now = self._clock.now_s()
        quotes, books = await asyncio.gather(self._source.quotes(now), self._exchange.books(self._markets))
        indexes = {}
        for market in self._markets:
            mine = [quote for quote in quotes if quote.market_id == market.market_id]
            index, _, _ = index_price(mine, market, self._source_rules, now)
            if index is not None:
                indexes[market.market_id] = index
        return FundingView(
            now_s=now,
            wall_s=time.monotonic(),
            index_ticks=indexes,
            bids={key: book.bids for key, book in books.items()},
            asks={key: book.asks for key, book in books.items()},
        )


class LiquidatorCollector:
    """Looks at the exchange every half second of wall time."""

    def __init__(self, markets: Sequence[Market], exchange: Exchange, status: RoleStatus) -> None:
        self._markets, self._exchange, self._status = tuple(markets), exchange, status
        self._next_look = 0.0

    async def collect(self) -> LiquidatorView:
        """Accounts that the gateway lists, and the marks of markets whose price is fresh."""
        await asyncio.sleep(max(0.0, self._next_look - time.monotonic()))
        self._next_look = time.monotonic() + LOOK_S
        status = await self._exchange.status()
        marks = {}
        for market in self._markets:
            view = status.markets.get(market.symbol)
            if view is not None and view.mark and (view.price_age_s or 0) <= market.max_price_age_s:
                marks[market.market_id] = view.mark
        accounts = await self._exchange.liquidatable(self._markets)
        self._status.facts["listed"] = len(accounts)
        return LiquidatorView(status.round, status.chain_time, time.monotonic(), marks, accounts)


def shown(quote: Quote, now_s: int) -> dict[str, str | int | float]:
    """A quote as the status file shows it; its origin says whether it is a market's or made up."""
    return {
        "venue": quote.venue,
        "market": quote.market_id,
        "kind": str(quote.kind),
        "origin": str(quote.origin),
        "ticks": quote.ticks,
        "age_s": round(now_s - quote.time_ms / 1000, 1),
    }
