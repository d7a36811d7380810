"""The client side of the benchmarks that go over the WebSocket: signed messages made before, sockets, and a server in a
process of its own."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

import aiohttp
from _pipeline_server import ACCOUNTS, CHAIN_ID, MARK, VAULT, agent_key, key

from evermark.protocol.merkle import merkle_root
from evermark.protocol.orders import Cancel, Order, OrderBatch, Side, TimeInForce
from evermark.protocol.signing import (
    CANCEL_FIELDS,
    ORDER_FIELDS,
    Signer,
    digest,
    domain_separator,
    order_values,
    struct_hash,
)

SOCKETS = 8
WINDOW = 64  # messages under way on one socket at full load
TAKER_SHARE = 7  # every seventh order trades
DOMAIN = domain_separator(CHAIN_ID, VAULT)
STARTED_MS = int(time.time() * 1000)  # an account's sequences count its orders from here


def order_of(number: int, now_s: int, *, life_s: int = 3_600, slots: int = 0) -> Order:
    """Order `number` of an endless flow: the accounts take turns, most orders wait on either side of the mark. With `slots` an
    account uses that many over and over, once its orders there have expired."""
    taker, turn = number % TAKER_SHARE == TAKER_SHARE - 1, number // ACCOUNTS
    side = Side(turn % 2)
    distance = -400 if taker else 50 + number * 37 % 300
    return Order(
        owner=_signer(number % ACCOUNTS).address,
        sub_account=0,
        market="BTC-PERP",
        side=side,
        size=100 + number % 50,
        limit_price=MARK - side.sign * distance,
        max_fee_ppm=1_000,
        slot=0 if taker else 1 + (turn % slots if slots else turn),
        sequence=STARTED_MS + turn,
        expiry=now_s + life_s,
        time_in_force=TimeInForce.IOC if taker else TimeInForce.GTC,
    )


_SIGNERS: dict[int, Signer] = {}


def _signer(account: int) -> Signer:
    if account not in _SIGNERS:
        _SIGNERS[account] = key(100 + account)
    return _SIGNERS[account]


def order_message(number: int, order: Order) -> str:
    """One signed order as the socket takes it."""
    signature = _signer(number % ACCOUNTS).sign(digest(DOMAIN, order))
    body = {"op": "order", "id": number, "order": _order_json(order)}
    return json.dumps(body | {"signature": "0x" + signature.to_bytes().hex()})


def cancel_message(number: int, placed: int, order: Order) -> str:
    """A cancel of the order that was number `placed`."""
    cancel = Cancel(
        owner=order.owner, sub_account=0, all_slots=False, slot=order.slot, sequence=order.sequence,
        deadline=order.expiry,
    )  # fmt: skip
    signature = _signer(placed % ACCOUNTS).sign(digest(DOMAIN, cancel))
    values = (cancel.owner, 0, False, cancel.slot, cancel.sequence, cancel.deadline)
    fields = {name: value for (_, name), value in zip(CANCEL_FIELDS, values, strict=True)}
    body = {"op": "cancel", "id": number, "cancel": fields | {"owner": "0x" + cancel.owner.hex()}}
    return json.dumps(body | {"signature": "0x" + signature.to_bytes().hex()})


def signed_messages(count: int, first: int = 0) -> list[str]:
    """Distinct signed orders."""
    now_s = int(time.time())
    return [order_message(number, order_of(number, now_s)) for number in range(first, first + count)]


def batch_messages(count: int, size: int) -> list[str]:
    """Distinct order batches of `size` orders of one account, each under one signature of the account's agent."""
    now_s, messages = int(time.time()), []
    for number in range(count):
        account, turn = number % ACCOUNTS, number // ACCOUNTS
        numbers = [(turn * size + at) * ACCOUNTS + account for at in range(size)]
        orders = [order_of(each, now_s) for each in numbers]
        root = merkle_root([struct_hash(order) for order in orders])
        signature = agent_key(account).sign(digest(DOMAIN, OrderBatch(root=root)))
        body = {"op": "orders", "id": number, "orders": [_order_json(order) for order in orders]}
        messages.append(json.dumps(body | {"signature": "0x" + signature.to_bytes().hex()}))
    return messages


