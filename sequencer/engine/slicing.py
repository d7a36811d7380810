"""Sending the slices of TWAP orders that are due, at the end of a command. Like waking, it never ends the open batch: what finds
no room in it goes with the next command."""

from heapq import heappop, heappush
from typing import Final

from sequencer.engine.context import Context
from sequencer.engine.events import CancelReason, TwapSliced
from sequencer.engine.execution import execute
from sequencer.engine.matching import agent_is_live
from sequencer.engine.open_orders import cancel, put_back_twap, take_untriggered, tell_cancelled, tell_filled
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.order_checks import Draft, check_arrival
from sequencer.engine.placement import plan_arrival
from sequencer.engine.state import EngineState
from sequencer.engine.twap import due_slice, slice_count, slice_lots, slice_price

SLICES_PER_COMMAND: Final = 40


def slices_due(state: EngineState) -> bool:
    """Some TWAP order's next slice is due by engine time."""
    return bool(state.twaps) and state.twaps[0][0] <= state.now


def send_slices(ctx: Context) -> None:
    """Send what is due, the longest overdue first."""
    state = ctx.state
    kept: list[tuple[int, int, int, int]] = []
    for _ in range(SLICES_PER_COMMAND):
        if not slices_due(state) or not state.batch.has_room_for_fills():
            break
        entry = heappop(state.twaps)
        order = state.accounts[entry[1]].untriggered.get(entry[2])
        if order is None or order.sequence != entry[3]:
            continue  # of an order that ended
        if not agent_is_live(state, order.trader, order.signer):
            cancel(ctx, order, CancelReason.AGENT_REVOKED)
        elif not _send(ctx, order):
            kept.append(entry)
    for entry in kept:
        heappush(state.twaps, entry)


def _send(ctx: Context, order: RestingOrder) -> bool:
    """Send one slice as if it were an IOC order that came now. False when the batch has no room for it."""
    state = ctx.state
    at, account = state.markets[order.market_id], order.trader
    number = due_slice(order, state.now)
    lots = slice_lots(order, number)
    piece = _piece(order, lots, slice_price(at, order))
    draft = Draft(account, at, piece, None)
    refusal = check_arrival(state, draft, ctx.stamp_ms)
    if refusal is None:
        refusal = plan_arrival(state, draft)
        if lots and draft.must_seal:
            return False
    arrived, filled = order.arrival, order.filled
    take_untriggered(state, order)
    if lots and refusal is None:
        execute(ctx, at, piece, draft.plan)
    order.remaining, order.row = order.size - piece.filled, piece.row
    reason = refusal.code.name if refusal is not None else draft.plan.stop or ""
    ctx.events.append(
        TwapSliced(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            number=number,
            size=lots,
            price=piece.price,
            filled=order.filled - filled,
            reason=str(reason),
        )
    )
    _go_on(ctx, order, number, arrived)
    return True


def _piece(order: RestingOrder, lots: int, price: int) -> RestingOrder:
    """The signed order, cut down to this slice's lots and price."""
    piece = RestingOrder(
        order.market_id,
        order.order,
        order.order_hash,
        order.signature,
        order.signer,
        order.client_id,
        order.path,
    )
    piece.belong_to(order.trader)
    piece.size, piece.remaining = order.filled + lots, lots
    piece.price, piece.builder = price, order.builder
    piece.nonce, piece.row = order.nonce, order.row
    return piece


def _go_on(ctx: Context, order: RestingOrder, number: int, arrived: int) -> None:
    """After a slice: the order is done, or has had its last one, or waits for the next."""
    account = order.trader
    position = account.positions.get(order.market_id)
    if order.remaining == 0:
        tell_filled(ctx, order)
    elif order.reduce_only and (position is None or not position.opposes(order.sign)):
        tell_cancelled(ctx, order, CancelReason.REDUCE_ONLY)
    elif number == slice_count(order, order.twap_start):
        tell_cancelled(ctx, order, CancelReason.TWAP_ENDED)
    else:
        order.arrival, order.twap_sent = arrived, number
        put_back_twap(ctx.state, account, order)
