"""What the operator's tools ask, on a port of its own: liveness, readiness, Prometheus metrics, and the release of a halted
account. It answers from the first moment on, also while a standby waits and long before the gateway opens.

The port is for this machine alone, and so are its names: a page in a browser here can neither send JSON to it nor reach it by a
name of its own.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from evermark.protocol.reject import Reject

HOSTS = ("127.0.0.1", "localhost")
MAX_REASON = 200  # characters

Release = Callable[[int, str], Awaitable[Reject | None]]


class ReleaseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why a halted account may trade again; it is journaled."""

    reason: str


def create_outside(
    phase: Callable[[], str],
    missing: Callable[[], list[str]],
    release: Callable[[], Release | None] = lambda: None,
    alarms: Callable[[], list[str]] = list,
) -> web.Application:
    """An application with /health, /ready, /metrics and POST /accounts/{id}/release. `phase` says what the process does at the
    moment, `release` gives what lets an account go, None while this process does not lead, `alarms` what an operator must see."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "phase": phase(), "alarms": alarms()})

    async def ready(_: web.Request) -> web.Response:
        lacking = missing()
        body = {"ready": not lacking, "missing": lacking}
        return web.json_response(body, status=503 if lacking else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def let_go(request: web.Request) -> web.Response:
        if request.url.host not in HOSTS or request.content_type != "application/json":
            return _error(403, "ask as JSON, on 127.0.0.1")
        number = request.match_info["account"]
        if not re.fullmatch(r"[1-9]\d{0,9}", number):
            return _error(400, f"{number[:20]!r} is no account id")
        try:
            reason = msgspec.json.decode(await request.read(), type=ReleaseRequest).reason.strip()
        except msgspec.MsgspecError as error:
            return _error(400, str(error))
        if not 0 < len(reason) <= MAX_REASON:
            return _error(400, f"the reason has 1 to {MAX_REASON} characters")
        work = release()
        if work is None:
            return _error(503, f"this process does not lead: it is {phase()}")
        refusal = await work(int(number), reason)
        if refusal is not None:
            return _error(409, refusal.message)
        return web.json_response({"released": int(number)})

    app = web.Application(client_max_size=4_096)
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/metrics", metrics)])
    app.add_routes([web.post("/accounts/{account}/release", let_go)])
    return app


def _error(status: int, message: str) -> web.Response:
    body: dict[str, Any] = {"error": message}
    return web.json_response(body, status=status)
