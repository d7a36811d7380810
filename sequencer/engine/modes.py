"""Which mode of a market is in force: the operator's own, the guardian's while it lasts, the one that a delisting leaves, and
what a stale price allows."""

from sequencer.engine.commands import MarketMode
from sequencer.engine.context import Context
from sequencer.engine.events import CancelReason, MarketModeChanged
from sequencer.engine.market_state import MarketState, stricter
from sequencer.engine.open_orders import cancel, live_orders


def refresh_mode(ctx: Context, at: MarketState, reason: str) -> None:
    """Put together what is in force now, and say so where it differs; a market that halts loses its book, one that is settled all
    its orders."""
    before, effective = at.mode, at.effective_mode
    mode = stricter(at.set_by_operator, at.mode_for_good)
    if ctx.state.now < at.paused_until:
        mode = stricter(mode, at.paused)
    at.mode = mode
    if at.effective_mode != effective:
        ctx.events.append(MarketModeChanged(market_id=at.market_id, mode=at.effective_mode, reason=reason))
    if mode == MarketMode.SETTLED and before != MarketMode.SETTLED:
        for _, account in sorted(ctx.state.accounts.items()):
            for order in live_orders(account):
                if order.market_id == at.market_id:
                    cancel(ctx, order, CancelReason.MARKET_SETTLED)
    elif mode == MarketMode.HALTED and before != MarketMode.HALTED:
        for side in (at.book.bids, at.book.asks):
            for level in list(side.best_first()):
                for order in list(level.orders()):
                    cancel(ctx, order, CancelReason.MARKET_HALTED)


def end_pauses(ctx: Context) -> None:
    """A guardian's mode ends by itself with the first round of its last second."""
    for at in ctx.state.markets:
        if at.paused_until and at.paused_until <= ctx.state.now:
            at.paused, at.paused_until = MarketMode.NORMAL, 0
            refresh_mode(ctx, at, "the guardian's time is over")


def update_staleness(ctx: Context, at: MarketState) -> None:
    """Whether the price is fresh by engine time, and what follows for the mode."""
    state = ctx.state
    stale = not at.price.is_fresh(state.now, at.market.max_price_age_s)
    if stale == at.stale:
        return
    before = at.effective_mode
    at.stale = stale
    state.stale_markets += 1 if stale else -1
    if at.effective_mode != before:
        uncertain = "price jumped" if at.price.clamped else "price is stale"
        reason = uncertain if stale else "price is fresh"
        ctx.events.append(MarketModeChanged(market_id=at.market_id, mode=at.effective_mode, reason=reason))
