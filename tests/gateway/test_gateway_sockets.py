"""The WebSocket: order entry with ids, channels with snapshots and gap-free sequences, and clients that do
not read.
"""

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from gateway_world import MAKER, NO_LIMITS, TAKER, Caller, GatewayWorld, running

from evermark.protocol.orders import Side, TimeInForce
from sequencer.gateway.limits import Limits
from sequencer.gateway.services import GatewaySettings
from sequencer.gateway.sockets import REQUESTS_AT_ONCE


async def until(socket: Any, channel: str, kind: str = "", seconds: float = 5.0) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            message = await socket.receive_json()
            if message.get("channel") == channel and kind in ("", message.get("type")):
                return dict(message)


async def test_order_entry(world: GatewayWorld, caller: Caller) -> None:
    """Signed requests are answered under their ids, refusals too, and a repetition gets the first answer."""
    async with caller.socket() as socket:
        order = world.order(MAKER)
        body = world.body(order, MAKER)
        for number in (1, 2):
            await socket.send_json({"op": "order", "id": number, **body})
        answers = [await socket.receive_json() for _ in range(2)]
        assert sorted(answer["id"] for answer in answers) == [1, 2]
        assert answers[0]["result"] == answers[1]["result"]
        poor = world.body(world.order(MAKER, slot=2, size=10_000_000), MAKER)
        await socket.send_json({"op": "order", "id": 3, **poor})
        refused = await socket.receive_json()
        assert (refused["id"], refused["error"]["name"]) == (3, "INSUFFICIENT_MARGIN")
        assert refused["order_hash"].startswith("0x")
        cancel = world.body(world.cancel(MAKER, sequence=order.sequence), MAKER)
        await socket.send_json({"op": "cancel", "id": 4, **cancel})
        assert (await socket.receive_json())["result"] == {"cancelled": [answers[0]["result"]["order_hash"]]}
        await socket.send_json({"op": "withdraw", "id": 5, **world.body(world.withdrawal(MAKER), MAKER)})
        assert (await socket.receive_json())["result"]["amount"] == 5_000_000
        approval = world.body(world.approval(MAKER, action_sequence=2), MAKER)
        await socket.send_json({"op": "agent", "id": 6, **approval})
        assert (await socket.receive_json())["result"]["expiry"] == world.now_s + 86_400
        await socket.send_json({"op": "ping", "id": 7})
        assert await socket.receive_json() == {"id": 7, "result": "pong"}


async def test_what_is_no_request_is_refused_under_the_id_that_it_carries(
    world: GatewayWorld, caller: Caller
) -> None:
    """A client with several requests under way knows which of them it must mend; an id that is none is answered as null."""
    body = world.body(world.order(MAKER), MAKER)
    wrong = [
        ({"op": "order", "id": 1, **body, "signature": "0x12"}, 1, "OUT_OF_RANGE", "0x and 130 hex digits"),
        ({"op": "order", "id": 2, "signature": body["signature"]}, 2, "MALFORMED", "order"),
        ({"op": ["order"], "id": 3}, 3, "WRONG_TYPE", "op"),
        ({"op": "order", "id": "4", **body}, None, "WRONG_TYPE", "int"),
        (["ping"], None, "WRONG_TYPE", "object"),
    ]
    before = world.journaled
    async with caller.socket() as socket:
        for message, number, name, told in wrong:
            await socket.send_json(message)
            answer = await socket.receive_json()
            assert (answer["id"], answer["error"]["name"]) == (number, name), answer
            assert told in answer["error"]["message"] + answer["error"]["field"]
    assert world.journaled == before


