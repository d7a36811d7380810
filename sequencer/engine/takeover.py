"""Take-over: the insurance fund takes a position below two thirds of maintenance, as far as its own margin and
the market's cap allow."""

from evermark.protocol.batch import FILL_TAKEOVER, INSURANCE_FUND
from evermark.protocol.liquidation import keeper_share, liquidation_fee, loss_bound, takeover_allowed
from evermark.protocol.margin import AccountMargin, initial_margin
from evermark.protocol.markets import MAX_OPEN_MARKETS
from sequencer.engine.batch_builder import STAGE_FILLS, OpenBatch, OpenFill, pair_key
from sequencer.engine.context import Context
from sequencer.engine.execution import NO_FEES, tell_trade
from sequencer.engine.ledger import change_position, move_in_fills
from sequencer.engine.parties import Party
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter
from sequencer.engine.targets import Target, name_keeper, tell_liquidated

TRIES = 4  # a take-over of all that fits may leave room for a few lots more, by rounding


def take_over(ctx: Context, target: Target, most_fills: int) -> None:
    """Move what the fund can take to it, at the mark, for the amount that keeps the target's margin ratio."""
    for _ in range(min(TRIES, most_fills)):
        lots = takeover_lots(target, ctx.state.batch)
        if lots == 0:
            return
        move_to_fund(ctx, target, lots)


def takeover_lots(target: Target, batch: OpenBatch) -> int:
    """Lots that the fund can take over now: all, or the most that its cap and margin allow; 0 when none."""
    margin, at, size = target.margin(), target.at, target.size
    if not size or not takeover_allowed(margin.equity, margin.maintenance):
        return 0
    sign = 1 if size > 0 else -1
    fund = Party(target.state, target.state.accounts[INSURANCE_FUND], at, batch)
    most = min(abs(size), at.market.fund_position_cap_lots - sign * fund.size)
    if not prices_fresh(target.state, fund.account):
        most = min(most, fund.opposes(sign))  # nothing grows on a stale price

    def allowed(lots: int) -> bool:
        received, share = _amounts(target, margin, lots, paid=target.keeper != 0)
        cash = -sign * at.market.notional(lots, at.mark) + received - share
        return fund.allows(target.state, sign * lots, cash)

    if most <= 0 or allowed(most):
        return max(0, most)
    least = 0
    while most - least > 1:
        middle = (least + most) // 2
        if allowed(middle):
            least = middle
        else:
            most = middle
    return least


def fund_takes_one(target: Target) -> bool:
    """Whether the fund could take one more lot: as long as it can, nobody is deleveraged. The vault's
    condition."""
    state, at, margin = target.state, target.at, target.margin()
    market, fund = at.market, state.accounts[INSURANCE_FUND]
    position = fund.positions.get(market.market_id)
    held = position.size if position is not None else 0
    after = held + (1 if target.size > 0 else -1)
    if abs(after) > market.fund_position_cap_lots:
        return False
    if held == 0 and fund.open_positions >= MAX_OPEN_MARKETS:
        return False
    received, share = _amounts(target, margin, 1, paid=True)
    if abs(after) < abs(held) and received >= 0:
        return True
    sum_ = margin_of(state, fund)
    initial = sum_.initial - _initial(target, held) + _initial(target, after)
    return prices_fresh(state, fund) and sum_.equity + received - share >= initial


def _amounts(target: Target, margin: AccountMargin, lots: int, *, paid: bool) -> tuple[int, int]:
    """What the fund receives from the target (pays when negative), and the share of it of a keeper who is
    `paid`."""
    market = target.at.market
    maintenance = target.position_maintenance()
    received = loss_bound(margin.equity, margin.maintenance, maintenance, lots, abs(target.size))
    fee = liquidation_fee(market, market.notional(lots, target.at.mark), received)
    return received, keeper_share(fee) if paid else 0


def _initial(target: Target, size: int) -> int:
    return initial_margin(target.at.market, target.at.market.notional(abs(size), target.at.mark))


def move_to_fund(ctx: Context, target: Target, lots: int) -> None:
    """Hand the fund so many lots."""
    state, at, account = ctx.state, target.at, target.account
    received, share = _amounts(target, target.margin(), lots, paid=target.keeper != 0)
    batch = enter(ctx, STAGE_FILLS)
    batch.targets.add(account.account_id)
    fund, side = state.accounts[INSURANCE_FUND], target.closing_side
    change_position(ctx, account, at, side.sign * lots, at.mark)
    change_position(ctx, fund, at, -side.sign * lots, at.mark)
    move_in_fills(ctx, account, -received, "takeover")
    move_in_fills(ctx, fund, received - share, "takeover")
    if share:
        move_in_fills(ctx, state.accounts[target.keeper], share, "liquidation_fee")
    name_keeper(ctx, target)
    pairs = pair_key(account.account_id, at.market_id), pair_key(INSURANCE_FUND, at.market_id)
    batch.fills.append(OpenFill(FILL_TAKEOVER, *pairs, lots, target.keeper))
    maker, taker = (INSURANCE_FUND, b"", NO_FEES), (account.account_id, b"", NO_FEES)
    tell_trade(ctx, at, at.mark, lots, side, maker, taker, liquidated=account.account_id)
    tell_liquidated(ctx, target, lots, at.mark, received, share, taken_over=True)
