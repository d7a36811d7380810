"""What keepers read from and send to the gateway, over `evermark.client`'s bounded, retrying transport."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from evermark.client.errors import EvermarkError, Unreachable
from evermark.client.models import AccountInfo, ExchangeInfo
from evermark.client.reads import PublicReads
from evermark.protocol.markets import Market
from evermark.protocol.orders import Signature
from evermark.protocol.signing import TYPES, FundingReport, Liquidate, PriceReport
from keeper.liquidator import AccountView, OpenPosition
from keeper.oracle import BookTop

REPORT_PATHS = {
    "PriceReport": ("/v1/oracle/prices", "report"),
    "FundingReport": ("/v1/oracle/funding", "report"),
    "Liquidate": ("/v1/liquidations", "trigger"),
}
BOOK_DEPTH = 50
BOOK_AGE_S = 0.4  # wall seconds that a book may be used again; several roles of a process share one reading
ACCOUNT_PAGES = 10
ACCOUNT_PAGE = 200

Decoded = TypeVar("Decoded")
Report = PriceReport | FundingReport | Liquidate


class BookState(msgspec.Struct, frozen=True):
    """A public book: (price, lots) best first, and the last trade's price (0: none)."""

    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]
    last: int

    @property
    def top(self) -> BookTop:
        """Best prices, 0 for an empty side."""
        return BookTop(self.bids[0][0] if self.bids else 0, self.asks[0][0] if self.asks else 0, self.last)


class MarketView(msgspec.Struct, frozen=True):
    """A market's part of GET /v1/status."""

    mode: str | int
    index: int | None = None
    mark: int | None = None
    price_age_s: int | None = None
    open_interest: int = 0
    funding_rate_ppb: int = 0


class StatusView(msgspec.Struct, frozen=True):
    """The part of GET /v1/status that keepers use."""

    chain_time: int
    round: int
    markets: dict[str, MarketView]


class _Page(msgspec.Struct, frozen=True):
    accounts: tuple[AccountInfo, ...]
    next: int | None = None


class Exchange:
    """One gateway as the keepers of one process see it."""

    def __init__(self, url: str) -> None:
        self.reads = PublicReads(url, bytes(20), 0, timeout_s=5.0)
        self._books: dict[int, BookState] = {}
        self._books_at = 0.0
        self._reading = asyncio.Lock()
        self.book_error = ""

    async def info(self) -> ExchangeInfo:
        """The exchange's fixed facts. Raises Unreachable while it has none yet."""
        info = _decode(await self.reads.transport.get("/v1/exchange"), ExchangeInfo)
        if info.round_seconds < 1 or not info.markets:
            raise Unreachable(f"the exchange at {self.reads.transport.url} has no genesis yet")
        return info

    async def close(self) -> None:
        """Close the connections."""
        await self.reads.transport.close()

    async def books(self, markets: Sequence[Market]) -> Mapping[int, BookState]:
        """Books by market id, at most BOOK_AGE_S old; one that cannot be read is missing."""
        async with self._reading:
            if time.monotonic() - self._books_at > BOOK_AGE_S:
                found = await asyncio.gather(*(self._book(market) for market in markets))
                pairs = zip(markets, found, strict=True)
                self._books = {market.market_id: state for market, state in pairs if state is not None}
                self._books_at = time.monotonic()
        return self._books

    async def status(self) -> StatusView:
        """Prices and modes of every market. Raises EvermarkError."""
        return _decode(await self.reads.transport.get("/v1/status"), StatusView)

    async def liquidatable(self, markets: Sequence[Market]) -> tuple[AccountView, ...]:
        """Accounts that the gateway lists as liquidatable; at most ACCOUNT_PAGES pages.

        Raises EvermarkError.
        """
        ids = {market.symbol: market.market_id for market in markets}
        found: list[AccountView] = []
        after = 0
        for _ in range(ACCOUNT_PAGES):
            params = {"liquidatable": 1, "after": after, "limit": ACCOUNT_PAGE}
            raw = await self.reads.transport.get("/v1/accounts", params)
            page = _decode(raw, _Page)
            found += [view for view in (account_view(one, ids) for one in page.accounts) if view is not None]
            if not page.next or page.next <= after:
                break
            after = page.next
        return tuple(found)

    async def send(self, report: Report, signature: Signature) -> dict[str, Any]:
        """Post a signed report or trigger -> the gateway's answer. Raises Refused, Unreachable."""
        path, name = REPORT_PATHS[type(report).__name__]
        body = {name: report_json(report), "signature": "0x" + signature.to_bytes().hex()}
        raw = await self.reads.transport.post(path, body, True)  # a repetition changes nothing
        return _decode(raw, dict[str, Any])

    async def _book(self, market: Market) -> BookState | None:
        try:
            book, trades = await asyncio.gather(
                self.reads.book(market.symbol, BOOK_DEPTH), self.reads.trades(market.symbol, limit=1)
            )
            last = int(trades[0]["price"]) if trades else 0
        except (EvermarkError, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            self.book_error = f"{market.symbol} book: {error}"[:200]
            return None
        return BookState(_levels(book.bids), _levels(book.asks), last)


def account_view(account: AccountInfo, ids: Mapping[str, int]) -> AccountView | None:
    """The numbers that a liquidation decision rests on; None when a market is unknown."""
    positions = []
    for position in account.positions:
        if position.market not in ids:
            return None
        positions.append(OpenPosition(ids[position.market], position.size, position.funding_owed))
    return AccountView(account.account, account.collateral, tuple(positions))


def report_json(report: Report) -> dict[str, Any]:
    """The message under its EIP-712 field names; integers above 2^53 as decimal strings."""
    fields = TYPES[type(report).__name__]
    values = msgspec.structs.astuple(report)
    return {field: _json_value(value) for (_, field), value in zip(fields, values, strict=True)}


def _decode(raw: bytes, kind: type[Decoded]) -> Decoded:
    """Typed decoding; an answer of another shape is no answer."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the exchange's answer is not understood: {error}") from error


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return str(value) if isinstance(value, int) and abs(value) > 2**53 else value


def _levels(rows: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((price, size) for price, size, _ in rows)
