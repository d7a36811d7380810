# pragma version 0.4.3
"""
@title forced
@license Apache-2.0
@notice What owners and keepers force through the inbox: the close of a position (entry kind 4) and a liquidation (kind 8). The mirror of
        `evermark/protocol/forced.py`.
@dev The fills come first, while the entry stands at the head of the inbox; it is consumed by a later batch, once what it asks for is done.
"""

from . import door
from . import ledger
from . import running
from . import units
from ..interfaces import IInbox
from ..interfaces import IPriceOracle

CLOSE: constant(uint8) = 4
LIQUIDATE: constant(uint8) = 8

# Why an entry is consumed without effect, beside those of the clerk.
SKIPPED_NO_POSITION: constant(uint256) = 5
SKIPPED_BELOW_MAINTENANCE: constant(uint256) = 6
SKIPPED_ABOVE_TWO_THIRDS: constant(uint256) = 7
SKIPPED_DEPOSIT_WAITS: constant(uint256) = 8

# Bit offsets in a close's data: market u8, whether long, lots u62, the mark when the entry was made u32.
LONG: constant(uint256) = 8
LOTS: constant(uint256) = 16
MARK: constant(uint256) = 80
# In word CLOSING: entry id u64, lots closed u64, when the last of them u64. In a market's word FORCED: hour u32, lots closed u64, cap u64.
CLOSED: constant(uint256) = 64
CLOSED_AT: constant(uint256) = 128
HOUR_LOTS: constant(uint256) = 32
HOUR_CAP: constant(uint256) = 96

HOUR_S: constant(uint256) = 3_600
SHARE: constant(uint256) = 10  # an hour's closes are at most a tenth of open interest,
LEAST_CAP: constant(uint256) = 25_000 * units.USDC  # but never less than this at the mark: a small market shall not hold up the queue
DEPOSIT_GRACE_S: constant(uint256) = 600  # whose deposit waits for longer in the inbox is not liquidated
PRICES: constant(uint256) = 1 << 64  # key of the batch's price of market 0


@view
@internal
def close_data(vault: door.IVault, account: uint256, market: uint256, size: uint256) -> uint256:
    """
    @dev What the inbox notes of a close: at most the position of now, on its side, and the market's newest mark of both lanes.
    """
    assert market < 64, "inbox: no such market"
    position: int256 = units.signed(staticcall vault.word(ledger.POSITIONS | account << 6 | market), 192)
    assert position != 0, "inbox: no position"
    oracle: address = (staticcall vault.clerk_task())[2]
    newest: uint256 = 0
    for lane: uint8 in range(2):
        round: uint256 = staticcall IPriceOracle(oracle).last_round(lane)
        if round == 0:
            continue
        words: DynArray[uint256, 33] = staticcall IPriceOracle(oracle).round_words(lane, round)
        if (market >> 1) + 1 < len(words):
            price: uint256 = words[(market >> 1) + 1] >> ((market & 1) << 7)
            if price >> 64 & units.U40 > newest >> 64 & units.U40:
                newest = price
    long: uint256 = 0
    if position > 0:
        long = 1
    lots: uint256 = min(size, convert(abs(position), uint256))
    return market | long << LONG | lots << LOTS | (newest >> 32 & units.U32) << MARK


@view
@internal
def closed_lots(vault: door.IVault, entry_id: uint256) -> uint256:
    """
    @dev What fills have closed for this entry so far.
    """
    word: uint256 = staticcall vault.word(ledger.CLOSING)
    if word & units.U64 != entry_id:
        return 0
    return word >> CLOSED & units.U64


@view
@internal
def hour_of(vault: door.IVault, market: uint256, now: uint256) -> uint256:
    """
    @dev A market's word FORCED as of `now`: a new hour begins with nothing closed, and with a cap by the open interest before the batch.
    """
    word: uint256 = staticcall vault.word(ledger.FORCED | market)
    if word & units.U32 == now // HOUR_S:
        return word
    interest: uint256 = (staticcall vault.word(ledger.MARKET_S | market)) >> ledger.S_OPEN_INTEREST & units.U64
    lot: uint256 = (staticcall vault.word(PRICES | market)) >> 32 & units.U32
    lot *= (staticcall vault.word(ledger.MARKET_P | market)) & units.U32
    return now // HOUR_S | max(max(interest // SHARE, LEAST_CAP // lot), 1) << HOUR_CAP