async def test_a_cancel_keeps_its_place_among_the_orders_of_its_connection(
    world: GatewayWorld, caller: Caller
) -> None:
    """What the socket holds at once is submitted as it was sent: a cancel takes what came before it from the book, and what comes
    after finds its sequence void."""
    orders = [world.order(MAKER, slot=slot, sequence=2) for slot in (1, 2, 3)]
    cancel = world.body(world.cancel(MAKER, all_slots=True, slot=0, sequence=2), MAKER)
    bodies = [{"op": "order", **world.body(order, MAKER)} for order in orders]
    bodies.insert(2, {"op": "cancel", **cancel})
    async with caller.socket() as socket:
        for number, body in enumerate(bodies):
            await socket.send_json({"id": number, **body})
        answers = {answer["id"]: answer for answer in [await socket.receive_json() for _ in bodies]}
    hashes = [answers[number]["result"]["order_hash"] for number in (0, 1)]
    assert sorted(answers[2]["result"]["cancelled"]) == sorted(hashes)
    assert answers[3]["error"]["name"] == "STALE_SEQUENCE"


async def test_more_requests_than_one_connection_may_have_under_way_are_all_answered(
    world: GatewayWorld, caller: Caller
) -> None:
    """Whatever becomes of each: the reader waits for room, and goes on."""
    body = world.body(world.order(MAKER), MAKER)
    kinds = ({"op": "order", **body}, {"op": "ping"}, {"op": "order"}, {"op": "subscribe", "channel": "no"})
    async with caller.socket() as socket:
        for number in range(2 * REQUESTS_AT_ONCE):
            await socket.send_json({"id": number, **kinds[number % len(kinds)]})
        for _ in range(2 * REQUESTS_AT_ONCE):
            await socket.receive_json()
        await socket.send_json({"op": "ping", "id": 9_999})
        assert await socket.receive_json() == {"id": 9_999, "result": "pong"}


async def test_orders_of_one_connection_keep_their_order(world: GatewayWorld, caller: Caller) -> None:
    """Requests sent without waiting are submitted as they were sent, although threads check their
    signatures.
    """
    immediate = {"slot": 0, "time_in_force": TimeInForce.IOC}
    bodies = [world.body(world.order(MAKER, **immediate), MAKER) for _ in range(400)]
    async with caller.socket() as socket:
        for number, body in enumerate(bodies):
            await socket.send_json({"op": "order", "id": number, **body})
        answers = [await socket.receive_json() for _ in bodies]
    assert [answer["id"] for answer in answers] == list(range(400))
    assert not [answer for answer in answers if "error" in answer]


async def test_malformed_messages_are_answered(world: GatewayWorld, caller: Caller) -> None:
    """A message that is no request gets an error and the connection lives on."""
    async with caller.socket() as socket:
        for data in (
            "",
            "{",
            "[]",
            '{"op": "fly"}',
            '{"op": "order"}',
            '{"op": "ping", "id": 1.5}',
            "\ud800".encode("utf-8", "surrogatepass").hex(),
        ):
            await socket.send_str(data)
            answer = await socket.receive_json()
            assert answer["error"]["code"] < 200, data
        await socket.send_bytes(b"\xff\xff")
        assert (await socket.receive_json())["error"]["name"] == "MALFORMED"
        await socket.send_json({"op": "subscribe", "channel": "book", "market": "DOGE-PERP"})
        refused = await socket.receive_json()
        assert refused["error"]["name"] == "UNKNOWN_MARKET"
        assert refused["request"]["market"] == "DOGE-PERP"
        await socket.send_json({"op": "ping", "id": 1})
        assert (await socket.receive_json())["result"] == "pong"


async def rebuild(socket: Any, updates: int) -> dict[str, dict[int, int]]:
    snapshot = await until(socket, "book", "snapshot")
    sides = {side: {level[0]: level[1] for level in snapshot[side]} for side in ("bids", "asks")}
    sequence = snapshot["sequence"]
    for _ in range(updates):
        delta = await until(socket, "book", "delta")
        assert delta["previous"] == sequence, "a gap"
        sequence = delta["sequence"]
        for side in ("bids", "asks"):
            for price, size in delta[side]:
                sides[side][price] = size
    return {side: {price: size for price, size in levels.items() if size} for side, levels in sides.items()}


