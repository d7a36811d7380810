# pragma version 0.4.3
"""
@title fills
@license Apache-2.0
@notice Section 4 of a batch: order fills, book liquidations, take-overs and fills against the insurance fund, in order.
@dev Every fill has an active side (a taker row, or a liquidation target) and a passive side (a maker row, or the fund):
     orders: row, row; liquidation: target, row; take-over: target, fund; fund: row, fund.
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
        if kind != ORDERS:
            if kind == LIQUIDATION or kind == TAKEOVER:
                at = unsafe_add(at, 2)
                keeper = codec.word(at) & units.U16
            elif kind != FUND:
                units.fail("vault: fill kind reserved")
        else:
            first = second
            second = head >> 16 & units.U16
        at = unsafe_add(at, unsafe_add(width, 1))
        size: uint256 = codec.sized(at, width)
        if width > 7 or size == 0 or size > units.U62:
            units.fail("vault: fill size out of range")
        fees = unsafe_add(fees, self._fill(kind, first, second, size, keeper, context))
    if fees != 0:
        ledger.credit(ledger.FEE_ACCOUNT, fees)
    return at


@internal
def _fill(
    kind: uint256, first: uint256, second: uint256, size: uint256, keeper: uint256, context: uint256
) -> int256:
    """
    @dev One fill; `first` is the active side. Returns the fees that its rows pay.
    """
    active: uint256 = first
    passive: uint256 = second
    taker: uint256 = 0
    maker: uint256 = 0
    if kind & 3 == 0:
        taker = orders.row_at(first, context)
        active = taker >> 152 & units.U16
    if kind < TAKEOVER:
        maker = orders.row_at(second, context)
        passive = maker >> 152 & units.U16
    pair: uint256 = tables.pair_at(active, context)
    market: uint256 = pair & 63
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    prices: uint256 = tables.markets[market]
    price: uint256 = prices >> 32 & units.U32
    if kind < TAKEOVER:
        price = maker >> 48 & units.U32
        self._check_maker(maker, market, price, prices >> 32 & units.U32, p)
    elif tables.pair_at(passive, context) & units.U38 != ledger.INSURANCE_FUND << 6 | market:
        units.fail("vault: not the fund's pair")
    notional: int256 = self._notional(size, price, p)
    sells: bool = taker & orders.ROW_SELL != 0
    debit: int256 = 0
    passive_debit: int256 = 0
    taker_rate: int256 = 0
    if kind & 3 == 0:
        self._check_taker(taker, price)
        rates: uint256 = orders.rates_of(taker)
        taker_rate = convert(rates & units.U16, int256)
        self._check_fresh(kind, taker, maker, size, prices, p, context)
        debit = orders.use(first, taker, size, notional, taker_rate)
    else:
        sells, debit, passive_debit = self._close_target(kind, active, size, price, p, keeper, context)
    fees: int256 = 0
    if kind < TAKEOVER:
        if (maker & orders.ROW_SELL != 0) == sells:
            units.fail("vault: same side")
        rate: int256 = convert(convert(orders.rates_of(maker) << 224, bytes32), int256) >> 240
        if rate < -taker_rate:
            units.fail("vault: rebate above taker fee")
        passive_debit = orders.use(second, maker, size, notional, rate)
        fees = passive_debit
    if kind & 3 == 0:
        fees = unsafe_add(fees, debit)
        if kind == ORDERS and (maker ^ taker) & units.U32 == 0:
            tables.touch(pair >> 40 & units.U16, tables.ROLE_ORDER)
            ledger.credit(pair >> 6 & units.U32, -fees)
            return fees
    self._exchange(kind, active, passive, size, sells, notional, debit, passive_debit, prices, market)
    return fees


@internal
def _exchange(
    kind: uint256,
    active: uint256,
    passive: uint256,
    size: uint256,
    sells: bool,
    notional: int256,
    debit: int256,
    passive_debit: int256,
    prices: uint256,
    market: uint256,
):
    """
    @dev Moves the lots and their price between the two positions, and keeps open interest.
    """
    delta: int256 = convert(size, int256)
    cost: int256 = notional
    if sells:
        delta = unsafe_sub(0, delta)
        cost = unsafe_sub(0, cost)
    s: uint256 = ledger.words[ledger.MARKET_S | market]
    funding_index: int256 = convert(convert(s << 128, bytes32), int256) >> 128
    mark: uint256 = prices >> 32 & units.U32
    role: uint256 = tables.ROLE_ORDER
    if kind & 3 != 0:
        role = tables.ROLE_TARGET
    change: int256 = tables.trade(active, role, delta, unsafe_add(cost, debit), funding_index, mark)
    role = tables.ROLE_ORDER
    if kind >= TAKEOVER:
        role = tables.ROLE_FUND
        if kind == FUND:
            orders.check_shrinks(ledger.INSURANCE_FUND << 6 | market, not sells, size)
    change = unsafe_add(
        change,
        tables.trade(
            passive, role, unsafe_sub(0, delta), unsafe_sub(passive_debit, cost), funding_index, mark
        ),
    )
    if change != 0:
        # Longs equal shorts, so the long side counts; it stays below 2^64 since 2^62 lots bound each position.
        ledger.words[ledger.MARKET_S | market] = unsafe_add(s, units.bits(change) << ledger.S_OPEN_INTEREST)


@view
@internal
def _check_fresh(
    kind: uint256, taker: uint256, maker: uint256, size: uint256, prices: uint256, p: uint256, context: uint256
):
    """
    @dev A stale price passes only an order fill in which both parties reduce.
    """
    if unsafe_add(prices >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < context & units.U40:
        if kind != ORDERS:
            units.fail("vault: stale price")
        orders.check_shrinks(taker << 6 & units.U38 | taker >> 246, taker & orders.ROW_SELL != 0, size)
        orders.check_shrinks(maker << 6 & units.U38 | maker >> 246, maker & orders.ROW_SELL != 0, size)


@pure
@internal
def _check_maker(maker: uint256, market: uint256, price: uint256, mark: uint256, p: uint256):
    if maker >> 246 != market:
        units.fail("vault: markets differ")
    if maker & orders.ROW_NEVER_RESTS != 0 or maker >> 128 & units.U16 == 0:
        units.fail("vault: order never makes")
    distance: uint256 = unsafe_sub(max(price, mark), min(price, mark))
    if unsafe_mul(distance, units.PPM) > unsafe_mul(mark, p >> ledger.P_PRICE_BAND & units.U24):
        units.fail("vault: price outside band")


@pure
@internal
def _check_taker(taker: uint256, price: uint256):
    limit: uint256 = taker >> 48 & units.U32
    if taker & orders.ROW_POST_ONLY != 0:
        units.fail("vault: post-only would take")
    if taker & orders.ROW_SELL == 0:
        if price <= limit:
            return
    elif price >= limit:
        return
    units.fail("vault: price beyond limit")


@pure
@internal
def _notional(size: uint256, price: uint256, p: uint256) -> int256:
    notional: uint256 = unsafe_mul(size, unsafe_mul(price, p & units.U32))
    if notional > units.MAX_NOTIONAL:
        units.fail("vault: notional too large")
    return convert(convert(notional, bytes32), int256)


@internal
def _close_target(
    kind: uint256, index: uint256, size: uint256, price: uint256, p: uint256, keeper: uint256, context: uint256
) -> (bool, int256, int256):
    """
    @dev Checks that the target may be closed and at what loss against the mark; pays the liquidation fee.
    @return Whether the target sells, what it pays beside the price, and what a fund that takes over pays (negative: receives).
    """
    pair: uint256 = tables.pairs[index]
    account: uint256 = pair >> 6 & units.U32
    market: uint256 = pair & 63
    if account < ledger.FIRST_USER_ACCOUNT:
        units.fail("vault: reserved account")
    sum: tables.Margin = tables.margin(pair >> 40 & units.U16, context & units.U40, False)
    if not sum.fresh:
        units.fail("vault: stale price")
    position: int256 = units.signed(ledger.words[ledger.POSITIONS | pair & units.U38], 192)
    size_abs: uint256 = convert(abs(position), uint256)
    if size_abs < size:
        units.fail("vault: larger than the position")
    mark: uint256 = tables.markets[market] >> 32 & units.U32
    initial: uint256 = ledger.initial_margin(
        market, p >> ledger.P_THIRD_TIER & units.U32, unsafe_mul(size_abs, mark * (p & units.U32))
    )
    maintenance: int256 = convert(sum.maintenance, int256)
    position_maintenance: int256 = convert((initial + 1) >> 1, int256)
    bound: int256 = liquidation.loss_bound(
        sum.equity, maintenance, position_maintenance, convert(size, int256), abs(position)
    )
    loss: int256 = bound
    room: int256 = bound
    notional: int256 = self._notional(size, price, p)
    if kind == LIQUIDATION:
        if sum.equity < 0 or sum.equity >= maintenance:
            units.fail("vault: not liquidatable on book")
        loss = self._notional(size, mark, p) - notional
        if position < 0:
            loss = -loss
        if loss > liquidation.book_loss_bound(bound, position_maintenance, convert(size, int256), abs(position)):
            units.fail("vault: loss above bound")
        room = bound - max(loss, 0)
    elif sum.equity * 3 >= maintenance * 2:
        units.fail("vault: not below two thirds")
    fee: int256 = liquidation.liquidation_fee(
        notional, convert(p >> ledger.P_LIQUIDATION_FEE & units.U16, int256), room
    )
    share: int256 = 0
    if keeper != NO_INDEX:
        share = fee >> 1
        tables.reward(keeper, context, share)
    log IMarginVault.Liquidated(
        account=account, market=market, size=size, loss=loss, fee=convert(fee, uint256), kind=kind
    )
    if kind == LIQUIDATION:
        ledger.credit(ledger.INSURANCE_FUND, fee - share)
        return position > 0, fee, 0
    self._check_fund_cap(market, position > 0, size, p)
    return position > 0, loss, share - loss


@view
@internal
def _check_fund_cap(market: uint256, buys: bool, size: uint256, p: uint256):
    """
    @dev The fund's position after a take-over stays within the market's cap.
    """
    held: int256 = units.signed(ledger.words[ledger.POSITIONS | ledger.INSURANCE_FUND << 6 | market], 192)
    if not buys:
        held = -held
    if convert(abs(held + convert(size, int256)), uint256) > p >> ledger.P_FUND_CAP & units.U64:
        units.fail("vault: fund position above cap")
