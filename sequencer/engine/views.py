"""Pure readings of the state for gateways and market data. Call between two commands; nothing here changes
money."""

from collections.abc import Callable

import msgspec

from evermark.protocol.margin import AccountMargin, funding_owed, maintenance_margin
from evermark.protocol.orders import Side
from evermark.protocol.units import MAX_PRICE_TICKS
from sequencer.engine.order_book import BookSide, RestingOrder
from sequencer.engine.risk import available, margin_of
from sequencer.engine.state import Account, EngineState


class PositionView(msgspec.Struct, frozen=True):
    """One open position. Quote units, lots and ticks; `liquidation_price` is None where no price
    liquidates."""

    market_id: int
    symbol: str
    size: int
    entry_notional: int  # signed cost; divided by size x lot_tick_value it is the entry price in ticks
    mark: int
    notional: int
    unrealized_pnl: int
    funding_owed: int
    liquidation_price: int | None


class AccountView(msgspec.Struct, frozen=True):
    """An account as its owner sees it; quote units."""

    account: int
    owner: bytes
    sub_account: int
    collateral: int
    equity: int
    initial_margin: int
    maintenance_margin: int
    withdrawable: int  # open orders' reservation taken off
    action_sequence: int
    open_orders: int
    positions: tuple[PositionView, ...]


def find_account(state: EngineState, owner: bytes, sub_account: int) -> Account | None:
    """The registered account of an owner, None before its first deposit."""
    return state.accounts.get(state.account_ids.get((owner, sub_account), 0))


def account_margin(state: EngineState, account_id: int) -> AccountMargin:
    """Equity, initial and maintenance margin and notional now. Raises KeyError for an unknown id."""
    return margin_of(state, state.accounts[account_id])


def withdrawable(state: EngineState, account_id: int) -> int:
    """What a WithdrawRequest may take now, quote units. Raises KeyError for an unknown id."""
    return available(state, state.accounts[account_id])


def account_view(state: EngineState, account_id: int) -> AccountView:
    """Everything about an account. Raises KeyError for an unknown id."""
    account = state.accounts[account_id]
    margin = margin_of(state, account)
    return AccountView(
        account=account_id,
        owner=account.owner,
        sub_account=account.sub_account,
        collateral=account.collateral,
        equity=margin.equity,
        initial_margin=margin.initial,
        maintenance_margin=margin.maintenance,
        withdrawable=available(state, account),
        action_sequence=account.action_sequence,
        open_orders=len(account.orders) + len(account.untriggered),
        positions=positions(state, account_id),
    )


def positions(state: EngineState, account_id: int) -> tuple[PositionView, ...]:
    """The open positions of an account, by market id."""
    account = state.accounts[account_id]
    views = []
    for market_id, position in sorted(account.positions.items()):
        if not position.size:
            continue
        at = state.markets[market_id]
        value = at.market.notional(position.size, at.mark)
        views.append(
            PositionView(
                market_id=market_id,
                symbol=at.market.symbol,
                size=position.size,
                entry_notional=position.entry_notional,
                mark=at.mark,
                notional=abs(value),
                unrealized_pnl=value - position.entry_notional,
                funding_owed=funding_owed(position.size, at.cumulative, position.entry_cumulative),
                liquidation_price=liquidation_price(state, account_id, market_id),
            )
        )
    return tuple(views)


def liquidation_price(state: EngineState, account_id: int, market_id: int) -> int | None:
    """First mark in ticks at which the account falls below maintenance, other prices unchanged; None if there
    is none.

    For a long the highest such mark, for a short the lowest; found by bisection, since the margin tiers bend.
    """
    account = state.accounts[account_id]
    margin = margin_of(state, account)
    position, at = account.positions[market_id], state.markets[market_id]
    equity = margin.equity - position.size * at.mark * at.market.lot_tick_value
    maintenance = margin.maintenance - position.maintenance

    def falls_below(mark: int) -> bool:
        value = at.market.notional(position.size, mark)
        return equity + value < maintenance + maintenance_margin(at.market, abs(value))

    if position.size > 0:
        return _last(falls_below, 1, MAX_PRICE_TICKS)
    return _first(falls_below, 1, MAX_PRICE_TICKS) if position.size else None


def book_levels(state: EngineState, market_id: int, side: Side, depth: int) -> list[tuple[int, int, int]]:
    """Up to `depth` levels of one side, best first, as (price, size, orders)."""
    book_side: BookSide = state.markets[market_id].book.side(side)
    levels: list[tuple[int, int, int]] = []
    for level in book_side.best_first():
        if len(levels) == depth:
            break
        levels.append((level.price, level.total, level.count))
    return levels


def open_orders(state: EngineState, account_id: int) -> list[RestingOrder]:
    """The account's waiting orders, untriggered ones among them, by slot. The objects are the
    engine's own: read them, keep none."""
    account = state.accounts[account_id]
    return [order for _, order in sorted({**account.orders, **account.untriggered}.items())]


def agent_expiry(state: EngineState, account_id: int, agent: bytes) -> int:
    """Until when an agent may trade for the account, unix seconds; 0 when it may not."""
    return state.agents.get((account_id, agent), (0, 0))[0]


def liquidatable(state: EngineState, after: int = 0, limit: int = 100) -> list[int]:
    """Ids above `after`, ascending, of at most `limit` user accounts below maintenance."""
    found: list[int] = []
    for account_id in range(max(after + 1, 3), len(state.accounts) + 1):
        if len(found) == limit:
            break
        account = state.accounts[account_id]
        if account.open_positions and margin_of(state, account).liquidatable:
            found.append(account_id)
    return found


def _last(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest value in the range for which `holds`, when it holds up to some value and not beyond."""
    if not holds(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest value in the range for which `holds`, when it holds from some value on."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
