"""Events -> what the public sees at once: book deltas with sequence numbers, trades, prices, and which
watched accounts have changed. Messages are encoded once, whoever reads them."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.orders import SIDE_TEXT, Side
from sequencer.engine.commands import WithdrawRequest
from sequencer.engine.events import (
    AccountRegistered,
    CollateralChanged,
    CommandRejected,
    FundingApplied,
    LevelChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRested,
    OrderRestored,
    OrderTriggered,
    OrderWaits,
    PositionChanged,
    Reversed,
    RoundApplied,
    Trade,
    TwapSliced,
    TwapStarted,
    WithdrawalClaimed,
)
from sequencer.engine.market_state import MarketState
from sequencer.engine.state import EngineState
from sequencer.history.records import wire_int
from sequencer.replay import Applied

TRADES_KEPT = 1_000  # per market, for snapshots and the common question
CLAIMS_KEPT = 1_000
SNAPSHOT_DEPTH = 200
SNAPSHOT_TRADES = 50

Topic = tuple[str, str]  # (channel, market symbol or "")
ORDER_EVENTS = (
    OrderAccepted
    | OrderWaits
    | OrderTriggered
    | OrderRested
    | OrderFilled
    | OrderCancelled
    | TwapStarted
    | TwapSliced
    | OrderRestored
)
ACCOUNT_EVENTS = CollateralChanged | PositionChanged | WithdrawalClaimed | AccountRegistered
PUBLIC = frozenset({LevelChanged, Trade, RoundApplied, FundingApplied, Reversed})  # whoever is watched


class AccountChange(msgspec.Struct):
    """What happened to a watched account since it was last told: orders and fills, and possibly its
    balance.
    """

    orders: dict[bytes, None] = {}
    fills: list[dict[str, Any]] = []
    voided: tuple[int, int] | None = None  # the first and the last trade that a reversal took back
    sequence: int = 0


class FeedMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A market's position in its book feed, and its last trades."""

    sequence: int
    newest: int
    trades: list[dict[str, Any]]


class MarketDataMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What market data knows after one record."""

    feeds: dict[int, FeedMemory]
    claims: list[tuple[int, int, int]]  # account, action sequence, batch
    funding_rates: dict[int, int]


class _Feed:
    """One market: level changes and trades that wait to be sent, and the last trades."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.sequence = 0  # of the last book message
        self.newest = 0  # of the last level change counted
        self.levels: dict[tuple[Side, int], int] = {}
        self.trades: list[dict[str, Any]] = []
        self.voided: tuple[int, int] | None = None
        self.ring: deque[dict[str, Any]] = deque(maxlen=TRADES_KEPT)

    def take_delta(self) -> dict[str, Any] | None:
        """The book's changes since the last call as one message, None without any."""
        if not self.levels:
            return None
        changed = {Side.BUY: list[list[Any]](), Side.SELL: list[list[Any]]()}
        for (side, price), size in self.levels.items():
            changed[side].append([price, wire_int(size)])
        previous, self.sequence = self.sequence, self.newest
        self.levels = {}
        return {
            "channel": "book",
            "market": self.symbol,
            "type": "delta",
            "sequence": self.sequence,
            "previous": previous,
            "bids": changed[Side.BUY],
            "asks": changed[Side.SELL],
        }


