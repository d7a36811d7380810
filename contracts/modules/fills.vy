# pragma version 0.4.3
"""
@title fills
@license Apache-2.0
@notice Section 4 of a batch: order fills, liquidations, take-overs, deleveraging and fills against the insurance fund, in order.
@dev Every fill has an active side (a taker row, or a liquidation target) and a passive side (a maker row, the fund, or a counterparty):
     orders: row, row; liquidation: target, row; take-over: target, fund; deleveraging: target, counterparty; fund: row, fund.
"""

from . import codec
from . import ledger
from . import orders
from . import tables
from . import reasons
from . import units

uses: ledger
uses: reasons
uses: orders
uses: tables

interface IBackstop:
    def close_target(
        kind: uint256,
        pair: uint256,
        passive: uint256,
        size: uint256,
        price: uint256,
        keeper: uint256,
        has_keeper: bool,
    ) -> (bool, int256, int256): nonpayable


ORDERS: constant(uint256) = 0
LIQUIDATION: constant(uint256) = 1
TAKEOVER: constant(uint256) = 2
DELEVERAGING: constant(uint256) = 3
FUND: constant(uint256) = 4
NO_INDEX: constant(uint256) = 65535
MAX_FILLS: constant(uint256) = 2048

BACKSTOP: immutable(address)


@deploy
def __init__(backstop: address):
    BACKSTOP = backstop


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
        head: uint256 = convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256)
        kind: uint256 = head >> 32 & 15
        width: uint256 = head >> 36 & 15
        first: uint256 = head >> 16 & units.U16
        second: uint256 = head & units.U16
        keeper: uint256 = NO_INDEX
        if kind != ORDERS:
            if kind == LIQUIDATION or kind == TAKEOVER:
                at = unsafe_add(at, 2)
                keeper = codec.word(at) & units.U16
            elif kind != FUND and kind != DELEVERAGING:
                reasons.fail(reasons.FILL_KIND_RESERVED)
        else:
            first = second
            second = head >> 16 & units.U16
        at = unsafe_add(at, unsafe_add(width, 1))
        size: uint256 = convert(slice(msg.data, unsafe_sub(at, 32), 32), uint256) << (unsafe_sub(31, width) << 3) >> (
            unsafe_sub(31, width) << 3
        )
        if width > 7 or size == 0 or size > units.U62:
            reasons.fail(reasons.FILL_SIZE_OUT_OF_RANGE)
        if kind == ORDERS:
            fees = unsafe_add(fees, self._orders(first, second, size, context))
        else:
            fees = unsafe_add(fees, self._close_out(kind, first, second, size, keeper, context))
    if fees != 0:
        ledger.credit(ledger.FEE_ACCOUNT, fees)
    return at


