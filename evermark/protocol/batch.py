"""The settlement batch and its byte codec; `contracts/MarginVault.vy` reads the same layout.

A batch travels as the calldata of `settle()` behind the 4-byte selector. Integers are big-endian. Layout:

    header    batch_id u48, round u40, prices_hash b32, journal_sequence u48, journal_hash b32
    fees      count u8, then (maker_ppm i16, taker_ppm u16): fee classes that order rows name
    markets   count u8, then id u8, strictly ascending
    accounts  count u16, then id u32, strictly ascending
    pairs     count u16, then (account index u16, market id u8), strictly ascending
    orders    count u16, then rows, strictly ascending by (account, slot, sequence)
    section 1 inbox:    count u16, then account index u16 (NO_INDEX: entry is skipped or needs no account)
    section 2 actions:  count u16, then tag u8 and body (1 approve agent, 2 cancel; 3 transfer is reserved)
    section 3 funding:  count u8, then tag u8 and body (1 funding hour u32; 2 trigger, 3 resolution reserved)
    section 4 fills:    count u16, then (kind | (size width - 1) << 4) u8 and body
    section 5 withdrawals: count u16, then body

An order row is flags u16, pair u16, fee class u8, slot u16, sequence u48, limit price u32, max fee u16, expiry u32,
size (width from the flags), r b32, s b32, and with the extension flag: trigger price u32, trailing offset u32,
display size u64, TWAP interval u32, bracket link u16, builder b20, max builder fee u16.
Bytes decide the price of a batch, so widths are as small as the values allow.
"""

from collections.abc import Iterator, Sequence

import msgspec

from evermark.protocol.orders import NO_ADDRESS, ApproveAgent, Cancel, Order, Side, Signature, TimeInForce, Trigger, Withdraw

NO_INDEX = 0xFFFF
INSURANCE_FUND = 1  # reserved account ids; users follow from 3
FEE_ACCOUNT = 2
FIRST_USER_ACCOUNT = 3

ACTION_APPROVE_AGENT = 1
ACTION_CANCEL = 2
ACTION_TRANSFER = 3  # reserved
FUNDING_HOUR = 1

FILL_ORDERS = 0  # maker order against taker order, at the maker's price
FILL_LIQUIDATION = 1  # a liquidated position against a maker order
FILL_TAKEOVER = 2  # the insurance fund takes a position over
FILL_DELEVERAGE = 3  # reserved
FILL_FUND = 4  # a taker order against the fund's position, at the mark

FLAG_SELL = 1 << 0
SHIFT_TIME_IN_FORCE = 1
FLAG_POST_ONLY = 1 << 3
FLAG_REDUCE_ONLY = 1 << 4
FLAG_AMEND = 1 << 5
FLAG_PARITY = 1 << 6
SHIFT_TRIGGER = 7
SHIFT_SIZE_WIDTH = 10
FLAG_EXTENSION = 1 << 13
SHIFT_SCHEME = 14  # 0: EIP-712 by owner or agent; 1: OrderBatch; 2: dialect (both later)


class OrderRow(msgspec.Struct, frozen=True):
    """An order as a batch carries it: the signed fields, its signature, its pair and its fee class."""

    pair: int
    fee_class: int
    order: Order
    signature: Signature


class InboxUse(msgspec.Struct, frozen=True):
    """Section 1: the next inbox entry, applied to the account at this table index."""

    account_index: int


class AgentApproval(msgspec.Struct, frozen=True):
    """Section 2: a signed ApproveAgent."""

    account_index: int
    approval: ApproveAgent
    signature: Signature


class SlotCancel(msgspec.Struct, frozen=True):
    """Section 2: a signed Cancel."""

    account_index: int
    cancel: Cancel
    signature: Signature


class Fill(msgspec.Struct, frozen=True):
    """Section 4. What `first`, `second` and `keeper` index depends on `kind`:

    orders: maker row, taker row; liquidation: target pair, maker row, keeper account;
    take-over: target pair, fund pair, keeper account; fund: taker row, fund pair.
    """

    kind: int
    first: int
    second: int
    size: int
    keeper: int = NO_INDEX