def _order_json(order: Order) -> dict[str, Any]:
    fields = {name: value for (_, name), value in zip(ORDER_FIELDS, order_values(order), strict=True)}
    return fields | {"owner": "0x" + order.owner.hex(), "builder": "0x" + order.builder.hex()}


class Load:
    """Sockets to one server; counts answers, and refusals by name."""

    def __init__(self, sockets: Sequence[aiohttp.ClientWebSocketResponse]) -> None:
        self.sockets = sockets
        self.refused: dict[str, int] = {}

    async def full(self, messages: Sequence[str], window: int = WINDOW) -> float:
        """Send everything, a window of each socket under way; answers per second."""
        began = time.perf_counter()
        await asyncio.gather(
            *(
                self._window(socket, messages[at :: len(self.sockets)], window)
                for at, socket in enumerate(self.sockets)
            )
        )
        return len(messages) / (time.perf_counter() - began)

    async def paced(self, messages: Sequence[str], per_second: float) -> list[float]:
        """Send at a fixed pace whatever comes back; seconds from the planned moment to each answer."""
        planned: dict[int, float] = {}
        latencies: list[float] = []
        readers = [
            asyncio.ensure_future(
                self._read(socket, len(messages[at :: len(self.sockets)]), planned, latencies)
            )
            for at, socket in enumerate(self.sockets)
        ]
        began = time.perf_counter() + 0.05
        for at, message in enumerate(messages):
            moment = began + at / per_second
            wait = moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            planned[json_id(message)] = moment
            await self.sockets[at % len(self.sockets)].send_str(message)
        await asyncio.gather(*readers)
        return latencies

    async def _window(
        self, socket: aiohttp.ClientWebSocketResponse, messages: Sequence[str], window: int
    ) -> None:
        waiting = iter(messages)
        under_way = 0
        for message in itertools.islice(waiting, window):
            await socket.send_str(message)
            under_way += 1
        while under_way:
            self.count(await socket.receive_str())
            under_way -= 1
            for message in itertools.islice(waiting, 1):
                await socket.send_str(message)
                under_way += 1

    async def _read(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        count: int,
        planned: dict[int, float],
        latencies: list[float],
    ) -> None:
        for _ in range(count):
            text = await socket.receive_str()
            latencies.append(time.perf_counter() - planned[json_id(text)])
            self.count(text)

    def count(self, text: str) -> None:
        """Note the refusals of an answer."""
        if '"error"' in text:
            answer = json.loads(text)
            for each in answer["result"]["orders"] if "result" in answer else [answer]:
                if "error" in each:
                    name = each["error"]["name"]
                    self.refused[name] = self.refused.get(name, 0) + 1


def json_id(text: str) -> int:
    """The request id, without parsing the rest."""
    at = text.index('"id":') + 5
    return int(text[at : text.index(",", at)])


class Server:
    """One of the server modes in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("_pipeline_server.py")), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def cpu_s(self) -> float:
        """CPU seconds used so far by all threads, and by the processes that check signatures."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ticks = 0
        for pid in (str(self.process.pid), *children):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """Close its stdin and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


async def with_sockets(port: int, work: Callable[[Load], Awaitable[Any]], count: int = SOCKETS) -> Any:
    """Run `work` with open sockets."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/v1/ws"
        sockets = [await session.ws_connect(url, compress=0) for _ in range(count)]
        result = await work(Load(sockets))
        for socket in sockets:
            await socket.close()
        return result


def percentile(latencies: Sequence[float], part: float) -> float:
    """Of sorted seconds, in milliseconds."""
    return round(latencies[min(len(latencies) - 1, int(len(latencies) * part))] * 1000, 2)
