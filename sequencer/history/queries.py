"""Questions that the projection answers, newest first and page by page. Each runs in the store's thread."""

from typing import Any

from sqlalchemy import Connection, Select, select

from sequencer.history import tables
from sequencer.history.candles import INTERVALS_S
from sequencer.history.records import OPEN_STATES, OrderRecord, OrderView, wire_int
from sequencer.history.store import Store, fetch

MAX_LIMIT = 1_000
MAX_CANDLES = 5_000


class Queries:
    """Reads of the projection; every row written or counted before the question is seen."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def settled(self) -> None:
        """Make sure that what was counted is on its way to the store; the projection overrides it."""

    async def find_order(self, order_hash: bytes) -> OrderRecord | None:
        """An order of any age."""
        found = await self._find_orders(select(tables.orders).where(tables.orders.c.order_hash == order_hash))
        return found[0] if found else None

    async def find_client_order(self, account: int, client_id: str) -> OrderRecord | None:
        """The latest order of an account with this client id, of any age."""
        table = tables.orders.c
        of_client = table.account == account, table.client_id == client_id, tables.HAS_CLIENT_ID
        query = select(tables.orders).where(*of_client)
        found = await self._find_orders(query.order_by(table.journal_sequence.desc()).limit(1))
        return found[0] if found else None

    async def orders(self, account: int, limit: int, before: int, status: str) -> list[OrderView]:
        """ORDER rows; `before` is a journal sequence (0: from the newest), `status` "" for any."""
        table = tables.orders.c
        query = select(tables.orders).where(table.account == account)
        if before:
            query = query.where(table.journal_sequence < before)
        if status:
            # Whoever asks for open orders wants all that may still trade, untriggered ones among them.
            wanted = OPEN_STATES if status == "open" else (status,)
            query = query.where(table.status.in_(wanted))
        found = await self._find_orders(query.order_by(table.journal_sequence.desc()).limit(limit))
        return [record.view() for record in found]

    async def fills(self, account: int, limit: int, before: int) -> list[dict[str, Any]]:
        """FILL rows; `before` is a trade id."""
        table = tables.fills.c
        query = select(tables.fills).where(table.account == account)
        if before:
            query = query.where(table.trade_id < before)
        return [
            _fill_json(row) for row in await self._fetch(query.order_by(table.trade_id.desc()).limit(limit))
        ]

    async def ledger(self, account: int, limit: int, before: int, funding_only: bool) -> list[dict[str, Any]]:
        """Changes of collateral that are no trade: all, or funding payments only; `before` is a journal
        sequence.
        """
        table = tables.ledger.c
        is_funding = table.cause == "funding"
        query = select(tables.ledger).where(
            table.account == account, is_funding if funding_only else ~is_funding
        )
        if before:
            query = query.where(table.journal_sequence < before)
        rows = await self._fetch(
            query.order_by(table.journal_sequence.desc(), table.line.desc()).limit(limit)
        )
        return [_ledger_json(row) for row in rows]

    async def trades(self, market: str, limit: int, before: int) -> list[dict[str, Any]]:
        """A market's trades; `before` is a trade id."""
        table = tables.trades.c
        query = select(tables.trades).where(table.market == market, ~table.voided)
        if before:
            query = query.where(table.trade_id < before)
        rows = await self._fetch(query.order_by(table.trade_id.desc()).limit(limit))
        return [
            {key: row[key] for key in row if key not in ("market", "voided")}
            | {"size": wire_int(row["size"])}
            for row in rows
        ]

    async def candles(self, market: str, interval: str, start_s: int, end_s: int) -> list[dict[str, Any]]:
        """Candles within [start, end], oldest first; the newest MAX_CANDLES of them."""
        table = tables.candles.c
        begin = start_s // INTERVALS_S[interval] * INTERVALS_S[interval]
        query = select(tables.candles).where(
            table.market == market, table.interval == interval, table.t >= begin
        )
        if end_s:
            query = query.where(table.t <= end_s)
        rows = await self._fetch(query.order_by(table.t.desc()).limit(MAX_CANDLES))
        return [{key: wire_int(row[key]) for key in "tohlcvn"} for row in reversed(rows)]

    async def funding(self, market: str, limit: int) -> list[dict[str, Any]]:
        """Applied funding hours of a market, newest first."""
        table = tables.funding.c
        query = select(table.hour, table.rate_ppb, table.index).where(table.market == market)
        return await self._fetch(query.order_by(table.hour.desc()).limit(limit))

    async def _find_orders(self, query: Select[Any]) -> list[OrderRecord]:
        await self.settled()
        return await self.store.read(lambda connection: stored_orders(connection, query))

    async def _fetch(self, query: Select[Any]) -> list[dict[str, Any]]:
        await self.settled()
        return await self.store.read(lambda connection: fetch(connection, query))


def stored_orders(connection: Connection, query: Select[Any]) -> list[OrderRecord]:
    """Orders as a query of whole rows finds them. SQLAlchemy's own way from rows to values takes several times as long, and a
    start reads every order that is open."""
    return list(map(OrderRecord.stored, connection.execute(query).cursor.fetchall()))


def _fill_json(row: dict[str, Any]) -> dict[str, Any]:
    fill = {
        key: row[key]
        for key in ("trade_id", "market", "side", "price", "role", "liquidation", "time_ms", "voided")
    }
    order_hash = "0x" + row["order_hash"].hex() if row["order_hash"] else ""
    amounts = {key: wire_int(row[key]) for key in ("size", "fee", "builder_fee")}
    return fill | amounts | {"order_hash": order_hash}


def _ledger_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "journal_sequence": row["journal_sequence"],
        "cause": row["cause"],
        "amount": wire_int(row["amount"]),
        "collateral": wire_int(row["collateral"]),
        "time_ms": row["time_ms"],
        "voided": row["voided"],
    }
