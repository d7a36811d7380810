"""A small real server with the shapes of the API reference: it recovers signers and can misbehave.

It serves the keepers' reads and posts, and `devnet_clock` as a chain's node does.
"""

import time
from typing import Any

import msgspec
from aiohttp import web

from evermark.protocol.markets import load_markets
from evermark.protocol.signing import (
    FundingReport,
    Liquidate,
    PriceReport,
    digest,
    domain_separator,
    parse_signature,
    recover,
)

VAULT, ORACLE = b"\x11" * 20, b"\x22" * 20
CHAIN_ID = 31_337
ROUND_SECONDS = 2


class SmallGateway:
    """Start with `await gateway.start()`; `url` serves both the API and the node."""

    def __init__(self, *, start_s: int, speed: float = 1.0, port: int = 0) -> None:
        self.speed, self._start_s, self._began = speed, start_s, time.monotonic()
        self._port = port
        self.prices: list[tuple[bytes, PriceReport]] = []
        self.funding: list[tuple[bytes, FundingReport]] = []
        self.triggers: list[tuple[bytes, Liquidate]] = []
        self.accounts: list[dict[str, Any]] = []
        self.failures: list[int] = []  # HTTP statuses for the next posts
        self.decided_hours: set[int] = set()
        self.markets = load_markets()
        self.healthy: set[int] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port, or on the one it had before."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/", self._rpc),
                web.get("/v1/exchange", self._exchange),
                web.get("/v1/status", self._status),
                web.get("/v1/markets/{symbol}/book", self._book),
                web.get("/v1/markets/{symbol}/trades", self._trades),
                web.get("/v1/accounts", self._accounts),
                web.post("/v1/oracle/prices", self._take_prices),
                web.post("/v1/oracle/funding", self._take_funding),
                web.post("/v1/liquidations", self._take_trigger),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; what was received stays."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def chain_s(self) -> float:
        """Chain time."""
        return self._start_s + (time.monotonic() - self._began) * self.speed

    async def _rpc(self, request: web.Request) -> web.Response:
        call = await request.json()
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] == "devnet_clock":
            answer["result"] = {"chain_time": self.chain_s(), "speed": self.speed}
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        return web.json_response(answer)

    async def _exchange(self, _: web.Request) -> web.Response:
        info = {
            "chain_id": CHAIN_ID,
            "vault": "0x" + VAULT.hex(),
            "oracle": "0x" + ORACLE.hex(),
            "inbox": "0x" + "33" * 20,
            "token": "0x" + "44" * 20,
            "round_seconds": ROUND_SECONDS,
            "markets": msgspec.to_builtins(self.markets),
            "fee_schedule": {},
        }
        return web.json_response(info)

    async def _status(self, _: web.Request) -> web.Response:
        market = {"mode": "normal", "index": 1_200_000, "mark": 1_200_000, "price_age_s": 1}
        markets = {one.symbol: market for one in load_markets()}
        now = int(self.chain_s())
        return web.json_response({"chain_time": now, "round": now // ROUND_SECONDS, "markets": markets})

    async def _book(self, request: web.Request) -> web.Response:
        book = {"bids": [[1_199_900, 10**8, 1]], "asks": [[1_200_100, 10**8, 1]]}
        return web.json_response({"market": request.match_info["symbol"], "sequence": 1, **book})

    async def _trades(self, _: web.Request) -> web.Response:
        return web.json_response(
            [{"trade_id": 1, "price": 1_200_000, "size": 1, "side": "buy", "time_ms": 1}]
        )

    async def _accounts(self, _: web.Request) -> web.Response:
        return web.json_response({"accounts": self.accounts, "next": None})

    async def _take_prices(self, request: web.Request) -> web.Response:
        if self.failures:
            return self._fail()
        body = await request.json()
        raw = body["report"]
        prices = tuple(int(price) for price in raw["prices"])
        report = PriceReport(round=raw["round"], timestamp=raw["timestamp"], prices=prices)
        self.prices.append((signer_of(report, body["signature"], ORACLE, "Evermark Oracle"), report))
        return web.json_response({"accepted": True, "have": 1, "need": 3})

    async def _take_funding(self, request: web.Request) -> web.Response:
        if self.failures:
            return self._fail()
        body = await request.json()
        raw = body["report"]
        rates = tuple(int(rate) for rate in raw["ratesPpb"])
        report = FundingReport(hour=raw["hour"], rates_ppb=rates, samples=bytes.fromhex(raw["samples"][2:]))
        accepted = report.hour not in self.decided_hours
        self.funding.append((signer_of(report, body["signature"], ORACLE, "Evermark Oracle"), report))
        return web.json_response({"accepted": accepted, "have": 1, "need": 3})

    async def _take_trigger(self, request: web.Request) -> web.Response:
        body = await request.json()
        trigger = msgspec.convert(body["trigger"], Liquidate)
        self.triggers.append((signer_of(trigger, body["signature"], VAULT, "Evermark"), trigger))
        if trigger.account in self.healthy:
            error = {"code": 307, "name": "HEALTHY_ACCOUNT", "message": "healthy", "field": "", "details": {}}
            return web.json_response({"error": error}, status=422)
        self.accounts = [one for one in self.accounts if one["account"] != trigger.account]
        return web.json_response({"liquidated": [{"market": trigger.market, "size": 1, "price": 1}]})

    def _fail(self) -> web.Response:
        error = {"code": 506, "name": "OVERLOADED", "message": "", "details": {"retry_after_ms": 50}}
        return web.json_response({"error": error}, status=self.failures.pop(0))


def signer_of(message: Any, signature: str, contract: bytes, name: str) -> bytes:
    """Who signed, 20 bytes."""
    separator = domain_separator(CHAIN_ID, contract, name)
    return recover(digest(separator, message), parse_signature(bytes.fromhex(signature[2:])))
