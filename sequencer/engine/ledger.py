"""Every movement of collateral and every change of a position. Integers as the vault computes them."""

from heapq import heappush

from evermark.protocol.batch import FEE_ACCOUNT
from evermark.protocol.margin import fee_delta, funding_owed, funding_remainder
from evermark.protocol.outflow import after_claim
from evermark.protocol.units import check, floor_div
from sequencer.engine.batch_builder import Row, pair_key, path_bytes
from sequencer.engine.context import Context
from sequencer.engine.events import AccountRegistered, CollateralChanged, PositionChanged, WithdrawalClaimed
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.risk import refresh, revalue
from sequencer.engine.sealing import baseline, touch, touch_positions
from sequencer.engine.state import Account, EngineState, Position, SlotState


def register(ctx: Context, owner: bytes, sub_account: int) -> Account:
    """A new account under the next id."""
    state = ctx.state
    account = Account(len(state.accounts) + 1, owner, sub_account)
    state.add_account(account)
    state.account_ids[owner, sub_account] = account.account_id
    ctx.events.append(AccountRegistered(account=account.account_id, owner=owner, sub_account=sub_account))
    return account


def change_collateral(ctx: Context, account: Account, delta: int, cause: str) -> None:
    """Credit (or debit) an account and say why. A zero changes nothing and is not told."""
    if delta == 0:
        return
    account.collateral += delta
    ctx.events.append(
        CollateralChanged(account=account.account_id, delta=delta, collateral=account.collateral, cause=cause)
    )


def move_in_fills(ctx: Context, account: Account, delta: int, cause: str) -> None:
    """`change_collateral` inside section 4: the account's baseline is noted first."""
    baseline(ctx.state, account)
    change_collateral(ctx, account, delta, cause)


def claim(ctx: Context, account: Account, amount: int, fee: int) -> None:
    """Count what was just taken out of an account as a claim of its owner, payable when the outflow limits allow."""
    state = ctx.state
    state.outflow, due = after_claim(state.outflow, state.credited - state.claimed, amount, state.now)
    state.claimed += amount
    state.claim_count += 1
    number, account_id = state.claim_count, account.account_id
    if due:
        heappush(state.delayed_claims, (due, number, account_id, amount))
    ctx.events.append(
        WithdrawalClaimed(
            account=account_id, owner=account.owner, amount=amount, fee=fee, claim=number, payable_at=due
        )
    )


def position_of(account: Account, market_id: int) -> Position:
    """The account's position in a market, made when absent."""
    position = account.positions.get(market_id)
    if position is None:
        position = account.positions[market_id] = Position(market_id)
    return position


def position_for(order: RestingOrder) -> Position:
    """The position that the order trades for, made when absent."""
    position = order.position
    if position is None:
        position = order.position = position_of(order.trader, order.market_id)
    return position


def nonce_of(order: RestingOrder) -> SlotState:
    """The nonce of the order's slot, made when absent; not of slot 0, whose nonce is the account's."""
    nonce = order.nonce
    if nonce is None:
        nonce = order.nonce = order.trader.slots.setdefault(order.slot, SlotState())
    return nonce


def row_of(ctx: Context, order: RestingOrder) -> Row:
    """The order's row in the open batch; its first use is what the vault remembers of the slot."""
    batch = ctx.state.batch
    row = order.row
    if row is None or row.number != batch.number:
        check(
            not batch.targets or order.account not in batch.targets,
            "batch: a liquidation target trades by order",
        )
        key = (order.account, order.slot, order.sequence)
        row = Row(batch.number, key, order.market_id, order.order, order.signature, order.path)
        order.row = batch.rows[key] = row
        batch.path_bytes += path_bytes(order.path)
        if order.builder_fee_ppm:
            row.builder = order.builder
            batch.accounts.add(order.builder)
        batch.row_accounts.add(order.account)
        if order.slot == 0:
            order.trader.used_taker_sequence = order.sequence
        else:
            nonce_of(order).used_sequence = order.sequence
    return row


def charge_fee(ctx: Context, account: Account, row: Row, notional: int, rate_ppm: int) -> int:
    """Charge one fill's share of a row's fee (a rebate is negative) and return it. The account's position has changed."""
    row.numerator, fee = fee_delta(row.numerator, notional, rate_ppm)
    change_collateral(ctx, account, -fee, "fee")
    fee_account = ctx.state.accounts[FEE_ACCOUNT]
    touch(ctx.state, fee_account)
    change_collateral(ctx, fee_account, fee, "fee")
    return fee


