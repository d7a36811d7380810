"""TriggerLiquidation: cancel the account's orders, close on the book within the loss bound, then the
insurance fund, then auto-deleveraging.

Amounts follow the protocol, section 9, and `evermark.protocol.liquidation`; the vault checks each step again.
"""

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.liquidation import (
    DEPOSIT_GRACE_S,
    book_loss_bound,
    keeper_share,
    liquidation_fee,
    loss_bound,
    slice_lots,
    takeover_allowed,
)
from evermark.protocol.margin import AccountMargin, fee_delta
from evermark.protocol.orders import NO_ADDRESS
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.batch_builder import FILL_CAP, MAX_PAIRS, STAGE_FILLS, OpenBatch
from sequencer.engine.commands import MarketMode, TriggerLiquidation
from sequencer.engine.context import Context, no
from sequencer.engine.deleveraging import can_deleverage, deleverage, meets_traders
from sequencer.engine.events import CancelReason
from sequencer.engine.execution import NO_FEES, fill_liquidation, tell_trade
from sequencer.engine.halting import check_halted
from sequencer.engine.holds import chain_was_down, note_negative
from sequencer.engine.ledger import move_in_fills
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import builder_share, maker_lots, maker_refusal, row_in
from sequencer.engine.open_orders import cancel, drop_useless_reducers
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.parties import Party
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, round_is_old, seal
from sequencer.engine.state import Account, EngineState
from sequencer.engine.takeover import take_over, takeover_lots
from sequencer.engine.targets import Target, name_keeper, tell_liquidated


def liquidate(ctx: Context, command: TriggerLiquidation) -> None:
    """Bring an account below maintenance back to health as far as the rules allow; harmless when repeated."""
    refusal = _check(ctx, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account)
        return
    target = Target(ctx.state, command.account, command.market_id, command.keeper_account)
    if not close_out(ctx, target):
        ctx.refuse(_not_liquidatable(target), command.account)


def close_out(ctx: Context, target: Target) -> bool:
    """Do with one position of an account below maintenance what the rules allow; False when that is nothing."""
    batch = ctx.state.batch
    if target.margin().equity < 0:
        note_negative(ctx.state, target.account)
    on_book = _book_feasible(target)
    must_seal = (
        batch.stage > STAGE_FILLS
        or not batch.has_room_for_fills()
        or target.account.account_id in batch.row_accounts
        or (on_book and batch.deleveraged)
        or (_beyond_the_fund(target, batch) and meets_traders(target))
    )
    view = OpenBatch() if must_seal else batch
    feasible = on_book or takeover_lots(target, view) > 0 or can_deleverage(target)
    if not feasible and not target.account.orders:
        return False
    if feasible and must_seal:
        seal(ctx)
    for order in list(target.account.orders.values()):
        cancel(ctx, order, CancelReason.LIQUIDATION)
    if feasible:
        fills = _close_on_book(ctx, target)
        take_over(ctx, target, FILL_CAP - fills)
        deleverage(ctx, target)
    return True


def _beyond_the_fund(target: Target, batch: OpenBatch) -> bool:
    """The fund may take over, but not all of it: deleveraging may follow."""
    margin = target.margin()
    below = takeover_allowed(margin.equity, margin.maintenance)
    return below and takeover_lots(target, batch) < abs(target.size)


def _check(ctx: Context, command: TriggerLiquidation) -> Reject | None:
    state, keeper = ctx.state, command.keeper_account
    account = state.account(command.account)
    if account is None or account.owner == NO_ADDRESS:
        return no(RejectCode.UNKNOWN_ACCOUNT, "no such account", "account", account=command.account)
    if state.halted.get(command.account, False):
        return check_halted(state, command.account)
    if not 0 <= command.market_id < len(state.markets):
        return no(RejectCode.UNKNOWN_MARKET, "no such market", "market", market_id=command.market_id)
    paid = state.accounts.get(keeper)
    if keeper and (paid is None or paid.owner == NO_ADDRESS or keeper == command.account):
        return no(
            RejectCode.UNKNOWN_ACCOUNT,
            "the keeper's account cannot be paid",
            "keeper_account",
            account=keeper,
        )
    at = state.markets[command.market_id]
    if at.mode >= MarketMode.HALTED:
        return no(RejectCode.MARKET_HALTED, "the market is halted", "market")
    if state.chain_restarted:
        return chain_was_down()
    if round_is_old(state, ctx.stamp_ms) or at.stale or not prices_fresh(state, account):
        return no(RejectCode.STALE_PRICE, "liquidation needs fresh prices", "market", round_s=state.now)
    margin = margin_of(state, account)
    if not margin.liquidatable:
        return no(
            RejectCode.HEALTHY_ACCOUNT,
            "the account meets its maintenance margin",
            "account",
            equity=margin.equity,
            maintenance_margin=margin.maintenance,
        )
    position = account.positions.get(command.market_id)
    if position is None or position.size == 0:
        return no(RejectCode.NOT_LIQUIDATABLE, "no position in this market", "market")
    return deposit_waits(state, account, at)


def deposit_waits(state: EngineState, account: Account, at: MarketState) -> Reject | None:
    """Nobody is liquidated whose deposit was made more than ten minutes before the market's price and still
    waits."""
    for entry_id, (owner, sub_account, created) in state.waiting_deposits.items():
        mine = owner == account.owner and sub_account == account.sub_account
        if mine and created + DEPOSIT_GRACE_S < at.price.updated_at:
            return no(
                RejectCode.NOT_LIQUIDATABLE,
                "a deposit of the account waits in the inbox",
                "account",
                entry=entry_id,
                created=created,
            )
    return None


