"""Events -> orders, fills, funding, ledger, trades and candles. Writing happens in batches in the store's
thread; what the event loop needs at once (open and recent orders) stays in memory."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import structlog
from sqlalchemy import Select, literal_column, select

from evermark.protocol.orders import SIDE_TEXT
from sequencer.engine.commands import ForeignBatch, Genesis, InboxEntry, PlaceOrder, Reverse
from sequencer.engine.events import (
    AccountRegistered,
    CollateralChanged,
    CommandRejected,
    Event,
    FundingApplied,
    MarketListed,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRestored,
    OrderTriggered,
    OrderWaits,
    Reversed,
    Trade,
)
from sequencer.garbage import without_collector
from sequencer.history import tables
from sequencer.history.candles import CandleBuilder
from sequencer.history.owners import Owners
from sequencer.history.queries import Queries, stored_orders
from sequencer.history.records import OPEN_STATES, OrderRecord, Row, ledger_row, new_record
from sequencer.history.recount import newest_candles, recount
from sequencer.history.store import HistoryGap, Store, Voided, VoidedCandles, WriteBatch, fetch
from sequencer.journal.records import JournalRefused
from sequencer.replay import Applied

RECENT_ORDERS = 50_000  # ended orders kept in memory for repetitions and status questions
FLUSH_S = 0.1  # an order costs a third less among several hundred than among a hundred
REPLAY_FLUSH_ROWS = 20_000  # rows gathered before a replay writes them
# Changes of collateral that the fills, or the marks of a reversal, already tell.
TOLD_CAUSES = frozenset({"trade", "fee", "reversal"})

OrderEvent = (
    OrderAccepted
    | OrderWaits
    | OrderTriggered
    | OrderFilled
    | OrderCancelled
    | OrderRestored
    | CommandRejected
)

log = structlog.get_logger("history")


class History(Queries):
    """Follows the pipeline (`observe`), stores in the background (`run`), answers queries."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.sequence, self._journal_hash = store.position()  # of the last command counted
        self._genesis_hash = store.genesis_hash()  # of the journal's first record
        self._symbols: list[str] = []
        self._orders: OrderedDict[bytes, OrderRecord] = OrderedDict()
        self._by_client: dict[tuple[int, str], bytes] = {}
        self._dirty: dict[bytes, OrderRecord] = {}
        self._rows: dict[str, list[Row]] = {}
        self._voided: list[Voided] = []
        self._voided_candles: list[VoidedCandles] = []
        self._row_count = 0
        self._candles = CandleBuilder()
        self._owners = Owners()
        self._arrived: asyncio.Event | None = None  # set while `run` works
        self._load()

    @classmethod
    def open(cls, path: Path, hash_at: Callable[[int], bytes | None]) -> "History":
        """The projection in `path`, begun anew when it belongs to another journal.

        `hash_at(sequence)` is the journal's hash at a record, None past its end. Raises JournalRefused when the
        history was made of records that its journal no longer has.
        """
        store = Store(path)
        sequence, journal_hash = store.position()
        if sequence and hash_at(sequence) != journal_hash:
            if store.genesis_hash() == hash_at(1):
                store.close()
                raise JournalRefused(
                    f"journal: the history {path} was made of its record {sequence}, which is not there any "
                    f"more: records are lost. Restore the journal from a backup or a replica; to go on without "
                    f"them, move the history and the snapshots away"
                )
            log.warning(
                "history belongs to another journal and is rebuilt", path=str(path), sequence=sequence
            )
            store.close()
            for suffix in ("", "-wal", "-shm"):
                Path(str(path) + suffix).unlink(missing_ok=True)
            store = Store(path)
        return cls(store)

    def observe(self, applied: Applied) -> None:
        """Count one command; those from before the stored position are skipped. Raises HistoryGap."""
        if isinstance(applied.command, Genesis):
            self.list_markets(applied.command)
            self._genesis_hash = applied.hash
        elif isinstance(applied.command, (InboxEntry, ForeignBatch, Reverse)):
            self._follow_markets(applied.events)
        if applied.sequence <= self.sequence:
            return
        if applied.sequence != self.sequence + 1:
            gap = f"history: record {applied.sequence} follows on {self.sequence}; replay from the start"
            raise HistoryGap(gap)
        if isinstance(applied.command, Reverse):
            self.flush().result()  # what it takes back has to be in the store; the event loop waits for this once
        self.sequence, self._journal_hash = applied.sequence, applied.hash
        placed = self._place(applied) if isinstance(applied.command, PlaceOrder) else None
        known = placed is None and isinstance(applied.command, PlaceOrder)
        for line, event in enumerate(applied.events):
            count = _COUNTED.get(type(event))
            if count is not None and not (known and type(event) is CommandRejected):
                count(self, event, applied, line)
        if placed is not None:
            rejects = [event.reject for event in applied.events if type(event) is CommandRejected]
            placed.answer(rejects[0] if rejects else None)
        self._row_count += 1
        if self._arrived is not None:
            self._arrived.set()
        elif self._row_count >= REPLAY_FLUSH_ROWS:
            self.flush().result()

    def _follow_markets(self, events: Sequence[Event]) -> None:
        """A market is listed, or was in what is void."""
        for event in events:
            if isinstance(event, MarketListed):
                self._symbols.append(event.market.symbol)
            elif isinstance(event, Reversed) and event.markets:
                del self._symbols[event.markets :]

    def list_markets(self, genesis: Genesis) -> None:
        """Learn the markets' symbols, without the record that holds them."""
        self._symbols = [market.symbol for market in genesis.markets]

    def order(self, order_hash: bytes) -> OrderRecord | None:
        """An order that is open or ended recently, from memory."""
        return self._orders.get(order_hash)

    def order_of_client(self, account: int, client_id: str) -> OrderRecord | None:
        """The latest order with this client id, from memory."""
        order_hash = self._by_client.get((account, client_id))
        return None if order_hash is None else self._orders.get(order_hash)

    def flush(self) -> "Future[None]":
        """Hand everything that waits to the store's thread; a concurrent future of its completion."""
        rows: dict[str, Sequence[Row]] = {**self._rows}
        if self._dirty:  # as they are now: what follows changes them while the thread writes
            rows["orders"] = [record.row() for record in self._dirty.values()]
        if self._candles.changed:
            rows["candles"] = [candle.row() for candle in self._candles.changed.values()]
        self._rows = {}
        self._dirty, self._candles.changed, self._row_count = {}, {}, 0
        voided, self._voided = self._voided, []
        candles, self._voided_candles = self._voided_candles, []
        moved, self._owners.moved = self._owners.moved, []
        about = self.sequence, self._journal_hash, self._genesis_hash
        return self.store.write(WriteBatch(rows, *about, voided, candles, moved))

    async def run(self) -> None:
        """Store what arrives until cancelled."""
        self._arrived = asyncio.Event()
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                await asyncio.shield(asyncio.wrap_future(self.flush()))
                await asyncio.sleep(FLUSH_S)
        finally:
            self._arrived = None
            self.flush().result()

    async def settled(self) -> None:
        """Everything counted so far is on its way to the store before the next read."""
        if self._row_count:
            self.flush()

    def _load(self) -> None:
        """Open and recent orders, and the current candles, as the last run left them."""
        # Rows are numbered as they come, and there is no index by journal sequence alone.
        recent = select(tables.orders).order_by(literal_column("rowid").desc()).limit(1_000)
        waiting = select(tables.orders).where(tables.orders.c.status.in_(OPEN_STATES))
        with without_collector():
            records = self.store.read_now(lambda db: stored_orders(db, waiting) + stored_orders(db, recent))
        for record in sorted(records, key=attrgetter("journal_sequence")):
            self._remember(record)
        for candle in self.store.read_now(newest_candles):
            self._candles.resume(candle)
        self.store.read_now(self._owners.load)

    def _place(self, applied: Applied) -> OrderRecord | None:
        """The new order's record; None for a repetition, which must not disturb the first.

        The gate keeps repetitions of any age out of the journal, so memory is enough to look at here.
        """
        command = applied.command
        if not isinstance(command, PlaceOrder):
            return None
        known = self._orders.get(command.order_hash)
        if known is not None and known.status != "voided":
            return None
        record = new_record(command, applied.sequence, applied.stamp_ms)
        self._remember(record)
        self._dirty[record.order_hash] = record
        return record

    def _remember(self, record: OrderRecord) -> None:
        self._orders[record.order_hash] = record
        if record.client_id:
            self._by_client[record.account, record.client_id] = record.order_hash
        while len(self._orders) > RECENT_ORDERS:
            oldest = next(iter(self._orders.values()))
            if oldest.is_open:  # stays, at the young end
                self._orders.move_to_end(oldest.order_hash)
                break
            del self._orders[oldest.order_hash]
            if self._by_client.get((oldest.account, oldest.client_id)) == oldest.order_hash:
                del self._by_client[oldest.account, oldest.client_id]

    def _reverse(self, event: Reversed, applied: Applied, line: int) -> None:
        """Mark what is void, and take its fills off their orders; an order from after the point is void as a whole. Whatever
        stands of it comes again."""
        trades = tables.fills.c.trade_id.between(event.first_trade, event.last_trade)
        placed = tables.orders.c.journal_sequence > event.after
        standing = ~tables.fills.c.voided  # an earlier reversal may have taken others off already
        fills = self._read(select(tables.fills).where(trades, standing))
        for fill in fills:
            record = self._record(fill["order_hash"])
            if record is not None:
                record.take_off(fill)
        taken = select(tables.orders.c.order_hash).where(placed, tables.orders.c.status != "rejected")
        for row in self._read(taken):
            record = self._record(row["order_hash"])
            if record is not None:
                record.status, record.filled, record.reason = "voided", 0, "reversed"
                record.answer()
        self._voided.append(
            Voided(event.first_trade, event.last_trade, event.after + 1, applied.sequence - 1)
        )
        void = event.first_trade, event.last_trade
        for candles, left in self.store.read_now(lambda connection: recount(connection, *void)):
            self._voided_candles.append(candles)
            self._candles.replace(candles.market, left)
        orders = self._orders.values()
        self.store.read_now(lambda connection: self._owners.reverse(connection, event.after, orders))
        self._find_clients_again()

    def _registered(self, event: AccountRegistered, applied: Applied, line: int) -> None:
        self._row("accounts", (event.account, event.owner, event.sub_account, applied.sequence))
        if self._owners.register(event, self._orders.values()):
            self._find_clients_again()

    def _find_clients_again(self) -> None:
        self._by_client = {
            (one.account, one.client_id): one.order_hash for one in self._orders.values() if one.client_id
        }

    def _record(self, order_hash: bytes) -> OrderRecord | None:
        """An order of any age, to be changed."""
        record = self._orders.get(order_hash)
        if record is None:
            query = select(tables.orders).where(tables.orders.c.order_hash == order_hash)
            found = self.store.read_now(lambda connection: stored_orders(connection, query))
            if not found:
                return None
            record = found[0]
            self._remember(record)
        self._dirty[order_hash] = record
        return record

    def _read(self, query: Select[Any]) -> list[dict[str, Any]]:
        return self.store.read_now(lambda connection: fetch(connection, query))

    def _collateral(self, event: CollateralChanged, applied: Applied, line: int) -> None:
        if event.cause not in TOLD_CAUSES:
            self._row("ledger", ledger_row(event, applied, line))

    def _funding(self, event: FundingApplied, applied: Applied, line: int) -> None:
        symbol = self._symbols[event.market_id]
        self._row("funding", (symbol, event.hour, event.rate_ppb, event.index_ticks))

    def _order_event(self, event: OrderEvent, applied: Applied, line: int) -> None:
        restored = isinstance(event, OrderRestored)
        record = self._record(event.order_hash) if restored else self._orders.get(event.order_hash)
        if record is None or (record.status == "voided" and not restored):
            return  # that it left the book is part of being void
        if isinstance(event, OrderAccepted):
            record.status, record.filled = "open", event.filled
        elif isinstance(event, OrderRestored):
            record.status, record.filled = "open" if event.triggered else "untriggered", event.filled
            record.reason = ""
        elif isinstance(event, OrderFilled):
            record.status, record.filled = "filled", event.filled
        elif isinstance(event, OrderCancelled):
            record.status, record.filled, record.reason = "cancelled", event.filled, str(event.reason)
        elif isinstance(event, CommandRejected):
            record.reason = event.reject.code.name
        elif isinstance(event, OrderWaits):
            record.status = "untriggered"
        elif isinstance(event, OrderTriggered):
            record.status = "triggered"
        self._dirty[record.order_hash] = record

    def _trade(self, trade: Trade, applied: Applied, line: int) -> None:
        symbol, stamp_ms = self._symbols[trade.market_id], applied.stamp_ms
        taker_side, liquidation = trade.taker_side, trade.liquidated != 0
        price, size, number = trade.price, trade.size, trade.trade_id
        side = SIDE_TEXT[taker_side]
        self._row("trades", (number, symbol, price, size, side, stamp_ms, False, liquidation))
        self._candles.add(symbol, price, size, stamp_ms)
        other = SIDE_TEXT[1 - taker_side]
        parties = (
            ("maker", other, trade.maker, trade.maker_hash, trade.maker_fee, trade.maker_builder_fee),
            ("taker", side, trade.taker, trade.taker_hash, trade.taker_fee, trade.taker_builder_fee),
        )
        for role, side, account, order_hash, fee, built in parties:
            fees = str(fee), str(built)
            about = order_hash, liquidation, stamp_ms, False
            self._row("fills", (account, number, role, symbol, side, price, size, *fees, *about))
            record = self._orders.get(order_hash)
            if record is not None:
                record.filled += size
                record.traded += size
                record.lot_ticks += size * price
                record.fee += fee
                record.builder_fee += built
                self._dirty[order_hash] = record

    def _row(self, table: str, row: Row) -> None:
        self._rows.setdefault(table, []).append(row)
        self._row_count += 1


# What becomes of each kind of event; the others leave nothing in the history.
_COUNTED: dict[type, Callable[[History, Any, Applied, int], None]] = {
    Trade: History._trade,
    AccountRegistered: History._registered,
    CollateralChanged: History._collateral,
    FundingApplied: History._funding,
    Reversed: History._reverse,
    **dict.fromkeys(get_args(OrderEvent), History._order_event),
}
