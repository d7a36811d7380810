"""The WebSocket: subscriptions and order entry. Each connection has a bounded queue and its own writer; a
client that does not read is disconnected with 1013 and holds up nobody."""

import asyncio
import contextlib
from collections import deque

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from evermark.protocol.reject import RejectCode
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer, Reply, unknown_market
from sequencer.gateway.desk import Desk
from sequencer.gateway.hub import Hub, Topic
from sequencer.gateway.limits import Limiter
from sequencer.gateway.metrics import GatewayMetrics
from sequencer.gateway.reads import Reads
from sequencer.gateway.refusal import Refusal, internal_error, refuse
from sequencer.gateway.services import GatewaySettings, Services
from sequencer.pipeline import resolve

CLOSE_GRACE_S = 2.0  # for a slow client to read why; then the connection is cut
REQUESTS_AT_ONCE = 256  # signed requests of one connection under way; more of them wait to be read
SLOW = "not reading: too many messages unsent"

# What is signed and comes alone; orders come in crowds.
Signed = wire.WsCancel | wire.WsAgent | wire.WsTransfer | wire.WsWithdraw
Alone = Signed | wire.WsPing | wire.WsSubscribe | wire.WsUnsubscribe

log = structlog.get_logger("gateway")


class Connection:
    """One socket's outgoing side."""

    def __init__(
        self, socket: web.WebSocketResponse, request: web.Request, settings: GatewaySettings
    ) -> None:
        self.socket = socket
        self.topics: set[Topic] = set()
        self.slow = asyncio.Event()
        self.unanswered = 0  # requests under way
        self._room: asyncio.Future[None] | None = None  # whoever reads waits for it
        self._request = request
        self._settings = settings
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()

    def offer(self, payload: bytes) -> None:
        """Queue a message; beyond the bound the connection is given up and takes nothing more."""
        if self.slow.is_set():
            return
        self._queue.append(payload)
        self._bytes += len(payload)
        settings = self._settings
        if len(self._queue) > settings.socket_queue_messages or self._bytes > settings.socket_queue_bytes:
            self._queue.clear()
            self._bytes = 0
            self.slow.set()
        self._arrived.set()

    async def room(self) -> None:
        """Wait until a request is answered."""
        self._room = asyncio.get_running_loop().create_future()
        await self._room

    def answered(self) -> None:
        """One request less is under way."""
        self.unanswered -= 1
        if self._room is not None:
            resolve(self._room, None)
            self._room = None

    async def write(self) -> None:
        """Send what is queued, until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    payload = self._queue.popleft()
                    self._bytes -= len(payload)
                    await self.socket.send_frame(payload, WSMsgType.TEXT)

    async def cut_when_slow(self) -> None:
        """Close with 1013 once the client has stopped reading, and drop the transport if it still does
        not.
        """
        await self.slow.wait()
        transport = self._request.transport
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self.socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=SLOW.encode())
        if transport is not None:
            transport.abort()


class Sockets:
    """The handler of /v1/ws."""

    def __init__(
        self,
        services: Services,
        limiter: Limiter,
        desk: Desk,
        reads: Reads,
        hub: Hub,
        metrics: GatewayMetrics,
    ) -> None:
        self._services = services
        self._limiter = limiter
        self._desk = desk
        self._reads = reads
        self._hub = hub
        self._metrics = metrics
        self._parser = parse.Parser(wire.WsMessage)
        self._by_ip: dict[str, int] = {}
        self._open: set[Connection] = set()
        self._working: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection to its end. Raises Refusal when there are too many."""
        ip = request.remote or ""
        self._admit(ip)
        settings = self._services.settings
        socket = web.WebSocketResponse(
            heartbeat=settings.socket_heartbeat_s,
            max_msg_size=settings.max_message_bytes,
            compress=False,
            timeout=CLOSE_GRACE_S,
            decode_text=False,  # the parser wants bytes
        )
        connection = Connection(socket, request, settings)
        self._by_ip[ip] = self._by_ip.get(ip, 0) + 1
        self._open.add(connection)
        self._metrics.sockets.set(len(self._open))
        try:
            await socket.prepare(request)
            await self._serve(connection, ip)
        finally:
            self._forget(connection, ip)
        return socket

    async def close(self) -> None:
        """Tell everybody that the service is going away."""
        farewell = [
            connection.socket.close(code=WSCloseCode.GOING_AWAY, message=b"the sequencer is stopping")
            for connection in tuple(self._open)
        ]
        await asyncio.gather(*farewell, return_exceptions=True)

    async def _serve(self, connection: Connection, ip: str) -> None:
        helpers = [
            asyncio.create_task(connection.write()),
            asyncio.create_task(connection.cut_when_slow()),
        ]
        try:
            async for message in connection.socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or connection.slow.is_set():
                    break
                if self._refused_early(connection, message.data):
                    await asyncio.sleep(0)  # the socket may hold many more
                    continue
                if connection.unanswered >= REQUESTS_AT_ONCE:
                    await connection.room()
                if self._take(connection, ip, message.data):
                    # What was begun asks for its signature now, before anything that the socket holds behind it.
                    await asyncio.sleep(0)
        finally:
            if connection.slow.is_set():
                self._metrics.slow_clients.inc()
                await helpers[1]
            # Requests under way go on: their commands may be durable already. Only nobody hears of them.
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _refused_early(self, connection: Connection, data: str | bytes) -> bool:
        """An order that comes while no more are taken costs next to nothing, so that a crowd holds up neither cancels nor what
        was taken before."""
        refusal = self._desk.overload
        if refusal is None:
            return False
        number = parse.order_id(data)
        if number is None:
            return False
        self._metrics.refused(refusal)
        connection.offer(_result(number, Answer.refused(refusal)))
        return True

    def _take(self, connection: Connection, ip: str, data: str | bytes) -> bool:
        """Begin what a message asks for. True when a task does it; orders, which come in crowds, need none."""
        connection.unanswered += 1
        number: int | None = None
        try:
            self._limiter.request(ip)
            message = self._parser.parse(data)
            number = message.id
            reply = _Reply(self, connection, number)
            if type(message) is wire.WsOrder:
                self._desk.place(message, reply)
            elif type(message) is wire.WsOrders:
                self._desk.place_batch(message, reply)
            else:
                task = asyncio.create_task(self._work(connection, message, reply))
                self._working.add(task)
                task.add_done_callback(self._working.discard)
                return True
        except Exception as error:
            self.reply(connection, parse.request_id(data) if number is None else number, error)
        return False

    async def _work(self, connection: Connection, message: Alone, reply: Reply) -> None:
        answer: Answer | BaseException | None
        try:
            if isinstance(message, wire.WsPing):
                answer = Answer.of("pong")
            elif isinstance(message, wire.WsSubscribe | wire.WsUnsubscribe):
                answer = await self._subscription(connection, message)
            else:
                answer = await self._signed(message)
        except Exception as error:
            answer = error
        if answer is None:
            connection.answered()
        else:
            reply(answer)

    def reply(self, connection: Connection, number: int | None, answer: Answer | BaseException) -> None:
        """Tell the client what came of its message; a bug is told and counted, and the other requests go on."""
        if isinstance(answer, Refusal):
            self._metrics.refused(answer)
            answer = Answer.refused(answer)
        elif isinstance(answer, asyncio.CancelledError):
            connection.answered()  # the service ends, and the connection with it
            return
        elif isinstance(answer, BaseException):
            self._metrics.unexpected.inc()
            log.error("unexpected error on a socket", exc_info=answer)
            answer = Answer.refused(internal_error())
        connection.offer(_result(number, answer))
        connection.answered()

    async def _signed(self, message: Signed) -> Answer:
        if isinstance(message, wire.WsCancel):
            return await self._desk.cancel(message)
        if isinstance(message, wire.WsAgent):
            return await self._desk.approve(message)
        if isinstance(message, wire.WsTransfer):
            return await self._desk.transfer(message)
        return await self._desk.withdraw(message)

    async def _subscription(
        self, connection: Connection, message: wire.WsSubscribe | wire.WsUnsubscribe
    ) -> Answer | None:
        """The answer to a message that has an id; its channel tells the rest."""
        try:
            topic = self._topic(message)
            if isinstance(message, wire.WsUnsubscribe):
                self._hub.unsubscribe(connection, topic)
                connection.topics.discard(topic)
            else:
                if len(connection.topics) >= self._services.settings.subscriptions_per_socket:
                    raise refuse(RejectCode.RATE_LIMITED, "too many subscriptions on this connection")
                connection.topics.add(topic)
                await self._hub.subscribe(connection, topic)
                if connection not in self._open:  # it ended during the query
                    self._hub.unsubscribe(connection, topic)
        except Refusal as refusal:
            self._metrics.refused(refusal)
            return _refused_subscription(message, refusal)
        return None if message.id is None else Answer.of({"channel": message.channel})

    def _topic(self, message: wire.WsSubscribe | wire.WsUnsubscribe) -> Topic:
        if message.channel in ("book", "trades"):
            if message.market not in self._services.state.market_ids:
                raise unknown_market(message.market)
            return message.channel, message.market
        if message.channel == "account":
            if not message.owner:
                raise refuse(RejectCode.MALFORMED, "the account channel needs an owner", "owner")
            account = self._reads.find_account(parse.address(message.owner), message.sub_account)
            return "account", str(account.account_id)
        return message.channel, ""

    def _admit(self, ip: str) -> None:
        limits = self._services.settings.limits
        if len(self._open) >= limits.sockets or self._by_ip.get(ip, 0) >= limits.sockets_per_ip:
            raise refuse(RejectCode.RATE_LIMITED, "too many open connections", retry_after_ms=5_000)

    def _forget(self, connection: Connection, ip: str) -> None:
        for topic in connection.topics:
            self._hub.unsubscribe(connection, topic)
        self._open.discard(connection)
        self._by_ip[ip] -= 1
        if not self._by_ip[ip]:
            del self._by_ip[ip]
        self._metrics.sockets.set(len(self._open))


class _Reply(msgspec.Struct, frozen=True, gc=False):
    """Whom to tell what came of a message. See `placing` for why it is no closure."""

    sockets: Sockets
    connection: Connection
    number: int | None

    def __call__(self, answer: Answer | BaseException) -> None:
        self.sockets.reply(self.connection, self.number, answer)


def _result(number: int | None, answer: Answer) -> bytes:
    head = b'{"id":' + (b"null" if number is None else str(number).encode())
    if answer.http_status == 200:
        return head + b',"result":' + answer.body + b"}"
    return head + b"," + answer.body[1:]


def _refused_subscription(message: wire.WsSubscribe | wire.WsUnsubscribe, refusal: Refusal) -> Answer:
    """Names the request, so that a client without ids knows which of its subscriptions failed."""
    about = {"channel": message.channel, "market": message.market, "owner": message.owner}
    body = refusal.to_json() | {"request": about | {"sub_account": message.sub_account}}
    return Answer(Answer.of(body).body, refusal.http_status)
