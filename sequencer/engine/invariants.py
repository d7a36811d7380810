"""What must hold after every command. Tests run this each time; in production it may be sampled.

Numbers refer to the protocol, section 13.
"""

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.units import FUNDING_SCALE, check
from sequencer.engine.batch_builder import MAX_ACCOUNTS, MAX_FILLS, MAX_PAIRS, MAX_ROWS, pair_key
from sequencer.engine.expiry_index import MINUTE_S
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import row_in
from sequencer.engine.order_book import BookSide, RestingOrder
from sequencer.engine.risk import order_loss, refresh, resting_fee
from sequencer.engine.sealing import noted_in
from sequencer.engine.state import Account, EngineState
from sequencer.engine.twap import next_due_s


def check_invariants(state: EngineState) -> None:
    """Raises BrokenInvariant naming the first rule that does not hold. Recomputes; changes only caches."""
    collateral = sum(account.collateral for account in state.accounts.values())
    whole = collateral + state.funding_pool + state.claimed
    check(whole == state.credited, "invariant 1: collateral, pool and claims are not what was credited")
    check(state.dust >= 0, "invariant 1: dust is negative")
    check(state.dust < FUNDING_SCALE or bool(state.batch.fills), "invariant 1: dust holds a whole unit")
    for at in state.markets:
        _check_market(state, at)
    for account_id, account in state.accounts.items():
        check(account.account_id == account_id, "accounts: an id names another account")
        _check_account(state, account)
    users = {
        (account.owner, account.sub_account): account_id
        for account_id, account in state.accounts.items()
        if account_id >= FIRST_USER_ACCOUNT
    }
    check(users == state.account_ids, "accounts: owners and ids do not match")
    check(
        len(state.unsettled) == state.sealed_batch - state.confirmed_batch, "batches: unsettled ones are lost"
    )
    check(state.stale_markets == sum(at.stale for at in state.markets), "markets: stale ones are miscounted")
    _check_twaps(state)
    _check_batch(state)


def _check_market(state: EngineState, at: MarketState) -> None:
    market_id = at.market.market_id
    sizes = [
        account.positions[market_id].size
        for account in state.accounts.values()
        if market_id in account.positions
    ]
    holders = {key for key, account in state.accounts.items() if _holds(account, market_id)}
    check(at.holders == holders, "markets: the holders are miscounted")
    check(sum(sizes) == 0, "invariant 2: positions do not sum to zero")
    check(sum(size for size in sizes if size > 0) == at.open_interest, "invariant 2: open interest")
    bid, ask = at.book.bids.best(), at.book.asks.best()
    check(bid is None or ask is None or bid.price < ask.price, "book: crossed")
    for side in (at.book.bids, at.book.asks):
        _check_side(state, side)
    waiting = [
        (order.trigger, entry[1:])
        for kind, entries in at.triggers.entries.items()
        for entry in entries
        for order in (state.accounts[entry[2]].untriggered[entry[3]],)
        if order.arrival == entry[1] and order.trigger == kind and abs(entry[0]) == order.trigger_price
    ]
    untriggered = sum(
        order.market_id == market_id and not order.twap_interval
        for account in state.accounts.values()
        for order in account.untriggered.values()
    )
    check(
        len(waiting) == untriggered == sum(map(len, at.triggers.entries.values())),
        "triggers: the index and the accounts differ",
    )


def _check_twaps(state: EngineState) -> None:
    """Each TWAP is in the heap with its next slice, which is of the future or overdue for want of room."""
    for account in state.accounts.values():
        for order in account.untriggered.values():
            if order.twap_interval:
                entry = (next_due_s(order), order.account, order.slot, order.sequence)
                check(state.twaps.count(entry) == 1, "twaps: an order without its next slice")


def _holds(account: Account, market_id: int) -> bool:
    return market_id in account.positions and account.positions[market_id].size != 0


def _check_side(state: EngineState, side: BookSide) -> None:
    keys = side.keys()
    check(sorted(set(keys)) == keys, "book: prices out of order")
    check(
        [chunk[-1] for chunk in side.chunks[:-1]] == side.highest, "book: a chunk without its highest price"
    )
    check(
        side.top is (side.levels[keys[-1] * side.sign] if keys else None), "book: another level is the best"
    )
    check({key * side.sign for key in keys} == set(side.levels), "book: a level without its price")
    for level in side.levels.values():
        total = count = 0
        for order in level.orders():
            check(0 < order.remaining <= order.size, "invariant 3: a waiting order is filled")
            check(order.price == level.price and order.level is level, "book: an order at another's price")
            check(state.accounts[order.account].orders.get(order.slot) is order, "book: an orphan order")
            check(order.expiry > state.now, "book: an expired order waits")
            total += order.shown
            count += 1
        check(count > 0 and (total, count) == (level.total, level.count), "book: a level miscounts")


