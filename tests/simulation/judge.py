"""What must hold at rest, when the faults have stopped: of journal, engine, history and vault."""

import hashlib
from collections import Counter

from sqlalchemy import select

from sequencer.engine.commands import PlaceOrder
from sequencer.engine.events import BatchSealed, ForeignBatchApplied, Trade
from sequencer.engine.sealing import pay_dust
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.history import History, tables
from sequencer.history.candles import CandleBuilder
from sequencer.history.store import fetch
from sequencer.replay import Applied, Reversal, replay, reversals
from tests.simulation.disk import Disk, SimulatedJournal
from tests.simulation.lives import Lives
from tests.simulation.node import SimulatedChain
from tests.simulation.process import Process


class Violated(AssertionError):
    """A promise did not hold; the message says which."""


def require(condition: object, promise: str) -> None:
    """Raise Violated with the promise that was broken."""
    if not condition:
        raise Violated(promise)


async def judge(
    process: Process, lives: Lives, chain: SimulatedChain, disk: Disk, acknowledged: list[bytes]
) -> str:
    """A digest of where everything ended. Raises Violated."""
    status = process.line.status()
    require(not status.alarm, f"settlement goes on by itself: {status.alarm}")
    alarm = process.reconciliation.alarm
    require(not alarm, f"reconciliation agrees: {alarm}")
    require(chain.faults.poisoned or not process.state.halted, "nobody is halted for nothing")
    void = reversals(SimulatedJournal(disk))
    _journal(process, lives, disk, acknowledged, void)
    state, ends, trades = EngineState(), dict[int, int](), list[tuple[Applied, Trade]]()
    owners: dict[bytes, tuple[bytes, int]] = {}

    def note(applied: Applied) -> None:
        _note_ends(ends, applied)
        if isinstance(applied.command, PlaceOrder):
            order = applied.command.order
            owners[applied.command.order_hash] = order.owner, order.sub_account
        trades.extend((applied, event) for event in applied.events if isinstance(event, Trade))

    replay(SimulatedJournal(disk), state, [note])
    require(state_hash(state) == state_hash(process.state), "a replay reaches the running state")
    require(state.sealed_batch - state.confirmed_batch <= 3, f"settlement keeps up: {status}")
    settled = chain.head.batches
    require(settled, "something settled")
    ids = [int.from_bytes(batch[:6], "big") for batch in settled]
    require(ids == list(range(1, len(ids) + 1)), "batches settle once, in order")
    require(len(settled) in ends, "the vault holds only what the journal sealed, or has followed")
    _vault(chain, disk, ends[len(settled)])
    stand = [at for at in trades if not any(one.voids(at[0].sequence) for one in void)]
    _history(process.core.history, state, owners, trades, stand)
    return hashlib.sha256(state_hash(state) + settled[-1]).hexdigest()[:16]


def _journal(
    process: Process, lives: Lives, disk: Disk, acknowledged: list[bytes], void: list[Reversal]
) -> None:
    durable = Counter(record.payload for record in disk.records)
    effective = Counter(
        record.payload
        for record in disk.records
        if not any(reversal.voids(record.sequence) for reversal in void)
    )
    for payload, times in Counter(acknowledged).items():
        require(durable[payload] >= times, "every acknowledged command is in the journal")
        # A keeper may point at one account twice; what a trader signs is never in force twice.
        once = effective[payload] <= 1 or payload.startswith(b'{"kind":"TriggerLiquidation"')
        require(once, "no signed command is applied twice")
    stamps = [record.stamp_ms for record in disk.records]
    require(stamps == sorted(stamps), "stamps never fall")
    for zombie in (*lives.zombies, *lives.buried):
        head = zombie.pipeline.sequence
        require(head <= process.pipeline.sequence, "a fenced process is never ahead")


