# pragma version 0.4.3
"""
@title fills
@license Apache-2.0
@notice Section 4 of a batch: order fills, liquidations, take-overs, deleveraging and fills against the insurance fund, in order.
@dev Every fill has an active side (a taker row, or a liquidation target) and a passive side (a maker row, the fund, or a counterparty):
     orders: row, row; liquidation: target, row; take-over: target, fund; deleveraging: target, counterparty; fund: row, fund; forced
     close: target, row, or target, fund or counterparty.
     Fills move running positions in the pair table; storage follows in `closing`.
"""

from . import closing
from . import codec
from . import ledger
from . import orders
from . import tables
from . import reasons
from . import units

uses: closing
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
FORCED_ON_BOOK: constant(uint256) = 5
CASH: constant(uint256) = 7
NO_INDEX: constant(uint256) = 65535
MAX_FILLS: constant(uint256) = 2048

# A market as order fills need it, in one word: lot_tick_value u32, the lowest price in its band u32 at 32, the band's width in ticks u32
# at 64, market id u8 at 96, and at 104 whether both parties must reduce.
BAND_LOW: constant(uint256) = 32
BAND_WIDTH: constant(uint256) = 64
MARKET_ID: constant(uint256) = 96
REDUCING: constant(uint256) = 1 << 104
NO_MARKET: constant(uint256) = 64 << 96

# Bit offsets in the word of calldata that begins with a fill.
WIDTH: constant(uint256) = 252  # bytes of the size less 1, u4
KIND: constant(uint256) = 248
FIRST: constant(uint256) = 232
SECOND: constant(uint256) = 216


@internal
def apply(start: uint256, count: uint256, context: uint256) -> (uint256, int256):
    """
    @dev Applies all fills. Returns where the section ends, and the fees of all rows.
    """
    at: uint256 = start
    fees: int256 = 0
    market: uint256 = NO_MARKET
    fee_class: uint256 = 256
    last_row: uint256 = unsafe_sub(context >> 120 & units.U16, 1)
    rates: uint256 = 0
    for i: uint256 in range(count, bound=MAX_FILLS):
        fill: uint256 = 0
        if unsafe_add(at, 32) > len(msg.data):
            fill = self._last_bytes(at)
        else:
            fill = convert(slice(msg.data, at, 32), uint256)
        width: uint256 = fill >> WIDTH
        if fill >> KIND & 15 != ORDERS:
            fee: int256 = 0
            at, fee = self._other(at, fill, context)
            fees = unsafe_add(fees, fee)
            continue
        size: uint256 = fill << 40 >> unsafe_sub(248, width << 3)
        at = unsafe_add(at, unsafe_add(6, width))
        first: uint256 = fill >> FIRST & units.U16
        second: uint256 = fill >> SECOND & units.U16
        if unsafe_sub(size, 1) | fill >> 255 << 255 >= units.U62:
            reasons.fail(reasons.FILL_SIZE_OUT_OF_RANGE)
        if (unsafe_sub(last_row, first) | unsafe_sub(last_row, second)) >> 255 != 0:
            reasons.fail(reasons.NO_SUCH_ORDER_ROW)
        maker: uint256 = orders.rows[first]
        taker: uint256 = orders.rows[second]
        making: uint256 = convert(slice(msg.data, maker >> orders.ROW_AT & units.U16, 32), uint256)
        taking: uint256 = convert(slice(msg.data, taker >> orders.ROW_AT & units.U16, 32), uint256)
        maker_pair: uint256 = tables.pairs[making >> orders.PAIR & units.U16]
        taker_pair: uint256 = tables.pairs[taking >> orders.PAIR & units.U16]
        if (maker_pair ^ taker_pair) & 63 != 0:
            reasons.fail(reasons.MARKETS_DIFFER)
        if maker_pair & 63 != market >> MARKET_ID & units.U8:
            market = self._market(maker_pair & 63, context)
        price: uint256 = making >> orders.LIMIT_PRICE & units.U32
        if (making >> 242 | taking >> 243 | ~((making ^ taking) >> 240)) & 1 != 0 or making >> orders.SLOT & units.U16 == 0:
            self._refuse(making, taking)
        if unsafe_sub(price, market >> BAND_LOW & units.U32) > market >> BAND_WIDTH & units.U32:
            reasons.fail(reasons.PRICE_OUTSIDE_BAND)
        limit: uint256 = taking >> orders.LIMIT_PRICE & units.U32
        if price != limit and (price < limit) == (taking & orders.SELL != 0):
            reasons.fail(reasons.PRICE_BEYOND_LIMIT)
        if market & REDUCING != 0:
            orders.check_shrinks(maker_pair, making & orders.SELL != 0, size)
            orders.check_shrinks(taker_pair, taking & orders.SELL != 0, size)
        notional: uint256 = unsafe_mul(size, unsafe_mul(price, market & units.U32))
        if notional > units.MAX_NOTIONAL:
            reasons.fail(reasons.NOTIONAL_TOO_LARGE)
        if taking >> orders.FEE_CLASS & units.U8 != fee_class:
            fee_class = taking >> orders.FEE_CLASS & units.U8
            rates = orders.rates_of(fee_class)
        maker_rate: int256 = convert(convert(rates << 224, bytes32), int256) >> 240
        if making >> orders.FEE_CLASS & units.U8 != fee_class:
            maker_rate = units.signed(orders.rates_of(making >> orders.FEE_CLASS & units.U8) >> 16, 240)
        rate: int256 = convert(convert(rates & units.U16, bytes32), int256)
        if unsafe_add(maker_rate, rate) < 0:
            reasons.fail(reasons.REBATE_ABOVE_TAKER_FEE)
        cost: int256 = convert(convert(notional, bytes32), int256)
        taker_fee: int256 = orders.use(second, taker, taking, taker_pair, size, cost, rate)
        maker_fee: int256 = orders.use(first, maker, making, maker_pair, size, cost, maker_rate)
        fees = unsafe_add(fees, unsafe_add(taker_fee, maker_fee))
        # Lots and their price, added to the buyer's running position and subtracted from the seller's; each pays its fee.
        lots: uint256 = unsafe_add(size << tables.SIZE, notional << tables.COST)
        if (maker_pair ^ taker_pair) & units.U38 == 0:
            # An order against an order of the same account: fees alone.
            tables.trade(making >> orders.PAIR & units.U16, maker_pair, tables.ROLE_FEES, 0, unsafe_add(taker_fee, maker_fee))
            continue
        if taking & orders.SELL != 0:
            lots = unsafe_sub(0, lots)
        taker_pair = unsafe_add(
            unsafe_add(taker_pair, lots), convert(convert(taker_fee, bytes32), uint256) << tables.COST
        ) | tables.ROLE_ORDER
        maker_pair = unsafe_add(
            unsafe_sub(maker_pair, lots), convert(convert(maker_fee, bytes32), uint256) << tables.COST
        ) | tables.ROLE_ORDER
        bought: uint256 = taker_pair >> tables.SIZE & units.U64
        sold: uint256 = maker_pair >> tables.SIZE & units.U64
        # As in `tables.trade`, for both: neither zero nor above 63 bits.
        if (bought | unsafe_sub(bought, 1) | sold | unsafe_sub(sold, 1)) >> 63 != 0:
            reasons.fail(reasons.POSITION_TOO_LARGE)
        tables.pairs[taking >> orders.PAIR & units.U16] = taker_pair
        tables.pairs[making >> orders.PAIR & units.U16] = maker_pair
    return at, fees


