# pragma version 0.4.3
"""
@title tables
@license Apache-2.0
@notice The tables of the running batch, in transient storage, and the margin of an account over them.
@dev Two batches may share a transaction, so nothing here is read before the batch itself wrote it: account, pair and row
     entries are bounded by the batch's counts and written when loaded, base values are guarded by a flag of such an
     entry, and a market's entry carries the batch id.

     `context` packs what every step needs: now u40, batch id u48 at 40, accounts u16 at 88, pairs u16 at 104, rows u16 at 120,
     fee classes u8 at 136.
"""

from . import codec
from . import ledger
from . import reasons
from . import units

uses: ledger
uses: reasons

MAX_ACCOUNTS: constant(uint256) = 512
MAX_PAIRS: constant(uint256) = 1024
MAX_ROWS: constant(uint256) = 1024
MAX_SIZE: constant(int256) = 2**62 - 1

ACCOUNT_TOUCHED: constant(uint256) = 1 << 64  # its base collateral is recorded
# What an account's positions did in this batch, in both words; a target may do nothing else. A pair with any of them has its
# base position recorded.
ROLE_ORDER: constant(uint256) = 1 << 65
ROLE_TARGET: constant(uint256) = 1 << 66
ROLE_FUND: constant(uint256) = 1 << 67
ROLES: constant(uint256) = ROLE_ORDER | ROLE_TARGET | ROLE_FUND

# Account: id u32, first pair u16 at 32, number of pairs u16 at 48, flags.
accounts: transient(uint256[MAX_ACCOUNTS])
account_base: transient(int256[MAX_ACCOUNTS])  # collateral after sections 1 to 3
# Pair: market id u6, account id u32 at 6 (together the position's key), account index u16 at 40, flags.
pairs: transient(uint256[MAX_PAIRS])
pair_base: transient(uint256[MAX_PAIRS])  # the stored position
# Market: index u32, mark u32 at 32, updated at u40 at 64, batch id u48 at 128, open interest before u64 at 176.
markets: transient(uint256[64])
now: transient(uint256)  # for the questions of clerk and backstop


struct Margin:
    equity: int256
    initial: uint256
    maintenance: uint256
    notional: uint256
    fresh: bool  # every open market has a fresh price


@internal
def load_accounts(at: uint256, count: uint256):
    """
    @dev Ids ascend strictly, so no entry can alias another.
    """
    last: uint256 = 0
    for i: uint256 in range(count, bound=MAX_ACCOUNTS):
        account: uint256 = codec.word(unsafe_add(at, unsafe_mul(4, unsafe_add(i, 1)))) & units.U32
        if account <= last:
            reasons.fail(reasons.ACCOUNTS_NOT_ASCENDING)
        last = account
        self.accounts[i] = account


@internal
def load_pairs(at: uint256, count: uint256, accounts: uint256, batch_id: uint256):
    """
    @dev Ascending strictly by (account index, market), each market of the batch's market table.
    """
    last: uint256 = 0
    entry: uint256 = 0
    for i: uint256 in range(count, bound=MAX_PAIRS):
        pair: uint256 = codec.word(unsafe_add(at, unsafe_mul(3, unsafe_add(i, 1)))) & units.U24
        if pair <= last and i != 0:
            reasons.fail(reasons.PAIRS_NOT_ASCENDING)
        index: uint256 = pair >> 8
        if i == 0 or index != last >> 8:
            if i != 0:
                self.accounts[last >> 8] = entry
            if index >= accounts:
                reasons.fail(reasons.NO_SUCH_ACCOUNT_INDEX)
            entry = self.accounts[index] | i << 32
        last = pair
        market: uint256 = pair & units.U8
        if market > 63 or self.markets[market] >> 128 & units.U48 != batch_id:
            reasons.fail(reasons.MARKET_NOT_IN_TABLE)
        entry = unsafe_add(entry, 1 << 48)
        self.pairs[i] = (entry & units.U32) << 6 | market | index << 40
    if count != 0:
        self.accounts[last >> 8] = entry


