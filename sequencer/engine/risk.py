"""Margin of an account: cached sums per price epoch, kept up to date position by position.

Formulas are `evermark.protocol.margin`'s. What open orders could do is counted at its worst: per market the
larger of |position + buys| and |position - sells|, the loss of waiting orders against the mark, and their
fees.
"""

from evermark.protocol.margin import AccountMargin, funding_owed
from evermark.protocol.units import PPM, ppm_of
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.state import Account, EngineState, Position


def refresh(state: EngineState, account: Account) -> None:
    """Recompute the account's sums when prices or funding moved since they were made."""
    if account.epoch == state.epoch:
        return
    account.epoch = state.epoch
    value = initial = maintenance = notional = worst = loss = 0
    may_lose = False
    for market_id, position in account.positions.items():
        at = state.markets[market_id]
        _value(at, position)
        may_lose = may_lose or position.highest_buy > at.mark or 0 < position.lowest_sell < at.mark
        value += position.value
        initial += position.initial
        maintenance += position.maintenance
        notional += position.notional
        worst += position.worst
    if may_lose:
        for order in account.orders.values():
            loss += order_loss(state.markets[order.market_id], order)
    account.value, account.notional = value, notional
    account.initial, account.maintenance = initial, maintenance
    account.worst, account.order_loss = worst, loss


def revalue(account: Account, at: MarketState, position: Position) -> None:
    """Bring the sums up to date after one position, or the orders beside it, changed. The account is
    refreshed."""
    account.value -= position.value
    account.initial -= position.initial
    account.maintenance -= position.maintenance
    account.notional -= position.notional
    account.worst -= position.worst
    _value(at, position)
    account.value += position.value
    account.initial += position.initial
    account.maintenance += position.maintenance
    account.notional += position.notional
    account.worst += position.worst


def rework_orders(account: Account, at: MarketState, position: Position) -> None:
    """`revalue` where only the waiting orders changed. The account is refreshed."""
    worst = worst_initial(at, position.size, position.buy_lots, position.sell_lots)
    account.worst += worst - position.worst
    position.worst = worst


def _value(at: MarketState, position: Position) -> None:
    size = position.size
    if size:
        notional = (size if size > 0 else -size) * at.lot_value
        initial = at.margin.initial(notional)
        position.notional = notional
        position.initial = initial
        position.maintenance = (initial + 1) // 2  # rounded up, of what is not negative
        value = notional if size > 0 else -notional
        if at.cumulative != position.entry_cumulative:
            value -= funding_owed(size, at.cumulative, position.entry_cumulative)
        position.value = value
    else:
        position.notional = position.initial = position.maintenance = position.value = 0
    if position.buy_lots or position.sell_lots:
        position.worst = worst_initial(at, size, position.buy_lots, position.sell_lots)
    else:
        position.worst = position.initial


def worst_initial(at: MarketState, size: int, buy_lots: int, sell_lots: int) -> int:
    """Initial margin of the largest position that the waiting orders could make."""
    largest = size if size >= 0 else -size
    if size + buy_lots > largest:
        largest = size + buy_lots
    if sell_lots - size > largest:
        largest = sell_lots - size
    return at.margin.initial(largest * at.lot_value) if largest else 0


def order_loss(at: MarketState, order: RestingOrder) -> int:
    """What the order's remainder would lose against the mark at its limit; a reduce-only order reserves
    nothing."""
    if order.reduce_only:
        return 0
    return loss_at(at, order.sign, order.price, order.remaining)


def loss_at(at: MarketState, sign: int, price: int, lots: int) -> int:
    """Loss against the mark of trading `lots` at `price` (`sign` +1 buys), not below zero."""
    worse = price - at.mark if sign > 0 else at.mark - price
    return lots * (worse * at.lot_tick_value) if worse > 0 else 0


def order_fee(at: MarketState, price: int, lots: int, rate_ppm: int) -> int:
    """Fee that trading `lots` at `price` may cost; a rebate is not counted on."""
    if rate_ppm <= 0:
        return 0
    return -(-ppm_of(lots * (price * at.lot_tick_value), rate_ppm) // PPM)


def resting_fee(at: MarketState, order: RestingOrder, lots: int) -> int:
    """What trading `lots` of an order that waits may cost, its builder's fee included."""
    rate = at.maker_fee_ppm
    if order.builder_fee_ppm:
        rate = max(rate, 0) + order.builder_fee_ppm
    return order_fee(at, order.price, lots, rate)


def margin_of(state: EngineState, account: Account) -> AccountMargin:
    """Equity and requirements now."""
    refresh(state, account)
    margin = AccountMargin(account.collateral + account.value)
    margin.initial = account.initial
    margin.maintenance = account.maintenance
    margin.notional = account.notional
    return margin


def free_equity(state: EngineState, account: Account) -> int:
    """Equity less what open orders could lose and cost: what must cover the worst case's initial margin."""
    refresh(state, account)
    return account.collateral + account.value - account.order_loss - account.order_fees


def available(state: EngineState, account: Account) -> int:
    """Quote units that may be withdrawn without breaking the margin of positions or open orders."""
    margin = margin_of(state, account)
    return max(0, min(margin.withdrawable, free_equity(state, account) - account.worst))


def prices_fresh(state: EngineState, account: Account) -> bool:
    """Every open position's price is fresh."""
    if not state.stale_markets:
        return True
    return not any(
        position.size and state.markets[market_id].stale for market_id, position in account.positions.items()
    )
