# pragma version 0.4.3
"""
@title tables
@license Apache-2.0
@notice The tables of the running batch, in transient storage, and the margin of an account over them.
@dev A pair's entry carries what its position became and what it cost since section 4 began; storage keeps the state before section 4
     until `closing` writes it, so storage is the baseline of the closing check. Two batches may share a transaction, so nothing here
     is read before the batch itself wrote it: pair and row entries are bounded by the batch's counts and written when loaded, a
     market's entry carries the batch id, and entries of accounts, which only the rare parts of a batch need, are written
     by `name_accounts` before the first of them.

     `context` packs what every step needs: now u40, batch id u48 at 40, accounts u16 at 88, pairs u16 at 104, rows u16 at 120,
     fee classes u8 at 136, flags from 144, calldata offset of the account table u32 at 152.
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

# What was done with a pair in section 4. A target may do nothing else.
ROLE_ORDER: constant(uint256) = 1 << 56
ROLE_TARGET: constant(uint256) = 1 << 57
ROLE_FUND: constant(uint256) = 1 << 58
ROLE_FEES: constant(uint256) = 1 << 59  # an order against an order of the same account: fees alone
ROLES: constant(uint256) = ROLE_ORDER | ROLE_TARGET | ROLE_FUND | ROLE_FEES
MOVED: constant(uint256) = ROLE_ORDER | ROLE_TARGET | ROLE_FUND
SIZE: constant(uint256) = 64  # bit offsets in a pair's entry
COST: constant(uint256) = 128
ZERO_SIZE: constant(uint256) = 2**62
INTEREST: constant(uint256) = 176  # bit offset in a market's entry

LATE: constant(uint256) = 1 << 146  # in the context: the pinned round is older than a batch's usual age
CLAMPED: constant(uint256) = 1 << 104  # in a market's entry: the oracle held back a jump

BASE_NOTED: constant(uint256) = 1 << 64  # in an account's entry

# Pair: market id u6, account id u32 at 6 (together the position's key), account index u16 at 40, roles, running size in lots plus
# 2^62 u64 at 64, and int128 at 128 what its fills cost so far, fees included. Lots and cost are added to the whole word: neither can
# reach its neighbour, since a size is checked after each addition and 2,048 fills of less than 2^90 cost less than 2^127.
pairs: transient(uint256[MAX_PAIRS])
# Market: index u32, mark u32 at 32, updated at u40 at 64, clamped at 104, batch id u48 at 128, int80 at 176 what the batch adds to open
# interest.
markets: transient(uint256[64])

# For the rare parts. Account: id u32, first pair u16 at 32, number of pairs u16 at 48, flags.
accounts: transient(uint256[MAX_ACCOUNTS])
account_base: transient(int256[MAX_ACCOUNTS])  # collateral after sections 1 to 3, where something beside fills changes it later
asked: transient(uint256)  # the context, for the questions of other contracts; 0 outside of a batch


@internal
def load(accounts_at: uint256, accounts: uint256, pairs_at: uint256, pairs: uint256, batch_id: uint256):
    """
    @dev Account ids ascend strictly, pairs strictly by (account index, market), each market of the batch's market table: no entry
         can alias another. A pair's entry begins with the stored size.
    """
    last: uint256 = 0
    count: uint256 = 0
    market: uint256 = 64  # the last one seen in the table of markets
    pair: uint256 = self._pair_in_calldata(pairs_at, pairs, count)
    for i: uint256 in range(accounts, bound=MAX_ACCOUNTS):
        account: uint256 = codec.word(unsafe_add(accounts_at, unsafe_mul(4, unsafe_add(i, 1)))) & units.U32
        if account <= last:
            reasons.fail(reasons.ACCOUNTS_NOT_ASCENDING)
        last = account
        next_market: uint256 = 0
        for _: uint256 in range(64):
            if pair >> 8 != i:
                break
            if pair & units.U8 < next_market:
                reasons.fail(reasons.PAIRS_NOT_ASCENDING)
            if pair & units.U8 != market:
                market = pair & units.U8
                if market > 63 or self.markets[market] >> 128 & units.U48 != batch_id:
                    reasons.fail(reasons.MARKET_NOT_IN_TABLE)
            next_market = unsafe_add(market, 1)
            key: uint256 = account << 6 | market
            stored: uint256 = ledger.words[ledger.POSITIONS | key]
            self.pairs[count] = key | i << 40 | (unsafe_add(stored, ZERO_SIZE) & units.U64) << SIZE
            count = unsafe_add(count, 1)
            pair = self._pair_in_calldata(pairs_at, pairs, count)
    if count != pairs:
        if pair >> 8 >= accounts:
            reasons.fail(reasons.NO_SUCH_ACCOUNT_INDEX)
        reasons.fail(reasons.PAIRS_NOT_ASCENDING)


@view
@internal
def _pair_in_calldata(at: uint256, pairs: uint256, index: uint256) -> uint256:
    """
    @dev Account index u16, market u8; behind the last pair an index that no account has.
    """
    if index == pairs:
        return units.U24
    return convert(slice(msg.data, unsafe_sub(unsafe_add(at, unsafe_mul(3, index)), 29), 32), uint256) & units.U24


@internal
def name_accounts(context: uint256):
    """
    @dev Writes the entries of accounts, once a batch, before other contracts are asked or something beside fills moves collateral.
    """
    if self.asked == context:
        return
    self.asked = context
    at: uint256 = context >> 152 & units.U32
    for i: uint256 in range(context >> 88 & units.U16, bound=MAX_ACCOUNTS):
        self.accounts[i] = codec.word(unsafe_add(at, unsafe_mul(4, unsafe_add(i, 1)))) & units.U32
    last: uint256 = MAX_ACCOUNTS
    for i: uint256 in range(context >> 104 & units.U16, bound=MAX_PAIRS):
        index: uint256 = self.pairs[i] >> 40 & units.U16
        if index != last:
            self.accounts[index] = self.accounts[index] | i << 32
            last = index
        self.accounts[index] = unsafe_add(self.accounts[index], 1 << 48)


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
def note_base(index: uint256):
    """
    @dev Before something beside fills changes an account's collateral in section 4.
    """
    entry: uint256 = self.accounts[index]
    if entry & BASE_NOTED == 0:
        self.account_base[index] = ledger.collateral_of(ledger.words[entry & units.U32])
        self.accounts[index] = entry | BASE_NOTED


@pure
@internal
def size_of(pair: uint256) -> int256:
    return unsafe_sub(convert(pair >> SIZE & units.U64, int256), convert(ZERO_SIZE, int256))


@internal
def trade(index: uint256, pair: uint256, role: uint256, delta: int256, cost: int256):
    """
    @dev Moves a pair's running position by `delta` lots for `cost`.
    """
    moved: uint256 = unsafe_add(pair, unsafe_add(units.bits(delta) << SIZE, units.bits(cost) << COST)) | role
    # One comparison bounds both ends: a size below the lower end wraps round to a huge one.
    if unsafe_sub(moved >> SIZE & units.U64, 1) > 2**63 - 2:
        reasons.fail(reasons.POSITION_TOO_LARGE)
    self.pairs[index] = moved


@view
@internal
def running_size(key: uint256) -> int256:
    """
    @dev The running size of a position by its key: of a named pair within a batch, else as stored. Pairs ascend by key.
    """
    low: uint256 = 0
    high: uint256 = self.asked >> 104 & units.U16
    for _: uint256 in range(11):
        if low >= high:
            break
        middle: uint256 = unsafe_add(low, high) >> 1
        pair: uint256 = self.pairs[middle]
        if pair & units.U38 == key:
            return self.size_of(pair)
        if pair & units.U38 < key:
            low = unsafe_add(middle, 1)
        else:
            high = middle
    return units.signed(ledger.words[ledger.POSITIONS | key], 192)


@internal
def settled(pairs: uint256):
    """
    @dev After `closing` wrote everything: what was paid is in the collateral, for the questions that withdrawals ask.
    """
    for i: uint256 in range(pairs, bound=MAX_PAIRS):
        self.pairs[i] = self.pairs[i] & units.U128