@pytest.mark.safety("H06", "api")
async def test_book_deltas_rebuild_the_book(world: GatewayWorld, caller: Caller) -> None:
    """Snapshot plus deltas, each naming its predecessor, give the same book as the HTTP read."""
    async with caller.socket() as early, caller.socket() as late:
        await early.send_json({"op": "subscribe", "channel": "book", "market": "BTC-PERP"})
        building = asyncio.create_task(rebuild(early, 3))
        await asyncio.sleep(0.1)
        await caller.place(world.order(MAKER, slot=1), MAKER)
        await asyncio.sleep(0.1)
        await caller.place(world.order(MAKER, slot=2, side=Side.SELL, limit_price=1_110_000), MAKER)
        await asyncio.sleep(0.1)
        await late.send_json({"op": "subscribe", "channel": "book", "market": "BTC-PERP"})
        await caller.place(world.order(TAKER, slot=1, limit_price=1_110_000, size=400), TAKER)
        joined = await rebuild(late, 0)
        book = (await caller.get("/v1/markets/BTC-PERP/book")).body
        expected = {side: {level[0]: level[1] for level in book[side]} for side in ("bids", "asks")}
        assert await building == expected == {"bids": {1_090_000: 1_000}, "asks": {1_110_000: 600}}
        assert joined["bids"] == expected["bids"]


async def test_trades_prices_and_status(world: GatewayWorld, caller: Caller) -> None:
    """The public channels begin with a snapshot and continue."""
    async with caller.socket() as socket:
        await socket.send_json({"op": "subscribe", "channel": "trades", "market": "BTC-PERP", "id": 9})
        assert (await until(socket, "trades", "snapshot"))["trades"] == []
        assert (await socket.receive_json()) == {"id": 9, "result": {"channel": "trades"}}
        await caller.place(world.order(MAKER, side=Side.SELL, limit_price=1_100_000), MAKER)
        await caller.place(world.order(TAKER, limit_price=1_100_000), TAKER)
        assert (await until(socket, "trades", "update"))["trades"][0]["size"] == 1_000
        await socket.send_json({"op": "subscribe", "channel": "prices"})
        assert (await until(socket, "prices"))["timestamp"] == world.now_s
        await world.advance(3, (1_101_000, 400_000, 20_000, 25_000))
        assert (await until(socket, "prices"))["prices"]["BTC-PERP"]["mark"] == 1_101_000
        await socket.send_json({"op": "subscribe", "channel": "status"})
        assert (await until(socket, "status"))["ready"] is True


async def test_account_channel(world: GatewayWorld, caller: Caller) -> None:
    """The account channel tells orders, fills, positions and balance of one account, and of no other."""
    owner = "0x" + TAKER.address.hex()
    async with caller.socket() as socket:
        await socket.send_json({"op": "subscribe", "channel": "account", "owner": owner, "sub_account": 0})
        snapshot = await until(socket, "account", "snapshot")
        assert (snapshot["account"]["collateral"], snapshot["orders"]) == ("100000000000", [])
        await caller.place(world.order(MAKER, side=Side.SELL, limit_price=1_100_000), MAKER)
        placed = await caller.place(world.order(TAKER, limit_price=1_100_000), TAKER)
        update = await until(socket, "account", "update")
        assert [order["order_hash"] for order in update["orders"]] == [placed.body["order_hash"]]
        assert update["orders"][0]["status"] == "filled"
        assert [fill["role"] for fill in update["fills"]] == ["taker"]
        assert update["account"]["positions"][0]["size"] == 1_000
        await socket.send_json({"op": "unsubscribe", "channel": "account", "owner": owner})
        await asyncio.sleep(0.1)
        assert not world.core.market_data._watched


