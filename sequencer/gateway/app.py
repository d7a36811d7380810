"""The aiohttp application: routes, and the middleware that turns refusals into answers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from evermark.protocol.reject import Reject, RejectCode
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer
from sequencer.gateway.desk import Desk
from sequencer.gateway.hub import Hub
from sequencer.gateway.keepers import KeeperDesk
from sequencer.gateway.limits import Limiter
from sequencer.gateway.metrics import GatewayMetrics
from sequencer.gateway.reads import Reads
from sequencer.gateway.refusal import Refusal, internal_error, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.signers import Signers
from sequencer.gateway.sockets import Sockets
from sequencer.gateway.verify import SignatureThreads

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON = "application/json"
HUB = web.AppKey("hub", Hub)  # whoever composes the process may publish through it
LAG_SAMPLE_S = 0.05
MAX_HEADER_BYTES = 4_096
LINGERING_S = 1.0  # how long the rest of a refused body may still come in
SHUTDOWN_S = 5.0

log = structlog.get_logger("gateway")


def create_app(services: Services) -> web.Application:
    """The gateway as an application; its tasks and threads live between start-up and clean-up."""
    return _Gateway(services).app


def create_runner(app: web.Application, keepalive_s: float = 30.0) -> web.AppRunner:
    """A runner with the server settings that the gateway relies on.

    A connection that has sent no complete request after `keepalive_s` is cut (slow-loris), and bodies are
    never inflated.
    """
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=keepalive_s,
        lingering_time=LINGERING_S,
        max_field_size=MAX_HEADER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        shutdown_timeout=SHUTDOWN_S,
    )


class _Gateway:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._metrics = GatewayMetrics(services.registry)
        self._limiter = Limiter(services.settings.limits)
        self._threads = SignatureThreads(
            services.settings.signature_threads,
            services.history.store.answered,
            services.settings.signatures_waiting,
        )
        signers = Signers(services, self._threads)
        self._desk = Desk(services, self._limiter, signers)
        self._keepers = KeeperDesk(services, self._limiter, signers)
        self._reads = Reads(services)
        self._hub = Hub(services, self._reads.status_content)
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets = Sockets(services, self._limiter, self._desk, self._reads, self._hub, self._metrics)
        self.app = web.Application(
            middlewares=[self._guard], client_max_size=services.settings.max_body_bytes
        )
        self.app[HUB] = self._hub
        self._add_routes()
        self.app.cleanup_ctx.append(self._live)
        self.app.on_shutdown.append(self._say_goodbye)

    def _add_routes(self) -> None:
        desk, keepers, reads, router = self._desk, self._keepers, self._reads, self.app.router
        posts: dict[str, tuple[Any, Callable[[Any], Awaitable[Answer]]]] = {
            "/v1/orders": (wire.OrderRequest, desk.order),
            "/v1/order-batches": (wire.OrdersRequest, desk.orders),
            "/v1/cancels": (wire.CancelRequest, desk.cancel),
            "/v1/agents": (wire.AgentRequest, desk.approve),
            "/v1/withdrawals": (wire.WithdrawalRequest, desk.withdraw),
            "/v1/transfers": (wire.TransferRequest, desk.transfer),
            "/v1/oracle/prices": (wire.PriceReportRequest, keepers.prices),
            "/v1/oracle/funding": (wire.FundingReportRequest, keepers.funding),
            "/v1/liquidations": (wire.LiquidationRequest, keepers.liquidate),
        }
        for path, (kind, work) in posts.items():
            router.add_post(path, self._post(kind, work))
        account = "/v1/accounts/{owner}/{sub_account}"
        gets: dict[str, Callable[[web.Request], Awaitable[Answer]]] = {
            "/v1/exchange": reads.exchange,
            "/v1/status": reads.status,
            "/v1/markets/{symbol}/book": reads.book,
            "/v1/markets/{symbol}/trades": reads.trades,
            "/v1/markets/{symbol}/candles": reads.candles,
            "/v1/markets/{symbol}/funding": reads.funding,
            "/v1/accounts": reads.accounts,
            account: reads.account,
            account + "/orders": reads.account_orders,
            account + "/fills": reads.account_fills,
            account + "/deleveraging": reads.account_deleveraging,
            account + "/funding": reads.account_funding,
            account + "/ledger": reads.account_ledger,
            "/v1/orders": reads.order_of_client,
            "/v1/orders/{order_hash}": reads.order,
            "/health": self._health,
            "/ready": self._ready,
        }
        for path, read in gets.items():
            router.add_get(path, _get(read), allow_head=False)
        router.add_get("/v1/ws", self._sockets.handle)
        router.add_get("/v1/journal/{path:.+}", self._journal)

    def _post(self, kind: Any, work: Callable[[Any], Awaitable[Answer]]) -> Handler:
        parser = parse.Parser(kind)

        async def handle(request: web.Request) -> web.StreamResponse:
            return _response(await work(parser.parse(await self._body(request))))

        return handle

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            reject = Reject(code=RejectCode.UNSUPPORTED, message="compressed bodies are refused")
            raise Refusal(reject, 415)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            most = self._settings.max_body_bytes
            raise refuse(RejectCode.BODY_TOO_LARGE, f"a body has at most {most} bytes", most=most) from None
        except TimeoutError:
            reject = Reject(code=RejectCode.MALFORMED, message="the body did not arrive in time")
            raise Refusal(reject, 408) from None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Rate limit, refusals to answers, metrics, headers."""
        began = time.perf_counter()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        try:
            self._limiter.request(request.remote or "")
            response = await handler(request)
        except Refusal as refusal:
            response = self._refused(refusal)
        except web.HTTPException as error:
            reject = Reject(code=RejectCode.UNSUPPORTED, message=error.reason)
            response = self._refused(Refusal(reject, error.status))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except TimeoutError:
            response = self._refused(
                refuse(RejectCode.OVERLOADED, "history does not answer in time", retry_after_ms=1_000)
            )
        except Exception as error:  # a bug: answered as one, logged and counted
            self._metrics.unexpected.inc()
            log.error("unexpected error", route=route, exc_info=error)
            response = self._refused(internal_error())
        self._metrics.requests.labels(route, response.status).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
        if not response.prepared:
            self._add_headers(request, response)
        return response

    def _refused(self, refusal: Refusal) -> web.Response:
        self._metrics.refused(refusal)
        response = _response(Answer.refused(refusal))
        if refusal.retry_after_s is not None:
            response.headers["Retry-After"] = str(refusal.retry_after_s)
        return response

    def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Chain-Time-Ms"] = str(self._services.now_s() * 1000)
        response.headers["Cache-Control"] = "no-store"
        origin = request.headers.get("Origin")
        if origin is not None and origin in self._settings.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin

    async def _health(self, _: web.Request) -> Answer:
        ended = [task.get_name() for task in self._tasks if task.done()]
        body = Answer.of({"status": "broken" if ended else "alive", "ended": ended}).body
        return Answer(body, 503 if ended else 200)

    async def _ready(self, _: web.Request) -> Answer:
        missing = self._services.missing()
        body = Answer.of({"ready": not missing, "missing": missing}).body
        return Answer(body, 503 if missing else 200)

    async def _journal(self, request: web.Request) -> web.StreamResponse:
        """A page of the settled journal, or its index."""
        publication, path = self._services.publication, request.match_info["path"]
        content = None if publication is None else await publication.answer(path)
        if content is None:
            raise Refusal(Reject(code=RejectCode.UNSUPPORTED, message="no such page of the journal"), 404)
        kind = JSON if path.endswith(".json") else "application/x-ndjson"
        return web.Response(body=content, content_type=kind)

    async def _live(self, _: web.Application) -> AsyncIterator[None]:
        processes = self._settings.signature_processes
        if processes:
            await self._threads.start_processes(processes, self._services.history.store.path)
        self._tasks = tasks = [
            asyncio.create_task(self._hub.run(), name="gateway-hub"),
            asyncio.create_task(self._watch_lag(), name="gateway-lag"),
        ]
        for task in tasks:
            task.add_done_callback(_log_end)
        yield
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._threads.close()

    async def _say_goodbye(self, _: web.Application) -> None:
        await self._sockets.close()

    async def _watch_lag(self) -> None:
        """The longest time that something else held the event loop, second by second."""
        while True:
            worst = 0.0
            for _ in range(int(1 / LAG_SAMPLE_S)):
                before = time.perf_counter()
                await asyncio.sleep(LAG_SAMPLE_S)
                worst = max(worst, time.perf_counter() - before - LAG_SAMPLE_S)
            self._metrics.loop_lag.set(worst)


def _get(read: Callable[[web.Request], Awaitable[Answer]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return _response(await read(request))

    return handle


def _response(answer: Answer) -> web.Response:
    return web.Response(body=answer.body, status=answer.http_status, content_type=JSON)


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a gateway task ended", task=task.get_name(), exc_info=task.exception())
