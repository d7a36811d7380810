# pragma version 0.4.3
"""
@title closing
@license Apache-2.0
@notice The end of section 4: writes what the fills made of positions, accounts and open interest, each word once, and checks every
        account that traded.
@dev Accounts are taken from the last to the first, so that the insurance fund, which gets the whole units of dust, comes after all
     whose funding may bring some.
"""

from . import ledger
from . import reasons
from . import tables
from . import units

uses: ledger
uses: reasons
uses: tables

interface IBackstop:
    def is_allowed(
        base: int256, equity: int256, initial: uint256, fresh: bool, first: uint256, positions: DynArray[uint256, 64]
    ) -> bool: view


MAX_NAMED: constant(uint256) = 64  # pairs of an account: one a market

# Funding that the batch's positions paid, and what its rounding added; both are zero between batches.
owed: transient(int256)
remainder: transient(int256)

BACKSTOP: immutable(address)


@deploy
def __init__(backstop: address):
    BACKSTOP = backstop


@internal
def close(context: uint256):
    """
    @dev Per pair that moved: its funding, entry mark and word. Per account: collateral, open positions, and the closing check.
    """
    i: uint256 = context >> 104 & units.U16
    market: uint256 = 64  # the one that the next five belong to
    interest: int256 = 0
    p: uint256 = 0
    s: uint256 = 0
    price: uint256 = 0
    fresh_market: bool = False
    for _: uint256 in range(i, bound=tables.MAX_PAIRS):
        if i == 0:
            break
        pair: uint256 = tables.pairs[unsafe_sub(i, 1)]
        index: uint256 = pair >> 40 & units.U16
        account: uint256 = pair >> 6 & units.U32
        # Of one account: roles of its pairs, what fills and funding took, what positions are worth, how many were and are open.
        roles: uint256 = 0
        cost: int256 = 0
        worth: int256 = 0
        initial: uint256 = 0
        opened: uint256 = 0
        named: uint256 = 0
        fresh: bool = True
        stored: DynArray[uint256, MAX_NAMED] = []
        for _n: uint256 in range(MAX_NAMED):
            if pair & 63 != market:
                self._add_interest(market, interest)
                interest = 0
                market = pair & 63
                p = ledger.words[ledger.MARKET_P | market]
                s = ledger.words[ledger.MARKET_S | market]
                price = tables.markets[market]
                fresh_market = unsafe_add(price >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) >= context & units.U40
            word: uint256 = ledger.words[ledger.POSITIONS | pair & units.U38]
            stored.append(word)
            size: int256 = unsafe_sub(convert(convert(pair >> tables.SIZE & units.U64, bytes32), int256), 2**62)
            cost = unsafe_add(cost, convert(convert(pair, bytes32), int256) >> tables.COST)
            if word & units.U64 != 0:
                named = unsafe_add(named, 1)
                if (word >> 64 ^ s) & units.U128 != 0:
                    due: int256 = self._due(word, s, pair & tables.MOVED != 0)
                    # Of a position that did not move it stays owed, but counts.
                    if pair & tables.MOVED != 0:
                        cost = unsafe_add(cost, due)
                    else:
                        worth = unsafe_sub(worth, due)
            if pair & tables.MOVED != 0:
                interest = unsafe_add(interest, self._write_position(pair, word, size, s, price))
            roles |= pair & tables.ROLES
            if size != 0:
                opened = unsafe_add(opened, 1)
                value: int256 = unsafe_mul(size, convert(convert(unsafe_mul(price >> 32 & units.U32, p & units.U32), bytes32), int256))
                worth = unsafe_add(worth, value)
                # Its absolute value, without a branch.
                notional: uint256 = convert(convert(unsafe_sub(value ^ value >> 255, value >> 255), bytes32), uint256)
                if notional >> (s >> ledger.S_FIRST_BITS & 127) == 0:
                    initial = unsafe_add(initial, ledger.first_tier_margin(s, notional))
                else:
                    initial = unsafe_add(initial, ledger.initial_margin(market, p, notional))
                if not fresh_market:
                    fresh = False
            i = unsafe_sub(i, 1)
            if i == 0:
                break
            pair = tables.pairs[unsafe_sub(i, 1)]
            if pair >> 40 & units.U16 != index:
                break
        if roles != 0:
            if roles & tables.ROLE_TARGET != 0 and roles != tables.ROLE_TARGET:
                reasons.fail(reasons.TARGET_ALSO_TRADES)
            base: int256 = 0
            equity: int256 = 0
            base, equity = self._write_account(account, cost, opened, named, roles)
            equity = unsafe_add(equity, worth)
            if (not fresh or equity < convert(initial, int256)) and roles != tables.ROLE_TARGET:
                tables.name_accounts(context)
                assert staticcall IBackstop(BACKSTOP).is_allowed(self._base(index, base), equity, initial, fresh, i, stored)
    self._add_interest(market, interest)
    if self.owed | self.remainder != 0:
        ledger.credit(ledger.INSURANCE_FUND, self._settle_funding())


@internal
def _add_interest(market: uint256, change: int256):
    if change != 0:
        tables.markets[market] = unsafe_add(tables.markets[market], units.bits(change) << tables.INTEREST)


