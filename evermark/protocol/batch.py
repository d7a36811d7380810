"""The settlement batch and its byte codec, under one name; `contracts/MarginVault.vy` reads the same layout.

A batch travels as the calldata of `settle()` behind the 4-byte selector. Integers are big-endian. Layout:

    header    batch_id u48, round u40, prices_hash b32, journal_sequence u48, journal_hash b32
    fees      count u8, then (maker_ppm i16, taker_ppm u16): fee classes that order rows name
    markets   count u8, then id u8, strictly ascending
    accounts  count u16, then id u32, strictly ascending
    pairs     count u16, then (account index u16, market id u8), strictly ascending
    orders    bytes of all rows u16, count u16, then rows, strictly ascending by (account, slot, sequence)
    section 1 inbox:    count u16, then account index u16 (NO_INDEX: entry is skipped or needs no account)
    section 2 actions:  count u16, then tag u8 and body (1 approve agent, 2 cancel, 3 transfer, 4 write-off)
    section 3 funding:  count u8, then tag u8 and body (1 funding hour u32; 2 trigger row u16, ascending; 3 reserved)
    section 4 fills:    count u16, then (kind | (size width - 1) << 4) u8 and body
    section 5 withdrawals: count u16, then body

An order row is flags u16, pair u16, fee class u8, slot u16, sequence u48, limit price u32, max fee u16,
expiry u32, size (width from the flags), r b32, s b32, and with the extension flag: trigger price u32,
trailing offset u32, display size u64, TWAP interval u32, bracket link u16, builder b20, max builder fee u16, and the
builder's account index u16 (NO_INDEX where it gets no fee).
Under signature scheme 1 (`OrderBatch`) a length u16 and evidence stand in place of r and s: sides u8 (bit i: sibling i is on the
left), parity u8 or 2 for "the signature of the last scheme-1 row before", siblings b32, and r b32 and s b32 unless it is 2.
Bytes decide the price of a batch, so widths are as small as the values allow.
"""

from evermark.protocol.batch_decode import AccountOwner, MalformedBatch, decode_batch
from evermark.protocol.batch_encode import byte_width, encode_batch
from evermark.protocol.batch_types import (
    ACTION_APPROVE_AGENT,
    ACTION_CANCEL,
    ACTION_TRANSFER,
    ACTION_WRITE_OFF,
    FEE_ACCOUNT,
    FILL_CASH,
    FILL_DELEVERAGE,
    FILL_FORCED,
    FILL_FORCED_ON_BOOK,
    FILL_FUND,
    FILL_LIQUIDATION,
    FILL_ORDERS,
    FILL_TAKEOVER,
    FIRST_USER_ACCOUNT,
    FLAG_AMEND,
    FLAG_EXTENSION,
    FLAG_PARITY,
    FLAG_POST_ONLY,
    FLAG_REDUCE_ONLY,
    FLAG_SELL,
    FUNDING_HOUR,
    INSURANCE_FUND,
    NO_INDEX,
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

__all__ = [
    "ACTION_APPROVE_AGENT",
    "ACTION_CANCEL",
    "ACTION_TRANSFER",
    "ACTION_WRITE_OFF",
    "FEE_ACCOUNT",
    "FILL_CASH",
    "FILL_DELEVERAGE",
    "FILL_FORCED",
    "FILL_FORCED_ON_BOOK",
    "FILL_FUND",
    "FILL_LIQUIDATION",
    "FILL_ORDERS",
    "FILL_TAKEOVER",
    "FIRST_USER_ACCOUNT",
    "FLAG_AMEND",
    "FLAG_EXTENSION",
    "FLAG_PARITY",
    "FLAG_POST_ONLY",
    "FLAG_REDUCE_ONLY",
    "FLAG_SELL",
    "FUNDING_HOUR",
    "INSURANCE_FUND",
    "NO_INDEX",
    "SCHEME_ORDER",
    "SCHEME_ORDER_BATCH",
    "SHIFT_SCHEME",
    "SHIFT_SIZE_WIDTH",
    "SHIFT_TIME_IN_FORCE",
    "SHIFT_TRIGGER",
    "TRIGGER_BIT",
    "AccountOwner",
    "AgentApproval",
    "Batch",
    "CollateralTransfer",
    "Fill",
    "InboxUse",
    "MalformedBatch",
    "OrderRow",
    "SlotCancel",
    "TriggerBit",
    "Withdrawal",
    "WriteOff",
    "byte_width",
    "decode_batch",
    "encode_batch",
]
