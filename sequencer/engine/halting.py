"""HaltAccount: an account whose operation the vault refuses may only cancel, so that one cannot hold up all."""

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import HaltAccount
from sequencer.engine.context import Context, no
from sequencer.engine.events import AccountHalted, CancelReason
from sequencer.engine.open_orders import cancel, live_orders
from sequencer.engine.state import EngineState


def halt_account(ctx: Context, command: HaltAccount) -> None:
    """Halt the account and cancel what waits of it, or let it go."""
    state = ctx.state
    account = state.account(command.account)
    if account is None or command.account < FIRST_USER_ACCOUNT:
        ctx.refuse(no(RejectCode.UNKNOWN_ACCOUNT, "no such user", "account", account=command.account))
        return
    if command.halted:
        state.halted[command.account] = command.liquidation
        for order in sorted(live_orders(account), key=lambda order: order.slot):
            cancel(ctx, order, CancelReason.ACCOUNT_HALTED)
    else:
        state.halted.pop(command.account, None)
    ctx.events.append(AccountHalted(account=command.account, halted=command.halted, reason=command.reason))


def check_halted(state: EngineState, account_id: int) -> Reject | None:
    """Whether the account may do more than cancel."""
    if not state.halted or account_id not in state.halted:
        return None
    return no(RejectCode.ACCOUNT_HALTED, "the account may only cancel", "owner", account=account_id)