@internal
def _orders(first: uint256, second: uint256, size: uint256, context: uint256) -> int256:
    """
    @dev A taker row against a maker row, at the maker's limit. Returns the fees of both.
    """
    if max(first, second) >= context >> 120 & units.U16:
        reasons.fail(reasons.NO_SUCH_ORDER_ROW)
    taker: uint256 = orders.rows[first]
    maker: uint256 = orders.rows[second]
    market: uint256 = taker >> 246
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    prices: uint256 = tables.markets[market]
    mark: uint256 = prices >> 32 & units.U32
    price: uint256 = maker >> 48 & units.U32
    self._check_maker(maker, market, price, mark, p)
    self._check_taker(taker, price)
    if (taker ^ maker) & orders.ROW_SELL == 0:
        reasons.fail(reasons.SAME_SIDE)
    if unsafe_add(prices >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < context & units.U40:
        # A stale price passes only a fill in which both parties reduce.
        orders.check_shrinks(taker << 6 & units.U38 | market, taker & orders.ROW_SELL != 0, size)
        orders.check_shrinks(maker << 6 & units.U38 | market, maker & orders.ROW_SELL != 0, size)
    notional: int256 = self._notional(size, price, p)
    rates: uint256 = orders.rates_of(taker)
    taker_rate: int256 = convert(convert(rates & units.U16, bytes32), int256)
    if (taker ^ maker) >> 144 & units.U8 != 0:
        rates = orders.rates_of(maker)
    maker_rate: int256 = convert(convert(rates << 224, bytes32), int256) >> 240
    if unsafe_add(maker_rate, taker_rate) < 0:
        reasons.fail(reasons.REBATE_ABOVE_TAKER_FEE)
    taker_fee: int256 = orders.use(first, taker, size, notional, taker_rate)
    maker_fee: int256 = orders.use(second, maker, size, notional, maker_rate)
    fees: int256 = unsafe_add(taker_fee, maker_fee)
    if (maker ^ taker) & units.U32 == 0:
        tables.touch(tables.pairs[taker >> 152 & units.U16] >> 40 & units.U16, tables.ROLE_ORDER)
        ledger.credit(taker & units.U32, unsafe_sub(0, fees))
        return fees
    delta: int256 = convert(convert(size, bytes32), int256)
    if taker & orders.ROW_SELL != 0:
        delta = unsafe_sub(0, delta)
        notional = unsafe_sub(0, notional)
    s: uint256 = ledger.words[ledger.MARKET_S | market]
    index: int256 = convert(convert(s << 128, bytes32), int256) >> 128
    change: int256 = tables.trade(
        taker >> 152 & units.U16, tables.ROLE_ORDER, delta, unsafe_add(taker_fee, notional), index, mark
    )
    change = unsafe_add(
        change,
        tables.trade(
            maker >> 152 & units.U16,
            tables.ROLE_ORDER,
            unsafe_sub(0, delta),
            unsafe_sub(maker_fee, notional),
            index,
            mark,
        ),
    )
    if change != 0:
        # Longs equal shorts, so the long side counts; position and notional bounds keep it below 2^64.
        ledger.words[ledger.MARKET_S | market] = unsafe_add(s, units.bits(change) << ledger.S_OPEN_INTEREST)
    return fees


@internal
def _close_out(
    kind: uint256, first: uint256, second: uint256, size: uint256, keeper: uint256, context: uint256
) -> int256:
    """
    @dev A target against a maker row or the fund, or a taker row against the fund. Returns the fees that a row pays.
    """
    active: uint256 = first
    passive: uint256 = second
    taker: uint256 = 0
    maker: uint256 = 0
    if kind == FUND:
        taker = orders.row_at(first, context)
        active = taker >> 152 & units.U16
    elif kind == LIQUIDATION:
        maker = orders.row_at(second, context)
        passive = maker >> 152 & units.U16
    pair: uint256 = tables.pair_at(active, context)
    market: uint256 = pair & 63
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    prices: uint256 = tables.markets[market]
    price: uint256 = prices >> 32 & units.U32
    if kind == LIQUIDATION:
        price = maker >> 48 & units.U32
        self._check_maker(maker, market, price, prices >> 32 & units.U32, p)
    elif kind != DELEVERAGING and tables.pair_at(passive, context) & units.U38 != ledger.INSURANCE_FUND << 6 | market:
        reasons.fail(reasons.NOT_THE_FUNDS_PAIR)
    notional: int256 = self._notional(size, price, p)
    sells: bool = taker & orders.ROW_SELL != 0
    debit: int256 = 0
    passive_debit: int256 = 0
    fees: int256 = 0
    if kind == FUND:
        self._check_taker(taker, price)
        if unsafe_add(prices >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < context & units.U40:
            reasons.fail(reasons.STALE_PRICE)
        orders.check_shrinks(ledger.INSURANCE_FUND << 6 | market, not sells, size)
        debit = orders.use(first, taker, size, notional, convert(orders.rates_of(taker) & units.U16, int256))
        fees = debit
    else:
        sells, debit, passive_debit = self._close_target(kind, pair, passive, size, price, keeper, context)
    if kind == LIQUIDATION:
        if (maker & orders.ROW_SELL != 0) == sells:
            reasons.fail(reasons.SAME_SIDE)
        rate: int256 = convert(convert(orders.rates_of(maker) << 224, bytes32), int256) >> 240
        if rate < 0:
            reasons.fail(reasons.REBATE_ABOVE_TAKER_FEE)
        passive_debit = orders.use(second, maker, size, notional, rate)
        fees = passive_debit
    self._exchange(kind, active, passive, size, sells, notional, debit, passive_debit, prices, market)
    return fees


@internal
def _close_target(
    kind: uint256, pair: uint256, passive: uint256, size: uint256, price: uint256, keeper: uint256, context: uint256
) -> (bool, int256, int256):
    """
    @dev The backstop's to decide: whether the target may be closed and at what loss, and the liquidation fee, which it also pays.
    @return Whether the target sells, what it pays beside the price, and what a fund that takes over pays (negative: receives).
    """
    counterparty: uint256 = 0
    if kind == DELEVERAGING:
        counterparty = tables.pair_at(passive, context)
        # The backstop asks what the fund could still take; accounts ascend, so it comes first.
        if tables.accounts[0] & units.U32 != ledger.INSURANCE_FUND:
            reasons.fail(reasons.POSITIONS_NOT_NAMED)
    keeper_account: uint256 = 0
    if keeper != NO_INDEX:
        keeper_account = tables.account_at(keeper, context) & units.U32
        tables.touch(keeper, 0)
    tables.now = context & units.U40
    return extcall IBackstop(BACKSTOP).close_target(
        kind, pair, counterparty, size, price, keeper_account, keeper != NO_INDEX
    )


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
    if kind != FUND:
        role = tables.ROLE_TARGET
    change: int256 = tables.trade(active, role, delta, unsafe_add(cost, debit), funding_index, mark)
    role = tables.ROLE_ORDER
    if kind == DELEVERAGING:
        role = tables.ROLE_TARGET
    elif kind >= TAKEOVER:
        role = tables.ROLE_FUND
    change = unsafe_add(
        change,
        tables.trade(
            passive, role, unsafe_sub(0, delta), unsafe_sub(passive_debit, cost), funding_index, mark
        ),
    )
    if change != 0:
        ledger.words[ledger.MARKET_S | market] = unsafe_add(s, units.bits(change) << ledger.S_OPEN_INTEREST)


@view
@internal
def _check_maker(maker: uint256, market: uint256, price: uint256, mark: uint256, p: uint256):
    if maker >> 246 != market:
        reasons.fail(reasons.MARKETS_DIFFER)
    if maker & orders.ROW_NEVER_RESTS != 0 or maker >> 128 & units.U16 == 0:
        reasons.fail(reasons.ORDER_NEVER_MAKES)
    distance: uint256 = unsafe_sub(max(price, mark), min(price, mark))
    if unsafe_mul(distance, units.PPM) > unsafe_mul(mark, p >> ledger.P_PRICE_BAND & units.U24):
        reasons.fail(reasons.PRICE_OUTSIDE_BAND)


@view
@internal
def _check_taker(taker: uint256, price: uint256):
    limit: uint256 = taker >> 48 & units.U32
    if taker & orders.ROW_POST_ONLY != 0:
        reasons.fail(reasons.POST_ONLY_WOULD_TAKE)
    if taker & orders.ROW_SELL == 0:
        if price <= limit:
            return
    elif price >= limit:
        return
    reasons.fail(reasons.PRICE_BEYOND_LIMIT)


@view
@internal
def _notional(size: uint256, price: uint256, p: uint256) -> int256:
    notional: uint256 = unsafe_mul(size, unsafe_mul(price, p & units.U32))
    if notional > units.MAX_NOTIONAL:
        reasons.fail(reasons.NOTIONAL_TOO_LARGE)
    return convert(convert(notional, bytes32), int256)
