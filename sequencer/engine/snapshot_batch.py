"""The open batch in a snapshot: as plain lists, and made again from them."""

from typing import Any

import msgspec

from evermark.protocol.batch import FILL_CASH, FILL_DELEVERAGE, FILL_FORCED, FILL_FORCED_ON_BOOK
from evermark.protocol.merkle import Path
from evermark.protocol.orders import ApproveAgent, Order, Signature, Transfer, Withdraw
from sequencer.engine.batch_builder import (
    Baseline,
    OpenAction,
    OpenBatch,
    OpenFill,
    PairKey,
    Row,
    pair_key,
    pair_of,
    path_bytes,
)
from sequencer.engine.open_orders import live_order
from sequencer.engine.state import Account, EngineState

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
        [
            [fill.kind, _named(fill.first), _named(fill.second), fill.size, fill.keeper]
            for fill in batch.fills
        ],
        [[account, signed, fee, sig.to_bytes()] for account, signed, fee, sig in batch.withdrawals],
        sorted(batch.accounts),
        [pair_of(key) for key in sorted(batch.pairs)],
        [_dump_noted(account) for account in sorted(batch.noted, key=lambda account: account.account_id)],
        sorted(batch.row_accounts),
        sorted(batch.targets),
        batch.triggers,
    ]


def _named(end: Row | PairKey) -> tuple[int, ...]:
    """A row by its key, or a pair as account and market."""
    return end.key if isinstance(end, Row) else pair_of(end)


def _meant(batch: OpenBatch, named: list[int]) -> Row | PairKey:
    if len(named) == 2:
        return pair_key(named[0], named[1])
    return batch.rows[named[0], named[1], named[2]]


def _dump_noted(account: Account) -> list[Any]:
    """An account's margin before the batch, and its positions that changed: the sizes, then the marks at entry."""
    noted = account.noted
    if noted is None:
        return []
    changed = [held for _, held in sorted(account.positions.items()) if held.noted_in == noted.number]
    return [
        account.account_id,
        noted.equity,
        noted.maintenance,
        [[position.market_id, position.size_before] for position in changed],
        [[position.market_id, position.mark_before] for position in changed],
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
            (account, slot, sequence),
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
        batch.rows[row.key] = row
        live = live_order(state.accounts[account], slot)
        if live is not None and live.sequence == sequence:
            live.row = row
    for kind, first, second, size, keeper in fills:
        batch.fills.append(OpenFill(kind, _meant(batch, first), _meant(batch, second), size, keeper))
        batch.deleveraged = batch.deleveraged or kind in LEAVES_ORDERS
    for account, signed, fee, signature in withdrawals:
        batch.withdrawals.append((account, msgspec.convert(signed, Withdraw), fee, signature_of(signature)))
    batch.accounts, batch.pairs = set(accounts), {pair_key(*pair) for pair in pairs}
    for account, equity, maintenance, sizes, entry_marks in baselines:
        holder = state.accounts[account]
        noted = holder.noted = Baseline()
        noted.begin(batch.number, equity, maintenance)
        batch.noted.append(holder)
        for (market_id, size), (_, entry_mark) in zip(sizes, entry_marks, strict=True):
            position = holder.positions[market_id]
            position.noted_in, position.size_before, position.mark_before = batch.number, size, entry_mark
            noted.changed += 1
    batch.row_accounts, batch.targets = set(row_accounts), set(targets)
    batch.triggers = [(account, slot, sequence) for account, slot, sequence in triggers]
    return batch


def signature_of(raw: bytes) -> Signature:
    """A signature from its 65 bytes."""
    return Signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64] - 27)
