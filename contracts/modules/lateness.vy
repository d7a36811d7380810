# pragma version 0.4.3
"""
@title lateness
@license Apache-2.0
@notice The second closing check of a late batch: every account whose position changed must also pass at the newest posted round. Otherwise who
        withholds a batch could choose, within the hour, the prices at which accounts are judged.
@dev Runs when section 4 has ended and before anything is written: the vault's words are the baseline, the tables of the batch what the
     fills made of it.
"""

from ..interfaces import IPriceOracle
from . import door
from . import ledger
from . import running
from . import units

MAX_AGE_S: constant(uint256) = 120  # of the newest round
MAX_ACCOUNTS: constant(uint256) = 512
CLAMPED: constant(uint256) = 1 << 104
TRADED: constant(uint256) = 15 << 56  # roles of a pair that a fill touched, with fees alone too


struct Check:
    equity: int256
    initial: uint256
    maintenance: uint256
    equity_before: int256
    maintenance_before: uint256
    grew: bool
    fresh: bool


@view
@internal
def check(vault: door.IVault, oracle: address, time: uint256):
    words: DynArray[uint256, 33] = self._newest(oracle)
    if time > (words[0] >> 40) + MAX_AGE_S:
        units.fail("vault: no recent round")
    context: uint256 = staticcall vault.word(running.CONTEXT)
    for index: uint256 in range(context >> 88 & units.U16, bound=MAX_ACCOUNTS):
        self._account(vault, words, index)


@view
@internal
def _newest(oracle: address) -> DynArray[uint256, 33]:
    """
    @dev The newest round of both lanes.
    """
    sequencer_round: uint256 = staticcall IPriceOracle(oracle).last_round(0)
    public_round: uint256 = staticcall IPriceOracle(oracle).last_round(1)
    if public_round > sequencer_round:
        return staticcall IPriceOracle(oracle).round_words(1, public_round)
    return staticcall IPriceOracle(oracle).round_words(0, sequencer_round)


@view
@internal
def _account(vault: door.IVault, words: DynArray[uint256, 33], index: uint256):
    """
    @dev `running.check_closing` at another round, over all pairs of an account of which one moved. That they are all of its open
         positions is `closing`'s to check.
    """
    entry: uint256 = staticcall vault.word(running.ACCOUNTS | index)
    first: uint256 = entry >> 32 & units.U16
    count: uint256 = entry >> 48 & units.U16
    traded: bool = False
    sum: Check = empty(Check)
    sum.equity = ledger.collateral_of(staticcall vault.word(entry & units.U32))
    sum.equity_before = sum.equity
    if entry & running.BASE_NOTED != 0:
        sum.equity_before = units.signed(staticcall vault.word(running.BASES | index), 0)
    sum.fresh = True
    for i: uint256 in range(first, first + count, bound=64):
        pair: uint256 = staticcall vault.word(running.PAIRS | i)
        if pair & TRADED != 0:
            traded = True
        sum = self._add(vault, words, pair, sum)
    if not traded or (sum.fresh and sum.equity >= convert(sum.initial, int256)):
        return
    if sum.grew:
        if sum.fresh:
            units.fail("vault: late, below initial")
        units.fail("vault: late, grew on stale price")
    if sum.equity >= convert(sum.initial, int256):
        return
    running.check_ratio(sum.equity_before, sum.maintenance_before, sum.equity, sum.maintenance)


@view
@internal
def _add(vault: door.IVault, words: DynArray[uint256, 33], pair: uint256, so_far: Check) -> Check:
    """
    @dev What one position adds to an account's equity and margins, before the fills and after them.
    """
    sum: Check = so_far
    market: uint256 = pair & 63
    stored: uint256 = staticcall vault.word(running.STORED | pair & units.U38)
    was: int256 = units.signed(stored, 192)
    size: int256 = convert(pair >> 64 & units.U64, int256) - 2**62
    p: uint256 = staticcall vault.word(ledger.MARKET_P | market)
    price: uint256 = words[(market >> 1) + 1] >> ((market & 1) << 7) & units.U128
    lot: int256 = convert((price >> 32 & units.U32) * (p & units.U32), int256)
    owed: int256 = running.owed(stored, staticcall vault.word(ledger.MARKET_S | market))
    sum.equity_before += was * lot - owed
    sum.equity += size * lot - owed - (convert(convert(pair, bytes32), int256) >> 128)
    initial: uint256 = running.initial(vault, market, p, convert(abs(size * lot), uint256))
    sum.initial += initial
    sum.maintenance += (initial + 1) >> 1
    sum.maintenance_before += (running.initial(vault, market, p, convert(abs(was * lot), uint256)) + 1) >> 1
    if abs(size) > abs(was) or (size != 0 and (size ^ was) < 0):
        sum.grew = True
    updated: uint256 = price >> 64 & units.U40
    if size != 0 and (price & CLAMPED != 0 or updated + (p >> ledger.P_MAX_PRICE_AGE & units.U16) < words[0] >> 40):
        sum.fresh = False
    return sum
