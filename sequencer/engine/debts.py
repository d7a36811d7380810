"""Write-off: with each round the insurance fund pays the debts of users who have no position left."""

from evermark.protocol.batch import FIRST_USER_ACCOUNT, INSURANCE_FUND
from evermark.protocol.orders import Signature
from sequencer.engine.batch_builder import MAX_ACTIONS, STAGE_ACTIONS, OpenAction
from sequencer.engine.context import Context
from sequencer.engine.events import WrittenOff
from sequencer.engine.holds import note_negative
from sequencer.engine.ledger import change_collateral
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, round_is_old, touch, touch_positions
from sequencer.engine.state import EngineState

UNSIGNED = Signature(0, 0, 0)


def write_off_debts(ctx: Context) -> None:
    """Pay in the order of account ids, as far as the fund's equity exceeds its own initial margin.

    What is open depends on no price, so it takes these actions in and ends with this round.
    """
    state = ctx.state
    fund = state.accounts[INSURANCE_FUND]
    for account_id in sorted(state.debtors):
        account = state.accounts[account_id]
        if account_id < FIRST_USER_ACCOUNT or account.open_positions or account.collateral >= 0:
            state.debtors.discard(account_id)
            continue
        margin = margin_of(state, fund)
        amount = min(-account.collateral, margin.equity - margin.initial)
        if amount <= 0 or not prices_fresh(state, fund) or round_is_old(state, ctx.stamp_ms):
            _note_debts(state)
            return
        room = state.batch.has_room_for_account(fund.open_positions)
        if len(state.batch.actions) >= MAX_ACTIONS or not room:
            return
        enter(ctx, STAGE_ACTIONS).actions.append(OpenAction(account_id, None, UNSIGNED))
        touch(state, account)
        touch_positions(state, fund)
        change_collateral(ctx, fund, -amount, "write_off")
        change_collateral(ctx, account, amount, "write_off")
        ctx.events.append(WrittenOff(account=account_id, amount=amount))


def _note_debts(state: EngineState) -> None:
    """Debts that stand: the holds know of them."""
    for account_id in sorted(state.debtors):
        account = state.accounts[account_id]
        if account_id >= FIRST_USER_ACCOUNT and account.collateral < 0 and not account.open_positions:
            note_negative(state, account)
