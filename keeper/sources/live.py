"""Live venues through ccxt: several spot venues a base for the index, perpetuals for the mark.

Every venue is polled by a task of its own, so that a slow one delays nobody; numbers arrive as text and are
checked.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from evermark.protocol.markets import Market
from evermark.protocol.units import PPM
from evermark.tapes.prices import Rounding, to_ticks
from keeper.sources.numbers import positive_decimal
from keeper.sources.quotes import Origin, Quote, SourceKind, SourceUnavailable

START_TIMEOUT_S = 4.5  # with importing ccxt (some seconds) it stays below the ten that an operator waits
REQUEST_TIMEOUT_S = 5
MAX_ANSWER_BYTES = 64 * 2**20  # the largest venues list their markets in some tens of megabytes
PROBE_TIMEOUT_S = 3.0
POLL_S = 1.5
LONGEST_PAUSE_S = 30.0


class Venue(msgspec.Struct, frozen=True, kw_only=True):
    """A ccxt exchange and how it names a base's instrument, e.g. `{base}/USD` or `{base}/USDT:USDT`."""

    name: str
    symbol: str
    kind: SourceKind = SourceKind.SPOT


DEFAULT_VENUES = (
    Venue(name="coinbase", symbol="{base}/USD"),
    Venue(name="kraken", symbol="{base}/USD"),
    Venue(name="bitstamp", symbol="{base}/USD"),
    Venue(name="gemini", symbol="{base}/USD"),
    Venue(name="cryptocom", symbol="{base}/USD"),
    Venue(name="okx", symbol="{base}/USDT:USDT", kind=SourceKind.PERPETUAL),
    Venue(name="bybit", symbol="{base}/USDT:USDT", kind=SourceKind.PERPETUAL),
    Venue(name="krakenfutures", symbol="{base}/USD:USD", kind=SourceKind.PERPETUAL),
)


# Where the usual venues answer, to find out in time that there is no network.
HOSTS = {
    "binance": "api.binance.com",
    "bitstamp": "www.bitstamp.net",
    "bybit": "api.bybit.com",
    "coinbase": "api.coinbase.com",
    "cryptocom": "api.crypto.com",
    "gemini": "api.gemini.com",
    "kraken": "api.kraken.com",
    "krakenfutures": "futures.kraken.com",
    "okx": "www.okx.com",
}


class _Seen(msgspec.Struct, frozen=True):
    """A price and when it was true: `age_ms` at `received`, a reading of the monotonic clock."""

    price: Decimal
    spread_ppm: int
    age_ms: int
    received: float


