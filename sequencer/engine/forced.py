"""What the inbox forces: the close of an owner's position, and the liquidation of an account that a keeper names.

The fills come first, while the entry is the next one; `leaves_queue` says when it is consumed, as the vault does. A close
takes the book first, then the fund's opposite position, then the deleveraging queue.
"""

from evermark.protocol.batch import (
    FILL_FORCED,
    FILL_FORCED_ON_BOOK,
    FIRST_USER_ACCOUNT,
    INSURANCE_FUND,
)
from evermark.protocol.forced import HOUR_S, close_loss, close_penalty, hour_cap
from evermark.protocol.liquidation import takeover_allowed
from evermark.protocol.margin import maintenance_margin
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.batch_builder import FILL_CAP, STAGE_FILLS, OpenBatch, OpenFill, pair_key
from sequencer.engine.commands import InboxEntry, InboxEntryKind, MarketMode
from sequencer.engine.context import Context, no
from sequencer.engine.deleveraging import fits, queue
from sequencer.engine.events import CancelReason, Deleveraged, ForcedClose
from sequencer.engine.execution import NO_FEES, fill_liquidation, tell_trade
from sequencer.engine.holds import chain_was_down
from sequencer.engine.ledger import change_position, move_in_fills
from sequencer.engine.liquidation import allows, close_out, deposit_waits, has_room
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import maker_lots, maker_refusal
from sequencer.engine.open_orders import cancel, drop_useless_reducers, live_orders
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.parties import Party
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, seal
from sequencer.engine.state import Account, EngineState
from sequencer.engine.targets import Target

CLOSED = "closed"


class Close:
    """A close under way: the entry, and the position that it asks for."""

    __slots__ = ("entry", "target")

    def __init__(self, state: EngineState, entry: InboxEntry, account: Account) -> None:
        self.entry = entry
        self.target = Target(state, account.account_id, entry.market_id)

    @property
    def lots(self) -> int:
        """Lots that may be closed now."""
        state, entry = self.target.state, self.entry
        rest = abs(entry.size) - closed_lots(state, entry)
        return max(0, min(abs(self.target.size), rest, hour_left(state, self.target.at)))

    def penalty(self, lots: int) -> int:
        """The most that closing lots may lose against the mark."""
        at = self.target.at
        return close_penalty(at.market, at.notional(lots, at.mark))

    def loss(self, lots: int) -> int:
        """What closing lots loses against fund or counterparty."""
        sign = 1 if self.entry.size > 0 else -1
        at = self.target.at
        return close_loss(self.penalty(lots), sign * at.notional(lots, at.mark - self.entry.mark))


def leaves_queue(state: EngineState, entry: InboxEntry, account: Account) -> str | None:
    """`CLOSED`, or why the entry is skipped; None while it stays and has work to do. `account` is whom it names."""
    if entry.entry_kind is InboxEntryKind.LIQUIDATE:
        return _liquidation_leaves(state, account)
    closed = closed_lots(state, entry)
    position = account.positions.get(entry.market_id)
    if position is None or position.size * entry.size <= 0:
        return CLOSED if closed else "no position"
    if closed >= abs(entry.size):
        return CLOSED
    if not prices_fresh(state, account):
        return None
    margin = margin_of(state, account)
    if margin.equity < margin.maintenance:
        return "below maintenance"
    return CLOSED if closed and not hour_left(state, state.markets[entry.market_id]) else None


def _liquidation_leaves(state: EngineState, account: Account) -> str | None:
    if not prices_fresh(state, account):
        return None
    margin = margin_of(state, account)
    if not account.open_positions or not takeover_allowed(margin.equity, margin.maintenance):
        return "above two thirds of maintenance"
    held = [state.markets[key] for key, position in account.positions.items() if position.size]
    if any(deposit_waits(state, account, at) is not None for at in held):
        return "a deposit waits"
    return None


def work(ctx: Context, entry: InboxEntry, account: Account) -> None:
    """Do a part of what the entry asks for; refused, to be offered again, when nothing can be done now."""
    if not prices_fresh(ctx.state, account):
        ctx.refuse(no(RejectCode.STALE_PRICE, "the price of an open position is stale: try again"))
    elif entry.entry_kind is InboxEntryKind.LIQUIDATE:
        _liquidate(ctx, entry, account)
    else:
        _close(ctx, Close(ctx.state, entry, account))


