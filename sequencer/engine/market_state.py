"""One market as the engine has it: its parameters and price, worked out for who asks often, its mode, book and triggers."""

from typing import Final

from evermark.protocol.margin import MarginTable
from evermark.protocol.markets import Market
from evermark.protocol.oracle import MarketPrice
from evermark.protocol.units import PPM
from sequencer.engine.commands import MarketMode
from sequencer.engine.order_book import OrderBook
from sequencer.engine.triggers import TriggerIndex

_MEETINGS: Final = {
    (MarketMode.POST_ONLY, MarketMode.REDUCE_ONLY),
    (MarketMode.REDUCE_ONLY, MarketMode.POST_ONLY),
}
_WHILE_STALE: Final = (
    MarketMode.REDUCE_ONLY,
    MarketMode.CANCEL_ONLY,
    MarketMode.REDUCE_ONLY,
    MarketMode.CANCEL_ONLY,
    MarketMode.HALTED,
    MarketMode.SETTLED,
)  # by mode


def stricter(one: MarketMode, other: MarketMode) -> MarketMode:
    """What two modes together allow; what post-only leaves of reduce-only is cancelling."""
    return MarketMode.CANCEL_ONLY if (one, other) in _MEETINGS else max(one, other)


class MarketState:
    """One market: its parameters, mode, funding index, open interest, book, and who holds a position."""

    __slots__ = (
        "_market",
        "_price",
        "book",
        "cumulative",
        "forced_cap",
        "forced_hour",
        "forced_lots",
        "funding_hour",
        "higher_fee_ppm",
        "holders",
        "last_price",
        "lot_tick_value",
        "lot_value",
        "maker_fee_ppm",
        "margin",
        "mark",
        "market_id",
        "max_order_lots",
        "min_notional",
        "mode",
        "mode_for_good",
        "open_interest",
        "open_interest_cap_lots",
        "paused",
        "paused_until",
        "reach",
        "set_by_operator",
        "settlement_price",
        "stale",
        "taker_fee_ppm",
        "triggers",
    )

    def __init__(self, market: Market, price: MarketPrice) -> None:
        self.mark = 0
        self.market = market
        self.price = price
        self.mode = MarketMode.NORMAL  # the strictest of the next three; `stale` restricts it further
        self.set_by_operator = MarketMode.NORMAL
        self.paused = MarketMode.NORMAL  # the guardian's, in force before `paused_until`
        self.mode_for_good = MarketMode.NORMAL  # reduce-only in a market that is delisted, then settled
        self.settlement_price = 0  # in ticks, once the market is settled in cash
        self.paused_until = 0
        self.stale = True
        self.cumulative = 0
        self.funding_hour = 0
        self.open_interest = 0
        self.book = OrderBook()
        self.last_price = 0  # of the last trade in ticks, 0 before the first
        self.forced_hour = 0  # the last hour with forced closes, their lots, and how many it takes
        self.forced_lots = 0
        self.forced_cap = 0
        self.triggers = TriggerIndex()
        self.holders: set[int] = set()  # a cache: accounts with a position here

    @property
    def market(self) -> Market:
        """The parameters in force."""
        return self._market

    @market.setter
    def market(self, market: Market) -> None:
        self._market = market
        # What orders ask for stands here as plain integers: reading a message costs compiled code far more.
        self.market_id = market.market_id
        self.lot_tick_value = market.lot_tick_value
        self.margin = MarginTable(market)
        self.maker_fee_ppm = market.maker_fee_ppm
        self.taker_fee_ppm = market.taker_fee_ppm
        self.higher_fee_ppm = max(market.maker_fee_ppm, market.taker_fee_ppm)
        self.min_notional = market.min_notional
        self.max_order_lots = market.max_order_lots
        self.open_interest_cap_lots = market.open_interest_cap_lots
        self._mark_out()

    @property
    def price(self) -> MarketPrice:
        """The last accepted price."""
        return self._price

    @price.setter
    def price(self, price: MarketPrice) -> None:
        self._price = price
        self.mark = price.mark_ticks  # in ticks, 0 before the first price
        self._mark_out()

    def _mark_out(self) -> None:
        self.lot_value = self.mark * self.lot_tick_value  # of one lot at the mark, quote units
        self.reach = self.mark * self._market.price_band_ppm // PPM  # from the mark, for limits and fills

    def notional(self, size_lots: int, price_ticks: int) -> int:
        """Exact notional in quote units; sign follows `size_lots`."""
        return size_lots * (price_ticks * self.lot_tick_value)

    @property
    def effective_mode(self) -> MarketMode:
        """The mode, at least reduce-only while the price is stale."""
        return _WHILE_STALE[self.mode] if self.stale else self.mode
