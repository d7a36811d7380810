# pragma version 0.4.3
"""
@title fills
@license Apache-2.0
@notice Section 4 of a batch: order fills, book liquidations, take-overs and fills against the insurance fund, in order.
"""

from . import codec
from . import ledger
from . import liquidation
from . import orders
from . import tables
from . import units
from ..interfaces import IMarginVault

uses: ledger
uses: orders
uses: tables

ORDERS: constant(uint256) = 0
LIQUIDATION: constant(uint256) = 1
TAKEOVER: constant(uint256) = 2
FUND: constant(uint256) = 4
NO_INDEX: constant(uint256) = 65535
MAX_FILLS: constant(uint256) = 2048


@internal
def apply(start: uint256, count: uint256, context: uint256) -> uint256:
    """
    @dev Applies all fills and pays the fees of all rows to the fee account.
    @return Where the section ends.
    """
    at: uint256 = start
    fees: int256 = 0
    for i: uint256 in range(count, bound=MAX_FILLS):
        at = unsafe_add(at, 5)
        head: uint256 = codec.word(at)
        kind: uint256 = head >> 32 & 15
        width: uint256 = head >> 36 & 15
        first: uint256 = head >> 16 & units.U16
        second: uint256 = head & units.U16
        keeper: uint256 = NO_INDEX
        if kind == LIQUIDATION or kind == TAKEOVER:
            at = unsafe_add(at, 2)
            keeper = codec.word(at) & units.U16
        if width > 7:
            units.fail("vault: fill too wide")
        at = unsafe_add(at, unsafe_add(width, 1))
        size: uint256 = codec.sized(at, width)
        if size == 0 or size > units.U62:
            units.fail("vault: fill size out of range")
        if kind == ORDERS:
            fees += self._orders(first, second, size, context)
        elif kind == LIQUIDATION:
            fees += self._liquidation(first, second, size, keeper, context)
        elif kind == TAKEOVER:
            self._takeover(first, second, size, keeper, context)
        elif kind == FUND:
            fees += self._fund(first, second, size, context)
        else:
            units.fail("vault: fill kind reserved")
    if fees != 0:
        ledger.credit(ledger.FEE_ACCOUNT, fees)
    return at


@view
@internal
def _is_fresh(market: uint256, price: uint256, p: uint256, context: uint256) -> bool:
    return unsafe_add(price >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) >= context & units.U40


@pure
@internal
def _check_band(price: uint256, mark: uint256, p: uint256):
    distance: uint256 = unsafe_sub(max(price, mark), min(price, mark))
    if unsafe_mul(distance, units.PPM) > unsafe_mul(mark, p >> ledger.P_PRICE_BAND & units.U24):
        units.fail("vault: price outside band")


@pure
@internal
def _notional(size: uint256, price: uint256, p: uint256) -> int256:
    notional: uint256 = unsafe_mul(size, unsafe_mul(price, p & units.U32))
    if notional > units.MAX_NOTIONAL:
        units.fail("vault: notional too large")
    return convert(notional, int256)


@pure
@internal
def _check_taker(row: uint256, price: uint256):
    limit: uint256 = row >> 64 & units.U32
    if row & orders.ROW_POST_ONLY != 0:
        units.fail("vault: post-only would take")
    if row & orders.ROW_TAKER_FEE_HIGH != 0:
        units.fail("vault: fee above signed maximum")
    if (price > limit and row & orders.ROW_SELL == 0) or (price < limit and row & orders.ROW_SELL != 0):
        units.fail("vault: price beyond limit")


@pure
@internal
def _maker_rate(row: uint256, taker_rate: int256) -> int256:
    """
    @dev The maker's rate; a rebate comes out of the taker's fee, so it is at most that.
    """
    if row & orders.ROW_NEVER_MAKER != 0:
        units.fail("vault: order never makes")
    if row & orders.ROW_MAKER_FEE_HIGH != 0:
        units.fail("vault: fee above signed maximum")
    rate: int256 = convert(convert(row << 24, bytes32), int256) >> 240
    if rate < -taker_rate:
        units.fail("vault: rebate above taker fee")
    return rate


@internal
def _add_open_interest(market: uint256, s: uint256, change: int256):
    """
    @dev Longs equal shorts, so open interest is counted on the long side.
    """
    if change != 0:
        open_interest: int256 = convert(s >> ledger.S_OPEN_INTEREST & units.U64, int256) + change
        if open_interest < 0 or open_interest > convert(units.U64, int256):
            units.fail("vault: open interest too large")
        ledger.markets_s[market] = s & ~(units.U64 << 128) | convert(open_interest, uint256) << 128


