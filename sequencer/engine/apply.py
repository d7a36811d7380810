"""THE DOOR: `apply` is the only way to change the engine's state, and what it does follows from its arguments
alone."""

from collections.abc import Callable
from typing import Any, Final

from evermark.protocol.reject import RejectCode
from evermark.protocol.units import check
from sequencer.engine.actions import approve_agent, transfer, withdraw
from sequencer.engine.cancels import cancel_order
from sequencer.engine.commands import (
    AgentApproval,
    AnyCommand,
    BatchConfirmed,
    CancelOrder,
    ChainRestarted,
    DepositWaits,
    ForeignBatch,
    FundingHour,
    Genesis,
    HaltAccount,
    InboxEntry,
    OracleRound,
    PlaceOrder,
    Reverse,
    SetMarketMode,
    TransferRequest,
    TriggerLiquidation,
    WithdrawRequest,
)
from sequencer.engine.context import Context, no
from sequencer.engine.events import Event
from sequencer.engine.foreign import apply_foreign
from sequencer.engine.funding import apply_funding
from sequencer.engine.halting import halt_account
from sequencer.engine.holds import note_chain
from sequencer.engine.inbox import consume_entry, note_waiting
from sequencer.engine.liquidation import liquidate
from sequencer.engine.placement import place_order
from sequencer.engine.reversal import reverse
from sequencer.engine.rounds import apply_round
from sequencer.engine.sealing import seal, seal_overdue
from sequencer.engine.state import EngineState
from sequencer.engine.venue import begin, confirm_batch, set_mode
from sequencer.engine.waking import finish

VERBS: dict[type[AnyCommand], Callable[[Context, Any], None]] = {
    Genesis: begin,
    OracleRound: apply_round,
    FundingHour: apply_funding,
    InboxEntry: consume_entry,
    DepositWaits: note_waiting,
    ChainRestarted: note_chain,
    PlaceOrder: place_order,
    CancelOrder: cancel_order,
    AgentApproval: approve_agent,
    WithdrawRequest: withdraw,
    TransferRequest: transfer,
    TriggerLiquidation: liquidate,
    SetMarketMode: set_mode,
    BatchConfirmed: confirm_batch,
    Reverse: reverse,
    ForeignBatch: apply_foreign,
    HaltAccount: halt_account,
}
# They bring the state to what the chain is like, and nothing else happens with them.
AS_THE_CHAIN: Final = (Reverse, ForeignBatch)


def apply(
    state: EngineState,
    command: AnyCommand,
    sequence: int,
    stamp_ms: int,
    past: EngineState | None = None,
) -> list[Event]:
    """Apply one journaled command to `state` and return what it did, in order.

    A Reverse also needs `past`, the state right after the record that it goes back to, and uses it up.
    A command that is refused changes no account, order, price or balance and gives one CommandRejected; the
    open batch may still end in front of it, because it grew too old. Raises BrokenInvariant only for a bug,
    or when `sequence` or `stamp_ms` do not follow the journal's order.
    """
    check(sequence == state.sequence + 1, "apply: commands come without gaps")
    check(stamp_ms >= state.stamp_ms, "apply: stamps never fall")
    ctx = Context(state, sequence, stamp_ms, past)
    if state.genesis is None and not isinstance(command, Genesis):
        ctx.refuse(no(RejectCode.NOT_READY, "the exchange has not begun"))
    else:
        _do(ctx, command)
        if ctx.ends_batch:
            seal(ctx, sequence)
        if ctx.levels:
            ctx.publish_levels()
    state.sequence, state.stamp_ms = sequence, stamp_ms
    return ctx.events


def _do(ctx: Context, command: AnyCommand) -> None:
    # Most commands place or cancel; calling the verb by its name costs less than looking for it.
    if type(command) is PlaceOrder:
        seal_overdue(ctx)
        place_order(ctx, command)
    elif type(command) is CancelOrder:
        seal_overdue(ctx)
        cancel_order(ctx, command)
    elif type(command) in AS_THE_CHAIN:
        VERBS[type(command)](ctx, command)
        return
    else:
        seal_overdue(ctx)
        VERBS[type(command)](ctx, command)
    if not ctx.refused:
        finish(ctx)