def _not_liquidatable(target: Target) -> Reject:
    margin = target.margin()
    return no(
        RejectCode.NOT_LIQUIDATABLE,
        "no price within the loss bound, and neither the fund nor the queue may take it",
        equity=margin.equity,
        maintenance_margin=margin.maintenance,
    )


def _book_feasible(target: Target) -> bool:
    """The best waiting order's price is within the bound."""
    margin = target.margin()
    best = target.at.book.opposite(target.closing_side).best()
    if target.at.market.maker_fee_ppm < 0:
        return False
    return (
        best is not None
        and margin.equity >= 0
        and target.loss(best.price, 1) <= _book_bound(target, margin, 1)
    )


def _book_bound(target: Target, margin: AccountMargin, lots: int) -> int:
    maintenance = target.position_maintenance()
    return book_loss_bound(margin.equity, margin.maintenance, maintenance, lots, abs(target.size))


def _close_on_book(ctx: Context, target: Target) -> int:
    """Sell a long, buy back a short, against the best waiting orders, until healthy or beyond the bound.

    Returns how many fills it took.
    """
    state, at = ctx.state, target.at
    fills = 0
    if at.market.maker_fee_ppm < 0:
        return fills  # nobody pays a taker fee here that a rebate could come from
    while fills < FILL_CAP and target.size:
        margin = target.margin()
        best = at.book.opposite(target.closing_side).best()
        maker = None if best is None else best.first
        if maker is None or margin.equity < 0 or not margin.liquidatable:
            return fills
        refusal = maker_refusal(state, at, maker, target.account.account_id)
        if refusal is not None:
            cancel(ctx, maker, refusal)
            continue
        party = Party(state, state.accounts[maker.account], at, state.batch)
        wanted = min(maker.shown, slice_lots(at.market, abs(target.size), at.mark))
        lots, why_not = maker_lots(state, party, maker, wanted)
        loss = target.loss(maker.price, lots)
        if loss > _book_bound(target, margin, lots) or not has_room(target, party, maker, lots):
            return fills
        if lots and not allows(state, at, party, maker, lots):
            lots, why_not = 0, CancelReason.MARGIN
        if lots == 0:
            cancel(ctx, maker, why_not)
            continue
        _fill(ctx, target, maker, lots, margin)
        fills += 1
    return fills


def has_room(target: Target, party: Party, maker: RestingOrder, lots: int) -> bool:
    """The pair table and the open-interest cap hold one more fill."""
    batch = target.state.batch
    pairs = party.account.open_positions + target.account.open_positions + 2
    if len(batch.pairs) + pairs > MAX_PAIRS:
        return False
    delta = maker.sign * lots
    change = max(party.size + delta, 0) - max(party.size, 0)
    change += max(target.size - delta, 0) - max(target.size, 0)
    return change <= 0 or target.at.open_interest + change <= target.at.market.open_interest_cap_lots


def allows(state: EngineState, at: MarketState, party: Party, maker: RestingOrder, lots: int) -> bool:
    """The maker's account passes the closing check after its side of the fill."""
    notional = at.market.notional(lots, maker.price)
    row = row_in(state.batch, maker)
    _, fee = fee_delta(row.numerator if row is not None else 0, notional, at.market.maker_fee_ppm)
    fee += builder_share(row, notional, maker.builder_fee_ppm)
    return party.allows(state, maker.sign * lots, -maker.sign * notional - fee)


def _fill(ctx: Context, target: Target, maker: RestingOrder, lots: int, margin: AccountMargin) -> None:
    state, at, account, price = ctx.state, target.at, target.account, maker.price
    enter(ctx, STAGE_FILLS).targets.add(account.account_id)
    side, loss = target.closing_side, target.loss(price, lots)
    maintenance = target.position_maintenance()
    bound = loss_bound(margin.equity, margin.maintenance, maintenance, lots, abs(target.size))
    fee = liquidation_fee(at.market, at.market.notional(lots, price), bound - max(loss, 0))
    name_keeper(ctx, target)
    maker_fee = fill_liquidation(ctx, at, account, maker, lots, target.keeper)
    _pay_fee(ctx, account, target.keeper, fee)
    tell_trade(
        ctx,
        at,
        price,
        lots,
        side,
        (maker.account, maker.order_hash, maker_fee),
        (account.account_id, b"", NO_FEES),
        liquidated=account.account_id,
    )
    drop_useless_reducers(ctx, state.accounts[maker.account], at.market.market_id)
    tell_liquidated(ctx, target, lots, price, loss, fee)


def _pay_fee(ctx: Context, payer: Account, keeper: int, fee: int) -> None:
    """Half to the keeper when one is named, the rest to the insurance fund."""
    accounts = ctx.state.accounts
    share = keeper_share(fee) if keeper else 0
    move_in_fills(ctx, payer, -fee, "liquidation_fee")
    if share:
        move_in_fills(ctx, accounts[keeper], share, "liquidation_fee")
    if fee - share:
        move_in_fills(ctx, accounts[INSURANCE_FUND], fee - share, "liquidation_fee")
