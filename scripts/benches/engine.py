"""The engine's speed as one JSON object, with the ceilings of the same run: whole commands with every check, plain and
compiled; the bare book compiled; and the C++ book of the package orderly-chaos behind its Python interface.

All run the same seeded flow (see `_engine_flow.py`), in a process for plain Python and one for the compiled engine; the
trades of the two books are compared one by one, and the state hashes of the two engines. Rates are per CPU second.
`cost_accounts_ratio` and `cost_depth_ratio`: cost of a command with 1,000,000 accounts over 1,000, and with 100,000 price
levels on a side over 1,000 (where the logarithm grows 1.67 times).
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time

from _engine_flow import MARKETS, Flow, Journal, Operation, make_markets, prepare

import sequencer.engine.apply
from evermark import compiled
from evermark.protocol.orders import Side
from sequencer.engine.apply import apply
from sequencer.engine.bare_book import BareBook, BareOrder
from sequencer.engine.commands import OracleRound
from sequencer.engine.events import CommandRejected, OrderCancelled, Trade
from sequencer.engine.invariants import check_invariants
from sequencer.engine.snapshot import restore, snapshot, state_hash
from sequencer.garbage import NEVER, YOUNG

COMMANDS = 60_000
ROUND_EVERY = 5_000  # commands between two price rounds
FEW_ACCOUNTS, MANY_ACCOUNTS = 1_000, 1_000_000
FEW_LEVELS, MANY_LEVELS = 1_000, 100_000
PROBES = 20_000  # commands of one cost figure


def run_engine(flow: Flow, journal: Journal) -> dict[str, object]:
    """The whole commands, with nothing in the measured loop but the engine; what they did is looked at in a second run."""
    commands = [flow.prices() if n % ROUND_EVERY == 0 else flow.next() for n in range(COMMANDS)]
    twin = Journal()
    twin.state = restore(snapshot(journal.state))
    state, stamp_ms = journal.state, journal.stamp_ms()
    gc.collect()
    gc.freeze()
    began, cpu_began = time.perf_counter(), time.process_time()
    for command in commands:
        apply(state, command, state.sequence + 1, stamp_ms)
        if type(command) is OracleRound:
            journal.confirm()
            stamp_ms = journal.stamp_ms()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    check_invariants(state)
    reached = state_hash(state)
    result = {
        "compiled": sequencer.engine.apply.__file__.endswith(".so"),
        "commands": COMMANDS,
        # Of CPU time: what an idle core gives; others may share this one.
        "commands_per_s": round(COMMANDS / cpu),
        "commands_per_elapsed_s": round(COMMANDS / elapsed),
        "batches": state.sealed_batch,
        "state_hash": reached.hex(),
    }
    return result | look_at(commands, twin, reached)


def look_at(commands: list[object], journal: Journal, expected_hash: bytes) -> dict[str, object]:
    """The same commands again: what came of them, and how long the slowest took."""
    trades = refused = margin = 0
    slowest = 0.0
    for command in commands:
        start = time.perf_counter()
        events = journal.apply(command)
        slowest = max(slowest, time.perf_counter() - start)
        for event in events:
            kind = type(event)
            trades += kind is Trade
            refused += kind is CommandRejected
            margin += kind is OrderCancelled and event.reason == "margin"
        if type(command) is OracleRound:
            journal.confirm()
    if state_hash(journal.state) != expected_hash:
        raise SystemExit("bench: the same commands led to another state")
    return {
        "slowest_command_ms": round(slowest * 1000, 2),
        "trades": trades,
        "refused": refused,
        "cancelled_for_margin": margin,
    }


def run_bare_book(operations: list[Operation]) -> tuple[float, list[tuple[int, ...]]]:
    """Operations a CPU second of our book alone, and its trades as (market, maker id, taker id, price, size)."""
    books = [BareBook() for _ in range(MARKETS)]
    signs = {side: side.sign for side in Side}
    gc.collect()
    began = time.process_time()
    for verb, market, order_id, side, size, price in operations:
        book = books[market]
        if verb == "limit":
            book.limit(order_id, signs[side], size, price)
        elif verb == "cancel":
            book.cancel(order_id)
        else:
            book.immediate(order_id, signs[side], size, price)
    rate = len(operations) / (time.process_time() - began)
    return rate, [(market, *trade) for market, book in enumerate(books) for trade in book.trades]


def run_orderly_chaos(operations: list[Operation]) -> tuple[float, list[tuple[int, ...]]]:
    """The same on the C++ book behind its Python interface."""
    import orderly_chaos

    trades: list[list[tuple[int, ...]]] = [[] for _ in range(MARKETS)]

    def recorder(market: int):  # type: ignore[no-untyped-def]
        take = trades[market].append
        return lambda trade: take((trade.maker_id, trade.taker_id, trade.price, trade.quantity))

    books = [orderly_chaos.LimitOrderBook(on_trade=recorder(market)) for market in range(MARKETS)]
    sides = {Side.BUY: orderly_chaos.Side.BUY, Side.SELL: orderly_chaos.Side.SELL}
    began = time.process_time()
    for verb, market, order_id, side, size, price in operations:
        book = books[market]
        if verb == "cancel":
            if order_id in book:
                book.cancel(order_id)
        elif book.limit(sides[side], order_id, size, price) < size and verb == "ioc":
            book.cancel(order_id)
    rate = len(operations) / (time.process_time() - began)
    return rate, [(market, *trade) for market, made in enumerate(trades) for trade in made]


def measure() -> dict[str, object]:
    """Everything about the engine that this process runs, with the two books beside it."""
    flow = Flow(make_markets())
    journal = prepare(flow)
    result = run_engine(flow, journal)
    book = [run_bare_book(flow.operations) for _ in range(3)]
    peer = [run_orderly_chaos(flow.operations) for _ in range(3)]
    result |= {
        "book_operations": len(flow.operations),
        "book_ops_per_s": round(max(rate for rate, _ in book)),
        "peer_ops_per_s": round(max(rate for rate, _ in peer)),
        "trades_equal": peer[0][1] == book[0][1],
    }
    return result


def cost_with_accounts(accounts: int) -> float:
    """CPU seconds of a command where `accounts` have a deposit and all of them trade alike."""
    flow = Flow(make_markets(), accounts)
    journal = prepare(flow, positions=False)
    return _cost(journal, [flow.next() for _ in range(PROBES)])


def cost_with_depth(levels: int) -> float:
    """CPU seconds of an order placed into, or cancelled out of, the middle of a side of `levels` prices."""
    flow = Flow(make_markets(), FEW_ACCOUNTS)
    journal = prepare(flow, positions=False)
    side, top = journal.state.markets[0].book.bids, 10 * MANY_LEVELS
    for number in range(levels):
        price = top - number * (top // levels)
        side.level_at(price).total = 1
    prices = [flow.random.randrange(1, top) for _ in range(PROBES)]
    gc.collect()
    began = time.process_time()
    book = journal.state.markets[0].book
    for price in prices:
        order = BareOrder(1, 1, price, 1)
        book.add(order)
        book.remove(order)
    return (time.process_time() - began) / PROBES


def _cost(journal: Journal, commands: list[object]) -> float:
    gc.collect()
    gc.freeze()
    began = time.process_time()
    for command in commands:
        journal.apply(command)
        journal.confirm()
    return (time.process_time() - began) / len(commands)


CHILDREN = {
    "measure": measure,
    "few_accounts": lambda: cost_with_accounts(FEW_ACCOUNTS),
    "many_accounts": lambda: cost_with_accounts(MANY_ACCOUNTS),
    "few_levels": lambda: cost_with_depth(FEW_LEVELS),
    "many_levels": lambda: cost_with_depth(MANY_LEVELS),
}


def child(name: str, pure: str = "0"):  # type: ignore[no-untyped-def]
    """One measurement in a process of its own, plain or compiled."""
    command = [sys.executable, __file__, "--child", name]
    environment = {**os.environ, "EVERMARK_PURE": pure}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument(
        "--no-costs", action="store_true", help="leave out how costs grow (a minute and 2 GB)"
    )
    options = parser.parse_args()
    if options.child:
        gc.set_threshold(YOUNG, gc.get_threshold()[1], NEVER)  # as the sequencer runs
        print(json.dumps(CHILDREN[options.child]()))
        return
    subprocess.run([sys.executable, "-m", "evermark.compile_engine"], check=True)
    if not compiled.build_folder().is_dir():
        raise SystemExit("bench: the engine is not compiled (EVERMARK_PURE=1 is set)")
    plain, fast = child("measure", "1"), child("measure")
    if plain["state_hash"] != fast["state_hash"] or not (plain["trades_equal"] and fast["trades_equal"]):
        raise SystemExit("bench: plain, compiled and the peer do not agree")
    result = {
        "bench": "engine",
        "book_ratio": round(fast["book_ops_per_s"] / fast["peer_ops_per_s"], 2),
        "full_ratio": round(fast["commands_per_s"] / fast["peer_ops_per_s"], 3),
        "full_ratio_pure": round(plain["commands_per_s"] / plain["peer_ops_per_s"], 3),
        "commands_per_s_pure": plain["commands_per_s"],
        "commands_per_s_compiled": fast["commands_per_s"],
        "peer_ops_per_s": fast["peer_ops_per_s"],
    }
    if not options.no_costs:
        result["cost_accounts_ratio"] = round(child("many_accounts") / child("few_accounts"), 2)
        result["cost_depth_ratio"] = round(child("many_levels") / child("few_levels"), 2)
    print(json.dumps(result | {"pure": plain, "compiled": fast, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
