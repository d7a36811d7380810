"""Orders that wait: resting, cancelling, filling them, and the margin that they reserve."""

from heapq import heappush

from evermark.protocol.units import check
from sequencer.engine.context import Context
from sequencer.engine.events import (
    CancelReason,
    OrderCancelled,
    OrderFilled,
    OrderRested,
    OrderWaits,
    TwapStarted,
)
from sequencer.engine.ledger import nonce_of, position_for
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.risk import loss_at, refresh, resting_fee, rework_orders
from sequencer.engine.state import Account, EngineState, Position
from sequencer.engine.twap import next_due_s, slice_count


def rest(ctx: Context, account: Account, order: RestingOrder) -> None:
    """Let the order's remainder wait in the book."""
    state = ctx.state
    if order.display_size:
        order.hidden = order.remaining - next_part(order, order.remaining)
    state.markets[order.market_id].book.add(order)
    _enlist(state, account, order)
    tell_rested(ctx, order)


def next_part(order: RestingOrder, left: int) -> int:
    """Lots that the order shows when `left` are left of it: all, or as much of an iceberg as was signed."""
    return min(left, order.display_size or left)


def tell_rested(ctx: Context, order: RestingOrder) -> None:
    """Say that the order waits now."""
    ctx.touch_level(order.market_id, order.sign, order.price, order.level)
    ctx.events.append(
        OrderRested(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            remaining=order.remaining,
        )
    )


def replace_in_place(ctx: Context, account: Account, old: RestingOrder, new: RestingOrder) -> None:
    """Let `new` take the place of `old` in the queue; both events are the caller's."""
    state = ctx.state
    release(state, old)
    state.expiries.remove(old)
    state.markets[old.market_id].book.replace(old, new)
    _enlist(state, account, new)


def wait_for_trigger(ctx: Context, account: Account, order: RestingOrder) -> None:
    """Let the order wait outside the book until its trigger price is met."""
    state = ctx.state
    order.arrival = ctx.sequence
    enlist_untriggered(state, account, order)
    ctx.events.append(
        OrderWaits(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            trigger_price=order.trigger_price,
        )
    )


def begin_twap(ctx: Context, account: Account, order: RestingOrder) -> None:
    """Let the order wait outside the book for the times of its slices; the first one is due at once."""
    state = ctx.state
    order.arrival, order.twap_start = ctx.sequence, state.now
    enlist_untriggered(state, account, order)
    ctx.events.append(
        TwapStarted(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            slices=slice_count(order, state.now),
            interval_s=order.twap_interval,
        )
    )


def enlist_untriggered(state: EngineState, account: Account, order: RestingOrder) -> None:
    """Put an order that waits for its trigger, or for its next slice, where it is found again."""
    if order.twap_interval:
        put_back_twap(state, account, order)
    else:
        account.untriggered[order.slot] = nonce_of(order).live = order
        state.markets[order.market_id].triggers.add(order)
        if order.reduce_only:
            position_for(order).reduce_orders += 1
        state.expiries.add(order)


def put_back_twap(state: EngineState, account: Account, order: RestingOrder) -> None:
    """Let a TWAP wait for its next slice."""
    account.untriggered[order.slot] = nonce_of(order).live = order
    heappush(state.twaps, (next_due_s(order), order.account, order.slot, order.sequence))
    state.expiries.add(order)
    if order.reduce_only:
        position_for(order).reduce_orders += 1


def take_untriggered(state: EngineState, order: RestingOrder) -> None:
    """Take an order away from where it waits for its trigger."""
    del order.trader.untriggered[order.slot]
    nonce_of(order).live = None
    state.expiries.remove(order)
    if not order.twap_interval:
        state.markets[order.market_id].triggers.remove(order)
    order.arrival = 0
    if order.reduce_only:
        position_for(order).reduce_orders -= 1


def live_order(account: Account, slot: int) -> RestingOrder | None:
    """The order that holds the slot, in the book or waiting for its trigger."""
    nonce = account.slots.get(slot)
    return nonce.live if nonce is not None else None


def live_orders(account: Account) -> list[RestingOrder]:
    """Every order of the account that waits, in the book or for its trigger."""
    return [*account.orders.values(), *account.untriggered.values()]


def cancel(ctx: Context, order: RestingOrder, reason: CancelReason) -> None:
    """End a waiting order."""
    state = ctx.state
    if order.is_untriggered:
        take_untriggered(state, order)
        tell_cancelled(ctx, order, reason)
        return
    account, level = order.trader, order.level
    release(state, order)
    state.markets[order.market_id].book.remove(order)
    _delist(state, account, order)
    ctx.touch_level(order.market_id, order.sign, order.price, level)
    tell_cancelled(ctx, order, reason)