class Withdrawal(msgspec.Struct, frozen=True):
    """Section 5: a signed Withdraw and the fee that the operator takes from it."""

    account_index: int
    withdraw: Withdraw
    fee: int
    signature: Signature


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One settlement batch, in the order that the vault processes it."""

    batch_id: int
    round: int
    prices_hash: bytes
    journal_sequence: int
    journal_hash: bytes
    fee_classes: tuple[tuple[int, int], ...]
    markets: tuple[int, ...]
    accounts: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]  # (account index, market id)
    orders: tuple[OrderRow, ...]
    inbox: tuple[InboxUse, ...] = ()
    actions: tuple[AgentApproval | SlotCancel, ...] = ()
    funding_hours: tuple[int, ...] = ()
    fills: tuple[Fill, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()


def byte_width(value: int) -> int:
    """Bytes that a positive size needs, 1 to 8."""
    return max(1, (value.bit_length() + 7) // 8)


def encode_batch(batch: Batch) -> bytes:
    """Batch -> calldata bytes without the selector. Raises OverflowError for a value that its field cannot hold."""
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
    yield from _counted(batch.orders, 2, _encode_row)
    yield _uint(len(batch.inbox), 2) + b"".join(_uint(use.account_index, 2) for use in batch.inbox)
    yield from _counted(batch.actions, 2, _encode_action)
    yield _uint(len(batch.funding_hours), 1)
    yield b"".join(_uint(FUNDING_HOUR, 1) + _uint(hour, 4) for hour in batch.funding_hours)
    yield from _counted(batch.fills, 2, _encode_fill)
    yield from _counted(batch.withdrawals, 2, _encode_withdrawal)


def _uint(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big")


def _counted(items, width, encode):  # type: ignore[no-untyped-def]
    yield _uint(len(items), width)
    for item in items:
        yield encode(item)


def _encode_row(row: OrderRow) -> bytes:
    order, width = row.order, byte_width(row.order.size)
    flags = (
        (FLAG_SELL if order.side is Side.SELL else 0)
        | order.time_in_force << SHIFT_TIME_IN_FORCE
        | (FLAG_POST_ONLY if order.post_only else 0)
        | (FLAG_REDUCE_ONLY if order.reduce_only else 0)
        | (FLAG_AMEND if order.amend else 0)
        | (FLAG_PARITY if row.signature.parity else 0)
        | order.trigger << SHIFT_TRIGGER
        | (width - 1) << SHIFT_SIZE_WIDTH
        | (0 if order.is_plain else FLAG_EXTENSION)
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
        + _uint(row.signature.r, 32)
        + _uint(row.signature.s, 32)
    )
    return head if order.is_plain else head + _encode_extension(order)


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


def _encode_action(entry: AgentApproval | SlotCancel) -> bytes:
    signature = entry.signature.to_bytes()
    if isinstance(entry, SlotCancel):
        cancel = entry.cancel
        body = _uint(cancel.all_slots, 1) + _uint(cancel.slot, 2) + _uint(cancel.sequence, 6) + _uint(cancel.deadline, 4)
        return _uint(ACTION_CANCEL, 1) + _uint(entry.account_index, 2) + body + signature
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


class MalformedBatch(ValueError):
    """The bytes are no batch: truncated, trailing, or with a reserved tag."""


class AccountOwner(msgspec.Struct, frozen=True):
    """What decoding needs beyond the bytes: an account's owner and sub-account."""

    owner: bytes
    sub_account: int


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

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
        orders=tuple(_decode_row(read, pairs, owner_at, symbols) for _ in range(read.uint(2))),
        inbox=tuple(InboxUse(read.uint(2)) for _ in range(read.uint(2))),
        actions=tuple(_decode_action(read, owner_at) for _ in range(read.uint(2))),
        funding_hours=tuple(_decode_funding(read) for _ in range(read.uint(1))),
        fills=tuple(_decode_fill(read) for _ in range(read.uint(2))),
        withdrawals=tuple(_decode_withdrawal(read, owner_at) for _ in range(read.uint(2))),
    )
    if read.at != len(data) or encode_batch(batch) != data:
        raise MalformedBatch("batch: trailing bytes or a non-canonical encoding")
    return batch


