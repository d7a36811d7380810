"""From a signed order on a WebSocket to its acknowledgement after the durable journal, measured end to
end.

A server process runs the real gateway, pipeline, engine, history and SQLite journal; this process sends
orders that were signed before. Prints one JSON object: throughput at full load, latency at half of it, the
server's CPU time an order, and in the same run three ceilings: a bare WebSocket echo, bare signature
recovery, a bare durable commit.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from _pipeline_client import (
    DOMAIN,
    Load,
    Server,
    batch_messages,
    percentile,
    signed_messages,
    with_sockets,
)
from _pipeline_server import key

from evermark.protocol.orders import Order, Side
from evermark.protocol.signing import digest, recover
from sequencer.journal import Appended, SqliteJournal

BATCH = 20  # orders of one signature
PROCESSES = (0, 1, 2)  # that check signatures; with 0 the threads of the one process do
BATCHES_AT_ONCE = 8  # under way on one socket: all of them are far fewer orders than the sequencer lets wait


# --- the measurements


def measure_exchange(orders: int, seconds: float, processes: int) -> dict[str, Any]:
    """Full load, then half of it; signatures by threads, or by so many processes."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, "--signature-processes", str(processes))
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
                "p50_ms": percentile(latencies, 0.5),
                "p99_ms": percentile(latencies, 0.99),
                "p999_ms": percentile(latencies, 0.999),
                "refused": load.refused,
            }

        result: dict[str, Any] = asyncio.run(with_sockets(server.port, work))
        server.stop()
        journal = SqliteJournal(Path(directory) / "journal.db")
        result["journal_records"] = sum(1 for _ in journal.read())
        journal.close()
        return result


def measure_batches(orders: int, processes: int) -> dict[str, Any]:
    """Full load of order batches, one agent's signature each."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, "--signature-processes", str(processes))
        messages = batch_messages(orders // BATCH, BATCH)
        warm = len(messages) // 4

        async def work(load: Load) -> dict[str, Any]:
            await load.full(messages[:warm], BATCHES_AT_ONCE)
            before = server.cpu_s()
            throughput = await load.full(messages[warm:], BATCHES_AT_ONCE) * BATCH
            cpu_us = (server.cpu_s() - before) / ((len(messages) - warm) * BATCH) * 1e6
            return {
                "batch20_orders_per_s": round(throughput),
                "batch20_server_cpu_us_per_order": round(cpu_us, 1),
                "batch20_refused": load.refused,
            }

        result: dict[str, Any] = asyncio.run(with_sockets(server.port, work))
        server.stop()
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
    order = Order(
        owner=key(100).address, sub_account=0, market="BTC-PERP", side=Side.BUY, size=1, limit_price=1,
        max_fee_ppm=1, slot=1, sequence=1, expiry=1,
    )  # fmt: skip
    signed = []
    for number in range(count):
        each = msgspec.structs.replace(order, sequence=number)
        signed.append((each, key(100).sign(digest(DOMAIN, each))))
    began = time.process_time()
    for each, signature in signed:
        if recover(digest(DOMAIN, each), signature) != each.owner:
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
    recover_us = round(1e6 / measure_recovery(4_000), 1)
    by_processes = {}
    for processes in PROCESSES:
        result = measure_exchange(options.orders, options.seconds, processes)
        result["cpu_per_recovery"] = round(result["server_cpu_us_per_order"] / recover_us, 2)
        result |= measure_batches(options.orders, processes)
        by_processes[processes] = result
    result = by_processes[PROCESSES[0]] | {
        "by_signature_processes": {count: by_processes[count] for count in PROCESSES[1:]},
        "recover_us": recover_us,
        "commit_ms": round(1e3 / measure_commits(500, 1), 3),
        "group_of_256_commit_ms": round(256e3 / measure_commits(60, 256), 3),
        "echo_per_s": round(measure_echo(20_000)),
    }
    print(json.dumps({"bench": "pipeline", "cores": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
