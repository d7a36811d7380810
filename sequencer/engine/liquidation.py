"""TriggerLiquidation: cancel the account's orders, close on the book within the loss bound, then the
insurance fund.

Amounts follow the protocol, section 9, and `evermark.protocol.liquidation`; the vault checks each step again.
"""

from evermark.protocol.batch import FILL_TAKEOVER, INSURANCE_FUND
from evermark.protocol.liquidation import (
    book_loss_bound,
    keeper_share,
    liquidation_fee,
    loss_bound,
    slice_lots,
    takeover_allowed,
)
from evermark.protocol.margin import AccountMargin, fee_delta
from evermark.protocol.orders import NO_ADDRESS, Side
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.batch_builder import FILL_CAP, MAX_PAIRS, STAGE_FILLS, OpenBatch, OpenFill
from sequencer.engine.commands import MarketMode, TriggerLiquidation
from sequencer.engine.context import Context, no
from sequencer.engine.events import CancelReason, Liquidated
from sequencer.engine.execution import fill_liquidation, tell_trade
from sequencer.engine.ledger import change_position, move_in_fills
from sequencer.engine.matching import maker_lots, maker_refusal
from sequencer.engine.open_orders import cancel, drop_useless_reducers
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.parties import Party
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import baseline, enter, round_is_old, seal
from sequencer.engine.state import Account, EngineState, MarketState

TAKEOVER_TRIES = 6  # the whole position, then halves of it, until the fund's own margin allows one


class Target:
    """The position that is being closed."""

    __slots__ = ("account", "at", "keeper", "state")

    def __init__(self, state: EngineState, command: TriggerLiquidation) -> None:
        self.state = state
        self.account = state.accounts[command.account]
        self.at = state.markets[command.market_id]
        self.keeper = command.keeper_account

    @property
    def size(self) -> int:
        """Signed lots that are left."""
        return self.account.positions[self.at.market.market_id].size

    @property
    def closing_side(self) -> Side:
        """The side on which the position is closed."""
        return Side.SELL if self.size > 0 else Side.BUY

    def margin(self) -> AccountMargin:
        """The account's margin now."""
        return margin_of(self.state, self.account)

    def position_maintenance(self) -> int:
        """Maintenance of this position alone."""
        margin_of(self.state, self.account)
        return self.account.positions[self.at.market.market_id].maintenance

    def loss(self, price: int, lots: int) -> int:
        """Loss against the mark of closing `lots` at `price`."""
        sign = 1 if self.size > 0 else -1
        return sign * (self.at.mark - price) * lots * self.at.market.lot_tick_value


def liquidate(ctx: Context, command: TriggerLiquidation) -> None:
    """Bring an account below maintenance back to health as far as the rules allow; harmless when repeated."""
    state = ctx.state
    refusal = _check(ctx, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account)
        return
    target = Target(state, command)
    batch = state.batch
    must_seal = (
        batch.stage > STAGE_FILLS or not batch.has_room_for_fills() or command.account in batch.row_accounts
    )
    view = OpenBatch() if must_seal else batch
    feasible = _book_feasible(target) or _takeover_lots(target, view) > 0
    if not feasible and not target.account.orders:
        ctx.refuse(_not_liquidatable(target), command.account)
        return
    if feasible and must_seal:
        seal(ctx)
    for order in list(target.account.orders.values()):
        cancel(ctx, order, CancelReason.LIQUIDATION)
    if feasible:
        _close_on_book(ctx, target)
        _take_over(ctx, target)


def _check(ctx: Context, command: TriggerLiquidation) -> Reject | None:
    state, keeper = ctx.state, command.keeper_account
    account = state.accounts.get(command.account)
    if account is None or account.owner == NO_ADDRESS:
        return no(RejectCode.UNKNOWN_ACCOUNT, "no such account", "account", account=command.account)
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
    if at.mode == MarketMode.HALTED:
        return no(RejectCode.MARKET_HALTED, "the market is halted", "market")
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
    return None


