# pragma version 0.4.3
"""
@title orders
@license Apache-2.0
@notice Order rows of a batch: their EIP-712 digests, signers and limits, and what a fill uses up of them.
"""

from . import builder_fees
from . import codec
from . import eip712
from . import ledger
from . import tables
from . import reasons
from . import units

uses: builder_fees
uses: eip712
uses: ledger
uses: reasons
uses: tables

TYPE_HASH: constant(bytes32) = keccak256(
    "Order(address owner,uint16 subAccount,string market,string side,uint64 size,uint32 limitPrice,uint32 maxFeePpm,address builder,uint32 maxBuilderFeePpm,uint16 slot,uint48 sequence,uint64 expiry,bool amend,bool reduceOnly,string timeInForce,bool postOnly,string trigger,uint32 triggerPrice,uint32 trailingOffset,uint64 displaySize,uint32 twapInterval,uint16 bracketLink)"
)
BUY_HASH: constant(bytes32) = keccak256("buy")
SELL_HASH: constant(bytes32) = keccak256("sell")
GTC: constant(bytes32) = keccak256("GTC")
GTD: constant(bytes32) = keccak256("GTD")
IOC: constant(bytes32) = keccak256("IOC")
FOK: constant(bytes32) = keccak256("FOK")
NO_TRIGGER: constant(bytes32) = keccak256("none")
MARK_ABOVE: constant(bytes32) = keccak256("mark above")
MARK_BELOW: constant(bytes32) = keccak256("mark below")
LAST_ABOVE: constant(bytes32) = keccak256("last above")
LAST_BELOW: constant(bytes32) = keccak256("last below")

# A row's head in calldata: flags u16, pair u16, fee class u8, slot u16, sequence u48, limit price u32, max fee u16, expiry u32, size of 1
# to 8 bytes. One word of calldata that begins with the row holds all of it; these are bit offsets in that word.
PAIR: constant(uint256) = 224
FEE_CLASS: constant(uint256) = 216
SLOT: constant(uint256) = 200
SEQUENCE: constant(uint256) = 152
LIMIT_PRICE: constant(uint256) = 120
MAX_FEE: constant(uint256) = 104
EXPIRY: constant(uint256) = 72
FLAGS: constant(uint256) = 240
SELL: constant(uint256) = 1 << 240
NEVER_RESTS: constant(uint256) = 1 << 242  # IOC or FOK
POST_ONLY: constant(uint256) = 1 << 243
REDUCE_ONLY: constant(uint256) = 1 << 244
AMEND: constant(uint256) = 1 << 245
PARITY: constant(uint256) = 246
TRIGGER: constant(uint256) = 247  # u3
TRIGGERS: constant(uint256) = 7 << 247
SIZE_WIDTH: constant(uint256) = 250  # u3, bytes of the size less 1
EXTENSION: constant(uint256) = 1 << 253
SCHEME: constant(uint256) = 254  # u2

FEES_AT: constant(uint256) = 86  # calldata offset of the fee classes: selector, header, count
HEAD_BYTES: constant(uint256) = 23  # flags to expiry
SIGNATURE_BYTES: constant(uint256) = 64
EXTENSION_BYTES: constant(uint256) = 46
SIGNED_BYTES: constant(uint256) = 44  # of the extension: what the order's owner signed; then the builder's account index u16

# What fills use up of a row, in transient storage: filled u64 (slot 0 only), used bit 64, the row's offset in calldata u16 at 72, and at 128
# the numerator of its fee plus FEE_ZERO, which makes it positive whatever the rebates: a difference of its quotients by 1e6 is then
# a difference of rounded-up fees. 2,048 fills of less than 2^90 at rates below 2^16 stay below 2^117.
USED: constant(uint256) = 1 << 64
ROW_AT: constant(uint256) = 72
FEE: constant(uint256) = 128
FEE_ZERO: constant(uint256) = 10**6 * 2**100 + 10**6 - 1

rows: transient(uint256[tables.MAX_ROWS])


