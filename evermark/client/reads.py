"""What anybody may ask: markets, books, accounts and orders. `EvermarkClient` adds what needs a signature."""

from typing import Any, TypeVar

import msgspec

from evermark.client.errors import NotFound, Refused
from evermark.client.models import AccountInfo, Book, ExchangeInfo, Fill, OrderStatus, Position, QueuePlace
from evermark.client.signed import hex_text
from evermark.client.slots import ChainClock
from evermark.client.transport import Transport
from evermark.protocol.markets import Market

Answer = TypeVar("Answer")


class PublicReads:
    """Reads of one exchange, for the account (owner, sub_account) unless an argument says otherwise."""

    def __init__(self, url: str, owner: bytes, sub_account: int, timeout_s: float = 10.0) -> None:
        self.owner, self.sub_account = owner, sub_account
        self.clock = ChainClock()
        self.transport = Transport(url, timeout_s, self.clock.heard)
        self._exchange: ExchangeInfo | None = None

    @property
    def owner_text(self) -> str:
        """The account's owner as 0x-hex."""
        return hex_text(self.owner)

    async def exchange(self) -> ExchangeInfo:
        """The exchange's fixed facts, asked once."""
        if self._exchange is None:
            self._exchange = _decode(await self.transport.get("/v1/exchange"), ExchangeInfo)
        return self._exchange

    async def market(self, symbol: str) -> Market:
        """A market's parameters. Raises NotFound."""
        info = await self.exchange()
        market = info.market(symbol)
        if market is None:
            raise NotFound(f"no market {symbol!r}; there are {', '.join(m.symbol for m in info.markets)}")
        return market

    async def status(self) -> dict[str, Any]:
        """Rounds, batches, settlement lag and every market's prices (see the API reference)."""
        status = _decode(await self.transport.get("/v1/status"), dict[str, Any])
        self.clock.heard(int(status["chain_time"]) * 1000)
        return status

    async def book(self, symbol: str, depth: int = 50) -> Book:
        """The order book, best levels first."""
        return _decode(await self.transport.get(f"/v1/markets/{symbol}/book", {"depth": depth}), Book)

    async def trades(self, symbol: str, limit: int = 100) -> list[dict[str, Any]]:
        """Latest trades of a market, newest first."""
        return _decode(
            await self.transport.get(f"/v1/markets/{symbol}/trades", {"limit": limit}), list[dict[str, Any]]
        )

    async def candles(
        self, symbol: str, interval: str = "1m", start_s: int = 0, end_s: int = 0
    ) -> list[dict[str, Any]]:
        """Candles {t, o, h, l, c, v, n}, oldest first; `interval` is 1m, 5m, 15m, 1h, 4h or 1d."""
        params = (
            {"interval": interval}
            | ({"start": start_s} if start_s else {})
            | ({"end": end_s} if end_s else {})
        )
        return _decode(
            await self.transport.get(f"/v1/markets/{symbol}/candles", params), list[dict[str, Any]]
        )

    async def funding_rates(self, symbol: str, limit: int = 100) -> list[dict[str, Any]]:
        """Applied funding hours of a market, newest first."""
        return _decode(
            await self.transport.get(f"/v1/markets/{symbol}/funding", {"limit": limit}), list[dict[str, Any]]
        )

    async def account(self) -> AccountInfo:
        """Balance, margin and positions. Raises Refused (UNKNOWN_ACCOUNT) before the first deposit."""
        return _decode(await self.transport.get(self._account_path()), AccountInfo)

    async def balance(self) -> int:
        """Collateral in quote units."""
        return (await self.account()).collateral

    async def positions(self) -> tuple[Position, ...]:
        """Open positions."""
        return (await self.account()).positions

    async def deleveraging(self) -> list[QueuePlace]:
        """Where each open position stands in the queue of auto-deleveraging, by market."""
        return _decode(await self.transport.get(self._account_path("/deleveraging")), list[QueuePlace])

    async def open_orders(self) -> list[OrderStatus]:
        """Every order that waits in a book."""
        raw = await self.transport.get(self._account_path("/orders"), {"status": "open", "limit": 1000})
        return _decode(raw, list[OrderStatus])

    async def orders(self, limit: int = 100, before: int = 0) -> list[OrderStatus]:
        """Orders of any status, newest first; `before` is a journal sequence to page from."""
        return _decode(
            await self.transport.get(self._account_path("/orders"), _page(limit, before)), list[OrderStatus]
        )

    async def fills(self, limit: int = 100, before: int = 0) -> list[Fill]:
        """Executions, newest first; `before` is a trade id to page from."""
        return _decode(
            await self.transport.get(self._account_path("/fills"), _page(limit, before)), list[Fill]
        )

    async def funding_payments(self, limit: int = 100, before: int = 0) -> list[dict[str, Any]]:
        """Funding settled on the account's positions, newest first."""
        raw = await self.transport.get(self._account_path("/funding"), _page(limit, before))
        return _decode(raw, list[dict[str, Any]])

    async def ledger(self, limit: int = 100, before: int = 0) -> list[dict[str, Any]]:
        """Deposits, withdrawals and every other change of collateral that is no trade, newest first."""
        raw = await self.transport.get(self._account_path("/ledger"), _page(limit, before))
        return _decode(raw, list[dict[str, Any]])

    async def last_deposit(self) -> int:
        """Journal sequence of the newest credited deposit, 0 without one."""
        try:
            rows = await self.ledger(limit=20)
        except Refused as refused:
            if refused.name != "UNKNOWN_ACCOUNT":
                raise
            return 0
        return max((row["journal_sequence"] for row in rows if row["cause"] == "deposit"), default=0)

    async def order_status(self, order_hash: str = "", *, client_id: str = "") -> OrderStatus:
        """The truth about an order, by hash or by client id: open, filled, cancelled, rejected or
        never_seen.
        """
        if order_hash:
            return _decode(await self.transport.get(f"/v1/orders/{order_hash}"), OrderStatus)
        params = {"owner": self.owner_text, "sub_account": self.sub_account, "client_id": client_id}
        return _decode(await self.transport.get("/v1/orders", params), OrderStatus)

    def _account_path(self, rest: str = "") -> str:
        return f"/v1/accounts/{self.owner_text}/{self.sub_account}{rest}"


def _page(limit: int, before: int) -> dict[str, int]:
    return {"limit": limit} | ({"before": before} if before else {})


def _decode(raw: bytes, kind: type[Answer]) -> Answer:
    """Typed decoding; integers may come as decimal strings."""
    return msgspec.json.decode(raw, type=kind, strict=False)