@view
@internal
def _last_bytes(at: uint256) -> uint256:
    """
    @dev The word of calldata that begins at `at`, with zeros behind calldata's end.
    """
    end: uint256 = len(msg.data)
    return codec.word(end) << (unsafe_sub(unsafe_add(at, 32), end) << 3)


@view
@internal
def _market(market: uint256, context: uint256) -> uint256:
    """
    @dev What order fills need of a market, which must be open to them.
    """
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    price: uint256 = tables.markets[market]
    mark: uint256 = price >> 32 & units.U32
    # |price - mark| * 1e6 <= mark * band, solved for the price
    distance: uint256 = unsafe_div(unsafe_mul(mark, p >> ledger.P_PRICE_BAND & units.U24), units.PPM)
    word: uint256 = (
        p & units.U32 | unsafe_sub(mark, distance) << BAND_LOW | unsafe_mul(distance, 2) << BAND_WIDTH | market << MARKET_ID
    )
    stale: bool = unsafe_add(price >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < context & units.U40
    if self._restricted(p, market, context) or price & tables.CLAMPED != 0 or stale:
        word |= REDUCING
    return word


@view
@internal
def _restricted(p: uint256, market: uint256, context: uint256) -> bool:
    mode: uint256 = p >> ledger.P_MODE  # whose end, when a guardian set it, comes by itself
    if mode != 0:
        m: uint256 = ledger.words[ledger.MARKET_M | market]
        if unsafe_sub(m & units.U40, 1) < context & units.U40:
            mode = m >> ledger.M_AFTER & units.U8
    if mode != 0 and mode != ledger.REDUCE_ONLY:
        reasons.fail(reasons.MARKET_CLOSED)
    return mode != 0


@view
@internal
def _refuse(making: uint256, taking: uint256):
    """
    @dev Says which of the conditions on flags failed.
    """
    self._check_maker(making)
    if taking & orders.POST_ONLY != 0:
        reasons.fail(reasons.POST_ONLY_WOULD_TAKE)
    reasons.fail(reasons.SAME_SIDE)


@view
@internal
def _check_maker(making: uint256):
    if making & orders.NEVER_RESTS != 0 or making >> orders.SLOT & units.U16 == 0:
        reasons.fail(reasons.ORDER_NEVER_MAKES)


@view
@internal
def _check_limit(taking: uint256, price: uint256):
    limit: uint256 = taking >> orders.LIMIT_PRICE & units.U32
    if taking & orders.SELL == 0:
        if price <= limit:
            return
    elif price >= limit:
        return
    reasons.fail(reasons.PRICE_BEYOND_LIMIT)


@view
@internal
def _notional(size: uint256, price: uint256, market: uint256) -> int256:
    notional: uint256 = unsafe_mul(size, unsafe_mul(price, market & units.U32))
    if notional > units.MAX_NOTIONAL:
        reasons.fail(reasons.NOTIONAL_TOO_LARGE)
    return convert(convert(notional, bytes32), int256)


@internal
def _other(start: uint256, fill: uint256, context: uint256) -> (uint256, int256):
    """
    @dev The kinds that are not an order against an order. Returns where the fill ends and the fee of its row.
    """
    if context & tables.LATE != 0:
        reasons.fail(reasons.TOO_LATE_FOR_IT)
    kind: uint256 = fill >> KIND & 15
    keeper: uint256 = NO_INDEX
    at: uint256 = unsafe_add(start, 5)
    if kind == LIQUIDATION or kind == TAKEOVER:
        keeper = fill >> 200 & units.U16
        at = unsafe_add(at, 2)
    elif kind > CASH:
        reasons.fail(reasons.FILL_KIND_RESERVED)
    width: uint256 = fill >> WIDTH
    size: uint256 = fill << (unsafe_sub(at, start) << 3) >> (unsafe_sub(31, width) << 3)
    if unsafe_sub(size, 1) >= units.U62 or width > 7:
        reasons.fail(reasons.FILL_SIZE_OUT_OF_RANGE)
    tables.name_accounts(context)
    first: uint256 = fill >> FIRST & units.U16
    second: uint256 = fill >> SECOND & units.U16
    fee: int256 = 0
    if kind == FUND:
        fee = self._against_fund(first, second, size, context)
    else:
        fee = self._close_out(kind, first, second, size, keeper, context)
    return unsafe_add(at, unsafe_add(width, 1)), fee


@internal
def _against_fund(first: uint256, second: uint256, size: uint256, context: uint256) -> int256:
    """
    @dev A taker row against the insurance fund's position, which shrinks, at the mark. Returns the taker's fee.
    """
    row: uint256 = orders.row_at(first, context)
    taking: uint256 = orders.head_of(row)
    index: uint256 = taking >> orders.PAIR & units.U16
    pair: uint256 = tables.pairs[index]
    fund: uint256 = tables.pair_at(second, context)
    market: uint256 = pair & 63
    if fund & units.U38 != ledger.INSURANCE_FUND << 6 | market:
        reasons.fail(reasons.NOT_THE_FUNDS_PAIR)
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    price: uint256 = tables.markets[market]
    mark: uint256 = price >> 32 & units.U32
    sells: bool = taking & orders.SELL != 0
    if taking & orders.POST_ONLY != 0:
        reasons.fail(reasons.POST_ONLY_WOULD_TAKE)
    self._check_limit(taking, mark)
    if unsafe_add(price >> 64 & units.U40, p >> ledger.P_MAX_PRICE_AGE & units.U16) < context & units.U40:
        reasons.fail(reasons.STALE_PRICE)
    if self._restricted(p, market, context) or price & tables.CLAMPED != 0:
        orders.check_shrinks(pair, sells, size)
    orders.check_shrinks(fund, not sells, size)
    notional: int256 = self._notional(size, mark, p)
    rate: int256 = convert(orders.rates_of(taking >> orders.FEE_CLASS & units.U8) & units.U16, int256)
    fee: int256 = orders.use(first, row, taking, pair, size, notional, rate)
    self._exchange(index, second, size, sells, notional, fee, 0, tables.ROLE_ORDER, tables.ROLE_FUND)
    return fee


@internal
def _close_out(
    kind: uint256, active: uint256, second: uint256, size: uint256, keeper: uint256, context: uint256
) -> int256:
    """
    @dev A target, or who closes by the inbox, against a maker row, the insurance fund or a counterparty. Returns the maker's fee.
    """
    target: uint256 = tables.pair_at(active, context)
    market: uint256 = target & 63
    p: uint256 = ledger.words[ledger.MARKET_P | market]
    price: uint256 = tables.markets[market] >> 32 & units.U32
    if kind != LIQUIDATION and kind != FORCED_ON_BOOK:
        self._move(kind, target, active, second, size, price, p, keeper, context)
        return 0
    row: uint256 = orders.row_at(second, context)
    making: uint256 = orders.head_of(row)
    passive: uint256 = making >> orders.PAIR & units.U16
    maker: uint256 = tables.pairs[passive]
    if maker & 63 != market:
        reasons.fail(reasons.MARKETS_DIFFER)
    self._check_maker(making)
    distance: uint256 = unsafe_div(unsafe_mul(price, p >> ledger.P_PRICE_BAND & units.U24), units.PPM)
    mark: uint256 = price
    price = making >> orders.LIMIT_PRICE & units.U32
    if unsafe_sub(max(price, mark), min(price, mark)) > distance:
        reasons.fail(reasons.PRICE_OUTSIDE_BAND)
    notional: int256 = self._notional(size, price, p)
    sells: bool = False
    debit: int256 = 0
    passive_debit: int256 = 0
    sells, debit, passive_debit = self._close_target(kind, target, 0, size, price, keeper, context)
    if (making & orders.SELL != 0) == sells:
        reasons.fail(reasons.SAME_SIDE)
    rate: int256 = convert(convert(orders.rates_of(making >> orders.FEE_CLASS & units.U8) << 224, bytes32), int256) >> 240
    if rate < 0:
        reasons.fail(reasons.REBATE_ABOVE_TAKER_FEE)
    fee: int256 = orders.use(second, row, making, maker, size, notional, rate)
    self._exchange(active, passive, size, sells, notional, debit, fee, tables.ROLE_TARGET, tables.ROLE_ORDER)
    return fee


@internal
def _move(
    kind: uint256, target: uint256, active: uint256, passive: uint256, size: uint256,
    mark: uint256, p: uint256, keeper: uint256, context: uint256,
):
    """
    @dev A target against the insurance fund or a counterparty, at the mark.
    """
    other: uint256 = tables.pair_at(passive, context)
    role: uint256 = tables.ROLE_TARGET
    if other & units.U38 == ledger.INSURANCE_FUND << 6 | target & 63:
        role = tables.ROLE_FUND
    elif kind == TAKEOVER:
        reasons.fail(reasons.NOT_THE_FUNDS_PAIR)
    if kind == DELEVERAGING and tables.accounts[0] & units.U32 != ledger.INSURANCE_FUND:
        # The backstop asks what the fund could still take; accounts ascend, so it comes first.
        reasons.fail(reasons.POSITIONS_NOT_NAMED)
    notional: int256 = self._notional(size, mark, p)
    sells: bool = False
    debit: int256 = 0
    passive_debit: int256 = 0
    sells, debit, passive_debit = self._close_target(kind, target, other, size, mark, keeper, context)
    self._exchange(active, passive, size, sells, notional, debit, passive_debit, tables.ROLE_TARGET, role)


@internal
def _close_target(
    kind: uint256, pair: uint256, other: uint256, size: uint256, price: uint256, keeper: uint256, context: uint256
) -> (bool, int256, int256):
    """
    @dev The backstop's to decide: whether the target may be closed and at what loss, and the liquidation fee, which it also pays.
    @return Whether the target sells, what it pays beside the price, and what a fund that takes over pays (negative: receives).
    """
    keeper_account: uint256 = 0
    if keeper != NO_INDEX:
        keeper_account = tables.account_at(keeper, context) & units.U32
        tables.note_base(keeper)
    if tables.accounts[0] & units.U32 == ledger.INSURANCE_FUND:
        tables.note_base(0)
    return extcall IBackstop(closing.BACKSTOP).close_target(
        kind, pair, other, size, price, keeper_account, keeper != NO_INDEX
    )


@internal
def _exchange(
    active: uint256, passive: uint256, size: uint256, sells: bool, notional: int256,
    debit: int256, passive_debit: int256, role: uint256, passive_role: uint256,
):
    """
    @dev Moves the lots and their price between the two running positions.
    """
    lots: int256 = convert(size, int256)
    cost: int256 = notional
    if sells:
        lots = unsafe_sub(0, lots)
        cost = unsafe_sub(0, cost)
    tables.trade(active, tables.pairs[active], role, lots, unsafe_add(cost, debit))
    tables.trade(passive, tables.pairs[passive], passive_role, unsafe_sub(0, lots), unsafe_sub(passive_debit, cost))
