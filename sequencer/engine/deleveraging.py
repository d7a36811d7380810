"""Auto-deleveraging: what neither the book nor the insurance fund can take closes against opposite positions,
in the order of the queue.

The queue ranks by profit on cost times leverage (docs/liquidation.md); the vault checks everything but the
order.
"""

from evermark.protocol.batch import FILL_DELEVERAGE, INSURANCE_FUND
from evermark.protocol.liquidation import deleveraging_loss, deleveraging_score, takeover_allowed
from evermark.protocol.margin import maintenance_margin
from evermark.protocol.orders import NO_ADDRESS
from sequencer.engine.batch_builder import (
    FILL_CAP,
    MAX_ACCOUNTS,
    MAX_FILLS,
    MAX_PAIRS,
    STAGE_FILLS,
    OpenFill,
    pair_key,
)
from sequencer.engine.context import Context
from sequencer.engine.events import Deleveraged
from sequencer.engine.execution import NO_FEES, tell_trade
from sequencer.engine.ledger import change_position, move_in_fills
from sequencer.engine.open_orders import drop_useless_reducers
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, touch_positions
from sequencer.engine.state import Account, EngineState
from sequencer.engine.takeover import fund_takes_one
from sequencer.engine.targets import Target, tell_liquidated


def queue(state: EngineState, market_id: int, sign: int) -> list[tuple[int, int]]:
    """(account, score in ppm) of the users who are long (`sign` +1) or short in a market, first to be
    deleveraged first; ties by account id. Without equity nobody is a counterparty."""
    at = state.markets[market_id]
    ranked = []
    for account_id in at.holders:
        account = state.accounts[account_id]
        position = account.positions[market_id]
        if position.size * sign <= 0 or account.owner == NO_ADDRESS:
            continue
        margin = margin_of(state, account)
        if margin.equity > 0:
            profit = at.market.notional(position.size, at.mark) - position.entry_notional
            cost = max(1, abs(position.entry_notional))
            score = deleveraging_score(profit, cost, margin.notional, margin.equity)
            ranked.append((-score, account_id))
    return [(account_id, -negated) for negated, account_id in sorted(ranked)]


def can_deleverage(target: Target) -> bool:
    """Somebody in the queue may take some of the position now."""
    return _may_go_on(target) and any(
        counterparty_lots(target, target.state.accounts[account_id]) for account_id, _ in _opposite(target)
    )


def meets_traders(target: Target) -> bool:
    """Somebody in the queue has an order fill in the open batch, in which it cannot be deleveraged."""
    traded = target.state.batch.row_accounts
    return bool(traded) and any(account_id in traded for account_id, _ in _opposite(target))


def deleverage(ctx: Context, target: Target) -> None:
    """Close the target's position against the queue, only as far as it needs, while the fund cannot take it."""
    if not _may_go_on(target):
        return
    ranked = _opposite(target)
    fills = 0
    for place, (account_id, score) in enumerate(ranked, start=1):
        if fills == FILL_CAP or not _may_go_on(target):
            return
        other = ctx.state.accounts[account_id]
        lots = counterparty_lots(target, other)
        if lots and fits(ctx.state, target, other):
            deleverage_against(ctx, target, other, lots)
            ctx.events.append(
                Deleveraged(
                    account=account_id,
                    market_id=target.at.market.market_id,
                    size=lots,
                    price=target.at.mark,
                    target=target.account.account_id,
                    place=place,
                    of=len(ranked),
                    score_ppm=score,
                )
            )
            fills += 1


def counterparty_lots(target: Target, other: Account) -> int:
    """Lots that an opposite position takes: what the target needs, at most the position, and only so much that
    its account stays at or above maintenance."""
    state, at, market = target.state, target.at, target.at.market
    if not prices_fresh(state, other):
        return 0
    margin, held = margin_of(state, other), other.positions[market.market_id]
    now, own, size = target.margin(), target.position_maintenance(), abs(target.size)

    def healthy(lots: int) -> bool:
        loss = deleveraging_loss(now.equity, now.maintenance, own, lots, size)
        rest = maintenance_margin(market, market.notional(abs(held.size) - lots, at.mark))
        return margin.equity + loss >= margin.maintenance - held.maintenance + rest

    most = min(needed_lots(target), abs(held.size))
    if healthy(most):
        return most
    least = 0
    while most - least > 1:
        middle = (least + most) // 2
        if healthy(middle):
            least = middle
        else:
            most = middle
    return least


def needed_lots(target: Target) -> int:
    """The fewest lots whose closing at the mark restores maintenance; all when none does, and below zero
    equity."""
    margin, market, size = target.margin(), target.at.market, abs(target.size)
    if margin.equity < 0:
        return size
    others = margin.maintenance - target.position_maintenance()
    least, most = 0, size
    while most - least > 1:
        middle = (least + most) // 2
        rest = maintenance_margin(market, market.notional(size - middle, target.at.mark))
        if margin.equity >= others + rest:
            most = middle
        else:
            least = middle
    return most


def _may_go_on(target: Target) -> bool:
    margin = target.margin()
    return (
        target.size != 0
        and takeover_allowed(margin.equity, margin.maintenance)
        and not fund_takes_one(target)
    )


def _opposite(target: Target) -> list[tuple[int, int]]:
    return queue(target.state, target.at.market.market_id, -1 if target.size > 0 else 1)


def fits(state: EngineState, target: Target, other: Account) -> bool:
    """The open batch has no order fill of the counterparty, and place for both accounts and the fund.

    What does not fit waits for the next trigger: all that a command does lies in one batch.
    """
    batch = state.batch
    involved = (target.account, other, state.accounts[INSURANCE_FUND])
    pairs = len(batch.pairs) + sum(account.open_positions for account in involved)
    full = pairs > MAX_PAIRS or len(batch.accounts) + 4 > MAX_ACCOUNTS or len(batch.fills) >= MAX_FILLS
    return not full and other.account_id not in batch.row_accounts


def deleverage_against(ctx: Context, target: Target, other: Account, lots: int) -> None:
    """Close so many lots against a counterparty."""
    state, at, account = ctx.state, target.at, target.account
    margin, own = target.margin(), target.position_maintenance()
    loss = deleveraging_loss(margin.equity, margin.maintenance, own, lots, abs(target.size))
    batch, side = enter(ctx, STAGE_FILLS), target.closing_side
    batch.targets |= {account.account_id, other.account_id}
    batch.deleveraged = True
    touch_positions(state, state.accounts[INSURANCE_FUND])  # the vault asks whether the fund could take it
    change_position(ctx, account, at, side.sign * lots, at.mark)
    change_position(ctx, other, at, -side.sign * lots, at.mark)
    move_in_fills(ctx, account, -loss, "deleveraging")
    move_in_fills(ctx, other, loss, "deleveraging")
    market_id = at.market.market_id
    pairs = pair_key(account.account_id, market_id), pair_key(other.account_id, market_id)
    batch.fills.append(OpenFill(FILL_DELEVERAGE, *pairs, lots))
    maker, taker = (other.account_id, b"", NO_FEES), (account.account_id, b"", NO_FEES)
    tell_trade(ctx, at, at.mark, lots, side, maker, taker, liquidated=account.account_id)
    tell_liquidated(ctx, target, lots, at.mark, loss, 0, deleveraged=True)
    drop_useless_reducers(ctx, other, market_id)