def _decode_row(read: _Reader, pairs, owner_at, symbols) -> OrderRow:  # type: ignore[no-untyped-def]
    flags, pair, fee_class = read.uint(2), read.uint(2), read.uint(1)
    if flags >> SHIFT_SCHEME:
        raise MalformedBatch(f"batch: signature scheme {flags >> SHIFT_SCHEME} is reserved")
    if pair >= len(pairs):
        raise MalformedBatch(f"batch: no pair {pair}")
    account_index, market = pairs[pair]
    if market >= len(symbols):
        raise MalformedBatch(f"batch: no market {market}")
    owner = owner_at(account_index)
    slot, sequence, price, max_fee, expiry = (read.uint(width) for width in (2, 6, 4, 2, 4))
    size = read.uint((flags >> SHIFT_SIZE_WIDTH & 7) + 1)
    r, s = read.uint(32), read.uint(32)
    extended = bool(flags & FLAG_EXTENSION)
    extension = tuple(read.uint(width) for width in (4, 4, 8, 4, 2)) if extended else (0, 0, 0, 0, 0)
    builder = read.bytes(20) if extended else NO_ADDRESS
    builder_fee = read.uint(2) if extended else 0
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
        builder=builder,
        max_builder_fee_ppm=builder_fee,
        trigger=_trigger(flags >> SHIFT_TRIGGER & 7),
        trigger_price=extension[0],
        trailing_offset=extension[1],
        display_size=extension[2],
        twap_interval=extension[3],
        bracket_link=extension[4],
    )
    return OrderRow(pair, fee_class, order, Signature(r, s, 1 if flags & FLAG_PARITY else 0))


def _trigger(value: int) -> Trigger:
    try:
        return Trigger(value)
    except ValueError:
        raise MalformedBatch(f"batch: trigger {value}") from None


def _decode_action(read: _Reader, owner_at) -> AgentApproval | SlotCancel:  # type: ignore[no-untyped-def]
    tag, index = read.uint(1), read.uint(2)
    owner = owner_at(index)
    common = {"owner": owner.owner, "sub_account": owner.sub_account}
    if tag == ACTION_CANCEL:
        all_slots, slot, sequence, deadline = (read.uint(width) for width in (1, 2, 6, 4))
        cancel = Cancel(all_slots=bool(all_slots), slot=slot, sequence=sequence, deadline=deadline, **common)
        return SlotCancel(index, cancel, read.signature())
    if tag == ACTION_APPROVE_AGENT:
        agent = read.bytes(20)
        expiry, cap, sequence, deadline = (read.uint(width) for width in (4, 12, 6, 4))
        approval = ApproveAgent(
            agent=agent, agent_expiry=expiry, transfer_cap=cap, action_sequence=sequence, deadline=deadline, **common
        )
        return AgentApproval(index, approval, read.signature())
    raise MalformedBatch(f"batch: action tag {tag}")


def _decode_funding(read: _Reader) -> int:
    tag = read.uint(1)
    if tag != FUNDING_HOUR:
        raise MalformedBatch(f"batch: funding tag {tag}")
    return read.uint(4)


def _decode_fill(read: _Reader) -> Fill:
    head, first, second = read.uint(1), read.uint(2), read.uint(2)
    kind = head & 15
    if kind not in (FILL_ORDERS, FILL_LIQUIDATION, FILL_TAKEOVER, FILL_FUND):
        raise MalformedBatch(f"batch: fill kind {kind}")
    keeper = read.uint(2) if kind in (FILL_LIQUIDATION, FILL_TAKEOVER) else NO_INDEX
    return Fill(kind, first, second, read.uint((head >> 4) + 1), keeper)


def _decode_withdrawal(read: _Reader, owner_at) -> Withdrawal:  # type: ignore[no-untyped-def]
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
