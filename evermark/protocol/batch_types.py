"""What a settlement batch holds, as frozen messages, and the numbers of its kinds, tags and flags (see
`batch.py`)."""

from typing import Final

import msgspec

from evermark.protocol.merkle import Path
from evermark.protocol.orders import ApproveAgent, Cancel, Order, Signature, Transfer, Withdraw

NO_INDEX: Final = 0xFFFF
INSURANCE_FUND: Final = 1  # reserved account ids; users follow from 3
FEE_ACCOUNT: Final = 2
FIRST_USER_ACCOUNT: Final = 3

ACTION_APPROVE_AGENT: Final = 1
ACTION_CANCEL: Final = 2
ACTION_TRANSFER: Final = 3
ACTION_WRITE_OFF: Final = 4
FUNDING_HOUR: Final = 1
TRIGGER_BIT: Final = 2

FILL_ORDERS: Final = 0  # maker order against taker order, at the maker's price
FILL_LIQUIDATION: Final = 1  # a liquidated position against a maker order
FILL_TAKEOVER: Final = 2  # the insurance fund takes a position over
FILL_DELEVERAGE: Final = 3  # a liquidated position against the opposite position of another account
FILL_FUND: Final = 4  # a taker order against the fund's position, at the mark
FILL_FORCED_ON_BOOK: Final = 5  # a position whose close was asked for in the inbox, against a maker order
FILL_FORCED: Final = 6  # the same against the fund's position, or an opposite one
FILL_CASH: Final = 7  # two opposite positions of a settled market, at its settlement price

FLAG_SELL: Final = 1 << 0
SHIFT_TIME_IN_FORCE: Final = 1
FLAG_POST_ONLY: Final = 1 << 3
FLAG_REDUCE_ONLY: Final = 1 << 4
FLAG_AMEND: Final = 1 << 5
FLAG_PARITY: Final = 1 << 6
SHIFT_TRIGGER: Final = 7
SHIFT_SIZE_WIDTH: Final = 10
FLAG_EXTENSION: Final = 1 << 13
SHIFT_SCHEME: Final = 14
SCHEME_ORDER: Final = 0  # EIP-712 `Order` by owner or agent; 2, the dialect, is reserved
SCHEME_ORDER_BATCH: Final = 1  # EIP-712 `OrderBatch` by an agent, and the order's path to its root
# Instead of a parity: the signature of the last scheme-1 row before holds for this one.
SAME_SIGNATURE: Final = 2


class OrderRow(msgspec.Struct, frozen=True, gc=False):
    """An order as a batch carries it: the signed fields, its signature, its pair and its fee class.

    With a `path` the signature is of the `OrderBatch` whose root the path leads to. `builder_index` is the builder's account,
    where the order gives its builder a fee.
    """

    pair: int
    fee_class: int
    order: Order
    signature: Signature
    path: Path | None = None
    builder_index: int = NO_INDEX


class InboxUse(msgspec.Struct, frozen=True, gc=False):
    """Section 1: the next inbox entry, applied to the account at this table index."""

    account_index: int


class AgentApproval(msgspec.Struct, frozen=True, tag=True):
    """Section 2: a signed ApproveAgent."""

    account_index: int
    approval: ApproveAgent
    signature: Signature


class SlotCancel(msgspec.Struct, frozen=True, tag=True):
    """Section 2: a signed Cancel."""

    account_index: int
    cancel: Cancel
    signature: Signature


class CollateralTransfer(msgspec.Struct, frozen=True, tag=True):
    """Section 2: a signed Transfer; `target_index` names the account that receives, which it may register."""

    account_index: int
    target_index: int
    transfer: Transfer
    signature: Signature


class WriteOff(msgspec.Struct, frozen=True, tag=True):
    """Section 2: the insurance fund pays the debt of an account without positions. Nobody signs it."""

    account_index: int


class TriggerBit(msgspec.Struct, frozen=True, gc=False):
    """Section 3: the pinned mark meets the mark trigger of the order in this row."""

    row: int


class Fill(msgspec.Struct, frozen=True, gc=False):
    """Section 4. What `first`, `second` and `keeper` index depends on `kind`:

    orders: maker row, taker row; liquidation: target pair, maker row, keeper account;
    take-over: target pair, fund pair, keeper account; deleveraging: target pair, counterparty pair;
    fund: taker row, fund pair; forced close: its pair, and maker row or the other pair.
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
    actions: tuple[AgentApproval | SlotCancel | CollateralTransfer | WriteOff, ...] = ()
    funding_hours: tuple[int, ...] = ()
    triggers: tuple[TriggerBit, ...] = ()  # rows strictly ascending
    fills: tuple[Fill, ...] = ()
    withdrawals: tuple[Withdrawal, ...] = ()
