"""Gas of settlement, measured on py-evm (Prague): prints one JSON object.

M1: 100 fills of 10 maker and 100 taker orders, 50 accounts, warm (positions, slots and accounts used before). M5: one
fill, warm. "total" is what a transaction pays: intrinsic gas and calldata included, every account and storage word
cold at its first access. The floor of M5 is what its storage, calls and calldata cost without a single instruction.
"""

import json
import random
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "contracts" / "vault")]
warnings.simplefilter("ignore")

import boa  # noqa: E402
from builders import USDC, Builder, Exchange, Party, Side, send  # noqa: E402

PRICES = {0: 600_000, 1: 250_000, 2: 15_000, 3: 30_000}


def intrinsic(data: bytes) -> int:
    """21,000 and 4 or 16 gas a byte of calldata."""
    return 21_000 + sum(16 if byte else 4 for byte in data)


def transaction_gas(exchange: Exchange, data: bytes) -> dict[str, int]:
    """Sends the batch as a transaction of its own would: nothing is warm but sender, vault and precompiles."""
    state = boa.env.evm.vm.state
    state.lock_changes()
    warm = [bytes.fromhex(str(address)[2:]) for address in (exchange.vault.address, exchange.sequencer)]
    for address in [*warm, *(number.to_bytes(20, "big") for number in range(1, 18))]:
        state.mark_address_warm(address)
    execution = send(exchange, data).get_gas_used()
    return {"total": execution + intrinsic(data), "execution": execution, "calldata_bytes": len(data)}


def many_fills(exchange: Exchange, parties: list[Party]) -> Builder:
    """M1: each of 100 taker orders fills against one of 10 resting orders."""
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


def one_fill(exchange: Exchange, parties: list[Party]) -> Builder:
    """M5: one maker, one taker."""
    batch = exchange.batch()
    batch.trade(parties[0], parties[1], Side.BUY, 1_000, PRICES[0])
    return batch


def measure(exchange: Exchange, parties: list[Party], make: Any) -> dict[str, int]:
    """The third batch of its kind: by then every word has been used."""
    figures: dict[str, int] = {}
    for _ in range(3):
        exchange.round()
        figures = transaction_gas(exchange, make(exchange, parties).data())
    return figures


def main() -> None:
    exchange = Exchange()
    exchange.round(PRICES)
    parties = [exchange.deposit(number, 1_000_000 * USDC) for number in range(50)]
    hundred = measure(exchange, parties, many_fills)
    single = measure(exchange, parties, one_fill)
    names = ("vault", "clerk", "backstop", "reasons", "verifier", "oracle", "inbox")
    sizes = {name: len(getattr(exchange, name).bytecode) for name in names}
    result = {
        "M1": hundred | {"per_fill": hundred["total"] / 100, "bar_per_fill": 20_000},
        "M5": single | {"bar_total": 100_000},
        "runtime_bytes": sizes,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