def _vault(chain: SimulatedChain, disk: Disk, sequence: int) -> None:
    """The vault after its last batch equals the engine as of that batch's journal sequence."""
    state, vault = EngineState(), chain.head.vault
    replay(SimulatedJournal(disk), state, until=sequence)
    pay_dust(state)  # as the vault has, whose batch ended here
    for account_id, account in state.accounts.items():
        require(vault.collateral(account_id) == account.collateral, f"collateral of {account_id} agrees")
        for market_id, held in account.positions.items():
            size = vault.position(account_id, market_id)[0]
            require(size == held.size, f"position of {account_id} in {market_id} agrees")
        action = vault.action_sequences[account_id]
        require(action == account.action_sequence, f"action sequence of {account_id} agrees")
    ids = {key: number for key, number in state.account_ids.items() if number > 2}
    require(vault.ids == ids, "account ids agree")
    require((vault.pool, vault.dust) == (state.funding_pool, state.dust), "funding pool and dust agree")
    require(vault.claimed == state.claimed, "claims agree")
    require((*vault.levels.values(), vault.last_claim) == state.outflow, "outflow levels agree")
    require(vault.entries == state.entry_count, "consumed inbox entries agree")
    require(vault.closing == (state.closing_entry, state.closed_lots), "lots closed for an entry agree")
    require(list(vault.markets) == [at.market_id for at in state.markets], "markets agree")
    for at in state.markets:
        about = f"market {at.market_id}"
        require(vault.open_interest[at.market_id] == at.open_interest, f"{about}: open interest agrees")
        funding = vault.cumulative[at.market_id], vault.hours[at.market_id]
        require(funding == (at.cumulative, at.funding_hour), f"{about}: funding agrees")
        fee = vault.markets[at.market_id].taker_fee_ppm
        require(fee == at.market.taker_fee_ppm, f"{about}: parameters agree")


def _history(
    history: History,
    state: EngineState,
    owners: dict[bytes, tuple[bytes, int]],
    trades: list[tuple[Applied, Trade]],
    stand: list[tuple[Applied, Trade]],
) -> None:
    """What people see is what the engine did and what stands of it."""
    symbols = [market.market.symbol for market in state.markets]
    history.flush().result()
    rows = {
        table.name: history.store.read_now(lambda connection, table=table: fetch(connection, select(table)))
        for table in (tables.trades, tables.fills, tables.orders, tables.candles)
    }
    told = {row["trade_id"]: (row["market"], row["price"], row["size"]) for row in rows["trades"]}
    done = {one.trade_id: (symbols[one.market_id], one.price, one.size) for _, one in trades}
    require(told == done, "the history tells every trade")
    standing = {row["trade_id"] for row in rows["trades"] if not row["voided"]}
    require(
        standing == {trade.trade_id for _, trade in stand},
        "trades that stand are not marked as void, others are",
    )
    live = [row for row in rows["fills"] if not row["voided"]]
    require({row["trade_id"] for row in live} == standing, "so are fills")
    for row in rows["orders"]:
        owner = owners.get(row["order_hash"])
        known = state.account_ids.get(owner, row["account"]) if owner is not None else 0
        require(row["account"] == known or row["account"] < 0, "an order is told of to whoever signed it")
    filled, fees = Counter[bytes](), Counter[bytes]()
    for row in live:
        filled[row["order_hash"]] += row["size"]
        fees[row["order_hash"]] += row["fee"]
    for row in rows["orders"]:
        order = row["order_hash"]
        require(row["traded"] == filled[order], "an order's lots are those of its fills")
        require(row["fee"] == fees[order], "an order's fee is that of its fills")
    builder = CandleBuilder()
    for applied, trade in stand:
        builder.add(symbols[trade.market_id], trade.price, trade.size, applied.stamp_ms)
    kept = {
        (row["market"], row["interval"], row["t"]): tuple(row[key] for key in "ohlcvn")
        for row in rows["candles"]
    }
    made = {key: (one.o, one.h, one.l, one.c, one.v, one.n) for key, one in builder.changed.items()}
    require(kept == made, "candles are those of the trades that stand")


def _note_ends(ends: dict[int, int], applied: Applied) -> None:
    """The record that each batch ends with; after a reversal an id may come again."""
    for event in applied.events:
        if isinstance(event, BatchSealed):
            ends[event.batch.batch_id] = event.batch.journal_sequence
        elif isinstance(event, ForeignBatchApplied):
            ends[event.batch_id] = applied.sequence
