"""Public reads of the gateway for tables and the live screen, with one clear line when it is not there."""

import json
from types import TracebackType
from typing import Any

import aiohttp

from evermark.cli.errors import CliError

DEFAULT_URL = "http://127.0.0.1:8645"
DEFAULT_RPC_URL = "http://127.0.0.1:8545"


class Gateway:
    """An async context with `get`; raises CliError for what the person can act on."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Gateway":
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def get(self, path: str) -> Any:
        """GET `path` -> JSON."""
        if self._session is None:
            raise RuntimeError("gateway: used outside of its context")
        try:
            async with self._session.get(self.url + path) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise CliError(unreachable(self.url)) from None
        try:
            body = json.loads(text)
        except ValueError:
            raise CliError(f"{self.url}{path} answered {response.status} and no JSON") from None
        if response.status >= 400:
            raise CliError(f"{self.url}{path} answered {response.status}: {text[:300]}")
        return body


def unreachable(url: str) -> str:
    """What to print when nobody listens."""
    return f"no exchange answers at {url}; start one with `evermark up` or name another with --url"
