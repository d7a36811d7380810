"""HTTP to the gateway: JSON in and out, refusals as `Refused`, silence as `Unreachable`."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from evermark.client.errors import OutcomeUnknown, Refused, Unreachable

MAX_ANSWER_BYTES = 32 * 2**20
RETRY_PAUSES_S = (0.1, 0.4, 1.0)  # reads and idempotent writes survive a gateway's restart of a second or two


class Transport:
    """One connection pool to one gateway."""

    def __init__(self, url: str, timeout_s: float, on_chain_time: Callable[[int], None]) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._on_chain_time = on_chain_time
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool, opened on first use inside the running loop."""
        if self._session is None or self._session.closed:
            # Below the gateway's own keep-alive, so that a pooled connection is never one it has just closed.
            connector = aiohttp.TCPConnector(keepalive_timeout=5, limit=64)
            self._session = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
        return self._session

    async def get(self, path: str, params: dict[str, Any] | None = None) -> bytes:
        """GET -> the answer's bytes; repeated when nobody answers. Raises Refused, Unreachable."""
        return await self._with_retries("GET", path, params, None)

    async def post(self, path: str, body: dict[str, Any], idempotent: bool) -> bytes:
        """POST -> the answer's bytes; repeated only when `idempotent`. Raises Refused, Unreachable,
        OutcomeUnknown.
        """
        raw = msgspec.json.encode(body)
        if idempotent:
            return await self._with_retries("POST", path, None, raw)
        try:
            return await self._once("POST", path, None, raw)
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{self.url} does not answer: {error}") from error
        except (TimeoutError, aiohttp.ClientError) as error:
            raise OutcomeUnknown(f"{self.url}{path}: connection lost after sending: {error!r}") from error

    async def close(self) -> None:
        """Give the sockets back."""
        if self._session is not None:
            await self._session.close()

    async def _with_retries(
        self, method: str, path: str, params: dict[str, Any] | None, raw: bytes | None
    ) -> bytes:
        for pause in RETRY_PAUSES_S:
            try:
                return await self._once(method, path, params, raw)
            except (TimeoutError, aiohttp.ClientError):
                await asyncio.sleep(pause)
        try:
            return await self._once(method, path, params, raw)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Unreachable(f"{self.url} does not answer: {error!r}") from error

    async def _once(self, method: str, path: str, params: dict[str, Any] | None, raw: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if raw is not None else None
        async with self.session.request(
            method, self.url + path, params=params, data=raw, headers=headers
        ) as answer:
            chain_time = answer.headers.get("X-Chain-Time-Ms", "")
            if chain_time.isascii() and chain_time.isdigit() and len(chain_time) < 16:
                self._on_chain_time(int(chain_time))
            data = await self._read(answer)
            if answer.status >= 400:
                refused = refusal(data, answer.status)
                if refused.outcome_unknown:
                    raise aiohttp.ClientConnectionError(refused.message)  # as if the connection had broken
                raise refused
            return data

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        chunks, total = [], 0
        async for chunk in answer.content.iter_chunked(2**16):
            total += len(chunk)
            if total > MAX_ANSWER_BYTES:
                raise aiohttp.ClientPayloadError(f"answer above {MAX_ANSWER_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


def refusal(data: bytes, http_status: int) -> Refused:
    """The Refused that an error body stands for; a body that is none of ours becomes code 0 with its first
    words.
    """
    try:
        body = msgspec.json.decode(data, type=dict[str, Any])
        return Refused(dict(body["error"]), http_status, str(body.get("order_hash", "")))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        text = data[:200].decode("utf-8", "replace")
        return Refused({"code": 0, "name": f"HTTP_{http_status}", "message": text}, http_status)