@internal
def load(start: uint256, count: uint256, context: uint256) -> uint256:
    """
    @dev Verifies every row and writes its word; rows ascend strictly by (account index, slot, sequence).
    @return Where they end, and at 32 how many are of another scheme than 0, whose signatures are the verifier's to look at.
    """
    at: uint256 = start
    others: uint256 = 0
    last: uint256 = 0
    now: uint256 = context & units.U40
    latest: uint256 = unsafe_mul(unsafe_add(now, units.DAY_S), 1000)
    classes: uint256 = unsafe_sub(context >> 136 & units.U8, 1)
    prefix: Bytes[34] = concat(b"\x19\x01", eip712.separator())
    # Of the last row's pair, since most rows share one with their neighbour.
    pair_index: uint256 = tables.MAX_PAIRS
    pair: uint256 = 0
    b: uint256 = 0
    void: uint256 = 0
    market: uint256 = 64
    symbol: uint256 = 0
    for i: uint256 in range(count, bound=tables.MAX_ROWS):
        head: uint256 = convert(slice(msg.data, at, 32), uint256)
        if head >> PAIR & units.U16 != pair_index:
            pair_index = head >> PAIR & units.U16
            if pair_index >= context >> 104 & units.U16:
                reasons.fail(reasons.NO_SUCH_PAIR)
            account: uint256 = pair >> 6 & units.U32
            pair = tables.pairs[pair_index]
            if pair >> 6 & units.U32 != account:
                account = pair >> 6 & units.U32
                b = ledger.words[ledger.B | account]
                void = ledger.words[account] >> ledger.A_MIN_SEQUENCE & units.U48
                if b == 0:
                    reasons.fail(reasons.UNKNOWN_ACCOUNT)
            if pair & 63 != market:
                market = pair & 63
                symbol = ledger.words[ledger.MARKET_H | market]
        width: uint256 = head >> SIZE_WIDTH & 7
        size: uint256 = head << 184 >> unsafe_sub(248, width << 3)
        sequence: uint256 = head >> SEQUENCE & units.U48
        order_key: uint256 = (pair >> 40 & units.U16) << 64 | (head >> SEQUENCE & units.U64)
        # All of them at once: what is too small or too large leaves a difference below zero.
        if (
            unsafe_sub(unsafe_sub(order_key, last), 1)
            | unsafe_sub(head >> EXPIRY & units.U32, now)
            | unsafe_sub(latest, sequence)
            | unsafe_sub(unsafe_sub(sequence, void), 1)
            | unsafe_sub(units.U62, size)
            | unsafe_sub(classes, head >> FEE_CLASS & units.U8)
        ) >> 255 != 0 or head & (NEVER_RESTS | units.U16 << SLOT) == 0:
            self._refuse(order_key <= last, head, size, now, void)
        last = order_key
        self.rows[i] = FEE_ZERO << FEE | at << ROW_AT
        at = unsafe_add(at, unsafe_add(HEAD_BYTES + 1, width))
        if head >> SCHEME != 0:
            others = unsafe_add(others, 1 << 32)
            at = unsafe_add(unsafe_add(at, 2), codec.word(unsafe_add(at, 2)) & units.U16)
            if head & EXTENSION != 0:
                at = builder_fees.ready(i, unsafe_add(at, EXTENSION_BYTES), context)
            continue
        at = unsafe_add(at, SIGNATURE_BYTES)
        s: uint256 = convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256)
        signer: address = ecrecover(
            keccak256(concat(prefix, self._struct_hash(head, size, symbol, b, at))),
            unsafe_add(27, head >> PARITY & 1),
            convert(slice(msg.data, unsafe_sub(at, 64), 32), uint256),
            s,
        )
        if s > eip712.HALF_N:
            reasons.fail(reasons.HIGH_S)
        if convert(signer, uint256) != b & units.U160:
            self.check_agent(pair >> 6 & units.U32, signer, now)
        if head & EXTENSION != 0:
            at = builder_fees.ready(i, unsafe_add(at, EXTENSION_BYTES), context)
    return at | others