@view
@internal
def account_at(index: uint256, context: uint256) -> uint256:
    if index >= context >> 88 & units.U16:
        reasons.fail(reasons.NO_SUCH_ACCOUNT_INDEX)
    return self.accounts[index]


@view
@internal
def pair_at(index: uint256, context: uint256) -> uint256:
    if index >= context >> 104 & units.U16:
        reasons.fail(reasons.NO_SUCH_PAIR)
    return self.pairs[index]


@internal
def touch(index: uint256, role: uint256):
    """
    @dev Records the baseline before the account's first change in section 4, and what it does there.
    """
    entry: uint256 = self.accounts[index]
    if entry & ROLE_TARGET | role & ROLE_TARGET != 0 and (entry | role) & (ROLE_ORDER | ROLE_FUND) != 0:
        reasons.fail(reasons.TARGET_ALSO_TRADES)
    if entry & ACCOUNT_TOUCHED == 0:
        self.account_base[index] = ledger.collateral_of(ledger.words[entry & units.U32])
    self.accounts[index] = entry | role | ACCOUNT_TOUCHED


@internal
def trade(index: uint256, role: uint256, delta: int256, debit: int256, funding_index: int256, mark: uint256) -> int256:
    """
    @dev Changes a position by `delta` lots and its account's collateral by -`debit` and by the funding that it owed.
    @return What the change adds to the market's open interest, counted on the long side.
    """
    pair: uint256 = self.pairs[index]
    key: uint256 = pair & units.U38
    word: uint256 = ledger.words[ledger.POSITIONS | key]
    if pair & role == 0:
        self.touch(pair >> 40 & units.U16, role)
        if pair & ROLES == 0:
            self.pair_base[index] = word
        self.pairs[index] = pair | role
    size: int256 = convert(convert(word << 192, bytes32), int256) >> 192
    new_size: int256 = unsafe_add(size, delta)
    entry: int256 = convert(convert(word << 64, bytes32), int256) >> 128
    cost: int256 = debit
    if entry != funding_index and size != 0:
        # Before the account is read: its dust may be credited to the very account.
        cost = unsafe_add(cost, ledger.settle_funding(size, unsafe_sub(funding_index, entry)))
    a: uint256 = ledger.words[key >> 6]
    collateral: int256 = unsafe_sub(convert(convert(a << 160, bytes32), int256) >> 160, cost)
    entry_mark: uint256 = mark
    if size == 0:
        if a >> ledger.A_OPEN_POSITIONS & units.U8 >= ledger.MAX_OPEN_MARKETS:
            reasons.fail(reasons.TOO_MANY_OPEN_MARKETS)
        a = unsafe_add(a, 1 << ledger.A_OPEN_POSITIONS)
    elif (size ^ delta) >= 0:
        old_abs: uint256 = convert(abs(size), uint256)
        added: uint256 = convert(abs(delta), uint256)
        entry_mark = unsafe_div(
            unsafe_add(unsafe_mul(old_abs, word >> 192), unsafe_mul(added, mark)), unsafe_add(old_abs, added)
        )
    elif new_size == 0:
        a = unsafe_sub(a, 1 << ledger.A_OPEN_POSITIONS)
        entry_mark = word >> 192
    elif (size ^ new_size) >= 0:
        entry_mark = word >> 192
    # One comparison bounds both ends: a number below the lower end wraps round to a huge unsigned one.
    if convert(convert(unsafe_add(new_size, MAX_SIZE), bytes32), uint256) > 2**63 - 2:
        reasons.fail(reasons.POSITION_TOO_LARGE)
    if convert(convert(unsafe_add(collateral, units.MAX_COLLATERAL), bytes32), uint256) > 2**96 - 2:
        reasons.fail(reasons.COLLATERAL_OUT_OF_RANGE)
    ledger.words[key >> 6] = a >> 96 << 96 | convert(convert(collateral, bytes32), uint256) & units.U96
    ledger.words[ledger.POSITIONS | key] = (
        convert(convert(new_size, bytes32), uint256) & units.U64
        | convert(convert(funding_index, bytes32), uint256) << 128 >> 64
        | entry_mark << 192
    )
    return unsafe_sub(max(new_size, 0), max(size, 0))


