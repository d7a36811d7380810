"""The end of every command: orders linked to filled ones are cancelled, and untriggered orders whose price has come wake.

Mark triggers wake in section 3 of a batch, where the vault marks their slots as triggered at the pinned mark; last-price ones
need nothing on the chain. Waking never ends the open batch, so that batches end between commands: what finds no room in it
goes on waiting, and is looked at again with the next command or round.
"""

from typing import Final

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.reject import RejectCode
from evermark.protocol.units import check
from sequencer.engine.batch_builder import STAGE_FUNDING, pair_key
from sequencer.engine.commands import MarketMode
from sequencer.engine.context import Context
from sequencer.engine.events import CancelReason, OrderTriggered
from sequencer.engine.ledger import row_of
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import agent_is_live
from sequencer.engine.open_orders import cancel, live_order, note_filled, take_untriggered, tell_cancelled
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.order_checks import Draft, check_arrival
from sequencer.engine.placement import meet_book, plan_arrival
from sequencer.engine.sealing import enter, round_is_old
from sequencer.engine.slicing import send_slices, slices_due
from sequencer.engine.state import STOP_UNSETTLED_AGE_S, EngineState
from sequencer.engine.triggers import BY_LAST, BY_MARK, Entry

WAKES_PER_COMMAND: Final = 40  # their rows and accounts leave room for fills in the batch

REASONS = {
    RejectCode.INSUFFICIENT_MARGIN: CancelReason.MARGIN,
    RejectCode.REDUCE_ONLY_WOULD_INCREASE: CancelReason.REDUCE_ONLY,
    RejectCode.MARKET_REDUCE_ONLY: CancelReason.REDUCE_ONLY,
    RejectCode.OUTSIDE_PRICE_BAND: CancelReason.PRICE_BAND,
    RejectCode.OPEN_INTEREST_CAP: CancelReason.OPEN_INTEREST_CAP,
}


def finish(ctx: Context) -> None:
    """What follows from the command's own effects."""
    state = ctx.state
    if ctx.filled_links:
        _cancel_linked(ctx)
    if not state.stirred and not state.twaps:
        return
    if round_is_old(state, ctx.stamp_ms) or state.unsettled_age_s > STOP_UNSETTLED_AGE_S:
        return
    if not slices_due(state) and not _triggers_wait(state):
        state.stirred.clear()
        return
    room = WAKES_PER_COMMAND - _wake_by_mark(ctx)
    send_slices(ctx)
    _cancel_linked(ctx)
    while room:
        woken = _wake_by_last(ctx, room)
        if not woken:
            break
        room -= woken
    state.stirred = {market_id for market_id in state.stirred if _has_due(state.markets[market_id])}


def _triggers_wait(state: EngineState) -> bool:
    """Some order waits for its trigger in a market that was stirred."""
    return any(state.markets[market_id].triggers.waiting for market_id in state.stirred)


def _cancel_linked(ctx: Context) -> None:
    """A filled order cancels the order in the slot that it is linked to."""
    links = ctx.filled_links
    while links:
        account_id, slot = links.pop()
        order = live_order(ctx.state.accounts[account_id], slot)
        if order is not None:
            cancel(ctx, order, CancelReason.BRACKET)


def _is_awake(at: MarketState) -> bool:
    """Orders of this market may meet its book; otherwise they go on waiting."""
    return not at.stale and at.mode in (MarketMode.NORMAL, MarketMode.REDUCE_ONLY)


def _has_due(at: MarketState) -> bool:
    return bool(at.triggers.due(BY_MARK, at.mark, 1) or at.triggers.due(BY_LAST, at.last_price, 1))


def _wake_by_mark(ctx: Context) -> int:
    """First the bits of all in section 3, then each order meets its book. Returns how many were looked at."""
    state = ctx.state
    if state.batch.stage > STAGE_FUNDING or not state.batch.has_room_for_fills():
        return 0
    orders: list[RestingOrder] = []
    for market_id in sorted(state.stirred):
        at = state.markets[market_id]
        if _is_awake(at):
            room = WAKES_PER_COMMAND - len(orders)
            orders.extend(_order_of(state, entry) for entry in at.triggers.due(BY_MARK, at.mark, room))
    live = [order for order in orders if _still_signed(ctx, order)]
    if live:
        _mark_triggered(ctx, live)
    for order in live:
        # An order that woke before it may have cancelled it, by its link or by closing the position.
        if order.is_untriggered:
            _wake(ctx, order, state.markets[order.market_id].mark)
    return len(orders)


def _wake_by_last(ctx: Context, room: int) -> int:
    """Orders that the last price has reached now; what they trade may wake others. Returns how many woke."""
    state, woken = ctx.state, 0
    for market_id in sorted(state.stirred):
        at = state.markets[market_id]
        if not _is_awake(at):
            continue
        for entry in at.triggers.due(BY_LAST, at.last_price, room - woken):
            order = live_order(state.accounts[entry[2]], entry[3])
            if order is None or order.arrival != entry[1]:
                continue  # ended by one that woke before it
            if _still_signed(ctx, order):
                woken += _wake(ctx, order, at.last_price)
    return woken


def _order_of(state: EngineState, entry: Entry) -> RestingOrder:
    _, arrival, account_id, slot = entry
    order = state.accounts[account_id].untriggered[slot]
    check(order.arrival == arrival, "triggers: an entry of another order")
    return order


def _still_signed(ctx: Context, order: RestingOrder) -> bool:
    """Its signer may still trade for the account; otherwise the order ends."""
    if agent_is_live(ctx.state, order.trader, order.signer):
        return True
    cancel(ctx, order, CancelReason.AGENT_REVOKED)
    return False


def _mark_triggered(ctx: Context, orders: list[RestingOrder]) -> None:
    """Section 3: each order's row, and its slot's bit. Like a fill, it takes the slot over from an older order."""
    batch = enter(ctx, STAGE_FUNDING)
    for order in orders:
        account = order.trader
        check(account.account_id >= FIRST_USER_ACCOUNT, "triggers: a reserved account's order")
        row_of(ctx, order)
        note_filled(order)
        batch.accounts.add(order.account)
        batch.pairs.add(pair_key(order.account, order.market_id))
        batch.triggers.append((order.account, order.slot, order.sequence))


def _wake(ctx: Context, order: RestingOrder, price: int) -> bool:
    """Let an order meet the book as if it came now; what it may not do any more ends it. False when the batch has no
    room, and it goes on waiting."""
    state = ctx.state
    at = state.markets[order.market_id]
    draft = Draft(order.trader, at, order, None)
    refusal = check_arrival(state, draft, ctx.stamp_ms)
    if refusal is None:
        refusal = plan_arrival(state, draft)
        if draft.must_seal:
            return False
    take_untriggered(state, order)
    ctx.events.append(
        OrderTriggered(
            account=order.account, order_hash=order.order_hash, market_id=order.market_id, price=price
        )
    )
    if refusal is not None:
        tell_cancelled(ctx, order, REASONS.get(refusal.code, CancelReason.TRIGGER_REFUSED))
        return True
    meet_book(ctx, draft)
    _cancel_linked(ctx)
    return True
