"""One WebSocket to the gateway for subscriptions and order entry: it reconnects, subscribes again and finds
gaps.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from evermark.client.errors import EvermarkError, OutcomeUnknown, Refused, Unreachable

MAX_MESSAGE_BYTES = 8 * 2**20
HEARTBEAT_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
QUEUE_LIMIT = 10_000  # messages that a subscriber may lag behind before it is told so

Key = tuple[str, str, str, int]  # channel, market, owner, sub-account


class Lagging(EvermarkError):
    """The program reads its subscription more slowly than messages come; it has to subscribe again."""


class Subscription:
    """Messages of one channel, as an async iterator. A "reconnected" marker comes before each new
    snapshot.
    """

    def __init__(self, key: Key, request: dict[str, Any]) -> None:
        self.key, self.request = key, request
        self.last_sequence: int | None = None
        self._queue: asyncio.Queue[dict[str, Any] | EvermarkError] = asyncio.Queue(QUEUE_LIMIT)
        self._failed: EvermarkError | None = None

    def offer(self, message: dict[str, Any] | EvermarkError) -> None:
        """Hand a message to the reader; a reader too far behind gets Lagging instead."""
        if self._failed is not None:
            return
        if isinstance(message, EvermarkError):
            self._failed = message
        elif self._queue.full():
            message = self._failed = Lagging(f"subscription {self.key[0]}: {QUEUE_LIMIT} messages unread")
            self._queue.get_nowait()
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(message)

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        message = await self._queue.get()
        if isinstance(message, EvermarkError):
            raise message
        return message


class Stream:
    """The connection itself. `request` sends signed requests with ids, `subscribe` returns a Subscription."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self._session, self._url, self._timeout_s = session, url, timeout_s
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._subscriptions: dict[Key, list[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self.reconnects = -1  # the first connection makes it 0

    async def request(self, op: str, body: dict[str, Any]) -> Any:
        """Send a signed request; the decoded result. Raises Refused, Unreachable (not sent), OutcomeUnknown
        (sent).
        """
        socket = await self._open_socket()
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await socket.send_bytes(msgspec.json.encode({"op": op, "id": number, **body}))
            return await asyncio.wait_for(answer, self._timeout_s)
        except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            raise OutcomeUnknown(
                f"{op} {number}: no answer before the connection or the time ended"
            ) from error
        finally:
            self._waiting.pop(number, None)

    async def subscribe(self, channel: str, market: str, owner: str, sub_account: int) -> Subscription:
        """Start receiving a channel; the iterator never ends by itself and survives reconnects."""
        request: dict[str, Any] = {"op": "subscribe", "channel": channel}
        if market:
            request["market"] = market
        if owner:
            request |= {"owner": owner, "sub_account": sub_account}
        key = (channel, market, owner.lower(), sub_account if owner else 0)
        subscription = Subscription(key, request)
        self._subscriptions.setdefault(key, []).append(subscription)
        self._start()
        if self._connected.is_set() and self._socket is not None:
            await self._send(self._socket, request)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop receiving; the last reader of a channel tells the gateway."""
        readers = self._subscriptions.get(subscription.key, [])
        if subscription in readers:
            readers.remove(subscription)
        if (
            not readers
            and self._subscriptions.pop(subscription.key, None) is not None
            and self._socket is not None
        ):
            await self._send(self._socket, {**subscription.request, "op": "unsubscribe"})

    async def close(self) -> None:
        """Close for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._socket is not None:
            await self._socket.close()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="evermark-stream")

    async def _open_socket(self) -> aiohttp.ClientWebSocketResponse:
        self._start()
        try:
            await asyncio.wait_for(self._connected.wait(), self._timeout_s)
        except TimeoutError:
            raise Unreachable(f"{self._url} does not answer") from None
        if self._socket is None:
            raise Unreachable(f"{self._url}: the connection has just been lost")
        return self._socket

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self._session.ws_connect(
                    self._url, heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=0
                ) as socket:
                    await self._greet(socket)
                    pause = FIRST_PAUSE_S
                    async for message in socket:
                        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                            await self._dispatch(socket, message.data)
            self._lost()
            # Spread reconnects, so that a restarted gateway does not meet all of its clients at once.
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.reconnects += 1
        self._connected.set()
        for readers in list(self._subscriptions.values()):
            for reader in readers:
                reader.last_sequence = None
                if self.reconnects:
                    reader.offer({"channel": reader.key[0], "type": "reconnected"})
            await self._send(socket, readers[0].request)

    def _lost(self) -> None:
        self._socket = None
        self._connected.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("connection lost"))

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        with contextlib.suppress(
            ConnectionError, aiohttp.ClientError
        ):  # _run notices a dead socket by itself
            await socket.send_bytes(msgspec.json.encode(message))

    async def _dispatch(self, socket: aiohttp.ClientWebSocketResponse, data: str | bytes) -> None:
        message: dict[str, Any] = msgspec.json.decode(data)
        channel = message.get("channel")
        if channel is not None:
            await self._deliver(socket, message)
            return
        answer = self._waiting.get(int(message.get("id") or 0))
        if answer is None:
            self._subscription_refused(message)
        elif not answer.done():
            if "error" in message:
                refused = Refused(message["error"], 0, str(message.get("order_hash", "")))
                answer.set_exception(ConnectionError(refused.message) if refused.outcome_unknown else refused)
            else:
                answer.set_result(message.get("result"))

    async def _deliver(self, socket: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        key = _key_of(message)
        for reader in list(self._subscriptions.get(key, [])):
            if "previous" in message and reader.last_sequence != message["previous"]:
                if reader.last_sequence is None:
                    continue  # deltas from before the snapshot that was asked for
                reader.last_sequence = None
                await self._send(socket, reader.request)  # a new snapshot closes the gap
                continue
            if "sequence" in message:
                reader.last_sequence = message["sequence"]
            reader.offer(message)

    def _subscription_refused(self, message: dict[str, Any]) -> None:
        refused = message.get("request")
        if "error" not in message or not isinstance(refused, dict):
            return
        for reader in self._subscriptions.pop(_key_of(refused), []):
            reader.offer(Refused(message["error"]))


def _key_of(message: dict[str, Any]) -> Key:
    owner = str(message.get("owner") or "").lower()
    sub_account = int(message.get("sub_account") or 0) if owner else 0
    return str(message.get("channel", "")), str(message.get("market") or ""), owner, sub_account
