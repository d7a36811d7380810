"""Bytes -> Batch. Whatever decodes here encodes to the same bytes again."""

from collections.abc import Callable, Sequence

import msgspec

from evermark.protocol.batch_encode import encode_batch
from evermark.protocol.batch_types import (
    ACTION_APPROVE_AGENT,
    ACTION_CANCEL,
    ACTION_TRANSFER,
    ACTION_WRITE_OFF,
    FILL_CASH,
    FILL_LIQUIDATION,
    FILL_TAKEOVER,
    FLAG_AMEND,
    FLAG_EXTENSION,
    FLAG_PARITY,
    FLAG_POST_ONLY,
    FLAG_REDUCE_ONLY,
    FLAG_SELL,
    FUNDING_HOUR,
    NO_INDEX,
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
    InboxUse,
    OrderRow,
    SlotCancel,
    TriggerBit,
    Withdrawal,
    WriteOff,
)
from evermark.protocol.merkle import Path
from evermark.protocol.orders import (
    ApproveAgent,
    Cancel,
    Order,
    Side,
    Signature,
    TimeInForce,
    Transfer,
    Trigger,
    Withdraw,
)


class MalformedBatch(ValueError):
    """The bytes are no batch: truncated, trailing, or with a reserved tag."""


class AccountOwner(msgspec.Struct, frozen=True):
    """What decoding needs beyond the bytes: an account's owner and sub-account."""

    owner: bytes
    sub_account: int


OwnerAt = Callable[[int], AccountOwner]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.last: Signature | None = None  # of the last row that came in an order batch

    def bytes(self, width: int) -> bytes:
        chunk = self.data[self.at : self.at + width]
        if len(chunk) != width:
            raise MalformedBatch(f"batch: ends at {len(self.data)}, wanted {self.at + width}")
        self.at += width
        return chunk

    def uint(self, width: int) -> int:
        return int.from_bytes(self.bytes(width), "big")

    def signature(self) -> Signature:
        r, s, v = self.uint(32), self.uint(32), self.uint(1)
        if v not in (27, 28):
            raise MalformedBatch(f"batch: v is {v}")
        return Signature(r, s, v - 27)


def decode_batch(data: bytes, owners: dict[int, AccountOwner], symbols: Sequence[str]) -> Batch:
    """Calldata without the selector -> Batch, given each account's owner and the symbols by market id.

    Raises MalformedBatch for anything that `encode_batch` would not have written.
    """
    read = _Reader(data)
    batch_id, round_, prices_hash = read.uint(6), read.uint(5), read.bytes(32)
    journal_sequence, journal_hash = read.uint(6), read.bytes(32)
    fee_classes = tuple(
        (int.from_bytes(read.bytes(2), "big", signed=True), read.uint(2)) for _ in range(read.uint(1))
    )
    markets = tuple(read.bytes(read.uint(1)))
    accounts = tuple(read.uint(4) for _ in range(read.uint(2)))
    pairs = tuple((read.uint(2), read.uint(1)) for _ in range(read.uint(2)))

    def owner_at(index: int) -> AccountOwner:
        try:
            return owners[accounts[index]]
        except (IndexError, KeyError):
            raise MalformedBatch(f"batch: no account at index {index}") from None

    read.uint(2)  # bytes of the rows; encoding again compares it
    orders = tuple(_decode_row(read, pairs, owner_at, symbols) for _ in range(read.uint(2)))
    inbox = tuple(InboxUse(read.uint(2)) for _ in range(read.uint(2)))
    actions = tuple(_decode_action(read, owner_at) for _ in range(read.uint(2)))
    section_3 = [_decode_section_3(read) for _ in range(read.uint(1))]
    batch = Batch(
        batch_id=batch_id,
        round=round_,
        prices_hash=prices_hash,
        journal_sequence=journal_sequence,
        journal_hash=journal_hash,
        fee_classes=fee_classes,
        markets=markets,
        accounts=accounts,
        pairs=pairs,
        orders=orders,
        inbox=inbox,
        actions=actions,
        funding_hours=tuple(entry for entry in section_3 if isinstance(entry, int)),
        triggers=tuple(entry for entry in section_3 if isinstance(entry, TriggerBit)),
        fills=tuple(_decode_fill(read) for _ in range(read.uint(2))),
        withdrawals=tuple(_decode_withdrawal(read, owner_at) for _ in range(read.uint(2))),
    )
    if read.at != len(data) or encode_batch(batch) != data:
        raise MalformedBatch("batch: trailing bytes or a non-canonical encoding")
    return batch