@view
@internal
def margin(index: uint256, now: uint256, base: bool) -> Margin:
    """
    @dev `margin.AccountMargin` of an account at the pinned round, running or, with `base`, as it was after sections 1 to 3.
         The batch must name all open positions of the account; the running count is checked.
    """
    entry: uint256 = self.accounts[index]
    a: uint256 = ledger.words[entry & units.U32]
    sum: Margin = empty(Margin)
    sum.fresh = True
    if base:
        sum.equity = self.account_base[index]
    else:
        sum.equity = ledger.collateral_of(a)
    unnamed: uint256 = a >> ledger.A_OPEN_POSITIONS & units.U8
    first: uint256 = entry >> 32 & units.U16
    for i: uint256 in range(first, unsafe_add(first, entry >> 48 & units.U16), bound=64):
        pair: uint256 = self.pairs[i]
        market: uint256 = pair & 63
        word: uint256 = 0
        if base and pair & ROLES != 0:
            word = self.pair_base[i]
        else:
            word = ledger.words[ledger.POSITIONS | pair & units.U38]
        size: int256 = convert(convert(word << 192, bytes32), int256) >> 192
        if size == 0:
            continue
        unnamed = unsafe_sub(unnamed, 1)
        p: uint256 = ledger.words[ledger.MARKET_P | market]
        price: uint256 = self.markets[market]
        value: int256 = size * convert((price >> 32 & units.U32) * (p & units.U32), int256)
        notional: uint256 = convert(abs(value), uint256)
        entry_index: int256 = convert(convert(word << 64, bytes32), int256) >> 128
        funding_index: int256 = convert(convert(ledger.words[ledger.MARKET_S | market] << 128, bytes32), int256) >> 128
        if entry_index != funding_index:
            value -= units.ceil_div(size * unsafe_sub(funding_index, entry_index), units.FUNDING_SCALE)
        initial: uint256 = ledger.initial_margin(market, p >> ledger.P_THIRD_TIER & units.U32, notional)
        sum.equity += value
        sum.initial = unsafe_add(sum.initial, initial)
        sum.maintenance = unsafe_add(sum.maintenance, unsafe_add(initial, 1) >> 1)
        sum.notional = unsafe_add(sum.notional, notional)
        if unsafe_add(price >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < now:
            sum.fresh = False
    if not base and unnamed != 0:
        reasons.fail(reasons.POSITIONS_NOT_NAMED)
    return sum


@view
@internal
def grew(index: uint256) -> bool:
    """
    @dev Whether some position of the account is larger than, or opposite to, what it was before the batch.
    """
    entry: uint256 = self.accounts[index]
    first: uint256 = entry >> 32 & units.U16
    for i: uint256 in range(first, unsafe_add(first, entry >> 48 & units.U16), bound=64):
        pair: uint256 = self.pairs[i]
        if pair & ROLES == 0:
            continue
        before: int256 = units.signed(self.pair_base[i], 192)
        after: int256 = units.signed(ledger.words[ledger.POSITIONS | pair & units.U38], 192)
        if abs(after) > abs(before) or (after != 0 and after ^ before < 0):
            return True
    return False


@view
@internal
def check_closing(index: uint256, now: uint256):
    """
    @dev `margin.closing_check`, and no growth on a stale price anywhere in the account.
    """
    after: Margin = self.margin(index, now, False)
    if after.fresh and after.equity >= convert(after.initial, int256):
        return
    if self.grew(index):
        if after.fresh:
            reasons.fail(reasons.BELOW_INITIAL_MARGIN)
        reasons.fail(reasons.GREW_ON_A_STALE_PRICE)
    before: Margin = self.margin(index, now, True)
    if after.equity >= convert(after.initial, int256):
        return
    if before.equity < 0:
        if after.equity < before.equity:
            reasons.fail(reasons.DEFICIT_GREW)
    elif after.equity < 0 or (
        after.equity * convert(before.maintenance, int256) < before.equity * convert(after.maintenance, int256)
    ):
        # The sign is a condition of its own: without maintenance on either side the ratio says nothing.
        reasons.fail(reasons.MARGIN_RATIO_FELL)
