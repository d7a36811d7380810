"""What the operator's tools ask, on a port of its own: liveness, readiness, and Prometheus metrics. It answers from the
first moment on, also while a standby waits and long before the gateway opens.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


def create_outside(phase: Callable[[], str], missing: Callable[[], list[str]]) -> web.Application:
    """An application with /health, /ready and /metrics. `phase` says what the process does at the moment."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "phase": phase()})

    async def ready(_: web.Request) -> web.Response:
        lacking = missing()
        body = {"ready": not lacking, "missing": lacking}
        return web.json_response(body, status=503 if lacking else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/metrics", metrics)])
    return app
