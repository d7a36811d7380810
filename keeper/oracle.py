"""The oracle keeper's decisions: index and mark of every market, one report a round. Pure.

Index: median over fresh spot venues. Mark: median of {index + EMA_150s(mid - index), median(best bid, best
ask, last trade), median of external perpetuals}, clamped to the market's band around the index (the protocol,
section 6).
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from evermark.protocol.markets import Market
from evermark.protocol.oracle import pack_price
from evermark.protocol.signing import PriceReport
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div
from keeper.actions import Outcome
from keeper.ema import Ema
from keeper.sources.quotes import Quote, SourceKind, SourceRules, middle, unfit

BASIS_MEMORY_S = 150  # without a two-sided book for this long, the average premium is forgotten


class BookTop(msgspec.Struct, frozen=True):
    """Top of our own public book in ticks, 0 where there is none; `last` is the last trade's price."""

    bid: int
    ask: int
    last: int

    @property
    def two_sided(self) -> bool:
        """True when there is a mid."""
        return 0 < self.bid < self.ask


class OracleView(msgspec.Struct, frozen=True):
    """Everything that one decision rests on.

    `books` by market id; a missing book is one that could not be read.
    """

    round: int
    timestamp: int
    quotes: tuple[Quote, ...]
    books: Mapping[int, BookTop]


class MarketDecision(msgspec.Struct, frozen=True):
    """What the keeper reports for a market, and why when it abstains (both prices 0 then)."""

    market_id: int
    index_ticks: int
    mark_ticks: int
    used: tuple[str, ...]  # venues in the index
    dropped: tuple[str, ...]  # "venue: reason"
    abstained: str = ""


class PostRound(msgspec.Struct, frozen=True):
    """Sign and send this report; `decisions` says how each of its prices came about."""

    report: PriceReport
    decisions: tuple[MarketDecision, ...]


class OracleStrategy:
    """Holds the one thing that outlives a round: each market's average premium of our book over the index."""

    def __init__(self, markets: Sequence[Market], rules: SourceRules, abstain: Collection[str] = ()) -> None:
        """`abstain` has the symbols of markets that are not reported, whatever their sources say."""
        self._markets = tuple(markets)
        self._abstain = frozenset(abstain)
        self._rules = rules
        self._basis = [Ema() for _ in markets]

    def decide(self, view: OracleView) -> tuple[PostRound, ...]:
        """The round's report, in market order; 0 for a market whose sources do not suffice."""
        decisions = tuple(self._market(market, view) for market in self._markets)
        prices = tuple(pack_price(one.index_ticks, one.mark_ticks) for one in decisions)
        report = PriceReport(round=view.round, timestamp=view.timestamp, prices=prices)
        return (PostRound(report, decisions),)

    def learn(self, action: PostRound, outcome: Outcome) -> None:
        """Nothing: the next round is reported whatever became of this one."""

    def _market(self, market: Market, view: OracleView) -> MarketDecision:
        if market.symbol in self._abstain:
            return MarketDecision(market.market_id, 0, 0, (), (), "as configured")
        mine = [quote for quote in view.quotes if quote.market_id == market.market_id]
        index, used, dropped = index_price(mine, market, self._rules, view.timestamp)
        if index is None:
            why = f"{len(used)} of {market.min_sources} spot sources"
            return MarketDecision(market.market_id, 0, 0, used, dropped, why)
        book = view.books.get(market.market_id)
        basis = self._basis[market.market_id]
        if book is not None and book.two_sided:
            basis.add(book.bid + book.ask - 2 * index, view.timestamp)
        perpetuals = [quote for quote in mine if quote.kind is SourceKind.PERPETUAL]
        external = [quote.ticks for quote in perpetuals if not unfit(quote, self._rules, view.timestamp)]
        mark = mark_price(market, index, basis.value(view.timestamp, BASIS_MEMORY_S), book, external)
        return MarketDecision(market.market_id, index, mark, used, dropped)


def index_price(
    quotes: Sequence[Quote], market: Market, rules: SourceRules, now_s: int
) -> tuple[int | None, tuple[str, ...], tuple[str, ...]]:
    """(median over fit spot venues, their names, what was dropped); None below the market's `min_sources`.

    A venue counts once, with its newest quote. An even number of venues takes the mean of the middle two,
    floored.
    """
    newest: dict[str, Quote] = {}
    dropped = []
    for quote in quotes:
        if quote.kind is not SourceKind.SPOT:
            continue
        reason = unfit(quote, rules, now_s)
        if reason:
            dropped.append(f"{quote.venue}: {reason}")
        elif quote.venue not in newest or newest[quote.venue].time_ms < quote.time_ms:
            newest[quote.venue] = quote
    used = tuple(sorted(newest))
    if len(newest) < market.min_sources:
        return None, used, tuple(dropped)
    return middle([quote.ticks for quote in newest.values()]), used, tuple(dropped)


def mark_price(
    market: Market, index: int, double_basis: int | None, book: BookTop | None, perpetuals: Sequence[int]
) -> int:
    """The mark in ticks. `double_basis` is the average of bid + ask - 2 * index, None when there is none.

    Without a two-sided book, or without perpetuals, the median is over what exists; of two, their mean
    floored.
    """
    candidates = [index + (double_basis or 0) // 2]
    if book is not None and book.two_sided:
        candidates.append(middle([book.bid, book.ask, *([book.last] if book.last else [])]))
    if perpetuals:
        candidates.append(middle(perpetuals))
    lowest = ceil_div(index * (PPM - market.mark_band_ppm), PPM)
    highest = index * (PPM + market.mark_band_ppm) // PPM
    return max(1, lowest, min(highest, MAX_PRICE_TICKS, middle(candidates)))