async def raw_socket(world: GatewayWorld) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket whose owner decides when to read."""
    port = int(world.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
    writer.write(
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def text_frame(payload: bytes) -> bytes:
    """A masked client frame; the mask is zero."""
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.safety("H06", "api")
async def test_slow_client_is_cut_and_holds_up_nobody(tmp_path: Any) -> None:
    """A client that does not read is disconnected, with 1013 when it still looks; others get every
    message.
    """
    settings = GatewaySettings(limits=NO_LIMITS, socket_queue_messages=50)
    async with running(tmp_path, settings) as world:
        await world.fund(MAKER, TAKER)
        caller = Caller(world)
        reader, writer = await raw_socket(world)
        writer.write(text_frame(b'{"op":"subscribe","channel":"prices"}'))
        async with caller.socket() as healthy:
            await healthy.send_json({"op": "subscribe", "channel": "prices"})
            await until(healthy, "prices")
            hub_message = b'{"channel":"prices","padding":"' + b"x" * 60_000 + b'"}'
            for _ in range(300):
                world.hub.publish(("prices", ""), hub_message)
                await asyncio.sleep(0)
                message = await asyncio.wait_for(healthy.receive(), 5)
                assert message.type is aiohttp.WSMsgType.TEXT
            cut = "evermark_gateway_slow_clients_total"
            deadline = time.monotonic() + 10
            while not world.registry.get_sample_value(cut):
                assert time.monotonic() < deadline, "the slow client was not cut"
                await asyncio.sleep(0.05)
            await healthy.send_json({"op": "ping", "id": 1})
            answer = await healthy.receive_json()
            while "id" not in answer:
                answer = await healthy.receive_json()
            assert answer["result"] == "pong"
        writer.close()
        await caller.close()
        assert reader is not None


@pytest.mark.safety("H06", "api")
async def test_slow_client_that_looks_again_reads_1013(tmp_path: Any) -> None:
    """Within the grace period the cut client finds the close code and the reason."""
    settings = GatewaySettings(limits=NO_LIMITS, socket_queue_messages=5)
    async with running(tmp_path, settings) as world:
        await world.fund(MAKER, TAKER)
        caller = Caller(world)
        async with caller.socket() as socket:
            await socket.send_json({"op": "subscribe", "channel": "prices"})
            await until(socket, "prices")
            for _ in range(20):  # no time to write between two of them
                world.hub.publish(("prices", ""), b"{}")
            message = await asyncio.wait_for(socket.receive(), 5)
            while message.type is aiohttp.WSMsgType.TEXT:
                message = await asyncio.wait_for(socket.receive(), 5)
            assert (message.data, message.extra) == (1013, "not reading: too many messages unsent")
        await caller.close()


@pytest.mark.safety("H01", "api")
async def test_huge_message_ends_the_connection(world: GatewayWorld, caller: Caller) -> None:
    """A message above the limit closes the socket with 1009; nothing is kept of it."""
    async with caller.socket() as socket:
        await socket.send_str("x" * 100_000)
        message = await asyncio.wait_for(socket.receive(), 5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


@pytest.mark.safety("H01", "api")
async def test_too_many_sockets(tmp_path: Any) -> None:
    """Connections of one address are bounded; the next one is refused, and welcome again when one has
    left.
    """
    async with running(tmp_path, GatewaySettings(limits=Limits(sockets_per_ip=2))) as world:
        caller = Caller(world)
        first, second = await caller.socket(), await caller.socket()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await caller.socket()
        assert refused.value.status == 429
        await first.close()
        await asyncio.sleep(0.1)
        third = await caller.socket()
        await third.close()
        await second.close()
        await caller.close()


@pytest.mark.safety("H01", "api")
@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
async def test_slow_headers_are_cut(tmp_path: Any, sent: bytes) -> None:
    """A connection that does not finish its first request in time is closed."""
    settings = GatewaySettings(limits=NO_LIMITS, keepalive_s=1.0)
    async with running(tmp_path, settings) as world:
        port = int(world.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        began = time.monotonic()
        await asyncio.wait_for(reader.read(), 6)
        assert time.monotonic() - began < 5
        writer.close()


@pytest.mark.safety("H01", "api")
async def test_slow_body_is_cut(tmp_path: Any) -> None:
    """A body that does not arrive in time is 408."""
    settings = GatewaySettings(limits=NO_LIMITS, body_timeout_s=0.5)
    async with running(tmp_path, settings) as world:
        port = int(world.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