@internal
def _orders(first: uint256, second: uint256, size: uint256, context: uint256) -> int256:
    """
    @dev A maker row against a taker row at the maker's limit price.
    """
    maker: uint256 = orders.row_at(first, context)
    taker: uint256 = orders.row_at(second, context)
    market: uint256 = maker >> 112 & units.U8
    if market != taker >> 112 & units.U8:
        units.fail("vault: markets differ")
    if (maker ^ taker) & orders.ROW_SELL == 0:
        units.fail("vault: same side")
    price: uint256 = maker >> 64 & units.U32
    p: uint256 = ledger.markets_p[market]
    prices: uint256 = tables.markets[market]
    mark: uint256 = prices >> 32 & units.U32
    self._check_band(price, mark, p)
    self._check_taker(taker, price)
    taker_rate: int256 = convert(taker >> 232 & units.U16, int256)
    maker_rate: int256 = self._maker_rate(maker, taker_rate)
    if not self._is_fresh(market, prices, p, context):
        orders.check_shrinks(maker, size)
        orders.check_shrinks(taker, size)
    notional: int256 = self._notional(size, price, p)
    maker_fee: int256 = orders.use(first, maker, size, notional, maker_rate)
    taker_fee: int256 = orders.use(second, taker, size, notional, taker_rate)
    fees: int256 = unsafe_add(maker_fee, taker_fee)
    account: uint256 = maker >> 120 & units.U32
    if account == taker >> 120 & units.U32:
        tables.touch(tables.pairs[maker >> 96 & units.U16] >> 40 & units.U16, tables.ROLE_ORDER)
        ledger.credit(account, -fees)
        return fees
    delta: int256 = convert(size, int256)
    if maker & orders.ROW_SELL != 0:
        delta = -delta
        notional = -notional
    s: uint256 = ledger.markets_s[market]
    funding_index: int256 = convert(convert(s << 128, bytes32), int256) >> 128
    change: int256 = tables.trade(
        maker >> 96 & units.U16, tables.ROLE_ORDER, delta, notional + maker_fee, funding_index, mark
    )
    change += tables.trade(
        taker >> 96 & units.U16, tables.ROLE_ORDER, -delta, taker_fee - notional, funding_index, mark
    )
    self._add_open_interest(market, s, change)
    return fees


@view
@internal
def _target(index: uint256, size: uint256, context: uint256) -> (uint256, int256, tables.Margin, int256):
    """
    @dev What a liquidation needs to know of its target: the pair, its position, the account's margin, the position's maintenance.
    """
    pair: uint256 = tables.pair_at(index, context)
    account: uint256 = pair & units.U32
    market: uint256 = pair >> 32 & units.U8
    if account < ledger.FIRST_USER_ACCOUNT:
        units.fail("vault: reserved account")
    sum: tables.Margin = tables.margin(pair >> 40 & units.U16, context & units.U40, False)
    if not sum.fresh:
        units.fail("vault: stale price")
    position: int256 = units.signed(ledger.positions[account << 6 | market], 192)
    if convert(abs(position), uint256) < size:
        units.fail("vault: larger than the position")
    p: uint256 = ledger.markets_p[market]
    notional: int256 = self._notional(convert(abs(position), uint256), tables.markets[market] >> 32 & units.U32, p)
    initial: uint256 = ledger.initial_margin(
        market, p >> ledger.P_THIRD_TIER & units.U32, convert(notional, uint256)
    )
    return pair, position, sum, convert((initial + 1) >> 1, int256)


@internal
def _liquidation(first: uint256, second: uint256, size: uint256, keeper: uint256, context: uint256) -> int256:
    """
    @dev Closes part of a position below maintenance against a maker row, losing at most the book's bound against the mark.
    """
    pair: uint256 = 0
    position: int256 = 0
    sum: tables.Margin = empty(tables.Margin)
    position_maintenance: int256 = 0
    pair, position, sum, position_maintenance = self._target(first, size, context)
    if sum.equity < 0 or sum.equity >= convert(sum.maintenance, int256):
        units.fail("vault: not liquidatable on book")
    maker: uint256 = orders.row_at(second, context)
    market: uint256 = pair >> 32 & units.U8
    if maker >> 112 & units.U8 != market:
        units.fail("vault: markets differ")
    # The maker takes the position over, so it buys from a long and sells to a short.
    if (position < 0) != (maker & orders.ROW_SELL != 0):
        units.fail("vault: same side")
    price: uint256 = maker >> 64 & units.U32
    p: uint256 = ledger.markets_p[market]
    mark: uint256 = tables.markets[market] >> 32 & units.U32
    self._check_band(price, mark, p)
    rate: int256 = self._maker_rate(maker, 0)
    notional: int256 = self._notional(size, price, p)
    loss: int256 = self._notional(size, mark, p) - notional
    delta: int256 = convert(size, int256)
    maker_fee: int256 = orders.use(second, maker, size, notional, rate)
    bound: int256 = liquidation.loss_bound(
        sum.equity, convert(sum.maintenance, int256), position_maintenance, delta, abs(position)
    )
    debit: int256 = notional
    if position < 0:
        loss = -loss
        delta = -delta
        debit = -notional
    if loss > liquidation.book_loss_bound(bound, position_maintenance, abs(delta), abs(position)):
        units.fail("vault: loss above bound")
    fee: int256 = liquidation.liquidation_fee(
        notional, convert(p >> ledger.P_LIQUIDATION_FEE & units.U16, int256), bound - max(loss, 0)
    )
    s: uint256 = ledger.markets_s[market]
    funding_index: int256 = units.signed(s, 128)
    change: int256 = tables.trade(first, tables.ROLE_TARGET, -delta, fee - debit, funding_index, mark)
    change += tables.trade(
        maker >> 96 & units.U16, tables.ROLE_ORDER, delta, debit + maker_fee, funding_index, mark
    )
    self._add_open_interest(market, s, change)
    ledger.credit(ledger.INSURANCE_FUND, fee - self._reward(keeper, context, fee))
    log IMarginVault.Liquidated(
        account=pair & units.U32, market=market, size=size, loss=loss, fee=convert(fee, uint256), kind=LIQUIDATION
    )
    return maker_fee


