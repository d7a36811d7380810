"""Events -> what the public sees at once: book deltas with sequence numbers, trades, prices, and which
watched accounts have changed. Messages are encoded once, whoever reads them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, get_args

import msgspec
from msgspec.structs import asdict

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.orders import SIDE_TEXT, Side
from sequencer.engine.commands import WithdrawRequest
from sequencer.engine.events import (
    AccountRegistered,
    CollateralChanged,
    CommandRejected,
    Event,
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
from sequencer.market_feed import Feed, Tick
from sequencer.replay import Applied

CLAIMS_KEPT = 1_000
SNAPSHOT_DEPTH = 200
SNAPSHOT_TRADES = 50

Topic = tuple[str, str]  # (channel, market symbol or "")
OrderEvent = (
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
AccountEvent = CollateralChanged | PositionChanged | WithdrawalClaimed | AccountRegistered
Handlers = dict[type[Event], Callable[[Any, Applied], None]]


class AccountChange(msgspec.Struct):
    """What happened to a watched account since it was last told: orders and fills, and possibly its
    balance.
    """

    orders: dict[bytes, None] = {}
    fills: list[dict[str, Any]] = []
    voided: tuple[int, int] | None = None  # the first and the last trade that a reversal took back
    sequence: int = 0


class MarketDataMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What market data knows after one record."""

    trades: dict[int, list[Tick]]  # the last ones by market id
    claims: list[tuple[int, int, int]]  # account, action sequence, batch
    funding_rates: dict[int, int]


class MarketData:
    """Follows the pipeline (`observe`). A fan-out task waits for `changed`, then takes messages with
    `drain`.
    """

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._feeds: dict[int, Feed] = {}
        self._prices: RoundApplied | None = None
        self._watched: dict[int, AccountChange | None] = {}
        self._claims: OrderedDict[tuple[int, int], int] = OrderedDict()
        self.funding_rates: dict[int, int] = {}  # last applied hour's, ppb by market id
        self.changed = asyncio.Event()
        self._live = False
        self._kept: Handlers = {
            Trade: self._trade,
            RoundApplied: self._round,
            FundingApplied: self._funding,
            Reversed: self._reverse,
        }
        self._public: Handlers = self._kept | {LevelChanged: self._level}
        self._private: Handlers = (
            self._public
            | dict.fromkeys(get_args(OrderEvent), self._order)
            | dict.fromkeys(get_args(AccountEvent), self._account)
            | {CommandRejected: self._rejection}
        )
        self._heard = self._kept

    def go_live(self) -> None:
        """Gather messages from now on; what a replay tells before nobody waits for. Books begin as they are now."""
        self._live = True
        for market in self._state.markets:
            feed = self._feed(market.market.market_id)
            feed.newest = feed.sequence = self._state.sequence
        self._hear()

    def _hear(self) -> None:
        """Which events are looked at depends on who there is to be told."""
        if not self._live:
            self._heard = self._kept
        else:
            self._heard = self._private if self._watched else self._public

    def observe(self, applied: Applied) -> None:
        """Count one command's events."""
        heard = self._heard
        for event in applied.events:
            handle = heard.get(type(event))
            if handle is not None:
                handle(event, applied)
        if isinstance(applied.command, WithdrawRequest) and not isinstance(
            applied.events[-1], CommandRejected
        ):
            self._note_claim(applied.command)
        if applied.events:
            self.changed.set()

    def memory(self) -> MarketDataMemory:
        """For a snapshot: everything that `observe` has learned and a new connection may ask for."""
        return MarketDataMemory(
            {market_id: list(feed.ring) for market_id, feed in self._feeds.items()},
            [(*key, batch) for key, batch in self._claims.items()],
            self.funding_rates,
        )

    def recall(self, memory: MarketDataMemory) -> None:
        """Go on from a snapshot."""
        for market_id, trades in memory.trades.items():
            self._feed(market_id).ring.extend(trades)
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
        self._hear()

    def unwatch(self, account: int) -> None:
        """Nobody listens any more."""
        self._watched.pop(account, None)
        self._hear()

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

    def trades(self, symbol: str, limit: int) -> list[Tick]:
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

    def _round(self, event: RoundApplied, _: Applied) -> None:
        self._prices = event

    def _funding(self, event: FundingApplied, _: Applied) -> None:
        self.funding_rates[event.market_id] = event.rate_ppb

    def _level(self, event: LevelChanged, applied: Applied) -> None:
        feed = self._feed(event.market_id)
        feed.newest = applied.sequence
        feed.levels[event.side, event.price] = event.size

    def _trade(self, trade: Trade, applied: Applied) -> None:
        tick = Tick(
            trade.trade_id,
            trade.price,
            wire_int(trade.size),
            SIDE_TEXT[trade.taker_side],
            applied.stamp_ms,
            trade.liquidated != 0,
        )
        feed = self._feed(trade.market_id)
        feed.ring.append(tick)
        if not self._live:
            return
        feed.trades.append(tick)
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
            change.fills.append(asdict(tick) | about | {"order_hash": order, "deleveraged": deleveraged})
            if order_hash:
                change.orders[order_hash] = None

    def _reverse(self, event: Reversed, applied: Applied) -> None:
        """Tell everybody who listens which trades are void; what came after them in their ids stands."""
        voided = (event.first_trade, event.last_trade)
        if voided[0] > voided[1]:
            return
        for feed in self._feeds.values():
            stands = [tick for tick in feed.ring if tick.trade_id < voided[0]]
            feed.ring.clear()
            feed.ring.extend(stands)
            feed.trades = [tick for tick in feed.trades if tick.trade_id < voided[0]]
            if self._live:
                feed.voided = voided if feed.voided is None else (feed.voided[0], voided[1])
        for account in self._watched:
            change = self._touch(account, applied.sequence)
            if change is not None:
                change.fills = [fill for fill in change.fills if fill["trade_id"] < voided[0]]
                change.voided = voided if change.voided is None else (change.voided[0], voided[1])

    def _note_claim(self, command: WithdrawRequest) -> None:
        key = (command.account, command.withdraw.action_sequence)
        self._claims[key] = self._state.sealed_batch + 1
        while len(self._claims) > CLAIMS_KEPT:
            self._claims.popitem(last=False)

    def _order(self, event: OrderEvent | CommandRejected, applied: Applied) -> None:
        change = self._touch(event.account, applied.sequence)
        if change is not None:
            change.orders[event.order_hash] = None

    def _rejection(self, event: CommandRejected, applied: Applied) -> None:
        if event.order_hash:
            self._order(event, applied)

    def _account(self, event: AccountEvent, applied: Applied) -> None:
        self._touch(event.account, applied.sequence)

    def _touch(self, account: int, sequence: int) -> AccountChange | None:
        if account not in self._watched:
            return None
        change = self._watched[account]
        if change is None:
            change = self._watched[account] = AccountChange()
        change.sequence = sequence
        return change

    def _feed(self, market_id: int) -> Feed:
        feed = self._feeds.get(market_id)
        if feed is None:
            feed = self._feeds[market_id] = Feed(self._state.markets[market_id].market.symbol)
        return feed

    def _market(self, symbol: str) -> MarketState:
        return self._state.markets[self._state.market_ids[symbol]]


def _sides(market: MarketState, depth: int) -> dict[str, Any]:
    """Levels from the best on: [price, lots, orders]."""

    def levels(side: Side) -> list[list[Any]]:
        best_first = market.book.side(side).best_first()
        return [[level.price, wire_int(level.total), level.count] for level in islice(best_first, depth)]

    return {"bids": levels(Side.BUY), "asks": levels(Side.SELL)}
