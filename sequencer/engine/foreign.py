"""ForeignBatch: what somebody else's batch did on the chain happens here, to the unit.

Such a batch holds overdue work only (docs/settlement.md, "A batch of anybody"), and pins a round of its own choice: its
prices are in force while it is applied, and the exchange's own come back after it.
"""

from evermark.protocol.batch import (
    FILL_DELEVERAGE,
    FILL_FORCED,
    FILL_TAKEOVER,
    AccountOwner,
    Batch,
    Fill,
    MalformedBatch,
    decode_batch,
)
from evermark.protocol.batch_types import NO_INDEX
from evermark.protocol.oracle import prices_hash
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import check
from sequencer.engine.batch_builder import STAGE_INBOX, OpenBatch
from sequencer.engine.commands import ForeignBatch
from sequencer.engine.context import Context, no
from sequencer.engine.deleveraging import deleverage_against
from sequencer.engine.events import ForeignBatchApplied
from sequencer.engine.forced import Close, close_against
from sequencer.engine.funding import enter_hour
from sequencer.engine.inbox import execute_entry
from sequencer.engine.open_orders import drop_useless_reducers
from sequencer.engine.sealing import enter, tell_dust
from sequencer.engine.state import EngineState
from sequencer.engine.takeover import move_to_fund
from sequencer.engine.targets import Target

FORCED_KINDS = (FILL_TAKEOVER, FILL_DELEVERAGE, FILL_FORCED)


def apply_foreign(ctx: Context, command: ForeignBatch) -> None:
    """Do what the batch did. It follows the last confirmed one, and nothing of the engine's own waits: a reversal comes
    before it."""
    state = ctx.state
    try:
        batch = decode_batch(command.calldata, _owners(state), [at.market.symbol for at in state.markets])
    except MalformedBatch as error:
        ctx.refuse(no(RejectCode.MALFORMED, str(error), "calldata", batch=command.batch_id))
        return
    refusal = _check(state, command, batch)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    own_prices = state.round
    state.price_by(command.round)
    _execute(ctx, command, batch)
    tell_dust(ctx)
    state.sealed_batch = state.confirmed_batch = command.batch_id
    state.batch = OpenBatch(command.batch_id + 1)
    state.price_by(own_prices)
    ctx.events.append(
        ForeignBatchApplied(
            batch_id=command.batch_id,
            entries=len(batch.inbox),
            funding_hours=len(batch.funding_hours),
            fills=len(batch.fills),
        )
    )


def _execute(ctx: Context, command: ForeignBatch, batch: Batch) -> None:
    """Section by section, in the vault's order."""
    state = ctx.state
    for entry, use in zip(command.entries, batch.inbox, strict=True):
        enter(ctx, STAGE_INBOX)
        execute_entry(ctx, entry)
        named = 0 if use.account_index == NO_INDEX else batch.accounts[use.account_index]
        # A donation need not name the fund.
        ours = (0, state.batch.inbox[-1])
        check(named in ours, f"foreign batch: entry {entry.entry_id} is of another account")
    for hour, rates in zip(batch.funding_hours, command.rates, strict=True):
        enter_hour(ctx, hour, rates, state.markets)
    for fill in batch.fills:
        _fill(ctx, command, batch, fill)


def _fill(ctx: Context, command: ForeignBatch, batch: Batch, fill: Fill) -> None:
    """A part of what the entry behind the consumed ones asks for, by whoever had the vault check it."""
    state, head = ctx.state, command.head
    target_index, market_id = batch.pairs[fill.first]
    account_id, other_id = batch.accounts[target_index], batch.accounts[batch.pairs[fill.second][0]]
    other = state.accounts[other_id]
    check(head is not None and head.entry_id == state.next_entry_id, "foreign batch: fills for no entry")
    if head is not None and fill.kind == FILL_FORCED:
        close_against(ctx, Close(state, head, state.accounts[account_id]), other, fill.size)
        return
    keeper = batch.accounts[fill.keeper] if fill.keeper != NO_INDEX else 0
    target = Target(state, account_id, market_id, keeper)
    if fill.kind == FILL_TAKEOVER:
        move_to_fund(ctx, target, fill.size)
    else:
        deleverage_against(ctx, target, other, fill.size)
    drop_useless_reducers(ctx, target.account, market_id)


def _check(state: EngineState, command: ForeignBatch, batch: Batch) -> Reject | None:
    expected = state.confirmed_batch + 1
    if not command.batch_id == batch.batch_id == expected or state.sealed_batch >= expected:
        return no(
            RejectCode.STALE_SEQUENCE, "not the next batch", "batch_id", batch=batch.batch_id, next=expected
        )
    if not state.batch.is_empty:
        return no(RejectCode.NOT_READY, "the engine's own batch is open", batch=expected)
    round_ = command.round
    if (batch.round, batch.prices_hash) != (round_.round, prices_hash(round_)):
        return no(RejectCode.MALFORMED, "another round than the batch pins", "round", round=round_.round)
    ids = [entry.entry_id for entry in command.entries]
    if ids != list(range(state.next_entry_id, state.next_entry_id + len(batch.inbox))):
        return no(RejectCode.MALFORMED, "not the entries of the batch", "entries", next=state.next_entry_id)
    if len(command.rates) != len(batch.funding_hours):
        return no(RejectCode.MALFORMED, "not the hours of the batch", "rates", have=len(command.rates))
    strange = any(fill.kind not in FORCED_KINDS for fill in batch.fills)
    if batch.orders or batch.actions or strange or batch.withdrawals or batch.triggers:
        return no(RejectCode.UNSUPPORTED, "not overdue work alone", "calldata", batch=expected)
    return None


def _owners(state: EngineState) -> dict[int, AccountOwner]:
    return {
        account_id: AccountOwner(account.owner, account.sub_account)
        for account_id, account in state.accounts.items()
    }