def _not_liquidatable(target: Target) -> Reject:
    margin = target.margin()
    return no(
        RejectCode.NOT_LIQUIDATABLE,
        "no price within the loss bound, and the fund may not take over",
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


def _close_on_book(ctx: Context, target: Target) -> None:
    """Sell a long, buy back a short, against the best waiting orders, until healthy or beyond the bound."""
    state, at = ctx.state, target.at
    fills = 0
    if at.market.maker_fee_ppm < 0:
        return  # nobody pays a taker fee here that a rebate could come from
    while fills < FILL_CAP and target.size:
        margin = target.margin()
        best = at.book.opposite(target.closing_side).best()
        if best is None or best.head is None or margin.equity < 0 or not margin.liquidatable:
            return
        maker = best.head
        refusal = maker_refusal(state, at, maker, target.account.account_id)
        if refusal is not None:
            cancel(ctx, maker, refusal)
            continue
        party = Party(state, state.accounts[maker.account], at, state.batch)
        wanted = min(maker.remaining, slice_lots(at.market, abs(target.size), at.mark))
        lots, why_not = maker_lots(state, party, maker, wanted)
        loss = target.loss(maker.price, lots)
        if loss > _book_bound(target, margin, lots) or not _has_room(target, party, maker, lots):
            return
        if lots and not _allows(state, at, party, maker, lots):
            lots, why_not = 0, CancelReason.MARGIN
        if lots == 0:
            cancel(ctx, maker, why_not)
            continue
        _fill(ctx, target, maker, lots, margin)
        fills += 1


def _has_room(target: Target, party: Party, maker: RestingOrder, lots: int) -> bool:
    """The pair table and the open-interest cap hold one more fill."""
    batch = target.state.batch
    pairs = party.account.open_positions + target.account.open_positions + 2
    if len(batch.pairs) + pairs > MAX_PAIRS:
        return False
    delta = maker.sign * lots
    change = max(party.size + delta, 0) - max(party.size, 0)
    change += max(target.size - delta, 0) - max(target.size, 0)
    return change <= 0 or target.at.open_interest + change <= target.at.market.open_interest_cap_lots


def _allows(state: EngineState, at: MarketState, party: Party, maker: RestingOrder, lots: int) -> bool:
    notional = at.market.notional(lots, maker.price)
    row = state.batch.rows.get((maker.account, maker.slot, maker.sequence))
    _, fee = fee_delta(row.numerator if row is not None else 0, notional, at.market.maker_fee_ppm)
    return party.allows(state, maker.sign * lots, -maker.sign * notional - fee)


def _fill(ctx: Context, target: Target, maker: RestingOrder, lots: int, margin: AccountMargin) -> None:
    state, at, account, price = ctx.state, target.at, target.account, maker.price
    enter(ctx, STAGE_FILLS).targets.add(account.account_id)
    side, loss = target.closing_side, target.loss(price, lots)
    maintenance = target.position_maintenance()
    bound = loss_bound(margin.equity, margin.maintenance, maintenance, lots, abs(target.size))
    fee = liquidation_fee(at.market, at.market.notional(lots, price), bound - max(loss, 0))
    _name_keeper(ctx, target)
    maker_fee = fill_liquidation(ctx, at, account, maker, lots, target.keeper)
    _pay_fee(ctx, account, target.keeper, fee)
    tell_trade(
        ctx,
        at,
        price,
        lots,
        side,
        (maker.account, maker.order_hash, maker_fee),
        (account.account_id, b"", 0),
        liquidated=account.account_id,
    )
    drop_useless_reducers(ctx, state.accounts[maker.account], at.market.market_id)
    _tell(ctx, target, lots, price, loss, fee, taken_over=False)


def _name_keeper(ctx: Context, target: Target) -> None:
    """The batch names the keeper's account even where its share rounds to nothing."""
    if target.keeper:
        baseline(ctx.state, ctx.state.accounts[target.keeper])


def _pay_fee(ctx: Context, payer: Account, keeper: int, fee: int) -> None:
    """Half to the keeper when one is named, the rest to the insurance fund."""
    accounts = ctx.state.accounts
    share = keeper_share(fee) if keeper else 0
    move_in_fills(ctx, payer, -fee, "liquidation_fee")
    if share:
        move_in_fills(ctx, accounts[keeper], share, "liquidation_fee")
    if fee - share:
        move_in_fills(ctx, accounts[INSURANCE_FUND], fee - share, "liquidation_fee")


def _takeover_lots(target: Target, batch: OpenBatch) -> int:
    """Lots that the fund takes over: all, or the largest half of a half that its cap and margin allow; else
    0."""
    margin, at, size = target.margin(), target.at, target.size
    if not size or not takeover_allowed(margin.equity, margin.maintenance):
        return 0
    sign = 1 if size > 0 else -1
    fund = Party(target.state, target.state.accounts[INSURANCE_FUND], at, batch)
    lots = min(abs(size), at.market.fund_position_cap_lots - sign * fund.size)
    for _ in range(TAKEOVER_TRIES):
        if lots <= 0:
            return 0
        received, share = _takeover_amounts(target, margin, lots)
        cash = -sign * at.market.notional(lots, at.mark) + received - share
        if fund.allows(target.state, sign * lots, cash):
            return lots
        lots //= 2
    return 0


def _takeover_amounts(target: Target, margin: AccountMargin, lots: int) -> tuple[int, int]:
    """What the fund receives from the target (pays when negative), and the keeper's share of it."""
    market = target.at.market
    maintenance = target.position_maintenance()
    received = loss_bound(margin.equity, margin.maintenance, maintenance, lots, abs(target.size))
    if received <= 0 or not target.keeper:
        return received, 0
    fee = liquidation_fee(market, market.notional(lots, target.at.mark), received)
    return received, keeper_share(fee)


def _take_over(ctx: Context, target: Target) -> None:
    """Move what is left to the insurance fund at the mark, for the amount that keeps the target's margin
    ratio."""
    state, at, account = ctx.state, target.at, target.account
    margin = target.margin()
    if target.size == 0 or not margin.liquidatable:
        return
    lots = _takeover_lots(target, state.batch)
    if lots == 0:
        return
    received, share = _takeover_amounts(target, margin, lots)
    batch = enter(ctx, STAGE_FILLS)
    batch.targets.add(account.account_id)
    fund, side = state.accounts[INSURANCE_FUND], target.closing_side
    change_position(ctx, account, at, side.sign * lots, at.mark)
    change_position(ctx, fund, at, -side.sign * lots, at.mark)
    move_in_fills(ctx, account, -received, "takeover")
    move_in_fills(ctx, fund, received - share, "takeover")
    if share:
        move_in_fills(ctx, state.accounts[target.keeper], share, "liquidation_fee")
    _name_keeper(ctx, target)
    pairs = (account.account_id, at.market.market_id), (INSURANCE_FUND, at.market.market_id)
    batch.fills.append(OpenFill(FILL_TAKEOVER, *pairs, lots, target.keeper))
    maker, taker = (INSURANCE_FUND, b"", 0), (account.account_id, b"", 0)
    tell_trade(ctx, at, at.mark, lots, side, maker, taker, liquidated=account.account_id)
    _tell(ctx, target, lots, at.mark, received, share, taken_over=True)


def _tell(
    ctx: Context, target: Target, lots: int, price: int, loss: int, fee: int, *, taken_over: bool
) -> None:
    ctx.emit(
        Liquidated(
            account=target.account.account_id,
            market_id=target.at.market.market_id,
            size=lots,
            price=price,
            loss=loss,
            fee=fee,
            taken_over=taken_over,
        )
    )