def tell_cancelled(ctx: Context, order: RestingOrder, reason: CancelReason) -> None:
    """Say that an order ended unfilled, waiting or not."""
    ctx.events.append(
        OrderCancelled(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            slot=order.slot,
            filled=order.filled,
            remaining=order.remaining,
            reason=reason,
        )
    )


def tell_filled(ctx: Context, order: RestingOrder) -> None:
    """Say that an order's whole size is traded; what it is linked to is cancelled at the command's end."""
    if order.bracket_link:
        if ctx.filled_links is None:
            ctx.filled_links = []
        ctx.filled_links.append((order.account, order.bracket_link))
    ctx.events.append(
        OrderFilled(
            account=order.account,
            order_hash=order.order_hash,
            market_id=order.market_id,
            slot=order.slot,
            filled=order.filled,
        )
    )


def fill_waiting(ctx: Context, at: MarketState, order: RestingOrder, lots: int) -> None:
    """Count `lots` of a waiting order as traded; what they reserved is released already."""
    book, level = at.book, order.level
    book.fill(order, lots)
    if order.hidden and order.hidden == order.remaining:
        book.refresh(order, next_part(order, order.hidden))
    note_filled(order)
    ctx.touch_level(order.market_id, order.sign, order.price, order.level or level)
    if order.level is None:
        if order.reduce_only:
            position_for(order).reduce_orders -= 1
        _delist(ctx.state, order.trader, order)
        tell_filled(ctx, order)


def note_filled(order: RestingOrder) -> None:
    """Remember for the slot what an amend would carry over."""
    if order.slot:
        nonce_of(order).filled = order.filled


def reserve(state: EngineState, order: RestingOrder) -> None:
    """Count what the remainder of an order that begins to wait needs; reduce-only orders need nothing."""
    position, account, lots = position_for(order), order.trader, order.remaining
    if order.reduce_only:
        position.reduce_orders += 1
        return
    refresh(state, account)
    at = state.markets[order.market_id]
    count_waiting(position, order)
    order.fee_reserve = resting_fee(at, order, lots)
    account.order_fees += order.fee_reserve
    account.order_loss += loss_at(at, order.sign, order.price, lots)
    rework_orders(account, at, position)


def release(state: EngineState, order: RestingOrder) -> None:
    """Give back what the remainder of an order that ends needed."""
    position = position_for(order)
    if order.reduce_only:
        position.reduce_orders -= 1
        return
    at = state.markets[order.market_id]
    release_lots(state, at, order, order.remaining)
    rework_orders(order.trader, at, position)


def release_lots(state: EngineState, at: MarketState, order: RestingOrder, lots: int) -> None:
    """Give back what `lots` of a waiting order needed, but for the worst case, which the caller works out anew."""
    if order.reduce_only:
        return
    position, account = position_for(order), order.trader
    refresh(state, account)
    if order.sign > 0:
        position.buy_lots -= lots
        if not position.buy_lots:
            position.highest_buy = 0
    else:
        position.sell_lots -= lots
        if not position.sell_lots:
            position.lowest_sell = 0
    fee = resting_fee(at, order, order.remaining - lots)
    account.order_fees += fee - order.fee_reserve
    order.fee_reserve = fee
    account.order_loss -= loss_at(at, order.sign, order.price, lots)


def count_waiting(position: Position, order: RestingOrder) -> None:
    """Count the remainder of an order that may grow the position."""
    lots, price = order.remaining, order.price
    if order.sign > 0:
        position.buy_lots += lots
        if price > position.highest_buy:
            position.highest_buy = price
    else:
        position.sell_lots += lots
        if price < position.lowest_sell or not position.lowest_sell:
            position.lowest_sell = price


def reserve_fee_anew(account: Account, at: MarketState, order: RestingOrder) -> None:
    """The market's fees have changed."""
    if not order.reduce_only:
        account.order_fees -= order.fee_reserve
        order.fee_reserve = resting_fee(at, order, order.remaining)
        account.order_fees += order.fee_reserve


def drop_useless_reducers(ctx: Context, account: Account, market_id: int) -> None:
    """Cancel the account's waiting reduce-only orders that no longer oppose its position."""
    position = account.positions.get(market_id)
    if position is None or not position.reduce_orders:
        return
    for order in live_orders(account):
        if order.market_id == market_id and order.reduce_only and not position.opposes(order.sign):
            cancel(ctx, order, CancelReason.REDUCE_ONLY)


def _enlist(state: EngineState, account: Account, order: RestingOrder) -> None:
    check(order.slot > 0, "orders: slot 0 never rests")
    # Reserving brings the sums to this epoch; an order that had joined before would be counted twice.
    reserve(state, order)
    account.orders[order.slot] = nonce_of(order).live = order
    state.expiries.add(order)


def _delist(state: EngineState, account: Account, order: RestingOrder) -> None:
    del account.orders[order.slot]
    nonce_of(order).live = None
    state.expiries.remove(order)
