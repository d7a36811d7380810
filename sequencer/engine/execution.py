"""Carrying out what was planned: trades, their fees, and their rows in the open batch. Nothing here can
refuse."""

from evermark.protocol.batch import FILL_FUND, FILL_LIQUIDATION, FILL_ORDERS, INSURANCE_FUND
from evermark.protocol.orders import Side
from evermark.protocol.units import check
from sequencer.engine.batch_builder import STAGE_FILLS, OpenFill
from sequencer.engine.context import Context
from sequencer.engine.events import Trade
from sequencer.engine.ledger import change_position, charge_builder, charge_fee, row_of
from sequencer.engine.matching import Plan
from sequencer.engine.open_orders import cancel, drop_useless_reducers, fill_waiting, note_filled
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.sealing import enter
from sequencer.engine.state import Account, EngineState, MarketState

Fees = tuple[int, int]  # of one fill: the exchange's, which may be a rebate, and the builder's
NO_FEES: Fees = (0, 0)


def execute(ctx: Context, at: MarketState, order: RestingOrder, plan: Plan) -> None:
    """Do the steps of an arriving order's plan."""
    for step in plan.steps:
        if step.reason is not None and step.maker is not None:
            cancel(ctx, step.maker, step.reason)
        elif step.maker is not None:
            _trade_orders(ctx, at, step.maker, order, step.lots)
        else:
            _trade_with_fund(ctx, at, order, step.lots)
    if not plan.filled:
        return
    drop_useless_reducers(ctx, order.trader, order.market_id)
    for step in plan.steps:
        if step.lots and step.maker is not None:
            drop_useless_reducers(ctx, step.maker.trader, order.market_id)


def _trade_orders(ctx: Context, at: MarketState, maker: RestingOrder, taker: RestingOrder, lots: int) -> None:
    batch = enter(ctx, STAGE_FILLS)
    taker_fee = _take(ctx, at, taker, maker.price, lots)
    maker_fee = make_trade(ctx, at, maker, lots)
    batch.fills.append(OpenFill(FILL_ORDERS, row_key(maker), row_key(taker), lots))
    tell_trade(
        ctx,
        at,
        maker.price,
        lots,
        taker.side,
        (maker.account, maker.order_hash, maker_fee),
        (taker.account, taker.order_hash, taker_fee),
    )
    fill_waiting(ctx, maker.trader, maker, lots)


def _trade_with_fund(ctx: Context, at: MarketState, taker: RestingOrder, lots: int) -> None:
    state = ctx.state
    batch = enter(ctx, STAGE_FILLS)
    fund = state.accounts[INSURANCE_FUND]
    taker_fee = _take(ctx, at, taker, at.mark, lots)
    change_position(ctx, fund, at, -taker.sign * lots, at.mark)
    fund_pair = (INSURANCE_FUND, at.market_id)
    batch.fills.append(OpenFill(FILL_FUND, row_key(taker), fund_pair, lots))
    maker = (INSURANCE_FUND, b"", NO_FEES)
    tell_trade(ctx, at, at.mark, lots, taker.side, maker, (taker.account, taker.order_hash, taker_fee))


def _take(ctx: Context, at: MarketState, taker: RestingOrder, price: int, lots: int) -> Fees:
    """The taker's side of a fill; returns its fees."""
    account = taker.trader
    check(lots <= taker.remaining, "matching: the taker would be overfilled")
    change_position(ctx, account, at, taker.sign * lots, price)
    row = row_of(ctx, account, taker)
    taker.filled += lots
    note_filled(taker)
    notional = at.notional(lots, price)
    fee = charge_fee(ctx, account, row, notional, at.market.taker_fee_ppm)
    rate = taker.builder_fee_ppm
    return fee, charge_builder(ctx, account, row, notional, rate) if rate else 0


def make_trade(ctx: Context, at: MarketState, maker: RestingOrder, lots: int) -> Fees:
    """A waiting order's side of a fill, but for its place in the book; returns its fees."""
    account = maker.trader
    change_position(ctx, account, at, maker.sign * lots, maker.price)
    row = row_of(ctx, account, maker)
    notional = at.notional(lots, maker.price)
    fee = charge_fee(ctx, account, row, notional, at.market.maker_fee_ppm)
    rate = maker.builder_fee_ppm
    return fee, charge_builder(ctx, account, row, notional, rate) if rate else 0


def fill_liquidation(
    ctx: Context,
    at: MarketState,
    target: Account,
    maker: RestingOrder,
    lots: int,
    keeper: int,
    kind: int = FILL_LIQUIDATION,
) -> Fees:
    """Close `lots` of a target's position against a waiting order; returns the maker's fees."""
    batch = ctx.state.batch
    change_position(ctx, target, at, -maker.sign * lots, maker.price)
    fee = make_trade(ctx, at, maker, lots)
    pair = (target.account_id, at.market_id)
    batch.fills.append(OpenFill(kind, pair, row_key(maker), lots, keeper))
    fill_waiting(ctx, maker.trader, maker, lots)
    return fee


def tell_trade(
    ctx: Context,
    at: MarketState,
    price: int,
    lots: int,
    taker_side: Side,
    maker: tuple[int, bytes, Fees],
    taker: tuple[int, bytes, Fees],
    liquidated: int = 0,
) -> None:
    """Count and publish one fill; `maker` and `taker` are (account, order hash, fees)."""
    state: EngineState = ctx.state
    state.trade_count += 1
    state.batch.notional += at.notional(lots, price)
    at.last_price = price
    state.stirred.add(at.market_id)
    ctx.emit(
        Trade(
            trade_id=state.trade_count,
            market_id=at.market_id,
            price=price,
            size=lots,
            taker_side=taker_side,
            maker=maker[0],
            taker=taker[0],
            maker_hash=maker[1],
            taker_hash=taker[1],
            maker_fee=maker[2][0],
            taker_fee=taker[2][0],
            maker_builder_fee=maker[2][1],
            taker_builder_fee=taker[2][1],
            liquidated=liquidated,
        )
    )


def row_key(order: RestingOrder) -> tuple[int, int, int]:
    """The order's key in the batch's order table."""
    return (order.account, order.slot, order.sequence)
