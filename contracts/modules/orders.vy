# pragma version 0.4.3
"""
@title orders
@license Apache-2.0
@notice Order rows of a batch: their EIP-712 digests, signers and limits, and what a fill uses up of them.
"""

from . import codec
from . import eip712
from . import ledger
from . import tables
from . import reasons
from . import units

uses: eip712
uses: ledger
uses: reasons
uses: tables

TYPE_HASH: constant(bytes32) = keccak256(
    "Order(address owner,uint16 subAccount,string market,string side,uint64 size,uint32 limitPrice,uint32 maxFeePpm,address builder,uint32 maxBuilderFeePpm,uint16 slot,uint48 sequence,uint64 expiry,bool amend,bool reduceOnly,string timeInForce,bool postOnly,string trigger,uint32 triggerPrice,uint32 trailingOffset,uint64 displaySize,uint32 twapInterval,uint16 bracketLink)"
)
BUY: constant(bytes32) = keccak256("buy")
SELL: constant(bytes32) = keccak256("sell")
GTC: constant(bytes32) = keccak256("GTC")
GTD: constant(bytes32) = keccak256("GTD")
IOC: constant(bytes32) = keccak256("IOC")
FOK: constant(bytes32) = keccak256("FOK")
NO_TRIGGER: constant(bytes32) = keccak256("none")
MARK_ABOVE: constant(bytes32) = keccak256("mark above")
MARK_BELOW: constant(bytes32) = keccak256("mark below")
LAST_ABOVE: constant(bytes32) = keccak256("last above")
LAST_BELOW: constant(bytes32) = keccak256("last below")

# Flags of a row in calldata, as in `evermark/protocol/batch.py`.
FLAG_POST_ONLY: constant(uint256) = 1 << 3
FLAG_REDUCE_ONLY: constant(uint256) = 1 << 4
FLAG_AMEND: constant(uint256) = 1 << 5
FLAG_EXTENSION: constant(uint256) = 1 << 13
FLAGS_SCHEME: constant(uint256) = 3 << 14
FEES_AT: constant(uint256) = 86  # calldata offset of the fee classes: selector, header, count
HEAD_BYTES: constant(uint256) = 23  # flags to expiry
SIGNATURE_BYTES: constant(uint256) = 64
EXTENSION_BYTES: constant(uint256) = 44

# A verified row in transient storage is its head in calldata with the expiry replaced: account id u32, max fee u16 at 32, limit price u32
# at 48, sequence u48 at 80, slot u16 at 128, fee class u8 at 144, pair u16 at 152, flags u16 at 168, size u62 at 184, market u6 at 246.
ROW_SELL: constant(uint256) = 1 << 168
ROW_NEVER_RESTS: constant(uint256) = 1 << 170  # IOC or FOK
ROW_POST_ONLY: constant(uint256) = 1 << 171
ROW_REDUCE_ONLY: constant(uint256) = 1 << 172
ROW_AMEND: constant(uint256) = 1 << 173
# What its fills use up: filled u64 (slot 0 only), used bit 64, fee numerator int128 at 128.
USED: constant(uint256) = 1 << 64

rows: transient(uint256[tables.MAX_ROWS])
running: transient(uint256[tables.MAX_ROWS])


@view
@internal
def skip(start: uint256, count: uint256) -> uint256:
    """
    @dev Where the rows end, and at 32 how many are of another scheme than 0. They are verified after sections 1 to 3, which decide
         owners and agents, but stand before them.
    """
    at: uint256 = start
    others: uint256 = 0
    for i: uint256 in range(count, bound=tables.MAX_ROWS):
        flags: uint256 = convert(slice(msg.data, unsafe_sub(at, 30), 32), uint256)
        at = unsafe_add(at, HEAD_BYTES + SIGNATURE_BYTES + 1 + (flags >> 10 & 7))
        if flags & FLAGS_SCHEME != 0:
            at = unsafe_add(unsafe_sub(at, SIGNATURE_BYTES - 2), codec.word(unsafe_sub(at, SIGNATURE_BYTES - 2)) & units.U16)
            others = unsafe_add(others, 1 << 32)
        if flags & FLAG_EXTENSION != 0:
            at = unsafe_add(at, EXTENSION_BYTES)
    return at | others


