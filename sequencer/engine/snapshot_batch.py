"""The open batch in a snapshot: as plain lists, and made again from them."""

from typing import Any

import msgspec

from evermark.protocol.batch import FILL_CASH, FILL_DELEVERAGE, FILL_FORCED, FILL_FORCED_ON_BOOK
from evermark.protocol.merkle import Path
from evermark.protocol.orders import ApproveAgent, Order, Signature, Transfer, Withdraw
from sequencer.engine.batch_builder import (
    Baseline,
    Before,
    OpenAction,
    OpenBatch,
    OpenFill,
    Row,
    pair_key,
    pair_of,
    path_bytes,
)
from sequencer.engine.open_orders import live_order
from sequencer.engine.state import EngineState

LEAVES_ORDERS = (
    FILL_DELEVERAGE,
    FILL_FORCED,
    FILL_FORCED_ON_BOOK,
    FILL_CASH,
)  # fills whose targets keep waiting orders


def dump_batch(batch: OpenBatch) -> list[Any]:
    """Everything of the batch, whatever the order in which it came."""
    return [
        batch.stage,
        batch.opened_ms,
        batch.priced,
        batch.notional,
        batch.inbox,
        [
            [action.account, action.target, action.signed, action.signature.to_bytes()]
            for action in batch.actions
        ],
        batch.funding_hours,
        sorted(batch.funding_markets),
        [
            # The last one only where there is one: batches without it look as they did before it came.
            [
                *(*key, row.market_id, row.numerator, row.order, row.signature.to_bytes(), row.path),
                *([row.builder_numerator] if row.builder_numerator else []),
            ]
            for key, row in sorted(batch.rows.items())
        ],
        [[fill.kind, fill.first, fill.second, fill.size, fill.keeper] for fill in batch.fills],
        [[account, signed, fee, sig.to_bytes()] for account, signed, fee, sig in batch.withdrawals],
        sorted(batch.accounts),
        [pair_of(key) for key in sorted(batch.pairs)],
        [
            [
                account,
                noted.equity,
                noted.maintenance,
                [[market_id, before.size] for market_id, before in sorted(noted.positions.items())],
                [[market_id, before.entry_mark] for market_id, before in sorted(noted.positions.items())],
            ]
            for account, noted in sorted(batch.baselines.items())
        ],
        sorted(batch.row_accounts),
        sorted(batch.targets),
        batch.triggers,
    ]


def load_batch(values: list[Any], state: EngineState) -> OpenBatch:
    """The batch that `dump_batch` was given; accounts and live orders of the state are told of it."""
    batch = OpenBatch(state.sealed_batch + 1)
    batch.stage, batch.opened_ms, batch.priced, batch.notional, inbox, actions, hours, markets = values[:8]
    rows, fills, withdrawals, accounts, pairs, baselines, row_accounts, targets, triggers = values[8:]
    batch.inbox, batch.funding_hours, batch.funding_markets = list(inbox), list(hours), set(markets)
    for account, target, fields, signature in actions:
        signed: ApproveAgent | Transfer | None = None
        if fields is not None:
            signed = msgspec.convert(fields, Transfer) if target else msgspec.convert(fields, ApproveAgent)
        batch.actions.append(OpenAction(account, signed, signature_of(signature), target))
    for account, slot, sequence, market_id, numerator, order, signature, path, *built in rows:
        came_by = msgspec.convert(path, Path | None)
        row = Row(
            batch.number,
            market_id,
            msgspec.convert(order, Order),
            signature_of(signature),
            came_by,
            numerator,
        )
        if row.order.max_builder_fee_ppm:
            row.builder = state.account_ids.get((row.order.builder, 0), 0)
        row.builder_numerator = built[0] if built else 0
        batch.path_bytes += path_bytes(came_by)
        batch.rows[account, slot, sequence] = row
        live = live_order(state.accounts[account], slot)
        if live is not None and live.sequence == sequence:
            live.row = row
    for kind, first, second, size, keeper in fills:
        batch.fills.append(OpenFill(kind, tuple(first), tuple(second), size, keeper))
        batch.deleveraged = batch.deleveraged or kind in LEAVES_ORDERS
    for account, signed, fee, signature in withdrawals:
        batch.withdrawals.append((account, msgspec.convert(signed, Withdraw), fee, signature_of(signature)))
    batch.accounts, batch.pairs = set(accounts), {pair_key(*pair) for pair in pairs}
    for account, equity, maintenance, sizes, entry_marks in baselines:
        noted = batch.baselines[account] = Baseline(batch.number, equity, maintenance)
        state.accounts[account].noted = noted
        for (market_id, size), (_, entry_mark) in zip(sizes, entry_marks, strict=True):
            noted.positions[market_id] = Before(size, entry_mark)
    batch.row_accounts, batch.targets = set(row_accounts), set(targets)
    batch.triggers = [(account, slot, sequence) for account, slot, sequence in triggers]
    return batch


def signature_of(raw: bytes) -> Signature:
    """A signature from its 65 bytes."""
    return Signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64] - 27)
