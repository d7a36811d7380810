"""Half load for a long time, as one JSON object: does memory stay flat, does latency stay what it was.

The pipeline benchmark's server takes orders that expire and come again, signed by a process of its own while they are
sent. `growth_percent` compares the server's resident memory at the end with that after the first sixth of the run (the
first five minutes of thirty). Latency is told for each fifth of what follows, in milliseconds; `p99_growth_percent` is how
much more the last fifth's p99 is than the first one's.
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from _pipeline_client import Load, Server, order_message, order_of, percentile, with_sockets
from _pipeline_server import ACCOUNTS

LIFE_S = 10  # of an order that waits
SPARE_S = 10  # after its end, before another order comes to its slot
CAPACITY_ORDERS = 6_000  # of the full load that says what half load is
SHARE_OF_WARM_UP = 6
PARTS = 5


class Soak:
    """Paced load with what it showed, second by second."""

    def __init__(self, server: Server, load: Load, per_second: float) -> None:
        self.server = server
        self.load = load
        self.per_second = round(per_second)
        self.slots = math.ceil(self.per_second / ACCOUNTS * (LIFE_S + SPARE_S))
        self.memory_mb: list[float] = []
        self.latencies: list[array[float]] = []

    async def run(self, seconds: int) -> None:
        """One second of orders after the other; the next one's are signed while these are under way."""
        number, loop = CAPACITY_ORDERS, asyncio.get_running_loop()
        with ProcessPoolExecutor(1) as signers:
            messages = await loop.run_in_executor(signers, sign, number, self.per_second, self.slots)
            for _ in range(seconds):
                number += self.per_second
                signing = loop.run_in_executor(signers, sign, number, self.per_second, self.slots)
                self.latencies.append(array("f", await self.load.paced(messages, self.per_second)))
                self.memory_mb.append(self.server.memory_mb())
                messages = await signing

    def result(self) -> dict[str, Any]:
        """Memory and latency after the warm-up and at the end."""
        warm = len(self.memory_mb) // SHARE_OF_WARM_UP
        some = min(60, max(1, (len(self.memory_mb) - warm) // 4))
        before = sum(self.memory_mb[warm : warm + some]) / some
        after = sum(self.memory_mb[-some:]) / some
        length = (len(self.latencies) - warm) // PARTS
        parts = [
            together(self.latencies[at : at + length])
            for at in range(warm, len(self.latencies) - length + 1, length)
        ]
        p99_ms = [percentile(part, 0.99) for part in parts]
        return {
            "seconds": len(self.memory_mb),
            "warm_up_s": warm,
            "per_s": self.per_second,
            "orders": sum(len(second) for second in self.latencies),
            "memory_mb": [round(self.memory_mb[0], 1), round(before, 1), round(after, 1)],
            "growth_percent": round((after / before - 1) * 100, 2),
            "p50_ms": [percentile(part, 0.5) for part in parts],
            "p99_ms": p99_ms,
            "p99_growth_percent": round((p99_ms[-1] / p99_ms[0] - 1) * 100, 1),
            "refused": self.load.refused,
        }


def sign(first: int, count: int, slots: int) -> list[str]:
    """A second's orders, in the process that signs."""
    now_s = int(time.time())
    return [
        order_message(number, order_of(number, now_s, life_s=LIFE_S, slots=slots))
        for number in range(first, first + count)
    ]


def together(seconds: "Iterable[array[float]]") -> list[float]:
    """Sorted latencies of several seconds."""
    return sorted(each for second in seconds for each in second)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--per-second", type=float, help="instead of half of the measured capacity")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-m", "evermark.compile_engine"], check=False)

    async def work(load: Load) -> dict[str, Any]:
        capacity = await load.full(sign(0, CAPACITY_ORDERS, CAPACITY_ORDERS))
        soak = Soak(server, load, options.per_second or capacity / 2)
        await soak.run(max(12, int(options.minutes * 60)))
        return {"capacity_per_s": round(capacity)} | soak.result()

    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        result = asyncio.run(with_sockets(server.port, work))
        server.stop()
    print(json.dumps({"bench": "soak", "cores": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