class MarketData:
    """Follows the pipeline (`observe`). A fan-out task waits for `changed`, then takes messages with
    `drain`.
    """

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._feeds: dict[int, _Feed] = {}
        self._prices: RoundApplied | None = None
        self._watched: dict[int, AccountChange | None] = {}
        self._claims: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.funding_rates: dict[int, int] = {}  # last applied hour's, ppb by market id
        self.changed = asyncio.Event()
        self._live = False

    def go_live(self) -> None:
        """Gather messages from now on; what a replay tells before nobody waits for."""
        self._live = True

    def observe(self, applied: Applied) -> None:
        """Count one command's events."""
        for event in applied.events:
            if not self._watched and type(event) not in PUBLIC:
                continue
            if isinstance(event, LevelChanged):
                feed = self._feed(event.market_id)
                feed.newest = applied.sequence
                if self._live:
                    feed.levels[event.side, event.price] = event.size
                else:
                    feed.sequence = applied.sequence
            elif isinstance(event, Trade):
                self._trade(event, applied)
            elif isinstance(event, RoundApplied):
                self._prices = event
            elif isinstance(event, FundingApplied):
                self.funding_rates[event.market_id] = event.rate_ppb
            elif isinstance(event, Reversed):
                self._reverse(event, applied.sequence)
            elif isinstance(event, ORDER_EVENTS):
                self._order(event.account, event.order_hash, applied.sequence)
            elif isinstance(event, CommandRejected):
                if event.order_hash:
                    self._order(event.account, event.order_hash, applied.sequence)
            elif isinstance(event, ACCOUNT_EVENTS):
                self._touch(event.account, applied.sequence)
        if isinstance(applied.command, WithdrawRequest) and not isinstance(
            applied.events[-1], CommandRejected
        ):
            self._note_claim(applied.command)
        if applied.events:
            self.changed.set()

    def memory(self) -> MarketDataMemory:
        """For a snapshot: everything that `observe` has learned and a new connection may ask for."""
        return MarketDataMemory(
            {
                key: FeedMemory(feed.sequence, feed.newest, list(feed.ring))
                for key, feed in self._feeds.items()
            },
            [(*key, batch) for key, batch in self._claims.items()],
            self.funding_rates,
        )

    def recall(self, memory: MarketDataMemory) -> None:
        """Go on from a snapshot. Nobody is connected yet, so the feeds start at their newest change."""
        for market_id, kept in memory.feeds.items():
            feed = self._feed(market_id)
            feed.newest = feed.sequence = max(kept.sequence, kept.newest)
            feed.ring.extend(kept.trades)
        for account, action_sequence, batch in memory.claims:
            self._claims[account, action_sequence] = batch
        self.funding_rates = dict(memory.funding_rates)

    def claim_batch(self, account: int, action_sequence: int) -> int:
        """Id of the batch that was open when this withdrawal was applied; 0 when that was long ago."""
        return self._claims.get((account, action_sequence), 0)

    def drain(self) -> Iterator[tuple[Topic, bytes]]:
        """Messages since the last drain, in order per market."""
        for feed in self._feeds.values():
            delta = feed.take_delta()
            if delta is not None:
                yield ("book", feed.symbol), msgspec.json.encode(delta)
            if feed.voided is not None:
                first, last = feed.voided
                message = {
                    "channel": "trades",
                    "market": feed.symbol,
                    "type": "voided",
                    "first": first,
                    "last": last,
                }
                feed.voided = None
                yield ("trades", feed.symbol), msgspec.json.encode(message)
            if feed.trades:
                message = {
                    "channel": "trades",
                    "market": feed.symbol,
                    "type": "update",
                    "trades": feed.trades,
                }
                feed.trades = []
                yield ("trades", feed.symbol), msgspec.json.encode(message)
        if self._prices is not None:
            self._prices = None
            yield ("prices", ""), self.prices_message()

    def drain_accounts(self) -> list[tuple[int, AccountChange]]:
        """Watched accounts that changed since the last call."""
        changed = [(account, change) for account, change in self._watched.items() if change is not None]
        for account, _ in changed:
            self._watched[account] = None
        return changed

    def watch(self, account: int) -> None:
        """Gather changes of an account from now on."""
        self._watched.setdefault(account, None)

    def unwatch(self, account: int) -> None:
        """Nobody listens any more."""
        self._watched.pop(account, None)

    def book(self, symbol: str, depth: int) -> dict[str, Any]:
        """{"market", "sequence", "bids": [[price, size, orders]], "asks"} as of now."""
        market = self._market(symbol)
        feed = self._feed(market.market.market_id)
        return {"market": symbol, "sequence": max(feed.newest, feed.sequence)} | _sides(market, depth)

    def book_snapshot(self, symbol: str) -> tuple[dict[str, Any] | None, bytes]:
        """(the delta that brings earlier subscribers to the same point, the snapshot message for a new
        one).
        """
        market = self._market(symbol)
        feed = self._feed(market.market.market_id)
        delta = feed.take_delta()
        head = {"channel": "book", "market": symbol, "type": "snapshot", "sequence": feed.sequence}
        return delta, msgspec.json.encode(head | _sides(market, SNAPSHOT_DEPTH))

    def trades_snapshot(self, symbol: str) -> bytes:
        """The last trades, newest first."""
        trades = self.trades(symbol, SNAPSHOT_TRADES)
        return msgspec.json.encode(
            {"channel": "trades", "market": symbol, "type": "snapshot", "trades": trades}
        )

    def trades(self, symbol: str, limit: int) -> list[dict[str, Any]]:
        """The last trades, newest first; at most TRADES_KEPT, and none from before the last start."""
        ring = self._feed(self._state.market_ids[symbol]).ring
        return list(islice(reversed(ring), limit))

    def prices_message(self) -> bytes:
        """Index and mark of every market as of the last round."""
        round_ = self._state.round
        prices = {
            market.market.symbol: {
                "index": market.price.index_ticks,
                "mark": market.price.mark_ticks,
                "updated_at": market.price.updated_at,
            }
            for market in self._state.markets
        }
        message = {
            "channel": "prices",
            "round": round_.round,
            "timestamp": round_.timestamp,
            "prices": prices,
        }
        return msgspec.json.encode(message)

    def _trade(self, trade: Trade, applied: Applied) -> None:
        tick = {
            "trade_id": trade.trade_id,
            "price": trade.price,
            "size": wire_int(trade.size),
            "side": SIDE_TEXT[trade.taker_side],
            "time_ms": applied.stamp_ms,
            "liquidation": trade.liquidated != 0,
        }
        feed = self._feed(trade.market_id)
        if self._live:
            feed.trades.append(tick)
        feed.ring.append(tick)
        if not self._watched:
            return
        sides = (
            ("maker", trade.maker, trade.maker_hash, trade.maker_fee, trade.maker_builder_fee),
            ("taker", trade.taker, trade.taker_hash, trade.taker_fee, trade.taker_builder_fee),
        )
        for role, account, order_hash, fee, built in sides:
            side = trade.taker_side if role == "taker" else trade.taker_side.opposite
            change = self._touch(account, applied.sequence)
            if change is None:
                continue
            order = "0x" + order_hash.hex() if order_hash else ""
            fees = {"fee": wire_int(fee), "builder_fee": wire_int(built)}
            about = {"market": feed.symbol, "side": SIDE_TEXT[side], "role": role} | fees
            deleveraged = not order and account >= FIRST_USER_ACCOUNT and account != trade.liquidated
            change.fills.append(tick | about | {"order_hash": order, "deleveraged": deleveraged})
            if order_hash:
                change.orders[order_hash] = None

    def _reverse(self, event: Reversed, sequence: int) -> None:
        """Tell everybody who listens which trades are void; what came after them in their ids stands."""
        voided = (event.first_trade, event.last_trade)
        if voided[0] > voided[1]:
            return
        for feed in self._feeds.values():
            stands = [tick for tick in feed.ring if tick["trade_id"] < voided[0]]
            feed.ring.clear()
            feed.ring.extend(stands)
            feed.trades = [tick for tick in feed.trades if tick["trade_id"] < voided[0]]
            if self._live:
                feed.voided = voided if feed.voided is None else (feed.voided[0], voided[1])
        for account in self._watched:
            change = self._touch(account, sequence)
            if change is not None:
                change.fills = [fill for fill in change.fills if fill["trade_id"] < voided[0]]
                change.voided = voided if change.voided is None else (change.voided[0], voided[1])

    def _note_claim(self, command: WithdrawRequest) -> None:
        key = (command.account, command.withdraw.action_sequence)
        self._claims[key] = self._state.sealed_batch + 1
        while len(self._claims) > CLAIMS_KEPT:
            self._claims.popitem(last=False)

    def _order(self, account: int, order_hash: bytes, sequence: int) -> None:
        change = self._touch(account, sequence)
        if change is not None:
            change.orders[order_hash] = None

    def _touch(self, account: int, sequence: int) -> AccountChange | None:
        if account not in self._watched:
            return None
        change = self._watched[account]
        if change is None:
            change = self._watched[account] = AccountChange()
        change.sequence = sequence
        return change

    def _feed(self, market_id: int) -> _Feed:
        feed = self._feeds.get(market_id)
        if feed is None:
            feed = self._feeds[market_id] = _Feed(self._state.markets[market_id].market.symbol)
        return feed

    def _market(self, symbol: str) -> MarketState:
        return self._state.markets[self._state.market_ids[symbol]]


def _sides(market: MarketState, depth: int) -> dict[str, Any]:
    """Levels from the best on: [price, lots, orders]."""

    def levels(side: Side) -> list[list[Any]]:
        best_first = market.book.side(side).best_first()
        return [[level.price, wire_int(level.total), level.count] for level in islice(best_first, depth)]

    return {"bids": levels(Side.BUY), "asks": levels(Side.SELL)}