def _check_account(state: EngineState, account: Account) -> None:
    lots: dict[tuple[int, int], int] = {}
    reducers: dict[int, int] = {}
    fees = loss = 0
    for slot, order in account.orders.items():
        check(slot == order.slot and order.level is not None, "orders: a live order waits nowhere")
        check(account.slots[slot].sequence >= order.sequence, "invariant 3: a slot's sequence fell")
        _check_references(state, account, order)
        if order.reduce_only:
            reducers[order.market_id] = reducers.get(order.market_id, 0) + 1
            continue
        at = state.markets[order.market_id]
        lots[order.market_id, order.side] = lots.get((order.market_id, order.side), 0) + order.remaining
        _check_limits(account, order)
        fees += resting_fee(at, order, order.remaining)
        loss += order_loss(at, order)
    for slot, order in account.untriggered.items():
        check(slot == order.slot and slot not in account.orders, "triggers: a slot holds two orders")
        _check_references(state, account, order)
        check(order.is_untriggered and order.expiry > state.now, "triggers: an order that ended waits")
        if order.reduce_only:
            reducers[order.market_id] = reducers.get(order.market_id, 0) + 1
    for market_id, position in account.positions.items():
        kept = (position.buy_lots, position.sell_lots, position.reduce_orders)
        found = (lots.get((market_id, 0), 0), lots.get((market_id, 1), 0), reducers.get(market_id, 0))
        check(kept == found, "reservation: open lots differ from the open orders")
        without_orders = not position.buy_lots and position.highest_buy
        without_orders = without_orders or (not position.sell_lots and position.lowest_sell)
        check(not without_orders, "reservation: a limit of no waiting order")
    opened = sum(position.size != 0 for position in account.positions.values())
    check(account.open_positions == opened, "accounts: open positions are miscounted")
    check(account.order_fees == fees, "reservation: fees differ from the open orders")
    refresh(state, account)
    kept_sums = _sums(account)
    check(account.order_loss == loss, "reservation: losses differ from the open orders")
    account.epoch = -1
    refresh(state, account)
    check(kept_sums == _sums(account), "risk: the kept sums differ from recomputed ones")


def _check_limits(account: Account, order: RestingOrder) -> None:
    """No waiting order is dearer or cheaper than its position knows: so a round may leave the orders alone."""
    position = account.positions[order.market_id]
    within = (
        order.price <= position.highest_buy if order.sign > 0 else order.price >= position.lowest_sell > 0
    )
    check(within, "reservation: an order beyond the limits of its position")


def _check_references(state: EngineState, account: Account, order: RestingOrder) -> None:
    """What a waiting order refers to is what a look-up finds."""
    nonce, position = account.slots[order.slot], account.positions.get(order.market_id)
    check(order.trader is account and order.account == account.account_id, "orders: of another account")
    check(nonce.live is order and order.nonce in (None, nonce), "orders: a slot knows another order")
    check(order.position in (None, position), "orders: of another position")
    row = state.batch.rows.get((order.account, order.slot, order.sequence))
    check(row_in(state.batch, order) is row, "orders: another row of the open batch")
    basket = state.expiries.baskets[order.expiry // MINUTE_S]
    check(basket[order.basket_place] is order, "orders: missing among those that expire")


def _sums(account: Account) -> tuple[int, ...]:
    return (
        account.value,
        account.initial,
        account.maintenance,
        account.notional,
        account.worst,
        account.order_loss,
    )


def _check_batch(state: EngineState) -> None:
    batch = state.batch
    check(len(batch.rows) <= MAX_ROWS and len(batch.fills) <= MAX_FILLS, "batch: too many rows or fills")
    check(len(batch.accounts) <= MAX_ACCOUNTS and len(batch.pairs) <= MAX_PAIRS, "batch: tables too large")
    check(batch.number == state.sealed_batch + 1, "batch: not the one after the last sealed one")
    check(not batch.targets & batch.row_accounts, "batch: a liquidation target trades by order")
    for account in batch.noted:
        noted = noted_in(batch, account)
        check(noted is not None, "batch: an account does not know its baseline")
        changed = [held for held in account.positions.values() if held.noted_in == batch.number]
        check(noted is None or noted.changed == len(changed), "batch: a baseline miscounts what changed")
        for market_id, position in account.positions.items() if changed else ():
            named = not position.size or pair_key(account.account_id, market_id) in batch.pairs
            check(named, "batch: an open position of a changed account is not named")