@internal
def _due(word: uint256, s: uint256, paid: bool) -> int256:
    """
    @dev What a stored position owes: ceil(size * (cumulative - entry) / 1e12).
    """
    elapsed: int256 = unsafe_sub(units.signed(s, 128), units.signed(word >> 64, 128))
    exact: int256 = unsafe_mul(units.signed(word, 192), elapsed)
    due: int256 = units.ceil_div(exact, units.FUNDING_SCALE)
    if paid:
        self.owed = unsafe_add(self.owed, due)
        self.remainder = unsafe_add(self.remainder, unsafe_sub(unsafe_mul(due, units.FUNDING_SCALE), exact))
    return due


@internal
def _write_position(pair: uint256, word: uint256, size: int256, s: uint256, price: uint256) -> int256:
    """
    @dev Entry mark: on opening or flipping, from before the batch to after it, the mark; on growing the size-weighted average, rounded
         down; else unchanged.
    @return What open interest, counted on the long side, gains.
    """
    base: int256 = convert(convert(word << 192, bytes32), int256) >> 192
    entry_mark: uint256 = word >> 192
    mark: uint256 = price >> 32 & units.U32
    added: int256 = unsafe_sub(size, base)
    if base == 0 or (size != 0 and (size ^ base) < 0):
        if size != 0:
            entry_mark = mark
    elif (added ^ base) >= 0:
        # Both products have the sign of the size, so truncation is the floor. 2^62 lots at 2^32 ticks stay far below 2^255.
        weighted: int256 = unsafe_add(
            unsafe_mul(base, convert(convert(entry_mark, bytes32), int256)),
            unsafe_mul(added, convert(convert(mark, bytes32), int256)),
        )
        entry_mark = convert(convert(unsafe_div(weighted, size), bytes32), uint256)
    ledger.words[ledger.POSITIONS | pair & units.U38] = (
        convert(convert(size, bytes32), uint256) & units.U64 | (s & units.U128) << 64 | entry_mark << 192
    )
    # The larger of a number and zero, without a branch: its sign, spread over the word, clears it.
    return unsafe_sub(size & ((size >> 255) ^ -1), base & ((base >> 255) ^ -1))


@internal
def _settle_funding() -> int256:
    """
    @dev Pays into the pool what is not paid yet. Returns whole units of dust, the fund's.
    """
    if self.owed | self.remainder == 0:
        return 0
    whole: int256 = ledger.settle_funding(self.owed, self.remainder)
    self.owed = 0
    self.remainder = 0
    return whole


@internal
def _write_account(account: uint256, cost: int256, opened: uint256, named: uint256, roles: uint256) -> (int256, int256):
    """
    @dev Word A with the collateral and the count of open positions after the batch. Returns the collateral before and after.
    """
    a: uint256 = ledger.words[account]
    count: uint256 = a >> ledger.A_OPEN_POSITIONS & units.U8
    if count != named and roles != tables.ROLE_TARGET:
        reasons.fail(reasons.POSITIONS_NOT_NAMED)
    if unsafe_sub(unsafe_add(count, opened), named) > ledger.MAX_OPEN_MARKETS:
        reasons.fail(reasons.TOO_MANY_OPEN_MARKETS)
    before: int256 = convert(convert(a << 160, bytes32), int256) >> 160
    after: int256 = unsafe_sub(before, cost)
    if account == ledger.INSURANCE_FUND:
        after = unsafe_add(after, self._settle_funding())
    # One comparison bounds both ends: a number below the lower end wraps round to a huge unsigned one.
    if convert(convert(unsafe_add(after, units.MAX_COLLATERAL), bytes32), uint256) > 2**96 - 2:
        reasons.fail(reasons.COLLATERAL_OUT_OF_RANGE)
    ledger.words[account] = (
        unsafe_add(a, unsafe_sub(opened, named) << ledger.A_OPEN_POSITIONS) >> 96 << 96 | convert(convert(after, bytes32), uint256) & units.U96
    )
    return before, after


@view
@internal
def _base(index: uint256, collateral: int256) -> int256:
    """
    @dev Collateral before section 4, where something beside fills changed it since.
    """
    if tables.accounts[index] & tables.BASE_NOTED != 0:
        return tables.account_base[index]
    return collateral


@internal
def count_interest(market: uint256):
    """
    @dev Open interest after the batch: at most the market's cap, or no more than before.
    """
    change: int256 = convert(convert(tables.markets[market], bytes32), int256) >> tables.INTEREST
    if change == 0:
        return
    s: uint256 = ledger.words[ledger.MARKET_S | market]
    cap: uint256 = ledger.words[ledger.MARKET_P | market] >> ledger.P_OPEN_INTEREST_CAP & units.U64
    after: int256 = convert(s >> ledger.S_OPEN_INTEREST & units.U64, int256) + change
    if change > 0 and after > convert(cap, int256):
        reasons.fail(reasons.OPEN_INTEREST_ABOVE_CAP)
    ledger.words[ledger.MARKET_S | market] = unsafe_add(s, units.bits(change) << ledger.S_OPEN_INTEREST)
