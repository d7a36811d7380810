"""Half load for a long time, as one JSON object: does memory stay flat, does latency stay what it was.

The pipeline benchmark's server takes orders that expire and come again. `growth_percent` compares the server's resident memory
at the end with that after the first sixth of the run (the first five minutes of thirty); latency is told for the first
minute after it and for the last one.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from _pipeline_client import Load, Server, order_message, order_of, percentile, signed_messages, with_sockets

LIFE_S = 20  # of an order that waits
SLOTS = 200  # of each account, used in turn: an order there has expired long before the next one comes
CAPACITY_ORDERS = 6_000  # of the full load that says what half load is
SHARE_OF_WARM_UP = 6


class Soak:
    """Paced load with what it showed, second by second."""

    def __init__(self, server: Server, load: Load, per_second: float) -> None:
        self.server = server
        self.load = load
        self.per_second = round(per_second)
        self.memory_mb: list[float] = []
        self.latencies: list[list[float]] = []

    async def run(self, seconds: int) -> None:
        """One second of orders after the other; the next one's are signed while these are under way."""
        number = CAPACITY_ORDERS
        messages = self._sign(number)
        for _ in range(seconds):
            number += self.per_second
            paced = asyncio.ensure_future(self.load.paced(messages, self.per_second))
            messages = await asyncio.to_thread(self._sign, number)
            self.latencies.append(await paced)
            self.memory_mb.append(self.server.memory_mb())

    def _sign(self, first: int) -> list[str]:
        now_s = int(time.time())
        return [
            order_message(number, order_of(number, now_s, life_s=LIFE_S, slots=SLOTS))
            for number in range(first, first + self.per_second)
        ]

    def result(self) -> dict[str, Any]:
        """Memory and latency after the warm-up and at the end."""
        warm = len(self.memory_mb) // SHARE_OF_WARM_UP
        some = min(60, max(1, (len(self.memory_mb) - warm) // 4))
        before = sum(self.memory_mb[warm : warm + some]) / some
        after = sum(self.memory_mb[-some:]) / some
        first = sorted(each for second in self.latencies[warm : warm + some] for each in second)
        last = sorted(each for second in self.latencies[-some:] for each in second)
        return {
            "seconds": len(self.memory_mb),
            "warm_up_s": warm,
            "per_s": self.per_second,
            "orders": sum(len(second) for second in self.latencies),
            "memory_mb": [round(self.memory_mb[0], 1), round(before, 1), round(after, 1)],
            "growth_percent": round((after / before - 1) * 100, 2),
            "p50_ms": [percentile(first, 0.5), percentile(last, 0.5)],
            "p99_ms": [percentile(first, 0.99), percentile(last, 0.99)],
            "refused": self.load.refused,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--per-second", type=float, help="instead of half of the measured capacity")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-m", "evermark.compile_engine"], check=False)

    async def work(load: Load) -> dict[str, Any]:
        capacity = await load.full(signed_messages(CAPACITY_ORDERS))
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