def charge_builder(ctx: Context, account: Account, row: Row, notional: int, rate_ppm: int) -> int:
    """Charge one fill's share of the fee of a row's builder, who gets it, and return it."""
    row.builder_numerator, fee = fee_delta(row.builder_numerator, notional, rate_ppm)
    move_in_fills(ctx, account, -fee, "builder_fee")
    move_in_fills(ctx, ctx.state.accounts[row.builder], fee, "builder_fee")
    return fee


def change_position(ctx: Context, account: Account, at: MarketState, delta: int, price: int) -> None:
    """Buy (`delta` > 0) or sell at `price` for cash; settles the position's funding first."""
    trade(ctx, account, at, position_of(account, at.market_id), delta, at.notional(delta, price))


def trade(ctx: Context, account: Account, at: MarketState, position: Position, delta: int, cost: int) -> None:
    """`change_position` for who has the position, and knows what it costs (below zero: brings in)."""
    state, account_id, market_id = ctx.state, account.account_id, at.market_id
    _note_in_batch(state, account, position)
    refresh(state, account)
    _settle_funding(ctx, account, at, position)
    before, after = position.size, position.size + delta
    realized = _change_cost(position, delta, cost)
    position.entry_mark = _entry_mark(position.size_before, after, position.mark_before, at.mark)
    position.size = after
    if before == 0:
        account.open_positions += 1
        at.holders.add(account_id)
    if after == 0:
        account.open_positions -= 1
        at.holders.discard(account_id)
        if not account.open_positions:
            state.debtors.add(account_id)
    at.open_interest += (after if after > 0 else 0) - (before if before > 0 else 0)
    change_collateral(ctx, account, -cost, "trade")
    revalue(account, at, position)
    ctx.events.append(
        PositionChanged(
            account=account_id,
            market_id=market_id,
            size=after,
            entry_notional=position.entry_notional,
            realized_pnl=realized,
        )
    )


def _note_in_batch(state: EngineState, account: Account, position: Position) -> None:
    """The first of the open batch's fills notes what the position was, and names all of the account's positions."""
    noted = baseline(state, account)
    if position.noted_in != noted.number:
        if not noted.changed and account.open_positions > (position.size != 0):
            touch_positions(state, account)
        state.batch.pairs.add(pair_key(account.account_id, position.market_id))
        noted.changed += 1
        position.note(noted.number)


def _settle_funding(ctx: Context, account: Account, at: MarketState, position: Position) -> None:
    state = ctx.state
    if position.size and position.entry_cumulative != at.cumulative:
        owed = funding_owed(position.size, at.cumulative, position.entry_cumulative)
        state.dust += funding_remainder(position.size, at.cumulative, position.entry_cumulative)
        state.funding_pool += owed
        change_collateral(ctx, account, -owed, "funding")
    position.entry_cumulative = at.cumulative


def _change_cost(position: Position, delta: int, cost: int) -> int:
    """Carry the position's entry cost over a trade of `delta` lots for `cost`; returns the realized
    profit."""
    before = position.size
    if before == 0 or (before > 0) == (delta > 0):
        position.entry_notional += cost
        return 0
    lots, held = abs(delta), abs(before)
    if lots <= held:
        closed_entry = (
            floor_div(position.entry_notional * lots, held) if lots < held else position.entry_notional
        )
        position.entry_notional -= closed_entry
        return -cost - closed_entry
    closing_cost = floor_div(cost * held, lots)
    closed_entry, position.entry_notional = position.entry_notional, cost - closing_cost
    return -closing_cost - closed_entry


def _entry_mark(before: int, after: int, entry_mark: int, mark: int) -> int:
    """Mark at entry, from before the batch to now: the current mark on opening or flipping, size-weighted
    (floor) on growing, else unchanged."""
    if after == 0:
        return entry_mark
    if before == 0 or (before > 0) != (after > 0):
        return mark
    lots, held = abs(after), abs(before)
    if lots <= held:
        return entry_mark
    return floor_div(entry_mark * held + mark * (lots - held), lots)
