"""One account's connection to an exchange: its key, its clock, and signed requests over HTTP or the
WebSocket.
"""

from typing import Any, Self

import msgspec

from evermark.client.errors import OutcomeUnknown
from evermark.client.reads import PublicReads
from evermark.client.signed import Domain, Signable, parse_address
from evermark.client.slots import SlotAllocator
from evermark.client.stream import Stream
from evermark.client.units import Human
from evermark.protocol.signing import Signer

ACTION_DEADLINE_S = 600
CLOCK_AGE_S = 10.0
ATTEMPTS = 8  # a slot held by another session, or a sequence it raised, costs one attempt each


class SignedRequests(PublicReads):
    """Signs messages for one account and sends them; what they mean is for its heirs."""

    def __init__(
        self,
        url: str,
        signer: Signer | bytes | str,
        sub_account: int = 0,
        *,
        owner: bytes | str | None = None,
        order_entry: str = "http",
        rpc_url: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._private_key = None if isinstance(signer, Signer) else _key(signer)  # transactions need it
        self.signer = signer if isinstance(signer, Signer) else Signer(_key(signer))
        if order_entry not in ("http", "websocket"):
            raise ValueError(f"order_entry is {order_entry!r}, not 'http' or 'websocket'")
        owner_bytes = parse_address(owner) if isinstance(owner, str) else owner or self.signer.address
        super().__init__(url, owner_bytes, sub_account, timeout_s)
        self.order_entry, self.rpc_url = order_entry, rpc_url
        self._timeout_s = timeout_s
        self._slots = SlotAllocator()
        self._domain: Domain | None = None
        self._stream: Stream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._stream is not None:
            await self._stream.close()
        await self.transport.close()

    @property
    def stream(self) -> Stream:
        """The WebSocket, opened on first use."""
        if self._stream is None:
            url = "ws" + self.transport.url.removeprefix("http") + "/v1/ws"
            self._stream = Stream(self.transport.session, url, self._timeout_s)
        return self._stream

    async def _send(self, op: str, path: str, body: dict[str, Any], idempotent: bool) -> Any:
        if self.order_entry == "http":
            return msgspec.json.decode(await self.transport.post(path, body, idempotent))
        for _ in range(ATTEMPTS if idempotent else 0):
            try:
                return await self.stream.request(op, body)
            except OutcomeUnknown:
                continue  # the same signed message again: the exchange answers as it did the first time
        return await self.stream.request(op, body)

    async def _signed(self, message: Signable) -> dict[str, Any]:
        return (await self._signing_domain()).body(message, self.signer)

    async def _signing_domain(self) -> Domain:
        if self._domain is None:
            self._domain = Domain(await self.exchange())
        return self._domain

    async def _hear_time(self) -> None:
        if self.clock.age_s > CLOCK_AGE_S:
            await self.status()

    async def _deadline(self) -> int:
        await self._hear_time()
        return self.clock.now_s() + ACTION_DEADLINE_S


def given(value: Human | None, name: str) -> Human:
    """The value, which may only be missing when its raw integer is there. Raises TypeError."""
    if value is None:
        raise TypeError(f"pass {name}, or its raw integer")
    return value


def _key(key: bytes | str) -> bytes:
    return bytes.fromhex(key.removeprefix("0x")) if isinstance(key, str) else key
