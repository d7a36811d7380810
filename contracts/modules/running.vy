# pragma version 0.4.3
"""
@title running
@license Apache-2.0
@notice The margin of an account within a batch, and the closing check of one that is not plainly safe, over the vault's words: what is
        rarely asked needs no room in the vault.
"""

from . import door
from . import ledger
from . import units

# Keys of the running batch in `word`: prices by market, pairs and accounts by index, the batch's context, and positions as storage holds
# them, by account id << 6 | market, and an account's collateral before section 4 where its entry has bit 64.
PRICES: constant(uint256) = 1 << 64
PAIRS: constant(uint256) = 2 << 64
ACCOUNTS: constant(uint256) = 3 << 64
CONTEXT: constant(uint256) = 4 << 64
STORED: constant(uint256) = 5 << 64
BASES: constant(uint256) = 6 << 64
BASE_NOTED: constant(uint256) = 1 << 64
MAX_NAMED: constant(uint256) = 64


@view
@internal
def margin(vault: door.IVault, index: uint256) -> door.Margin:
    """
    @dev `margin.AccountMargin` at the pinned round as the fills so far left the account; funding is owed on what storage holds. The
         batch must name all open positions: those stored must be as many as the stored count.
    """
    now: uint256 = (staticcall vault.word(CONTEXT)) & units.U40
    entry: uint256 = staticcall vault.word(ACCOUNTS | index)
    a: uint256 = staticcall vault.word(entry & units.U32)
    sum: door.Margin = empty(door.Margin)
    sum.fresh = True
    sum.equity = ledger.collateral_of(a)
    unnamed: uint256 = a >> ledger.A_OPEN_POSITIONS & units.U8
    first: uint256 = entry >> 32 & units.U16
    for i: uint256 in range(first, first + (entry >> 48 & units.U16), bound=MAX_NAMED):
        pair: uint256 = staticcall vault.word(PAIRS | i)
        market: uint256 = pair & 63
        s: uint256 = staticcall vault.word(ledger.MARKET_S | market)
        stored: uint256 = staticcall vault.word(STORED | pair & units.U38)
        if stored & units.U64 != 0:
            unnamed -= 1
        sum.equity -= self.owed(stored, s) + (convert(convert(pair, bytes32), int256) >> 128)
        size: int256 = convert(pair >> 64 & units.U64, int256) - 2**62
        if size == 0:
            continue
        p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
        price: uint256 = staticcall vault.word(PRICES | market)
        value: int256 = size * convert((price >> 32 & units.U32) * (p & units.U32), int256)
        initial: uint256 = self.initial(vault, market, p, convert(abs(value), uint256))
        sum.open_positions += 1
        sum.equity += value
        sum.initial += initial
        sum.maintenance += (initial + 1) >> 1
        sum.notional += convert(abs(value), uint256)
        if (price >> 64 & units.U40) + (p >> ledger.P_MAX_PRICE_AGE & units.U16) < now:
            sum.fresh = False
    if unnamed != 0:
        units.fail("vault: positions not named")
    return sum


@view
@internal
def check_closing(
    vault: door.IVault,
    base: int256,
    equity: int256,
    initial: uint256,
    fresh: bool,
    first: uint256,
    positions: DynArray[uint256, MAX_NAMED],
):
    """
    @dev `margin.closing_check` of an account that is below its initial margin or has a stale price: it may not have grown.
    @param base Collateral before section 4.
    @param first Index of the account's first pair.
    @param positions Its stored positions of before, the last pair's first.
    """
    before: int256 = base
    maintenance_before: uint256 = 0
    maintenance: uint256 = 0
    for i: uint256 in range(len(positions), bound=MAX_NAMED):
        pair: uint256 = staticcall vault.word(PAIRS | first + len(positions) - 1 - i)
        market: uint256 = pair & 63
        was: int256 = units.signed(positions[i], 192)
        size: int256 = units.signed(staticcall vault.word(STORED | pair & units.U38), 192)
        if abs(size) > abs(was) or (size != 0 and (size ^ was) < 0):
            if fresh:
                units.fail("vault: below initial margin")
            units.fail("vault: grew on a stale price")
        p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
        price: uint256 = staticcall vault.word(PRICES | market)
        lot: int256 = convert((price >> 32 & units.U32) * (p & units.U32), int256)
        maintenance += (self.initial(vault, market, p, convert(abs(size * lot), uint256)) + 1) >> 1
        maintenance_before += (self.initial(vault, market, p, convert(abs(was * lot), uint256)) + 1) >> 1
        before += was * lot - self.owed(positions[i], staticcall vault.word(ledger.MARKET_S | market))
    if equity >= convert(initial, int256):
        return
    self.check_ratio(before, maintenance_before, equity, maintenance)


@pure
@internal
def check_ratio(before: int256, maintenance_before: uint256, equity: int256, maintenance: uint256):
    """
    @dev An account below its initial margin of which no position grew: a deficit may not grow, and otherwise the margin ratio not fall.
    """
    if before < 0:
        if equity < before:
            units.fail("vault: deficit grew")
    elif equity < 0 or equity * convert(maintenance_before, int256) < before * convert(maintenance, int256):
        # The sign is a condition of its own: without maintenance on either side the ratio says nothing.
        units.fail("vault: margin ratio fell")


@pure
@internal
def owed(stored: uint256, s: uint256) -> int256:
    """
    @dev Funding that a stored position has not paid, rounded up.
    """
    elapsed: int256 = units.signed(s, 128) - units.signed(stored >> 64, 128)
    return units.ceil_div(units.signed(stored, 192) * elapsed, units.FUNDING_SCALE)


@view
@internal
def initial(vault: door.IVault, market: uint256, p: uint256, notional: uint256) -> uint256:
    """
    @dev Initial margin of one position.
    """
    tiers: uint256 = ledger.MARKET_T0
    if ledger.reaches(p >> ledger.P_THIRD_TIER & units.U32, notional):
        tiers = ledger.MARKET_T1
    return ledger.tiered(staticcall vault.word(tiers | market), notional)
