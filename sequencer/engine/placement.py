"""PlaceOrder: every reason to refuse first, then matching, then what remains rests or ends. Trigger orders wait instead."""

from typing import Final

from evermark.protocol.orders import TimeInForce, Trigger
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.batch_builder import STAGE_FILLS, OpenBatch
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.context import Context, no
from sequencer.engine.events import CancelReason, OrderAccepted
from sequencer.engine.execution import execute
from sequencer.engine.ledger import nonce_of
from sequencer.engine.matching import Planner, crosses_book, may_trade
from sequencer.engine.open_orders import (
    begin_twap,
    cancel,
    replace_in_place,
    rest,
    tell_cancelled,
    tell_filled,
    tell_rested,
    wait_for_trigger,
)
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.order_checks import (
    Draft,
    check_order,
    check_untriggered,
    draft_order,
)
from sequencer.engine.parties import grew_in_batch
from sequencer.engine.sealing import noted_in, seal
from sequencer.engine.state import EngineState
from sequencer.engine.trigger_checks import trigger_orders_placed
from sequencer.engine.triggers import BY_MARK

# Looking a name up in a module or an enumeration costs compiled code more than the comparison that wants it.
_NO_TRIGGER: Final = Trigger.NONE
_FOK: Final = TimeInForce.FOK
_REPLACED: Final = CancelReason.REPLACED
_IOC_REMAINDER: Final = CancelReason.IOC_REMAINDER


def place_order(ctx: Context, command: PlaceOrder) -> None:
    """Accept, match and rest an order, or refuse it without a trace."""
    refusal = _place(ctx, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account, command.order_hash, command.client_id)


def _place(ctx: Context, command: PlaceOrder) -> Reject | None:
    state = ctx.state
    draft = draft_order(state, command)
    if not isinstance(draft, Draft):
        return draft
    if draft.order.trigger is not _NO_TRIGGER or draft.order.twap_interval:
        refusal = check_untriggered(state, draft, ctx.stamp_ms)
        if refusal is None:
            _accept_untriggered(ctx, draft)
        return refusal
    refusal = check_order(state, draft, ctx.stamp_ms)
    if refusal is not None:
        return refusal
    refusal = plan_arrival(state, draft)
    if refusal is None:
        if draft.must_seal:
            seal(ctx)
        _accept(ctx, draft)
    return refusal


def plan_arrival(state: EngineState, draft: Draft) -> Reject | None:
    """Find out what the order meets when it comes to the book, or why it may not. Changes nothing but the draft."""
    order = draft.order
    draft.meets = may_trade(state, draft.at, order)
    draft.must_seal = _must_seal(state, draft)
    if draft.meets:
        batch = OpenBatch() if draft.must_seal else state.batch
        draft.plan = Planner(state, draft.at, order, batch, draft.only_reduces).make()
    return _refuse_plan(draft) if order.post_only or order.time_in_force is _FOK else None


def meet_book(ctx: Context, draft: Draft) -> None:
    """Trade as planned; what is left rests or ends."""
    if draft.plan.steps:
        execute(ctx, draft.at, draft.order, draft.plan)
    _finish(ctx, draft)


def _must_seal(state: EngineState, draft: Draft) -> bool:
    """Whether the open batch has to end before this order."""
    batch = state.batch
    if batch.targets and draft.order.account in batch.targets:
        return True  # a liquidation target has no order in its batch
    if not draft.meets:
        return False
    if batch.stage > STAGE_FILLS or not batch.has_room_for_fills() or batch.deleveraged:
        return True
    # An account that grew in this batch may not shrink below its initial margin in it: give it a fresh
    # baseline.
    return draft.reduces and grew_in_batch(draft.account, noted_in(batch, draft.account))


def _refuse_plan(draft: Draft) -> Reject | None:
    order, plan = draft.order, draft.plan
    if order.post_only and crosses_book(draft.at, order):
        best = draft.at.book.opposite(order.side).best()
        price = best.price if best is not None else 0
        return no(RejectCode.POST_ONLY_WOULD_CROSS, "post-only order would trade", "limit_price", best=price)
    if order.time_in_force is _FOK and plan.filled < order.remaining:
        return no(
            RejectCode.FOK_NOT_FILLABLE,
            "the whole size cannot trade at once",
            "size",
            fillable=plan.filled,
            wanted=order.remaining,
        )
    return None


def _accept(ctx: Context, draft: Draft) -> None:
    order, account, old = draft.order, draft.account, draft.replaced
    keeps_place = (
        old is not None
        and old is draft.resting
        and not draft.meets
        and old.price == order.price
        and order.remaining <= old.remaining
        and old.reduce_only == order.reduce_only
        and not (old.display_size or order.display_size)
        and draft.may_rest
    )
    if order.slot == 0:
        account.taker_sequence = order.sequence
    else:
        nonce_of(order).sequence = order.sequence
    if old is not None and keeps_place:
        replace_in_place(ctx, account, old, order)
        tell_cancelled(ctx, old, _REPLACED)
    elif old is not None:
        cancel(ctx, old, _REPLACED)
    ctx.events.append(_accepted(order))
    if keeps_place:
        tell_rested(ctx, order)
        return
    meet_book(ctx, draft)


def _accept_untriggered(ctx: Context, draft: Draft) -> None:
    order, account, state = draft.order, draft.account, ctx.state
    nonce_of(order).sequence = order.sequence
    if order.trigger in BY_MARK:
        account.trigger_placed = trigger_orders_placed(state, account) + 1
        account.trigger_hour = state.now // 3600
    if draft.replaced is not None:
        cancel(ctx, draft.replaced, _REPLACED)
    ctx.events.append(_accepted(order))
    if order.twap_interval:
        begin_twap(ctx, account, order)
    else:
        wait_for_trigger(ctx, account, order)


def _finish(ctx: Context, draft: Draft) -> None:
    """What becomes of the part that did not trade."""
    order, account, plan = draft.order, draft.account, draft.plan
    if order.remaining == 0:
        tell_filled(ctx, order)
    elif plan.stop is not None:
        tell_cancelled(ctx, order, plan.stop)
    elif not draft.may_rest:
        tell_cancelled(ctx, order, _IOC_REMAINDER)
    elif order.reduce_only and not account.positions[order.market_id].opposes(order.sign):
        tell_cancelled(ctx, order, CancelReason.REDUCE_ONLY)
    else:
        rest(ctx, account, order)


def _accepted(order: RestingOrder) -> OrderAccepted:
    return OrderAccepted(
        account=order.account,
        order_hash=order.order_hash,
        client_id=order.client_id,
        market_id=order.market_id,
        side=order.side,
        size=order.size,
        limit_price=order.price,
        slot=order.slot,
        order_sequence=order.sequence,
        filled=order.filled,
    )
