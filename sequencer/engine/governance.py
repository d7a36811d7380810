"""Inbox entries of governor and guardian: markets, modes, keepers and quorums change in the one sequence, as the vault consumes
them."""

from msgspec.structs import replace

from evermark.protocol.governance import (
    MAX_KEEPERS,
    ORACLE_ROLE,
    AnyChange,
    DelistMarket,
    ListMarket,
    PauseMarket,
    SetKeeper,
    SetQuorums,
    SettleMarket,
    TuneMarket,
    fits,
    may_list,
)
from evermark.protocol.oracle import NO_PRICE
from evermark.protocol.units import check
from sequencer.engine.commands import Genesis, MarketMode
from sequencer.engine.context import Context
from sequencer.engine.events import KeepersChanged, MarketListed, MarketTuned
from sequencer.engine.market_state import MarketState
from sequencer.engine.modes import refresh_mode, update_staleness
from sequencer.engine.open_orders import reserve_fee_anew
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.state import EngineState


def apply_change(ctx: Context, change: AnyChange) -> bool:
    """Make a change; False, and nothing is changed, where it no longer fits what has become of the exchange."""
    if isinstance(change, ListMarket):
        return _list(ctx, change)
    if isinstance(change, TuneMarket):
        return _tune(ctx, change)
    if isinstance(change, PauseMarket):
        return _pause(ctx, change)
    if isinstance(change, DelistMarket):
        return _delist(ctx, change)
    if isinstance(change, SettleMarket):
        return _settle(ctx, change)
    if isinstance(change, SetKeeper):
        return _set_keeper(ctx, change)
    if isinstance(change, SetQuorums):
        return _set_quorums(ctx, change)
    return True  # another sequencer: of no concern to the engine


def _constitution(state: EngineState) -> Genesis:
    check(state.genesis is not None, "governance: the exchange has begun")
    assert state.genesis is not None
    return state.genesis


def _list(ctx: Context, change: ListMarket) -> bool:
    state = ctx.state
    if not may_list([at.market for at in state.markets], change.market.symbol):
        return False
    market = replace(change.market, market_id=len(state.markets))
    state.markets.append(MarketState(market, NO_PRICE))
    state.market_ids[market.symbol] = market.market_id
    state.stale_markets += 1
    _note_markets(state)
    ctx.events.append(MarketListed(market=market))
    return True


def _tune(ctx: Context, change: TuneMarket) -> bool:
    """Waiting orders stay, and reserve by the new fees; what else they reserve is worked out anew with the new epoch."""
    state = ctx.state
    at = state.markets[change.market.market_id]
    if at.mode_for_good != MarketMode.NORMAL or not fits(at.market, change.market):
        return False
    at.market = change.market
    state.epoch += 1
    for order in _orders_in(at):
        reserve_fee_anew(state.accounts[order.account], at, order)
    _note_markets(state)
    update_staleness(ctx, at)
    ctx.events.append(MarketTuned(market=change.market))
    return True


def _note_markets(state: EngineState) -> None:
    state.genesis = replace(_constitution(state), markets=tuple(at.market for at in state.markets))


def _orders_in(at: MarketState) -> list[RestingOrder]:
    return [
        order
        for side in (at.book.bids, at.book.asks)
        for level in side.best_first()
        for order in level.orders()
    ]


def _pause(ctx: Context, change: PauseMarket) -> bool:
    at = ctx.state.markets[change.market_id]
    at.paused = MarketMode(change.mode)
    at.paused_until = change.until if change.mode else 0
    refresh_mode(ctx, at, "set by the guardian" if change.mode else "lifted by the guardian")
    return True


def _delist(ctx: Context, change: DelistMarket) -> bool:
    at = ctx.state.markets[change.market_id]
    if at.mode_for_good != MarketMode.NORMAL:
        return False
    at.mode_for_good = MarketMode.REDUCE_ONLY
    refresh_mode(ctx, at, "the market will be delisted")
    return True


def _settle(ctx: Context, change: SettleMarket) -> bool:
    """No order trades here any more; from the next round on the settlement price is the market's only one, and positions end."""
    at = ctx.state.markets[change.market_id]
    check(at.mode_for_good == MarketMode.REDUCE_ONLY, "governance: the market is not delisted")
    at.mode_for_good, at.settlement_price = MarketMode.SETTLED, change.price
    refresh_mode(ctx, at, "the market is settled in cash")
    return True


def _set_keeper(ctx: Context, change: SetKeeper) -> bool:
    genesis = _constitution(ctx.state)
    oracle = change.role == ORACLE_ROLE
    keepers = genesis.oracle_keepers if oracle else genesis.funding_keepers
    quorum = genesis.oracle_quorum if oracle else genesis.funding_quorum
    known = change.keeper in keepers
    if known == change.registered or len(keepers) == (MAX_KEEPERS if change.registered else quorum):
        return False
    if change.registered:
        keepers = (*keepers, change.keeper)
    else:
        keepers = tuple(keeper for keeper in keepers if keeper != change.keeper)
    changed = (
        replace(genesis, oracle_keepers=keepers) if oracle else replace(genesis, funding_keepers=keepers)
    )
    _set_constitution(ctx, changed)
    return True


def _set_quorums(ctx: Context, change: SetQuorums) -> bool:
    genesis = _constitution(ctx.state)
    if change.oracle_quorum > len(genesis.oracle_keepers) or change.funding_quorum > len(
        genesis.funding_keepers
    ):
        return False
    _set_constitution(
        ctx, replace(genesis, oracle_quorum=change.oracle_quorum, funding_quorum=change.funding_quorum)
    )
    return True


def _set_constitution(ctx: Context, genesis: Genesis) -> None:
    ctx.state.genesis = genesis
    ctx.events.append(
        KeepersChanged(
            oracle_keepers=genesis.oracle_keepers,
            funding_keepers=genesis.funding_keepers,
            oracle_quorum=genesis.oracle_quorum,
            funding_quorum=genesis.funding_quorum,
        )
    )
