"""Gas of settlement, measured on py-evm (Prague): prints one JSON object, gas and calldata bytes a fill and code sizes.

`gas_per_fill` is what the receipt of `settle()` says it used, intrinsic gas and calldata included, divided by the
fills; every account and storage word is cold at its first access, and the round was posted before. "Warm" means that
every word, those of orders and positions too, was used before. Every rule is on: signatures, prices, fees, margins of
all who traded, open interest, the event. No funding hour passed since the positions'
last trade; a batch that follows one pays for the pool's word once.

`scripts/bench gas` prints, `scripts/bench gas M5` one case; `scripts/bench gas --write` also writes the snapshot that
tests/contracts/test_gas.py compares.
"""

import json
import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "contracts" / "vault")]
warnings.simplefilter("ignore")
os.environ["EVERMARK_EVM"] = "py-evm"  # which counts cold words

import boa  # noqa: E402
from builders import USDC, Builder, Exchange, Party, Side, send  # noqa: E402

PRICES = {0: 600_000, 1: 250_000, 2: 15_000, 3: 30_000}
DEPOSIT = 1_000_000 * USDC
SNAPSHOT = ROOT / "tests" / "contracts" / "gas_snapshot.json"


def intrinsic(data: bytes) -> int:
    """21,000 and 4 or 16 gas a byte of calldata; the floor of EIP-7623 is far below what a batch executes."""
    return 21_000 + sum(16 if byte else 4 for byte in data)


def transaction_gas(exchange: Exchange, data: bytes) -> int:
    """Sends the batch as a transaction of its own would: nothing is warm but sender, vault and precompiles."""
    state = boa.env.evm.vm.state
    state.lock_changes()
    warm = [bytes.fromhex(str(address)[2:]) for address in (exchange.vault.address, exchange.sequencer)]
    for address in [*warm, *(number.to_bytes(20, "big") for number in range(1, 18))]:
        state.mark_address_warm(address)
    return int(send(exchange, data).get_gas_used()) + intrinsic(data)


def many_fills(exchange: Exchange, parties: list[Party]) -> Builder:
    """M1: each of 100 taker orders fills against one of 10 resting orders; 50 accounts."""
    pick = random.Random(1)
    batch = exchange.batch()
    makers = [
        batch.order(parties[i], Side.SELL if i % 2 else Side.BUY, 100_000, PRICES[0], slot=1 + i)
        for i in range(10)
    ]
    for number in range(100):
        resting = makers[(number + 1) % 10]
        taking = batch.order(
            parties[number % 50], resting.order.side.opposite, pick.randint(300, 3_000), PRICES[0]
        )
        batch.fill(resting, taking, taking.order.size)
    return batch


def distinct_accounts(exchange: Exchange, parties: list[Party]) -> Builder:
    """M3: 100 fills of 200 accounts, each with an order of its own."""
    pick = random.Random(3)
    batch = exchange.batch()
    for number in range(100):
        side = Side.SELL if number % 2 else Side.BUY
        size = pick.randint(300, 3_000)
        batch.trade(parties[2 * number], parties[2 * number + 1], side, size, PRICES[0])
    return batch


def sweeps(exchange: Exchange, parties: list[Party]) -> Builder:
    """M4: 10 takers sweep 10 makers, each taker filling against each maker."""
    pick = random.Random(4)
    batch = exchange.batch()
    makers = [batch.order(parties[i], Side.SELL, 100_000, PRICES[0] + i, slot=1) for i in range(10)]
    takers = [batch.order(parties[10 + i], Side.BUY, 100_000, PRICES[0] + 10) for i in range(10)]
    for taking in takers:
        for resting in makers:
            batch.fill(resting, taking, pick.randint(300, 3_000))
    return batch


def one_fill(exchange: Exchange, parties: list[Party]) -> Builder:
    """M5: one maker, one taker."""
    batch = exchange.batch()
    batch.trade(parties[0], parties[1], Side.BUY, 1_000, PRICES[0])
    return batch


def open_other_markets(exchange: Exchange, parties: list[Party]) -> None:
    """For M6: every account opens positions in two more markets."""
    for market in (1, 2):
        batch = exchange.batch()
        for number in range(0, len(parties), 2):
            batch.trade(parties[number], parties[number + 1], Side.BUY, 500, PRICES[market], market=market)
        batch.settle()


Case = tuple[str, int, Callable[[Exchange, list[Party]], Builder], int, int]
# Name, accounts, batch, batches of the kind before the measured one, fills.
CASES: tuple[Case, ...] = (
    ("M1", 50, many_fills, 2, 100),
    ("M2", 50, many_fills, 0, 100),
    ("M3", 200, distinct_accounts, 2, 100),
    ("M4", 20, sweeps, 2, 100),
    ("M5", 2, one_fill, 2, 1),
    ("M6", 50, many_fills, 2, 100),
)


def measure(name: str, accounts: int, make: Any, before: int, fills: int) -> dict[str, float]:
    """One case on an exchange of its own."""
    exchange = Exchange()
    exchange.round(PRICES)
    parties = [exchange.deposit(number, DEPOSIT) for number in range(accounts)]
    exchange.round()
    if name == "M6":
        open_other_markets(exchange, parties)
    for _ in range(before):
        make(exchange, parties).settle()
        exchange.round()
    data = make(exchange, parties).data()
    gas = transaction_gas(exchange, data)
    return {"gas_per_fill": gas / fills, "bytes_per_fill": len(data) / fills}


def figures(names: list[str]) -> dict[str, Any]:
    """The named cases, and the deployed size of every contract."""
    result: dict[str, Any] = {case[0]: measure(*case) for case in CASES if case[0] in names}
    exchange = Exchange()
    contracts = ("backstop", "clerk", "exit", "inbox", "lens", "oracle", "reasons", "vault", "verifier")
    result["code_size"] = {name: len(getattr(exchange, name).bytecode) for name in contracts}
    return result


def main() -> None:
    """Print all cases or those that are named, and write the snapshot when asked to."""
    names = [name for name in sys.argv[1:] if name != "--write"]
    text = json.dumps(figures(names or [case[0] for case in CASES]), indent=1)
    print(text)
    if "--write" in sys.argv[1:] and not names:
        SNAPSHOT.write_text(text + "\n")


if __name__ == "__main__":
    main()
