"""Tables of the projection. Quote amounts are text: they may exceed a database's 64-bit integers."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class Quote(TypeDecorator[int]):
    """A Python integer of any size, as decimal text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Integer -> text."""
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Text -> integer."""
        return None if value is None else int(value)


# Most orders have none, and an index need not hold those. It is used by questions that repeat the condition.
HAS_CLIENT_ID = text("client_id <> ''")

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("order_hash", LargeBinary(32), primary_key=True),
    Column("client_id", String(64), nullable=False),
    Column("account", Integer, nullable=False),
    Column("status", String(11), nullable=False),
    Column("filled", BigInteger, nullable=False),
    Column("traded", BigInteger, nullable=False),
    Column("lot_ticks", Quote, nullable=False),
    Column("fee", Quote, nullable=False),
    Column("builder_fee", Quote, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("journal_sequence", BigInteger, nullable=False),
    Column("terms", LargeBinary, nullable=False),  # what was signed; nobody asks for orders by that
    Column("first", LargeBinary, nullable=False),  # what the sender was told, in short
    Index("orders_by_account", "account", "journal_sequence"),
    Index("orders_by_status", "status", "account"),
    Index("orders_by_client_id", "account", "client_id", "journal_sequence", sqlite_where=HAS_CLIENT_ID),
)

fills = Table(
    "fills",
    metadata,
    Column("account", Integer, primary_key=True),
    Column("trade_id", BigInteger, primary_key=True),
    Column("role", String(5), primary_key=True),
    Column("market", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("fee", Quote, nullable=False),
    Column("builder_fee", Quote, nullable=False),
    Column("order_hash", LargeBinary(32), nullable=False),
    Column("liquidation", Boolean, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("voided", Boolean, nullable=False),  # a reversal took it back
    sqlite_with_rowid=False,
)

ledger = Table(
    "ledger",
    metadata,
    Column("journal_sequence", BigInteger, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("account", Integer, nullable=False),
    Column("cause", String(32), nullable=False),
    Column("amount", Quote, nullable=False),
    Column("collateral", Quote, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("voided", Boolean, nullable=False),  # a reversal took it back
    Index("ledger_by_account", "account", "journal_sequence"),
)

# Whose each account is. One whose registration a reversal took back has an id below zero until its owner registers again.
accounts = Table(
    "accounts",
    metadata,
    Column("account", BigInteger, primary_key=True),
    Column("owner", LargeBinary(20), nullable=False),
    Column("sub_account", Integer, nullable=False),
    Column("journal_sequence", BigInteger, nullable=False),
)

trades = Table(
    "trades",
    metadata,
    Column("trade_id", Integer, primary_key=True),  # of 64 bits, and SQLite's own number of the row
    Column("market", String(32), nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("side", String(4), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("voided", Boolean, nullable=False),  # a reversal took it back
    Column("liquidation", Boolean, nullable=False),
    Index("trades_by_market", "market", "trade_id"),
)

candles = Table(
    "candles",
    metadata,
    Column("market", String(32), primary_key=True),
    Column("interval", String(4), primary_key=True),
    Column("t", BigInteger, primary_key=True),
    Column("o", BigInteger, nullable=False),
    Column("h", BigInteger, nullable=False),
    Column("l", BigInteger, nullable=False),
    Column("c", BigInteger, nullable=False),
    Column("v", Quote, nullable=False),
    Column("n", BigInteger, nullable=False),
)

funding = Table(
    "funding",
    metadata,
    Column("market", String(32), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("rate_ppb", BigInteger, nullable=False),
    Column("index", BigInteger, nullable=False),
)
