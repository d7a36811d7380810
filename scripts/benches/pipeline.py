"""From a signed order on a WebSocket to its acknowledgement after the durable journal, measured end to
end.

A server process runs the real gateway, pipeline, engine, history and SQLite journal; this process sends
orders that were signed before. Prints one JSON object: throughput at full load, latency at half of it, the
server's CPU time an order, and in the same run three ceilings: a bare WebSocket echo, bare signature
recovery, a bare durable commit.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

import aiohttp
import msgspec
from _pipeline_server import ACCOUNTS, CHAIN_ID, MARK, VAULT, key

from evermark.protocol.orders import Order, Side, TimeInForce
from evermark.protocol.signing import ORDER_FIELDS, digest, domain_separator, order_values, recover
from sequencer.journal import Appended, SqliteJournal

SOCKETS = 8
WINDOW = 64  # orders under way on one socket at full load
TAKER_SHARE = 7  # every seventh order trades


def signed_messages(count: int) -> list[str]:
    """Distinct signed orders of all accounts: most wait on either side of the mark, every seventh trades."""
    domain = domain_separator(CHAIN_ID, VAULT)
    signers = [key(100 + number) for number in range(ACCOUNTS)]
    now_s = int(time.time())
    messages = []
    for number in range(count):
        taker = number % TAKER_SHARE == TAKER_SHARE - 1
        side = Side(number // ACCOUNTS % 2)
        distance = -400 if taker else 50 + number * 37 % 300
        order = Order(
            owner=signers[number % ACCOUNTS].address,
            sub_account=0,
            market="BTC-PERP",
            side=side,
            size=100 + number % 50,
            limit_price=MARK - side.sign * distance,
            max_fee_ppm=1_000,
            slot=0 if taker else 1 + number // ACCOUNTS,
            sequence=now_s * 1000 + number,
            expiry=now_s + 3_600,
            time_in_force=TimeInForce.IOC if taker else TimeInForce.GTC,
        )
        signature = signers[number % ACCOUNTS].sign(digest(domain, order))
        fields = {name: value for (_, name), value in zip(ORDER_FIELDS, order_values(order), strict=True)}
        fields |= {"owner": "0x" + order.owner.hex(), "builder": "0x" + order.builder.hex()}
        body = {"op": "order", "id": number, "order": fields, "signature": "0x" + signature.to_bytes().hex()}
        messages.append(json.dumps(body))
    return messages


class Load:
    """Sockets to one server; counts answers, and refusals by name."""

    def __init__(self, sockets: Sequence[aiohttp.ClientWebSocketResponse]) -> None:
        self.sockets = sockets
        self.refused: dict[str, int] = {}

    async def full(self, messages: Sequence[str]) -> float:
        """Send everything, a window of each socket under way; answers per second."""
        began = time.perf_counter()
        await asyncio.gather(
            *(
                self._window(socket, messages[at :: len(self.sockets)])
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

    async def _window(self, socket: aiohttp.ClientWebSocketResponse, messages: Sequence[str]) -> None:
        waiting = iter(messages)
        under_way = 0
        for message in itertools.islice(waiting, WINDOW):
            await socket.send_str(message)
            under_way += 1
        while under_way:
            self._count(await socket.receive_str())
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
            self._count(text)

    def _count(self, text: str) -> None:
        if '"error"' in text:
            name = json.loads(text)["error"]["name"]
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
        """CPU seconds used so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Close its stdin and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


async def with_sockets(port: int, work: Callable[[Load], Awaitable[Any]]) -> Any:
    """Run `work` with open sockets."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/v1/ws"
        sockets = [await session.ws_connect(url, compress=0) for _ in range(SOCKETS)]
        result = await work(Load(sockets))
        for socket in sockets:
            await socket.close()
        return result


# --- the measurements


def measure_exchange(orders: int, seconds: float) -> dict[str, Any]:
    """Full load, then half of it."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        messages = signed_messages(orders * 2)

        async def work(load: Load) -> dict[str, Any]:
            await load.full(messages[: orders // 4])  # warms the server up
            before = server.cpu_s()
            throughput = await load.full(messages[orders // 4 : orders])
            cpu = server.cpu_s() - before
            count = min(orders, int(throughput / 2 * seconds))
            latencies = sorted(await load.paced(messages[orders : orders + count], throughput / 2))
            return {
                "orders": orders - orders // 4,
                "orders_per_s": round(throughput),
                "server_cpu_us_per_order": round(cpu / (orders - orders // 4) * 1e6, 1),
                "half_load_per_s": round(throughput / 2),
                "half_load_orders": len(latencies),
                **{
                    name: round(latencies[min(len(latencies) - 1, int(len(latencies) * part))] * 1000, 2)
                    for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
                },
                "refused": load.refused,
            }

        result: dict[str, Any] = asyncio.run(with_sockets(server.port, work))
        server.stop()
        journal = SqliteJournal(Path(directory) / "journal.db")
        result["journal_records"] = sum(1 for _ in journal.read())
        journal.close()
        return result


def measure_echo(count: int) -> float:
    """Messages a second through a bare WebSocket server, same sizes and windows."""
    server = Server()
    messages = signed_messages(2_000) * (count // 2_000)
    rate: float = asyncio.run(with_sockets(server.port, lambda load: load.full(messages)))
    server.stop()
    return rate


def measure_recovery(count: int) -> float:
    """Signatures recovered a CPU second by one thread, digest included."""
    domain = domain_separator(CHAIN_ID, VAULT)
    order = Order(
        owner=key(100).address, sub_account=0, market="BTC-PERP", side=Side.BUY, size=1, limit_price=1,
        max_fee_ppm=1, slot=1, sequence=1, expiry=1,
    )  # fmt: skip
    signed = []
    for number in range(count):
        each = msgspec.structs.replace(order, sequence=number)
        signed.append((each, key(100).sign(digest(domain, each))))
    began = time.process_time()
    for each, signature in signed:
        if recover(digest(domain, each), signature) != each.owner:
            raise SystemExit("recovery gave another signer")
    return count / (time.process_time() - began)


def measure_commits(count: int, group: int) -> float:
    """Records a second made durable in groups of `group`."""
    with tempfile.TemporaryDirectory() as directory:
        journal = SqliteJournal(Path(directory) / "journal.db")
        epoch = journal.take_epoch()
        payload = os.urandom(776)  # a journaled order has about this size
        began = time.perf_counter()
        for at in range(count):
            entries = [(1, payload)] * group
            if not isinstance(journal.append(entries, at * group + 1, epoch), Appended):
                raise SystemExit("append refused")
        rate = count * group / (time.perf_counter() - began)
        journal.close()
        return rate


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=16_000, help="orders of the full load")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the half load")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    subprocess.run([sys.executable, "-m", "evermark.compile_engine"], check=False)
    result = measure_exchange(options.orders, options.seconds)
    result |= {
        "batch20_orders_per_s": None,  # the gateway takes no OrderBatch yet
        "recover_us": round(1e6 / measure_recovery(4_000), 1),
        "commit_ms": round(1e3 / measure_commits(500, 1), 3),
        "group_of_256_commit_ms": round(256e3 / measure_commits(60, 256), 3),
        "echo_per_s": round(measure_echo(20_000)),
    }
    print(json.dumps({"bench": "pipeline", "cores": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