def _liquidate(ctx: Context, entry: InboxEntry, account: Account) -> None:
    """The largest position that anything can be done with."""
    state = ctx.state
    if state.chain_restarted:
        ctx.refuse(chain_was_down())
        return
    keeper = state.account_ids.get((entry.owner, 0), 0)
    margin_of(state, account)
    held = sorted(
        (-position.maintenance, market_id)
        for market_id, position in account.positions.items()
        if position.size and state.markets[market_id].mode < MarketMode.HALTED
    )
    for _, market_id in held:
        paid = keeper if keeper != account.account_id else 0
        if close_out(ctx, Target(state, account.account_id, market_id, paid)):
            return
    ctx.refuse(_not_now("neither book, fund nor queue can take the account's positions", entry))


def _not_now(message: str, entry: InboxEntry) -> Reject:
    return no(RejectCode.NOT_READY, f"{message}: try again", entry=entry.entry_id)


def _close(ctx: Context, close: Close) -> None:
    state, target = ctx.state, close.target
    if target.at.mode >= MarketMode.HALTED:
        ctx.refuse(_not_now("the market is halted", close.entry))
        return
    if not close.lots:
        ctx.refuse(_not_now("the hour's closes have reached their cap", close.entry))
        return
    orders = [order for order in live_orders(target.account) if order.market_id == target.at.market_id]
    if not orders and not _feasible(close):
        ctx.refuse(_not_now("no order within the penalty, and no counterparty that can bear it", close.entry))
        return
    batch = state.batch
    busy = batch.row_accounts or batch.targets or batch.stage > STAGE_FILLS
    if busy or not batch.has_room_for_fills():
        seal(ctx)
    for order in orders:
        cancel(ctx, order, CancelReason.FORCED_CLOSE)
    fills = _on_book(ctx, close)
    fills += _against_fund(ctx, close)
    _against_queue(ctx, close, FILL_CAP - fills)


def _feasible(close: Close) -> bool:
    target = close.target
    best = _best_maker(close)
    if best is not None and target.loss(best.price, 1) <= close.penalty(1):
        return True
    state = target.state
    return bool(_fund_lots(close)) or any(
        _counterparty_lots(close, state.accounts[account_id]) for account_id, _ in _opposite(close)
    )


def _best_maker(close: Close) -> RestingOrder | None:
    """The best waiting order, unless it would be paid a rebate that nobody pays here."""
    at = close.target.at
    level = at.book.opposite(close.target.closing_side).best()
    return level.first if level is not None and at.market.maker_fee_ppm >= 0 else None


def _on_book(ctx: Context, close: Close) -> int:
    """Against the best waiting orders within the penalty; how many fills."""
    state, target, at = ctx.state, close.target, close.target.at
    fills = 0
    while fills < FILL_CAP and close.lots:
        maker = _best_maker(close)
        if maker is None or target.loss(maker.price, 1) > close.penalty(1):
            return fills
        refusal = maker_refusal(state, at, maker, target.account.account_id)
        if refusal is not None:
            cancel(ctx, maker, refusal)
            continue
        party = Party(state, state.accounts[maker.account], at, state.batch)
        lots, why_not = maker_lots(state, party, maker, min(maker.shown, close.lots))
        if target.loss(maker.price, lots) > close.penalty(lots) or not has_room(target, party, maker, lots):
            return fills
        if lots and not allows(state, at, party, maker, lots):
            lots, why_not = 0, CancelReason.MARGIN
        if lots == 0:
            cancel(ctx, maker, why_not)
            continue
        _fill_on_book(ctx, close, maker, lots)
        fills += 1
    return fills


def _fill_on_book(ctx: Context, close: Close, maker: RestingOrder, lots: int) -> None:
    target, at, price = close.target, close.target.at, maker.price
    account, side, loss = target.account, target.closing_side, target.loss(price, lots)
    _begin_fill(ctx, close, lots)
    fee = fill_liquidation(ctx, at, account, maker, lots, 0, FILL_FORCED_ON_BOOK)
    made, taken = (maker.account, maker.order_hash, fee), (account.account_id, b"", NO_FEES)
    tell_trade(ctx, at, price, lots, side, made, taken)
    drop_useless_reducers(ctx, ctx.state.accounts[maker.account], at.market_id)
    _tell(ctx, close, lots, price, loss, maker.account)


def _fund_lots(close: Close) -> int:
    """Lots of the fund's opposite position that the close takes."""
    state, target = close.target.state, close.target
    at, sign = target.at, 1 if target.size > 0 else -1
    fund = Party(state, state.accounts[INSURANCE_FUND], at, state.batch)
    lots = min(close.lots, fund.opposes(sign))
    cash = close.loss(lots) - sign * at.notional(lots, at.mark)
    return lots if lots and fund.allows(state, sign * lots, cash) else 0


def _against_fund(ctx: Context, close: Close) -> int:
    fund = ctx.state.accounts[INSURANCE_FUND]
    lots = _fund_lots(close)
    if not lots or not fits(ctx.state, close.target, fund):
        return 0
    close_against(ctx, close, fund, lots)
    return 1


