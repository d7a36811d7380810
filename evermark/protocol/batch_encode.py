"""Batch -> bytes, in the layout that `batch.py` describes."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from evermark.protocol.batch_types import (
    ACTION_APPROVE_AGENT,
    ACTION_CANCEL,
    ACTION_TRANSFER,
    ACTION_WRITE_OFF,
    FILL_LIQUIDATION,
    FILL_TAKEOVER,
    FLAG_AMEND,
    FLAG_EXTENSION,
    FLAG_PARITY,
    FLAG_POST_ONLY,
    FLAG_REDUCE_ONLY,
    FLAG_SELL,
    FUNDING_HOUR,
    SAME_SIGNATURE,
    SCHEME_ORDER,
    SCHEME_ORDER_BATCH,
    SHIFT_SCHEME,
    SHIFT_SIZE_WIDTH,
    SHIFT_TIME_IN_FORCE,
    SHIFT_TRIGGER,
    TRIGGER_BIT,
    AgentApproval,
    Batch,
    CollateralTransfer,
    Fill,
    OrderRow,
    SlotCancel,
    Withdrawal,
    WriteOff,
)
from evermark.protocol.merkle import Path
from evermark.protocol.orders import Order, Side, Signature

Item = TypeVar("Item")


def byte_width(value: int) -> int:
    """Bytes that a positive size needs, 1 to 8."""
    return max(1, (value.bit_length() + 7) // 8)


def encode_batch(batch: Batch) -> bytes:
    """Batch -> calldata bytes without the selector. Raises OverflowError for a value that its field cannot
    hold."""
    return b"".join(_encode(batch))


def _encode(batch: Batch) -> Iterator[bytes]:
    yield _uint(batch.batch_id, 6) + _uint(batch.round, 5) + batch.prices_hash
    yield _uint(batch.journal_sequence, 6) + batch.journal_hash
    yield _uint(len(batch.fee_classes), 1)
    for maker_ppm, taker_ppm in batch.fee_classes:
        yield maker_ppm.to_bytes(2, "big", signed=True) + _uint(taker_ppm, 2)
    yield _uint(len(batch.markets), 1) + bytes(batch.markets)
    yield _uint(len(batch.accounts), 2) + b"".join(_uint(account, 4) for account in batch.accounts)
    yield _uint(len(batch.pairs), 2)
    for index, market in batch.pairs:
        yield _uint(index, 2) + _uint(market, 1)
    rows, last = b"", None  # `last`: the signature of the last row that came in an order batch
    for row in batch.orders:
        rows += _encode_row(row, last)
        last = last if row.path is None else row.signature
    yield _uint(len(rows), 2) + _uint(len(batch.orders), 2) + rows
    yield _uint(len(batch.inbox), 2) + b"".join(_uint(use.account_index, 2) for use in batch.inbox)
    yield from _counted(batch.actions, 2, _encode_action)
    yield _uint(len(batch.funding_hours) + len(batch.triggers), 1)
    yield b"".join(_uint(FUNDING_HOUR, 1) + _uint(hour, 4) for hour in batch.funding_hours)
    yield b"".join(_uint(TRIGGER_BIT, 1) + _uint(trigger.row, 2) for trigger in batch.triggers)
    yield from _counted(batch.fills, 2, _encode_fill)
    yield from _counted(batch.withdrawals, 2, _encode_withdrawal)


def _uint(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big")


def _counted(items: Sequence[Item], width: int, encode: Callable[[Item], bytes]) -> Iterator[bytes]:
    yield _uint(len(items), width)
    for item in items:
        yield encode(item)


def _encode_row(row: OrderRow, last: Signature | None) -> bytes:
    order, width = row.order, byte_width(row.order.size)
    flags = (
        (FLAG_SELL if order.side is Side.SELL else 0)
        | order.time_in_force << SHIFT_TIME_IN_FORCE
        | (FLAG_POST_ONLY if order.post_only else 0)
        | (FLAG_REDUCE_ONLY if order.reduce_only else 0)
        | (FLAG_AMEND if order.amend else 0)
        | (FLAG_PARITY if row.signature.parity and row.path is None else 0)
        | order.trigger << SHIFT_TRIGGER
        | (width - 1) << SHIFT_SIZE_WIDTH
        | (0 if order.is_plain else FLAG_EXTENSION)
        | (SCHEME_ORDER if row.path is None else SCHEME_ORDER_BATCH) << SHIFT_SCHEME
    )
    head = (
        _uint(flags, 2)
        + _uint(row.pair, 2)
        + _uint(row.fee_class, 1)
        + _uint(order.slot, 2)
        + _uint(order.sequence, 6)
        + _uint(order.limit_price, 4)
        + _uint(order.max_fee_ppm, 2)
        + _uint(order.expiry, 4)
        + _uint(order.size, width)
        + (
            _encode_signature(row.signature)
            if row.path is None
            else _encode_path(row.path, row.signature, last)
        )
    )
    return head if order.is_plain else head + _encode_extension(order) + _uint(row.builder_index, 2)


def _encode_signature(signature: Signature) -> bytes:
    return _uint(signature.r, 32) + _uint(signature.s, 32)


def _encode_path(path: Path, signature: Signature, last: Signature | None) -> bytes:
    sides = sum(is_left << at for at, (is_left, _) in enumerate(path))
    body = _uint(sides, 1) + _uint(SAME_SIGNATURE if signature == last else signature.parity, 1)
    body += b"".join(sibling for _, sibling in path)
    if signature != last:
        body += _encode_signature(signature)
    return _uint(len(body), 2) + body


def _encode_extension(order: Order) -> bytes:
    return (
        _uint(order.trigger_price, 4)
        + _uint(order.trailing_offset, 4)
        + _uint(order.display_size, 8)
        + _uint(order.twap_interval, 4)
        + _uint(order.bracket_link, 2)
        + order.builder
        + _uint(order.max_builder_fee_ppm, 2)
    )


def _encode_action(entry: AgentApproval | SlotCancel | CollateralTransfer | WriteOff) -> bytes:
    if isinstance(entry, WriteOff):
        return _uint(ACTION_WRITE_OFF, 1) + _uint(entry.account_index, 2)
    signature = entry.signature.to_bytes()
    if isinstance(entry, SlotCancel):
        cancel = entry.cancel
        body = (
            _uint(cancel.all_slots, 1)
            + _uint(cancel.slot, 2)
            + _uint(cancel.sequence, 6)
            + _uint(cancel.deadline, 4)
        )
        return _uint(ACTION_CANCEL, 1) + _uint(entry.account_index, 2) + body + signature
    if isinstance(entry, CollateralTransfer):
        transfer = entry.transfer
        body = (
            _uint(entry.target_index, 2)
            + _uint(transfer.to_sub_account, 2)
            + _uint(transfer.amount, 12)
            + _uint(transfer.action_sequence, 6)
            + _uint(transfer.deadline, 4)
        )
        return _uint(ACTION_TRANSFER, 1) + _uint(entry.account_index, 2) + body + signature
    approval = entry.approval
    body = (
        approval.agent
        + _uint(approval.agent_expiry, 4)
        + _uint(approval.transfer_cap, 12)
        + _uint(approval.action_sequence, 6)
        + _uint(approval.deadline, 4)
    )
    return _uint(ACTION_APPROVE_AGENT, 1) + _uint(entry.account_index, 2) + body + signature


def _encode_fill(fill: Fill) -> bytes:
    width = byte_width(fill.size)
    head = _uint(fill.kind | (width - 1) << 4, 1) + _uint(fill.first, 2) + _uint(fill.second, 2)
    if fill.kind in (FILL_LIQUIDATION, FILL_TAKEOVER):
        head += _uint(fill.keeper, 2)
    return head + _uint(fill.size, width)


def _encode_withdrawal(entry: Withdrawal) -> bytes:
    withdraw = entry.withdraw
    return (
        _uint(entry.account_index, 2)
        + _uint(withdraw.amount, 12)
        + _uint(withdraw.max_fee, 12)
        + _uint(entry.fee, 12)
        + _uint(withdraw.action_sequence, 6)
        + _uint(withdraw.deadline, 4)
        + entry.signature.to_bytes()
    )