class LiveSource:
    """Polls every venue until closed; quotes keep their age, so that a venue that falls silent goes stale."""

    def __init__(
        self, markets: Sequence[Market], venues: Sequence[Venue] = DEFAULT_VENUES, proxy: str = ""
    ) -> None:
        self._markets = tuple(markets)
        self._venues = tuple(venues)
        self._proxy = proxy
        self._seen: dict[tuple[str, int], tuple[SourceKind, _Seen]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[Any] = []
        self._session: aiohttp.ClientSession | None = None
        self._first = asyncio.Event()
        self.errors: dict[str, str] = {}

    async def start(self) -> None:
        """Begin polling and wait for a first price. Raises SourceUnavailable naming what each venue said."""
        await check_network(self._venues, self._proxy)
        library = await asyncio.to_thread(_import_ccxt)
        self._session = _guarded_session()
        for venue in self._venues:
            exchange = getattr(library, venue.name, None)
            if exchange is None:
                raise SourceUnavailable(f"live prices: ccxt knows no venue {venue.name!r}")
            options = {"timeout": REQUEST_TIMEOUT_S * 1000, "enableRateLimit": True, "session": self._session}
            client = exchange(options)
            client.number = str  # exact text instead of floats
            if self._proxy:
                client.httpsProxy = self._proxy
            self._clients.append(client)
            self._tasks.append(asyncio.create_task(self._poll(venue, client), name=f"venue {venue.name}"))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._first.is_set() and time.monotonic() < deadline:
            if len(self.errors) == len({venue.name for venue in self._venues}):
                break
            await asyncio.sleep(0.05)
        if not self._first.is_set():
            await self.close()
            said = "; ".join(f"{name}: {error}" for name, error in sorted(self.errors.items())) or "no answer"
            raise SourceUnavailable(f"live prices: no venue answered within {START_TIMEOUT_S:.1f} s ({said})")

    async def quotes(self, now_s: int) -> tuple[Quote, ...]:
        """The newest price of every venue; its time is `now_s` less the age it has by now."""
        made = []
        for (venue, market_id), (kind, seen) in self._seen.items():
            ticks = to_ticks(seen.price, self._market(market_id), Rounding.NEAREST)
            if ticks is None:
                continue
            age_ms = seen.age_ms + int((time.monotonic() - seen.received) * 1000)
            made.append(
                Quote(
                    venue=venue,
                    market_id=market_id,
                    kind=kind,
                    origin=Origin.LIVE,
                    ticks=ticks,
                    time_ms=now_s * 1000 - age_ms,
                    spread_ppm=seen.spread_ppm,
                )
            )
        return tuple(made)

    async def close(self) -> None:
        """Stop polling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True)
        self._clients = []
        if self._session is not None:
            await self._session.close()

    async def _poll(self, venue: Venue, client: Any) -> None:
        symbols = {venue.symbol.format(base=market.base): market.market_id for market in self._markets}
        pause = POLL_S
        while True:
            try:
                await asyncio.wait_for(client.load_markets(), 4 * REQUEST_TIMEOUT_S)
                listed = [symbol for symbol in symbols if symbol in client.markets]
                answers = await asyncio.gather(
                    *(
                        asyncio.wait_for(client.fetch_ticker(symbol), 2 * REQUEST_TIMEOUT_S)
                        for symbol in listed
                    )
                )
                for symbol, answer in zip(listed, answers, strict=True):
                    self._take(venue, symbols[symbol], answer)
                self.errors.pop(venue.name, None)
                pause = POLL_S
            except Exception as error:  # a venue, or ccxt's parser for it, may fail in any way: it goes stale
                self.errors[venue.name] = f"{type(error).__name__}: {error}"[:160]
                pause = min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    def _take(self, venue: Venue, market_id: int, ticker: Any) -> None:
        seen = read_ticker(ticker, int(time.time() * 1000), time.monotonic())
        if seen is None:
            self.errors[venue.name] = "ticker without a usable price"
            return
        self._seen[venue.name, market_id] = (venue.kind, seen)
        self._first.set()

    def _market(self, market_id: int) -> Market:
        return next(market for market in self._markets if market.market_id == market_id)


async def check_network(venues: Sequence[Venue] = DEFAULT_VENUES, proxy: str = "") -> None:
    """Look whether any venue's host (or the proxy) takes a connection, before ccxt's seconds of loading.

    Raises SourceUnavailable naming what each host said. Venues whose host is not known here are not judged.
    """
    if proxy:
        address = urlsplit(proxy)
        targets = {proxy: (address.hostname or "", address.port or 80)}
    elif all(venue.name in HOSTS for venue in venues):
        targets = {venue.name: (HOSTS[venue.name], 443) for venue in venues}
    else:
        return
    answers = await asyncio.gather(*(_connect(host, port) for host, port in targets.values()))
    if all(answers):
        said = "; ".join(f"{name}: {answer}" for name, answer in sorted(zip(targets, answers, strict=True)))
        raise SourceUnavailable(f"live prices: no venue answered ({said})")


async def _connect(host: str, port: int) -> str:
    """Empty when a connection opens, else why not."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PROBE_TIMEOUT_S)
    except TimeoutError:
        return f"{host} does not answer within {PROBE_TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"{host}: {error.strerror or error}"
    writer.close()
    return ""


def read_ticker(ticker: Any, wall_ms: int, received: float) -> _Seen | None:
    """The middle of bid and ask, else the last price; None when nothing in it is a positive number."""
    if not isinstance(ticker, Mapping):
        return None
    bid, ask = positive_decimal(ticker.get("bid")), positive_decimal(ticker.get("ask"))
    stamp = ticker.get("timestamp")
    age_ms = max(0, wall_ms - stamp) if isinstance(stamp, int) and 0 < stamp < 2**53 else 0
    if bid is not None and ask is not None and bid <= ask:
        middle = (bid + ask) / 2
        # a standing book is as old as its answer
        return _Seen(middle, int((ask - bid) * PPM / middle), 0, received)
    last = positive_decimal(ticker.get("last"))
    return None if last is None else _Seen(last, 0, age_ms, received)


def _import_ccxt() -> Any:
    import ccxt.async_support  # takes seconds, and only live prices need it

    return ccxt.async_support


def _guarded_session() -> aiohttp.ClientSession:
    """A session that follows no redirect and reads no huge answer; endless ones meet the time limit."""

    async def no_redirect(session: Any, context: Any, details: Any) -> None:
        raise aiohttp.ClientError("a venue redirected the request")

    async def no_flood(session: Any, context: Any, details: aiohttp.TraceRequestEndParams) -> None:
        if (details.response.content_length or 0) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientError("a venue's answer is too large")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(no_redirect)
    trace.on_request_end.append(no_flood)
    return aiohttp.ClientSession(
        trace_configs=[trace], timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    )