def _opposite(close: Close) -> list[tuple[int, int]]:
    return queue(close.target.state, close.target.at.market_id, -1 if close.target.size > 0 else 1)


def _counterparty_lots(close: Close, other: Account) -> int:
    """Lots that an opposite position takes: all that it holds and the close needs, if its account ends at or above
    maintenance."""
    state, at = close.target.state, close.target.at
    if not prices_fresh(state, other):
        return 0
    margin, held = margin_of(state, other), other.positions[at.market_id]
    lots = min(close.lots, abs(held.size))
    rest = maintenance_margin(at.market, at.notional(abs(held.size) - lots, at.mark))
    healthy = margin.equity + close.loss(lots) >= margin.maintenance - held.maintenance + rest
    return lots if healthy else 0


def _against_queue(ctx: Context, close: Close, most_fills: int) -> None:
    """Against the deleveraging queue, from its head. Who traded in the open batch waits for the next part."""
    ranked = _opposite(close)
    at = close.target.at
    for place, (account_id, score) in enumerate(ranked, start=1):
        if not most_fills or not close.lots:
            return
        other = ctx.state.accounts[account_id]
        lots = _counterparty_lots(close, other)
        if not lots or not fits(ctx.state, close.target, other):
            continue
        close_against(ctx, close, other, lots)
        ctx.events.append(
            Deleveraged(
                account=account_id,
                market_id=at.market_id,
                size=lots,
                price=at.mark,
                target=close.target.account.account_id,
                place=place,
                of=len(ranked),
                score_ppm=score,
            )
        )
        most_fills -= 1


def close_against(ctx: Context, close: Close, other: Account, lots: int) -> None:
    """Lots at the mark, and what they lose against it, to fund or counterparty."""
    target, at = close.target, close.target.at
    account, side, loss = target.account, target.closing_side, close.loss(lots)
    batch = _begin_fill(ctx, close, lots)
    if other.account_id >= FIRST_USER_ACCOUNT:
        batch.targets.add(other.account_id)
    change_position(ctx, account, at, side.sign * lots, at.mark)
    change_position(ctx, other, at, -side.sign * lots, at.mark)
    move_in_fills(ctx, account, -loss, "forced_close")
    move_in_fills(ctx, other, loss, "forced_close")
    pairs = pair_key(account.account_id, at.market_id), pair_key(other.account_id, at.market_id)
    batch.fills.append(OpenFill(FILL_FORCED, *pairs, lots))
    made, taken = (other.account_id, b"", NO_FEES), (account.account_id, b"", NO_FEES)
    tell_trade(ctx, at, at.mark, lots, side, made, taken)
    for side_of in (account, other):
        drop_useless_reducers(ctx, side_of, at.market_id)
    _tell(ctx, close, lots, at.mark, loss, other.account_id)


def _begin_fill(ctx: Context, close: Close, lots: int) -> OpenBatch:
    """The open batch, with the lots counted for the entry and for the hour."""
    state, at = ctx.state, close.target.at
    if at.forced_hour != state.now // HOUR_S:
        at.forced_cap = hour_left(state, at)
        at.forced_hour, at.forced_lots = state.now // HOUR_S, 0
    at.forced_lots += lots
    state.closed_lots = closed_lots(state, close.entry) + lots
    state.closing_entry = close.entry.entry_id
    batch = enter(ctx, STAGE_FILLS)
    batch.targets.add(close.target.account.account_id)
    batch.deleveraged = True
    return batch


def _tell(ctx: Context, close: Close, lots: int, price: int, loss: int, counterparty: int) -> None:
    ctx.events.append(
        ForcedClose(
            entry_id=close.entry.entry_id,
            account=close.target.account.account_id,
            market_id=close.target.at.market_id,
            size=lots,
            price=price,
            loss=loss,
            counterparty=counterparty,
        )
    )


def closed_lots(state: EngineState, entry: InboxEntry) -> int:
    """Lots that fills have closed for an entry."""
    return state.closed_lots if state.closing_entry == entry.entry_id else 0


def hour_left(state: EngineState, at: MarketState) -> int:
    """Lots that forced closes may still take in this hour."""
    if at.forced_hour == state.now // HOUR_S:
        return at.forced_cap - at.forced_lots
    return hour_cap(at.market, _interest_before(state, at), at.mark)


def _interest_before(state: EngineState, at: MarketState) -> int:
    """Open interest as it was before the open batch's fills, which is what the vault sees."""
    changed = 0
    for account in state.batch.noted:
        position = account.positions.get(at.market_id)
        if position is not None and position.noted_in == state.batch.number:
            changed += max(position.size, 0) - max(position.size_before, 0)
    return at.open_interest - changed