@internal
def load(start: uint256, count: uint256, context: uint256):
    """
    @dev Verifies every row and writes its packed words; rows ascend strictly by (account index, slot, sequence).
    """
    at: uint256 = start
    last: uint256 = 0
    now: uint256 = context & units.U40
    latest: uint256 = unsafe_mul(unsafe_add(now, units.DAY_S), 1000)
    separator: bytes32 = eip712.separator()
    for i: uint256 in range(count, bound=tables.MAX_ROWS):
        head: uint256 = convert(slice(msg.data, unsafe_sub(at, 32 - HEAD_BYTES), 32), uint256)
        if head >> 152 & units.U16 >= context >> 104 & units.U16:
            reasons.fail(reasons.NO_SUCH_PAIR)
        pair: uint256 = tables.pairs[head >> 152 & units.U16]
        sequence: uint256 = head >> 80 & units.U48
        order_key: uint256 = pair >> 40 << 64 | (head >> 80 & units.U64)
        if order_key <= last:
            reasons.fail(reasons.ROWS_NOT_ASCENDING)
        last = order_key
        width: uint256 = head >> 178 & 7
        at = unsafe_add(at, unsafe_add(HEAD_BYTES + 1, width))
        size: uint256 = convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256) << (unsafe_sub(31, width) << 3) >> (
            unsafe_sub(31, width) << 3
        )
        if head & units.U32 < now:
            reasons.fail(reasons.ORDER_EXPIRED)
        if sequence > latest:
            reasons.fail(reasons.SEQUENCE_TOO_FAR_AHEAD)
        if size > units.U62:
            reasons.fail(reasons.ORDER_TOO_LARGE)
        account: uint256 = pair >> 6 & units.U32
        if sequence <= ledger.words[account] >> ledger.A_MIN_SEQUENCE & units.U48:
            reasons.fail(reasons.ORDER_VOIDED)
        if head >> 144 & units.U8 >= context >> 136 & units.U8:
            reasons.fail(reasons.NO_SUCH_FEE_CLASS)
        if head & (ROW_NEVER_RESTS | units.U16 << 128) == 0:
            reasons.fail(reasons.SLOT_0_NEVER_RESTS)
        self.rows[i] = head << 72 >> 104 << 32 | account | size << 184 | (pair & 63) << 246
        self.running[i] = 0
        if head & FLAGS_SCHEME << 168 != 0:
            # The verifier has seen its signature.
            at = unsafe_add(unsafe_add(at, 2), codec.word(unsafe_add(at, 2)) & units.U16)
            if head & FLAG_EXTENSION << 168 != 0:
                at = unsafe_add(at, EXTENSION_BYTES)
            continue
        at = unsafe_add(at, SIGNATURE_BYTES)
        b: uint256 = ledger.words[ledger.B | account]
        if b == 0:
            reasons.fail(reasons.UNKNOWN_ACCOUNT)
        signer: address = ecrecover(
            keccak256(concat(b"\x19\x01", separator, self._struct_hash(head, size, pair, b, at))),
            unsafe_add(27, head >> 174 & 1),
            convert(slice(msg.data, unsafe_sub(at, 64), 32), uint256),
            convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256),
        )
        if convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256) > eip712.HALF_N:
            reasons.fail(reasons.HIGH_S)
        if convert(signer, uint256) != b & units.U160:
            self.check_agent(account, signer, now)
        if head & FLAG_EXTENSION << 168 != 0:
            at = unsafe_add(at, EXTENSION_BYTES)


@view
@internal
def check_agent(account: uint256, signer: address, now: uint256):
    """
    @dev An agent of the account that has not expired; never the zero address, which is where recovery fails.
    """
    if signer == empty(address):
        reasons.fail(reasons.NO_SIGNER)
    if ledger.named[ledger.AGENTS | (account) << 160 | convert(signer, uint256)] & units.U64 < now:
        reasons.fail(reasons.NOT_OWNER_NOR_LIVE_AGENT)


@view
@internal
def _struct_hash(head: uint256, size: uint256, pair: uint256, b: uint256, signature_end: uint256) -> bytes32:
    """
    @dev Rebuilds the signed order.
    """
    flags: uint256 = head >> 168
    prices: uint256 = 0
    link: uint256 = 0
    if flags & FLAG_EXTENSION != 0:
        prices = codec.word(unsafe_add(signature_end, 22))
        link = codec.word(unsafe_add(signature_end, EXTENSION_BYTES))
    return keccak256(
        abi_encode(
            TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            ledger.words[ledger.MARKET_H | pair & 63],
            SELL if flags & 1 != 0 else BUY,
            size,
            head >> 48 & units.U32,
            head >> 32 & units.U16,
            link >> 16 & units.U160,
            link & units.U16,
            head >> 128 & units.U16,
            head >> 80 & units.U48,
            head & units.U32,
            flags >> 5 & 1,
            flags >> 4 & 1,
            self._time_in_force(flags >> 1 & 3),
            flags >> 3 & 1,
            NO_TRIGGER if flags >> 7 & 7 == 0 else self._trigger(flags >> 7 & 7),
            prices >> 144 & units.U32,
            prices >> 112 & units.U32,
            prices >> 48 & units.U64,
            prices >> 16 & units.U32,
            prices & units.U16,
        )
    )


@pure
@internal
def _time_in_force(code: uint256) -> bytes32:
    if code == 0:
        return GTC
    if code == 2:
        return IOC
    return GTD if code == 1 else FOK


@view
@internal
def _trigger(code: uint256) -> bytes32:
    if code == 1:
        return MARK_ABOVE
    if code == 2:
        return MARK_BELOW
    if code == 3:
        return LAST_ABOVE
    if code != 4:
        reasons.fail(reasons.UNKNOWN_TRIGGER)
    return LAST_BELOW


