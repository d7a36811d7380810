"""Eighty times the normal load, as one JSON object: bounded memory, early refusals with a code, cancels first, and how soon
latency is what it was.

Normal is a fortieth of the capacity measured in the same run. The burst offers twice the capacity whatever comes back, on more
connections than the sequencer lets requests wait; with every fiftieth order goes a cancel of an account that is
leaving and places nothing. Afterwards the normal load goes on, until each second's p99 has stayed near what it was
before the burst.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from _pipeline_client import (
    Load,
    Server,
    cancel_message,
    json_id,
    order_message,
    order_of,
    percentile,
    signed_messages,
    with_sockets,
)
from _pipeline_server import ACCOUNTS

SOCKETS = 48
CAPACITY_ORDERS = 6_000
NORMAL_SHARE, BURST = 40, 80
BEFORE_S, AFTER_S = 10, 60
CANCEL_EVERY = 50
LEAVING = 40  # accounts that only cancel
SLACK_MS = 25.0  # a second's p99 within twice the one before and this much counts as back
FIRST_CANCEL = 10_000_000  # ids of cancels begin here


@dataclass
class Heard:
    """What came back: seconds from the planned moment to the answer."""

    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    cancels: list[float] = field(default_factory=list)
    cancels_refused: int = 0
    by_second: dict[int, list[float]] = field(default_factory=dict)


class Burst:
    """An open loop: messages go out when their moment comes."""

    def __init__(self, load: Load, server: Server) -> None:
        self.load, self.server = load, server
        self.planned: dict[int, float] = {}
        self.heard = Heard()
        self.began = time.perf_counter()
        self.most_memory_mb = 0.0
        self.readers = [asyncio.ensure_future(self._read(socket)) for socket in load.sockets]

    async def phase(self, messages: list[str], per_second: float, wait_s: float) -> Heard:
        """Send at a pace, then wait for what is under way; what was heard of these messages."""
        self.heard, self.began = Heard(), time.perf_counter()
        for at, message in enumerate(messages):
            moment = self.began + at / per_second
            wait = moment - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            if at % 500 == 0:
                self.most_memory_mb = max(self.most_memory_mb, self.server.memory_mb())
                await asyncio.sleep(0)
            self.planned[json_id(message)] = moment
            await self.load.sockets[at % len(self.load.sockets)].send_str(message)
        for _ in range(int(wait_s * 20)):
            if not self.planned:
                break
            await asyncio.sleep(0.05)
        return self.heard

    async def close(self) -> None:
        for reader in self.readers:
            reader.cancel()
        await asyncio.gather(*self.readers, return_exceptions=True)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            text = await socket.receive_str()
            number = json_id(text)
            planned = self.planned.pop(number)
            took, heard, is_error = time.perf_counter() - planned, self.heard, '"error"' in text
            self.load.count(text)
            if number >= FIRST_CANCEL:
                heard.cancels.append(took)
                heard.cancels_refused += '"OVERLOADED"' in text
            elif is_error:
                heard.refused.append(took)
            else:
                heard.taken.append(took)
                heard.by_second.setdefault(int(planned - self.began), []).append(took)


def sign(first: int, count: int, now_s: int) -> list[str]:
    """Orders of the accounts that stay, and with every fiftieth the cancel of one that a leaving account placed before."""
    messages, turns = [], CAPACITY_ORDERS // ACCOUNTS
    for number in range(first, first + count):
        if number % ACCOUNTS < ACCOUNTS - LEAVING:
            messages.append(order_message(number, order_of(number, now_s)))
        if number % CANCEL_EVERY == 0:
            nth = number // CANCEL_EVERY
            gone = ACCOUNTS - 1 - nth % LEAVING + nth // LEAVING % turns * ACCOUNTS
            messages.append(cancel_message(FIRST_CANCEL + number, gone, order_of(gone, now_s)))
    return messages


def sign_all(first: int, count: int) -> list[str]:
    """The same with both cores."""
    now_s, chunk = int(time.time()), 2_000
    with ProcessPoolExecutor(2) as pool:
        starts = range(first, first + count, chunk)
        parts = pool.map(
            sign, starts, [min(chunk, first + count - at) for at in starts], [now_s] * len(starts)
        )
        return [message for part in parts for message in part]


def recovered_after_s(after: Heard, bound_ms: float) -> int | None:
    """Seconds after which every second's p99 stayed within the bound; None when the last one was not."""
    late = [
        second
        for second, latencies in after.by_second.items()
        if percentile(sorted(latencies), 0.99) > bound_ms
    ]
    last = max(late, default=-1) + 1
    return last if last < AFTER_S else None


async def measure(load: Load, server: Server, seconds: int) -> dict[str, Any]:
    """Capacity, normal load, burst, normal load again."""
    capacity = await load.full(signed_messages(CAPACITY_ORDERS), 8)
    normal = max(1.0, capacity / NORMAL_SHARE)
    phases = ((normal, BEFORE_S), (normal * BURST, seconds), (normal, AFTER_S))
    # It reads from now on: a busy machine signs for longer than a silent client stays connected.
    burst = Burst(load, server)
    messages, first = [], CAPACITY_ORDERS
    for per_second, length_s in phases:
        count = int(per_second * length_s * ACCOUNTS / (ACCOUNTS - LEAVING))
        messages.append(await asyncio.to_thread(sign_all, first, count))
        first += count
    idle_mb = server.memory_mb()
    before = await burst.phase(messages[0], normal, 5)
    during = await burst.phase(messages[1], normal * BURST, 60)
    burst_s = time.perf_counter() - burst.began
    after = await burst.phase(messages[2], normal, 5)
    unanswered = len(burst.planned)
    await burst.close()
    p99 = percentile(sorted(before.taken), 0.99)
    return {
        "capacity_per_s": round(capacity),
        "normal_per_s": round(normal, 1),
        "offered_per_s": round(len(messages[1]) / burst_s),
        "burst_s": round(burst_s, 1),
        "taken": len(during.taken),
        "refused": len(during.refused),
        "refused_p99_ms": percentile(sorted(during.refused) or [0.0], 0.99),
        "taken_p99_ms": percentile(sorted(during.taken) or [0.0], 0.99),
        "cancels": len(during.cancels),
        "cancels_overloaded": during.cancels_refused,
        "cancels_p99_ms": percentile(sorted(during.cancels) or [0.0], 0.99),
        "p99_before_ms": p99,
        "recovered_after_s": recovered_after_s(after, 2 * p99 + SLACK_MS),
        "unanswered": unanswered,
        "memory_mb": [round(idle_mb, 1), round(burst.most_memory_mb, 1), round(server.memory_mb(), 1)],
        "refusals": load.refused,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="length of the burst")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-m", "evermark.compile_engine"], check=False)
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        result = asyncio.run(
            with_sockets(server.port, lambda load: measure(load, server, options.seconds), SOCKETS)
        )
        server.stop()
    print(json.dumps({"bench": "burst", "cores": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