@view
@internal
def _refuse(repeated: bool, head: uint256, size: uint256, now: uint256, void: uint256):
    """
    @dev Names the rule that a row breaks.
    """
    sequence: uint256 = head >> SEQUENCE & units.U48
    if repeated:
        reasons.fail(reasons.ROWS_NOT_ASCENDING)
    if head >> EXPIRY & units.U32 < now:
        reasons.fail(reasons.ORDER_EXPIRED)
    if size > units.U62:
        reasons.fail(reasons.ORDER_TOO_LARGE)
    if sequence <= void:
        reasons.fail(reasons.ORDER_VOIDED)
    if sequence > unsafe_mul(unsafe_add(now, units.DAY_S), 1000):
        reasons.fail(reasons.SEQUENCE_TOO_FAR_AHEAD)
    if head & (NEVER_RESTS | units.U16 << SLOT) == 0:
        reasons.fail(reasons.SLOT_0_NEVER_RESTS)
    reasons.fail(reasons.NO_SUCH_FEE_CLASS)


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
def _struct_hash(head: uint256, size: uint256, symbol: uint256, b: uint256, signature_end: uint256) -> bytes32:
    """
    @dev Rebuilds the signed order.
    """
    flags: uint256 = head >> FLAGS
    prices: uint256 = 0
    link: uint256 = 0
    if flags >> 13 != 0:
        prices = codec.word(unsafe_add(signature_end, 22))
        link = codec.word(unsafe_add(signature_end, SIGNED_BYTES))
    return keccak256(
        abi_encode(
            TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            symbol,
            SELL_HASH if flags & 1 != 0 else BUY_HASH,
            size,
            head >> LIMIT_PRICE & units.U32,
            head >> MAX_FEE & units.U16,
            link >> 16 & units.U160,
            link & units.U16,
            head >> SLOT & units.U16,
            head >> SEQUENCE & units.U48,
            head >> EXPIRY & units.U32,
            flags >> 5 & 1,
            flags >> 4 & 1,
            GTC if flags & 6 == 0 else self._time_in_force(flags >> 1 & 3),
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
def rates_of(fee_class: uint256) -> uint256:
    """
    @dev A fee class: taker rate u16, maker rate i16 at 16. Rows name only classes that exist.
    """
    return convert(slice(msg.data, unsafe_add(FEES_AT - 28, fee_class << 2), 32), uint256)


@internal
def use(
    index: uint256, row: uint256, head: uint256, pair: uint256, size: uint256, notional: int256, rate: int256
) -> int256:
    """
    @dev Fills `size` lots of a row at `rate`: replay protection by (slot, sequence), remaining size, reduce-only, signed fee.
    @return What the fill adds to the row's fees: the rounded totals after it less the rounded totals before.
    """
    if rate > convert(convert(head >> MAX_FEE & units.U16, bytes32), int256):
        reasons.fail(reasons.FEE_ABOVE_SIGNED_MAXIMUM)
    before: uint256 = row
    if head & (REDUCE_ONLY | EXTENSION) != 0:
        if head & REDUCE_ONLY != 0:
            self.check_shrinks(pair, head & SELL != 0, size)
        if head & EXTENSION != 0:
            # Whole units of fee, taken off before: the difference below has them.
            before = unsafe_sub(row, unsafe_mul(self._pay_builder(index, row, head, notional), units.PPM) << FEE)
    # Two's complement: a rebate is subtracted. What is used up is added below to `filled`, which cannot reach the bit above it.
    used: uint256 = unsafe_add(row, convert(convert(unsafe_mul(notional, rate), bytes32), uint256) << FEE)
    slot: uint256 = head >> SLOT & units.U16
    account: uint256 = pair >> 6 & units.U32
    sequence: uint256 = head >> SEQUENCE & units.U48
    filled: uint256 = 0
    if slot == 0:
        # Its sequence rises with the row's first use; all its fills lie in this batch.
        a: uint256 = ledger.words[account]
        stored: uint256 = a >> ledger.A_TAKER_SEQUENCE & units.U48
        if row & USED == 0:
            if sequence <= stored:
                reasons.fail(reasons.TAKER_SEQUENCE_TOO_LOW)
            if head & TRIGGERS != 0:
                self._check_trigger(head, 0)  # slot 0 has no bit that could say so
            ledger.words[account] = a ^ (stored ^ sequence) << ledger.A_TAKER_SEQUENCE
        elif sequence != stored:
            reasons.fail(reasons.ORDER_REPLACED)
        used = unsafe_add(used, size) | USED
        filled = used & units.U64
    else:
        # An equal sequence continues, a higher one replaces; with `amend` it keeps what was filled.
        key: uint256 = ledger.SLOTS | account << 15 | slot >> 1
        word: uint256 = ledger.words[key]
        state: uint256 = word >> ((slot & 1) << 7) & units.U128
        filled = unsafe_add(state >> 48 & units.U62, size)
        kept: uint256 = state >> ledger.SLOT_TRIGGERED << ledger.SLOT_TRIGGERED
        if sequence != state & units.U48:
            if sequence < state & units.U48:
                reasons.fail(reasons.SLOT_SEQUENCE_TOO_LOW)
            if head & AMEND == 0:
                filled = size
            # It begins without the old one's triggered bit.
            kept = state >> 111 << 111
        if head & TRIGGERS != 0:
            self._check_trigger(head, kept)
        ledger.words[key] = word ^ (state ^ (sequence | (filled & units.U62) << 48 | kept)) << ((slot & 1) << 7)
    if filled > head << 184 >> unsafe_sub(248, (head >> SIZE_WIDTH & 7) << 3):
        reasons.fail(reasons.ORDER_OVERFILLED)
    self.rows[index] = used
    return convert(
        convert(unsafe_sub(unsafe_div(used >> FEE, units.PPM), unsafe_div(before >> FEE, units.PPM)), bytes32), int256
    )


@internal
def _pay_builder(index: uint256, row: uint256, head: uint256, notional: int256) -> uint256:
    """
    @dev The fee of a row's builder, which the end of its extension names. Returns what the fill adds to it.
    """
    at: uint256 = unsafe_add(row >> ROW_AT & units.U16, unsafe_add(HEAD_BYTES + 1, head >> SIZE_WIDTH & 7))
    if head >> SCHEME == 0:
        at = unsafe_add(at, SIGNATURE_BYTES)
    else:
        at = unsafe_add(unsafe_add(at, 2), codec.word(unsafe_add(at, 2)) & units.U16)
    link: uint256 = codec.word(unsafe_add(at, EXTENSION_BYTES))
    if link >> 16 & units.U16 == 0:
        return 0
    return builder_fees.pay(index, link, convert(notional, uint256))


@view
@internal
def _check_trigger(head: uint256, kept: uint256):
    """
    @dev A mark trigger needs its slot's bit.
    """
    if head >> TRIGGER & 7 < 3 and kept >> ledger.SLOT_TRIGGERED & 1 == 0:
        reasons.fail(reasons.ORDER_NOT_TRIGGERED)


@view
@internal
def check_shrinks(pair: uint256, sells: bool, size: uint256):
    """
    @dev The running position is opposite to the side that trades and at least as large as the fill, at this moment.
    """
    position: int256 = tables.size_of(pair)
    if not sells:
        position = unsafe_sub(0, position)
    if position < convert(size, int256):
        reasons.fail(reasons.FILL_DOES_NOT_REDUCE)


@view
@internal
def row_at(index: uint256, context: uint256) -> uint256:
    if index >= context >> 120 & units.U16:
        reasons.fail(reasons.NO_SUCH_ORDER_ROW)
    return self.rows[index]


@view
@internal
def head_of(row: uint256) -> uint256:
    """
    @dev The word of calldata that begins with the row.
    """
    return convert(slice(msg.data, row >> ROW_AT & units.U16, 32), uint256)
