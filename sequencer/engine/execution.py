"""Carrying out what was planned: trades, their fees, and their rows in the open batch. Nothing here can
refuse."""

from evermark.protocol.batch import FILL_FUND, FILL_LIQUIDATION, FILL_ORDERS, INSURANCE_FUND
from evermark.protocol.orders import Side
from evermark.protocol.units import check
from sequencer.engine.batch_builder import STAGE_FILLS, OpenFill, Row, pair_key
from sequencer.engine.context import Context
from sequencer.engine.events import Trade
from sequencer.engine.ledger import (
    change_position,
    charge_builder,
    charge_fee,
    position_for,
    row_of,
    trade,
)
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import Plan
from sequencer.engine.open_orders import (
    cancel,
    drop_useless_reducers,
    fill_waiting,
    note_filled,
    release_lots,
)
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.sealing import enter
from sequencer.engine.state import Account, EngineState

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
    _drop_useless_reducers(ctx, order)
    for step in plan.steps:
        if step.lots and step.maker is not None:
            _drop_useless_reducers(ctx, step.maker)


def _drop_useless_reducers(ctx: Context, order: RestingOrder) -> None:
    if position_for(order).reduce_orders:
        drop_useless_reducers(ctx, order.trader, order.market_id)


def _trade_orders(ctx: Context, at: MarketState, maker: RestingOrder, taker: RestingOrder, lots: int) -> None:
    batch = enter(ctx, STAGE_FILLS)
    row, price = row_of(ctx, taker), maker.price
    taker_fees = _take(ctx, at, taker, row, lots, price)
    maker_fees = _make(ctx, at, maker, lots)
    batch.fills.append(OpenFill(FILL_ORDERS, row_of(ctx, maker), row, lots))
    made = (maker.account, maker.order_hash, maker_fees)
    tell_trade(ctx, at, price, lots, taker.side, made, (taker.account, taker.order_hash, taker_fees))
    fill_waiting(ctx, at, maker, lots)


def _trade_with_fund(ctx: Context, at: MarketState, taker: RestingOrder, lots: int) -> None:
    batch, fund = enter(ctx, STAGE_FILLS), ctx.state.accounts[INSURANCE_FUND]
    row, pair = row_of(ctx, taker), pair_key(INSURANCE_FUND, at.market_id)
    taker_fees = _take(ctx, at, taker, row, lots, at.mark)
    change_position(ctx, fund, at, -lots if taker.sign > 0 else lots, at.mark)
    batch.fills.append(OpenFill(FILL_FUND, row, pair, lots))
    made = (INSURANCE_FUND, b"", NO_FEES)
    tell_trade(ctx, at, at.mark, lots, taker.side, made, (taker.account, taker.order_hash, taker_fees))


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
    batch, pair = ctx.state.batch, pair_key(target.account_id, at.market_id)
    change_position(ctx, target, at, -lots if maker.sign > 0 else lots, maker.price)
    fees = _make(ctx, at, maker, lots)
    batch.fills.append(OpenFill(kind, pair, row_of(ctx, maker), lots, keeper))
    fill_waiting(ctx, at, maker, lots)
    return fees


def _take(ctx: Context, at: MarketState, taker: RestingOrder, row: Row, lots: int, price: int) -> Fees:
    """The taker's side of a fill; returns its fees."""
    check(lots <= taker.remaining, "matching: the taker would be overfilled")
    taker.remaining -= lots
    note_filled(taker)
    return _trade(ctx, at, taker, row, lots, at.notional(lots, price), at.taker_fee_ppm)


def _make(ctx: Context, at: MarketState, maker: RestingOrder, lots: int) -> Fees:
    """A waiting order's side of a fill, but for its place in the book; returns its fees."""
    release_lots(ctx.state, at, maker, lots)
    notional = at.notional(lots, maker.price)
    return _trade(ctx, at, maker, row_of(ctx, maker), lots, notional, at.maker_fee_ppm)


def _trade(
    ctx: Context, at: MarketState, order: RestingOrder, row: Row, lots: int, notional: int, rate_ppm: int
) -> Fees:
    """An order's position and fees after a fill."""
    account, position = order.trader, position_for(order)
    if order.sign > 0:
        trade(ctx, account, at, position, lots, notional)
    else:
        trade(ctx, account, at, position, -lots, -notional)
    fee, rate = charge_fee(ctx, account, row, notional, rate_ppm), order.builder_fee_ppm
    return fee, charge_builder(ctx, account, row, notional, rate) if rate else 0


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
    ctx.events.append(
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
