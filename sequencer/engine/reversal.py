"""Reverse: the state becomes what it was right after a batch that the chain has confirmed, because what came later can never
settle.

Not taken back is what batches do not decide: the keepers' prices and with them time, outages of the chain, and the numbers
of trades, each of which names one trade for good. What differs from before is told order by order, position by position, level by
level, and market by market.

Prices are taken back where a change of the governor's is: a settlement price, a jump band or a further market made words of
them that the chain, which knows nothing of the change, never makes of the same reports. The newest round then comes again.
"""

from evermark.protocol.units import check
from sequencer.engine.batch_builder import OpenBatch
from sequencer.engine.commands import Reverse
from sequencer.engine.context import Context
from sequencer.engine.events import (
    CancelReason,
    CollateralChanged,
    MarketModeChanged,
    OrderRestored,
    PositionChanged,
    Reversed,
)
from sequencer.engine.open_orders import live_orders, tell_cancelled
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.rounds import expire_orders
from sequencer.engine.sealing import pay_dust
from sequencer.engine.state import Account, EngineState, Position

NO_POSITION = Position(-1)


def reverse(ctx: Context, command: Reverse) -> None:
    """Go back to `ctx.past`, the state after record `command.after`."""
    state, past = ctx.state, ctx.past
    check(past is not None, "reversal: needs the state that it goes back to")
    if past is None:
        return
    check(past.sequence == command.after, "reversal: a state of another record")
    _settle(past, command.batch_id)
    ctx.events.append(
        Reversed(
            after=command.after,
            batch_id=command.batch_id,
            cause=command.cause,
            first_trade=past.trade_count + 1,
            last_trade=state.trade_count,
            funding_hour=past.funding_hour,
            markets=len(past.markets),
            round=past.round.round if command.with_prices else 0,
        )
    )
    _tell_orders(ctx, state, past)
    _tell_accounts(ctx, state, past)
    _touch_levels(ctx, state, past)
    past.trade_count = state.trade_count
    past.chain_restarted = state.chain_restarted
    if not command.with_prices:
        past.price_by(state.round)
    past.stirred = {at.market_id for at in past.markets}
    modes = [at.effective_mode for at in state.markets]
    state.become(past)
    expire_orders(ctx)
    for at, before in zip(state.markets, modes, strict=False):
        if at.effective_mode != before:
            ctx.events.append(
                MarketModeChanged(market_id=at.market_id, mode=at.effective_mode, reason="reversal")
            )


def _settle(past: EngineState, batch_id: int) -> None:
    """Count the past's batches as settled. The last one may still be open there: a later command sealed it."""
    if past.sealed_batch < batch_id:
        pay_dust(past)
        past.sealed_batch += 1
        past.batch = OpenBatch(past.sealed_batch + 1)
    check(past.sealed_batch == batch_id and past.batch.is_empty, "reversal: not the end of the batch")
    past.confirmed_batch, past.unsettled, past.unsettled_sealed = batch_id, [], 0


def _tell_orders(ctx: Context, now: EngineState, past: EngineState) -> None:
    before, after = _live(now), _live(past)
    kept = {order.order_hash for order in after}
    for order in before:
        if order.order_hash not in kept:
            tell_cancelled(ctx, order, CancelReason.REVERSED)
    known = {order.order_hash: order for order in before}
    for order in after:
        other = known.get(order.order_hash)
        same = other is not None and (other.filled, other.is_untriggered) == (
            order.filled,
            order.is_untriggered,
        )
        if not same:
            ctx.events.append(
                OrderRestored(
                    account=order.account,
                    order_hash=order.order_hash,
                    market_id=order.market_id,
                    filled=order.filled,
                    remaining=order.remaining,
                    triggered=not order.is_untriggered or order.twap_interval > 0,
                )
            )


def _live(state: EngineState) -> list[RestingOrder]:
    """Every order that waits, by account and slot."""
    return [
        order
        for _, account in sorted(state.accounts.items())
        for order in sorted(live_orders(account), key=lambda order: order.slot)
    ]


def _tell_accounts(ctx: Context, now: EngineState, past: EngineState) -> None:
    for account_id, account in sorted(past.accounts.items()):
        before = now.accounts.get(account_id)
        if before is None:
            continue
        delta = account.collateral - before.collateral
        if delta:
            ctx.events.append(
                CollateralChanged(
                    account=account_id, delta=delta, collateral=account.collateral, cause="reversal"
                )
            )
        _tell_positions(ctx, before, account)


def _tell_positions(ctx: Context, before: Account, account: Account) -> None:
    for market_id in sorted(before.positions.keys() | account.positions.keys()):
        position = account.positions.get(market_id, NO_POSITION)
        other = before.positions.get(market_id, NO_POSITION)
        if (position.size, position.entry_notional) != (other.size, other.entry_notional):
            ctx.events.append(
                PositionChanged(
                    account=account.account_id,
                    market_id=market_id,
                    size=position.size,
                    entry_notional=position.entry_notional,
                    realized_pnl=0,
                )
            )


def _touch_levels(ctx: Context, now: EngineState, past: EngineState) -> None:
    """Levels whose size differs; what they are now is told at the command's end."""
    for at, before in zip(past.markets, now.markets, strict=False):
        for ours, theirs in ((at.book.bids, before.book.bids), (at.book.asks, before.book.asks)):
            for price in sorted(ours.levels.keys() | theirs.levels.keys()):
                level, other = ours.levels.get(price), theirs.levels.get(price)
                if (level and level.total) != (other and other.total):
                    ctx.touch_level(at.market_id, ours.sign, price, level)