@view
@internal
def rates_of(row: uint256) -> uint256:
    """
    @dev The fee class of a row: taker rate u16, maker rate i16 at 16.
    """
    return convert(slice(msg.data, unsafe_add(FEES_AT - 28, row >> 142 & 1020), 32), uint256)


@internal
def use(index: uint256, row: uint256, size: uint256, notional: int256, rate: int256) -> int256:
    """
    @dev Fills `size` lots of a row at `rate`: replay protection by (slot, sequence), remaining size, reduce-only, signed fee.
    @return What the fill adds to the row's fee: the rounded total after it less the rounded total before.
    """
    if rate > convert(convert(row >> 32 & units.U16, bytes32), int256):
        reasons.fail(reasons.FEE_ABOVE_SIGNED_MAXIMUM)
    if row & ROW_REDUCE_ONLY != 0:
        self.check_shrinks(row << 6 & units.U38 | row >> 246, row & ROW_SELL != 0, size)
    used: uint256 = self.running[index]
    filled: uint256 = size
    slot: uint256 = row >> 128 & units.U16
    if slot == 0:
        filled = unsafe_add(filled, self._use_taker(row, used))
        used = used >> 128 << 128 | filled | USED
    else:
        filled = self._use_slot(row, slot, size)
    if filled > row >> 184 & units.U62:
        reasons.fail(reasons.ORDER_OVERFILLED)
    charged: int256 = convert(convert(used, bytes32), int256) >> 128
    numerator: int256 = unsafe_add(charged, unsafe_mul(notional, rate))
    self.running[index] = used & units.U128 | convert(convert(numerator, bytes32), uint256) << 128
    if charged == 0:
        return units.ceil_div(numerator, 10**6)
    return unsafe_sub(units.ceil_div(numerator, 10**6), units.ceil_div(charged, 10**6))


@internal
def _use_taker(row: uint256, used: uint256) -> uint256:
    """
    @dev Slot 0: its sequence rises with the row's first use; all its fills lie in this batch. Returns what was filled.
    """
    account: uint256 = row & units.U32
    sequence: uint256 = row >> 80 & units.U48
    a: uint256 = ledger.words[account]
    stored: uint256 = a >> ledger.A_TAKER_SEQUENCE & units.U48
    if used & USED != 0:
        if sequence != stored:
            reasons.fail(reasons.ORDER_REPLACED)
        return used & units.U64
    if sequence <= stored:
        reasons.fail(reasons.TAKER_SEQUENCE_TOO_LOW)
    if row >> 175 & 7 != 0 and row >> 175 & 7 < 3:
        # Slot 0 has no bit that could say so.
        reasons.fail(reasons.ORDER_NOT_TRIGGERED)
    ledger.words[account] = a ^ (stored ^ sequence) << ledger.A_TAKER_SEQUENCE
    return 0


@internal
def _use_slot(row: uint256, slot: uint256, size: uint256) -> uint256:
    """
    @dev A slot >= 1: an equal sequence continues, a higher one replaces (with `amend` it keeps what was filled).
         Returns what is filled with this fill.
    """
    key: uint256 = (row & units.U32) << 15 | slot >> 1
    offset: uint256 = (slot & 1) << 7
    word: uint256 = ledger.words[ledger.SLOTS | key]
    state: uint256 = word >> offset & units.U128
    sequence: uint256 = row >> 80 & units.U48
    stored: uint256 = state & units.U48
    filled: uint256 = state >> 48 & units.U62
    if sequence != stored:
        if sequence < stored:
            reasons.fail(reasons.SLOT_SEQUENCE_TOO_LOW)
        if row & ROW_AMEND == 0:
            filled = 0
        # A higher sequence begins without the old one's triggered bit.
        state &= ~(1 << ledger.SLOT_TRIGGERED)
    trigger: uint256 = row >> 175 & 7
    if trigger != 0 and trigger < 3 and state >> ledger.SLOT_TRIGGERED & 1 == 0:
        reasons.fail(reasons.ORDER_NOT_TRIGGERED)
    filled = unsafe_add(filled, size)
    kept: uint256 = state >> ledger.SLOT_TRIGGERED << ledger.SLOT_TRIGGERED
    ledger.words[ledger.SLOTS | key] = word ^ ((word >> offset & units.U128) ^ (sequence | (filled & units.U62) << 48 | kept)) << offset
    return filled


@view
@internal
def check_shrinks(key: uint256, sells: bool, size: uint256):
    """
    @dev The position is opposite to the side that trades and at least as large as the fill, at this moment.
    """
    position: int256 = units.signed(ledger.words[ledger.POSITIONS | key], 192)
    if not sells:
        position = -position
    if position < convert(size, int256):
        reasons.fail(reasons.FILL_DOES_NOT_REDUCE)


@view
@internal
def row_at(index: uint256, context: uint256) -> uint256:
    if index >= context >> 120 & units.U16:
        reasons.fail(reasons.NO_SUCH_ORDER_ROW)
    return self.rows[index]