@internal
def _reward(keeper: uint256, context: uint256, fee: int256) -> int256:
    """
    @dev Pays the keeper's half of a liquidation fee, rounded down, when a keeper is named.
    """
    if keeper == NO_INDEX:
        return 0
    tables.reward(keeper, context, fee >> 1)
    return fee >> 1


@internal
def _takeover(first: uint256, second: uint256, size: uint256, keeper: uint256, context: uint256):
    """
    @dev The insurance fund takes lots over at the mark and receives the loss bound, or pays its magnitude when negative.
    """
    pair: uint256 = 0
    position: int256 = 0
    sum: tables.Margin = empty(tables.Margin)
    position_maintenance: int256 = 0
    pair, position, sum, position_maintenance = self._target(first, size, context)
    if sum.equity * 3 >= convert(sum.maintenance * 2, int256):
        units.fail("vault: not below two thirds")
    market: uint256 = pair >> 32 & units.U8
    fund: uint256 = tables.pair_at(second, context)
    if fund & (units.U32 | units.U8 << 32) != ledger.INSURANCE_FUND | market << 32:
        units.fail("vault: not the fund's pair")
    p: uint256 = ledger.markets_p[market]
    mark: uint256 = tables.markets[market] >> 32 & units.U32
    notional: int256 = self._notional(size, mark, p)
    delta: int256 = convert(size, int256)
    loss: int256 = liquidation.loss_bound(
        sum.equity, convert(sum.maintenance, int256), position_maintenance, delta, abs(position)
    )
    fee: int256 = liquidation.liquidation_fee(
        notional, convert(p >> ledger.P_LIQUIDATION_FEE & units.U16, int256), loss
    )
    debit: int256 = notional
    if position < 0:
        delta = -delta
        debit = -notional
    s: uint256 = ledger.markets_s[market]
    funding_index: int256 = units.signed(s, 128)
    received: int256 = loss - self._reward(keeper, context, fee)
    change: int256 = tables.trade(first, tables.ROLE_TARGET, -delta, loss - debit, funding_index, mark)
    change += tables.trade(second, tables.ROLE_FUND, delta, debit - received, funding_index, mark)
    self._add_open_interest(market, s, change)
    held: int256 = units.signed(ledger.positions[ledger.INSURANCE_FUND << 6 | market], 192)
    if convert(abs(held), uint256) > p >> ledger.P_FUND_CAP & units.U64:
        units.fail("vault: fund position above cap")
    log IMarginVault.Liquidated(
        account=pair & units.U32, market=market, size=size, loss=loss, fee=convert(fee, uint256), kind=TAKEOVER
    )


@internal
def _fund(first: uint256, second: uint256, size: uint256, context: uint256) -> int256:
    """
    @dev A taker row against the insurance fund's position, at the mark; that position shrinks.
    """
    taker: uint256 = orders.row_at(first, context)
    market: uint256 = taker >> 112 & units.U8
    if tables.pair_at(second, context) & (units.U32 | units.U8 << 32) != ledger.INSURANCE_FUND | market << 32:
        units.fail("vault: not the fund's pair")
    p: uint256 = ledger.markets_p[market]
    prices: uint256 = tables.markets[market]
    mark: uint256 = prices >> 32 & units.U32
    if not self._is_fresh(market, prices, p, context):
        units.fail("vault: stale price")
    self._check_taker(taker, mark)
    held: int256 = units.signed(ledger.positions[ledger.INSURANCE_FUND << 6 | market], 192)
    delta: int256 = convert(size, int256)
    notional: int256 = self._notional(size, mark, p)
    fee: int256 = orders.use(first, taker, size, notional, convert(taker >> 232 & units.U16, int256))
    if taker & orders.ROW_SELL != 0:
        delta = -delta
        held = -held
        notional = -notional
    if held < abs(delta):
        units.fail("vault: fund does not shrink")
    s: uint256 = ledger.markets_s[market]
    funding_index: int256 = units.signed(s, 128)
    change: int256 = tables.trade(
        taker >> 96 & units.U16, tables.ROLE_ORDER, delta, notional + fee, funding_index, mark
    )
    change += tables.trade(second, tables.ROLE_FUND, -delta, -notional, funding_index, mark)
    self._add_open_interest(market, s, change)
    return fee