def _decode_row(
    read: _Reader, pairs: Sequence[tuple[int, int]], owner_at: OwnerAt, symbols: Sequence[str]
) -> OrderRow:
    flags, pair, fee_class = read.uint(2), read.uint(2), read.uint(1)
    scheme = flags >> SHIFT_SCHEME
    if scheme not in (SCHEME_ORDER, SCHEME_ORDER_BATCH):
        raise MalformedBatch(f"batch: signature scheme {scheme} is reserved")
    if pair >= len(pairs):
        raise MalformedBatch(f"batch: no pair {pair}")
    account_index, market = pairs[pair]
    if market >= len(symbols):
        raise MalformedBatch(f"batch: no market {market}")
    owner = owner_at(account_index)
    slot, sequence, price, max_fee, expiry = (read.uint(width) for width in (2, 6, 4, 2, 4))
    size = read.uint((flags >> SHIFT_SIZE_WIDTH & 7) + 1)
    path: Path | None = None
    if scheme == SCHEME_ORDER:
        signature = Signature(read.uint(32), read.uint(32), 1 if flags & FLAG_PARITY else 0)
    else:
        path, signature = _decode_path(read)
    order = Order(
        owner=owner.owner,
        sub_account=owner.sub_account,
        market=symbols[market],
        side=Side(flags & FLAG_SELL),
        size=size,
        limit_price=price,
        max_fee_ppm=max_fee,
        slot=slot,
        sequence=sequence,
        expiry=expiry,
        time_in_force=TimeInForce(flags >> SHIFT_TIME_IN_FORCE & 3),
        post_only=bool(flags & FLAG_POST_ONLY),
        reduce_only=bool(flags & FLAG_REDUCE_ONLY),
        amend=bool(flags & FLAG_AMEND),
        trigger=_trigger(flags >> SHIFT_TRIGGER & 7),
    )
    builder_index = NO_INDEX
    if flags & FLAG_EXTENSION:
        order, builder_index = _with_extension(read, order), read.uint(2)
    return OrderRow(pair, fee_class, order, signature, path, builder_index)


def _decode_path(read: _Reader) -> tuple[Path, Signature]:
    length, sides, parity = read.uint(2), read.uint(1), read.uint(1)
    own = 0 if parity == SAME_SIGNATURE else 64
    count, rest = divmod(length - 2 - own, 32)
    if rest or count < 0 or parity > SAME_SIGNATURE:
        raise MalformedBatch("batch: evidence of another length")
    path = tuple((bool(sides >> at & 1), read.bytes(32)) for at in range(count))
    signature = Signature(read.uint(32), read.uint(32), parity) if own else read.last
    if signature is None:
        raise MalformedBatch("batch: no signature before")
    read.last = signature
    return path, signature


def _with_extension(read: _Reader, order: Order) -> Order:
    trigger_price, trailing_offset, display_size, twap_interval, bracket_link = (
        read.uint(width) for width in (4, 4, 8, 4, 2)
    )
    return msgspec.structs.replace(
        order,
        trigger_price=trigger_price,
        trailing_offset=trailing_offset,
        display_size=display_size,
        twap_interval=twap_interval,
        bracket_link=bracket_link,
        builder=read.bytes(20),
        max_builder_fee_ppm=read.uint(2),
    )


def _trigger(value: int) -> Trigger:
    try:
        return Trigger(value)
    except ValueError:
        raise MalformedBatch(f"batch: trigger {value}") from None


def _decode_action(
    read: _Reader, owner_at: OwnerAt
) -> AgentApproval | SlotCancel | CollateralTransfer | WriteOff:
    tag, index = read.uint(1), read.uint(2)
    owner = owner_at(index)
    if tag == ACTION_CANCEL:
        all_slots, slot, sequence, deadline = (read.uint(width) for width in (1, 2, 6, 4))
        cancel = Cancel(
            all_slots=bool(all_slots),
            slot=slot,
            sequence=sequence,
            deadline=deadline,
            owner=owner.owner,
            sub_account=owner.sub_account,
        )
        return SlotCancel(index, cancel, read.signature())
    if tag == ACTION_APPROVE_AGENT:
        agent = read.bytes(20)
        expiry, cap, sequence, deadline = (read.uint(width) for width in (4, 12, 6, 4))
        approval = ApproveAgent(
            agent=agent,
            agent_expiry=expiry,
            transfer_cap=cap,
            action_sequence=sequence,
            deadline=deadline,
            owner=owner.owner,
            sub_account=owner.sub_account,
        )
        return AgentApproval(index, approval, read.signature())
    if tag == ACTION_TRANSFER:
        target, to_sub_account, amount, sequence, deadline = (read.uint(width) for width in (2, 2, 12, 6, 4))
        transfer = Transfer(
            owner=owner.owner,
            sub_account=owner.sub_account,
            to_sub_account=to_sub_account,
            amount=amount,
            action_sequence=sequence,
            deadline=deadline,
        )
        return CollateralTransfer(index, target, transfer, read.signature())
    if tag == ACTION_WRITE_OFF:
        return WriteOff(index)
    raise MalformedBatch(f"batch: action tag {tag}")


def _decode_section_3(read: _Reader) -> int | TriggerBit:
    """A funding hour, or a trigger bit."""
    tag = read.uint(1)
    if tag == TRIGGER_BIT:
        return TriggerBit(read.uint(2))
    if tag != FUNDING_HOUR:
        raise MalformedBatch(f"batch: funding tag {tag}")
    return read.uint(4)


def _decode_fill(read: _Reader) -> Fill:
    head, first, second = read.uint(1), read.uint(2), read.uint(2)
    kind = head & 15
    if kind > FILL_CASH:
        raise MalformedBatch(f"batch: fill kind {kind}")
    keeper = read.uint(2) if kind in (FILL_LIQUIDATION, FILL_TAKEOVER) else NO_INDEX
    return Fill(kind, first, second, read.uint((head >> 4) + 1), keeper)


def _decode_withdrawal(read: _Reader, owner_at: OwnerAt) -> Withdrawal:
    index = read.uint(2)
    owner = owner_at(index)
    amount, max_fee, fee, sequence, deadline = (read.uint(width) for width in (12, 12, 12, 6, 4))
    withdraw = Withdraw(
        owner=owner.owner,
        sub_account=owner.sub_account,
        amount=amount,
        max_fee=max_fee,
        action_sequence=sequence,
        deadline=deadline,
    )
    return Withdrawal(index, withdraw, fee, read.signature())
