# pragma version 0.4.3
"""
@title trigger_bits
@license Apache-2.0
@notice Section 3, tag 2: the pinned mark meets the mark trigger that an order's owner signed, so its slot is marked triggered.
@dev Reads the order from its row of the batch, which needs no fill. The row's signature is verified afterwards, with all others of
     the batch; what this wrote for a forged one is undone with the whole batch.
"""

from . import codec
from . import door
from . import ledger
from . import row_layout
from . import units

FLAG_AMEND: constant(uint256) = 1 << 5
MARK_ABOVE: constant(uint256) = 1
MARK_BELOW: constant(uint256) = 2
PRICES: constant(uint256) = 1 << 64
TRIGGERED: constant(bytes32) = keccak256("OrderTriggered(uint256,uint256,uint256,uint256)")


@internal
def set_bit(vault: door.IVault, now: uint256, accounts_at: uint256, pairs_at: uint256, row_at: uint256):
    """
    @dev An equal sequence keeps what its slot has filled; a higher one takes the slot over as a fill would.
    """
    head: uint256 = row_layout.head(row_at)
    flags: uint256 = head >> 168
    slot: uint256 = head >> 128 & units.U16
    pair_index: uint256 = head >> 152 & units.U16
    if pair_index >= codec.word(pairs_at) & units.U16:
        units.fail("vault: no such pair")
    pair: uint256 = codec.word(pairs_at + 3 * pair_index + 3)
    account: uint256 = codec.word(accounts_at + 4 * (pair >> 8 & units.U16) + 4) & units.U32
    mark: uint256 = self._fresh_mark(vault, pair & units.U8, now)
    wanted: uint256 = 0
    if flags & row_layout.FLAG_EXTENSION != 0:
        wanted = codec.word(row_layout.evidence_end(row_at, flags) + 4) & units.U32
    trigger: uint256 = flags >> 7 & 7
    if slot == 0 or trigger != MARK_ABOVE and trigger != MARK_BELOW:
        units.fail("vault: no mark trigger")
    if (trigger == MARK_ABOVE and mark < wanted) or (trigger == MARK_BELOW and mark > wanted):
        units.fail("vault: trigger not met")
    key: uint256 = ledger.SLOTS | account << 15 | slot >> 1
    offset: uint256 = (slot & 1) << 7
    word: uint256 = staticcall vault.word(key)
    state: uint256 = word >> offset & units.U128
    sequence: uint256 = head >> 80 & units.U48
    stored: uint256 = state & units.U48
    if sequence < stored:
        units.fail("vault: slot sequence too low")
    kept: uint256 = sequence | 1 << ledger.SLOT_TRIGGERED
    if sequence == stored or flags & FLAG_AMEND != 0:
        kept |= state & units.U62 << 48
    extcall vault.write(key, word ^ (state ^ kept) << offset)
    extcall vault.relay([TRIGGERED, convert(account, bytes32)], abi_encode(slot, sequence, mark))


@view
@internal
def _fresh_mark(vault: door.IVault, market: uint256, now: uint256) -> uint256:
    price: uint256 = staticcall vault.word(PRICES | market)
    p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
    if (price >> 64 & units.U40) + (p >> ledger.P_MAX_PRICE_AGE & units.U16) < now:
        units.fail("vault: stale price")
    return price >> 32 & units.U32