@view
@internal
def close_outcome(
    vault: door.IVault, now: uint256, entry_id: uint256, data: uint256, account: uint256, index: uint256
) -> uint256:
    """
    @dev Whether a close can leave the queue: 0 when it is done (as far as the hour's cap allows), or why it is skipped. Else it stays.
    """
    market: uint256 = data & units.U8
    position: int256 = units.signed(staticcall vault.word(ledger.POSITIONS | account << 6 | market), 192)
    closed: uint256 = self.closed_lots(vault, entry_id)
    if position == 0 or (position > 0) != (data >> LONG & 1 == 1):
        if closed == 0:
            return SKIPPED_NO_POSITION
        return 0
    if closed >= data >> LOTS & units.U62:
        return 0
    sum: door.Margin = running.margin(vault, index)
    if not sum.fresh:
        units.fail("vault: stale price")
    if sum.equity < convert(sum.maintenance, int256):
        return SKIPPED_BELOW_MAINTENANCE
    if closed != 0:
        hour: uint256 = self.hour_of(vault, market, now)
        if hour >> HOUR_LOTS & units.U64 >= hour >> HOUR_CAP:
            return 0
    units.fail("vault: not closed yet")
    return 0


@view
@internal
def liquidation_outcome(vault: door.IVault, inbox: address, account: uint256, index: uint256) -> uint256:
    """
    @dev Why the liquidation of an account leaves the queue: it needs none (any more), or its deposit waits behind. Else it stays.
    """
    sum: door.Margin = running.margin(vault, index)
    if not sum.fresh:
        units.fail("vault: stale price")
    if sum.open_positions == 0 or sum.equity * 3 >= convert(sum.maintenance, int256) * 2:
        return SKIPPED_ABOVE_TWO_THIRDS
    for market: uint256 in range(64):
        if (staticcall vault.word(ledger.POSITIONS | account << 6 | market)) & units.U64 != 0 and self.deposit_waits(
            vault, inbox, account, market
        ):
            return SKIPPED_DEPOSIT_WAITS
    units.fail("vault: not liquidated yet")
    return 0


@view
@internal
def deposit_waits(vault: door.IVault, inbox: address, account: uint256, market: uint256) -> bool:
    """
    @dev Whether the account's oldest deposit was made more than ten minutes before the market's price and still waits.
    """
    b: uint256 = staticcall vault.word(ledger.B | account)
    created: uint256 = staticcall IInbox(inbox).oldest_deposit(
        convert(b & units.U160, address), convert(b >> ledger.B_SUB_ACCOUNT & units.U16, uint16)
    )
    price: uint256 = staticcall vault.word(PRICES | market)
    return created != 0 and created + DEPOSIT_GRACE_S < price >> 64 & units.U40


@view
@internal
def penalty(vault: door.IVault, market: uint256, notional: int256, p: uint256) -> int256:
    """
    @dev What a close may lose against the mark: the market's liquidation fee, and no more than its first maintenance fraction, so that a
         healthy account stays healthy; rounded up.
    """
    first: uint256 = (staticcall vault.word(ledger.MARKET_T0 | market)) >> 48 & units.U24
    rate: uint256 = min(p >> ledger.P_LIQUIDATION_FEE & units.U16, first >> 1)
    return units.ceil_div(notional * convert(rate, int256), convert(units.PPM, int256))


@pure
@internal
def close_loss(most: int256, moved: int256) -> int256:
    """
    @dev What a close against fund or counterparty loses against the mark: half the penalty below the worse, for the closer, of the mark and
         the mark when the entry was made, but no more than the whole penalty `most`. `moved`: how far the mark went its way, in quote.
    """
    return min(most, (most + 1) // 2 + max(moved, 0))
