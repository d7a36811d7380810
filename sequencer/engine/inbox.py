"""InboxEntry: what comes through the chain's queue, in its order, each entry exactly once.

What can never apply is consumed without effect; what cannot apply yet is refused here and stays the next
entry, as it stays at the head of the queue on the chain.
"""

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.orders import NO_ADDRESS
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_COLLATERAL, check
from sequencer.engine.actions import set_agent
from sequencer.engine.batch_builder import MAX_INBOX, STAGE_INBOX
from sequencer.engine.commands import DepositWaits, InboxEntry, InboxEntryKind
from sequencer.engine.context import Context, no
from sequencer.engine.events import CancelReason, EntryApplied, EntrySkipped
from sequencer.engine.forced import CLOSED, leaves_queue, work
from sequencer.engine.governance import apply_change
from sequencer.engine.holds import chain_hold
from sequencer.engine.ledger import change_collateral, claim, register
from sequencer.engine.open_orders import cancel, live_order, live_orders
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, round_is_old, seal, touch, touch_positions
from sequencer.engine.state import Account, EngineState, SlotState

ALL_SLOTS = 0xFFFF
LONG_STALE_S = 3_600  # after its due time: a withdrawal that waits for a price holds up nobody for longer
VOIDED_LOTS = 2**62 - 1  # what the vault counts as filled of a voided slot


def consume_entry(ctx: Context, entry: InboxEntry) -> None:
    """Apply the next entry, or consume it without effect where the vault does the same."""
    state = ctx.state
    account = _account_of(state, entry)
    priced = account if entry.entry_kind in PRICED else None
    refusal = _check(ctx, entry, priced)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    if priced is not None and entry.entry_kind in FORCED and leaves_queue(state, entry, priced) is None:
        work(ctx, entry, priced)
        return
    batch = state.batch
    pairs = priced.open_positions if priced is not None else 0
    if len(batch.inbox) >= MAX_INBOX or not batch.has_room_for_account(pairs):
        seal(ctx)
    # What changes markets or keepers pins the round before it: the next one is made by the new rules.
    enter(ctx, STAGE_INBOX, priced=entry.change is not None or priced is not None)
    execute_entry(ctx, entry)


def execute_entry(ctx: Context, entry: InboxEntry) -> None:
    """What an entry does in a batch, the engine's own or anybody's, that has room for it."""
    state = ctx.state
    account = _account_of(state, entry)
    state.entry_count += 1
    state.waiting_deposits.pop(entry.entry_id, None)
    if entry.entry_kind is InboxEntryKind.DEPOSIT:
        _deposit(ctx, entry, account or register(ctx, entry.owner, entry.sub_account))
    elif entry.entry_kind is InboxEntryKind.DONATION:
        _deposit(ctx, entry, state.accounts[INSURANCE_FUND])
    elif entry.entry_kind in (InboxEntryKind.GOVERNOR, InboxEntryKind.GUARDIAN):
        _change(ctx, entry)
    elif account is None:
        state.batch.inbox.append(0)
        ctx.events.append(EntrySkipped(entry_id=entry.entry_id, reason="unknown account"))
    else:
        state.batch.inbox.append(account.account_id)
        REQUESTS[entry.entry_kind](ctx, entry, account)


def _account_of(state: EngineState, entry: InboxEntry) -> Account | None:
    """Its owner's, but of a liquidation the one that it names."""
    if entry.entry_kind is InboxEntryKind.LIQUIDATE:
        return state.accounts.get(entry.target)
    return state.accounts.get(state.account_ids.get((entry.owner, entry.sub_account), 0))


def note_waiting(ctx: Context, command: DepositWaits) -> None:
    """Remember a deposit that cannot be consumed yet: its owner may not be liquidated for that."""
    state = ctx.state
    if command.entry_id < state.next_entry_id:
        ctx.refuse(no(RejectCode.STALE_SEQUENCE, "the deposit is consumed", entry=command.entry_id))
        return
    waits = (command.owner, command.sub_account, command.created)
    state.waiting_deposits[command.entry_id] = waits


def _check(ctx: Context, entry: InboxEntry, priced: Account | None) -> Reject | None:
    state = ctx.state
    if entry.entry_id != state.next_entry_id:
        return no(
            RejectCode.MALFORMED,
            "not the next inbox entry",
            entry=entry.entry_id,
            expected=state.next_entry_id,
        )
    if not 0 <= entry.amount <= MAX_COLLATERAL:
        return no(RejectCode.OUT_OF_RANGE, "amount is out of range", "amount", entry=entry.entry_id)
    if entry.entry_kind is InboxEntryKind.DEPOSIT and entry.owner == NO_ADDRESS:
        return no(RejectCode.OUT_OF_RANGE, "a deposit needs an owner", "owner", entry=entry.entry_id)
    if (priced is not None or entry.change is not None) and round_is_old(state, ctx.stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round: try again", round_s=state.now)
    withdrawing = priced if entry.entry_kind is InboxEntryKind.WITHDRAWAL else None
    refusal = chain_hold(state, withdrawing) if withdrawing is not None else None
    if refusal is not None:
        return refusal
    # An hour after it was due the vault skips it, and so do we; entries of old journals do not say when.
    waits = not entry.due or state.now <= entry.due + LONG_STALE_S
    if withdrawing is not None and waits and not prices_fresh(state, withdrawing):
        return no(
            RejectCode.STALE_PRICE, "the price of an open position is stale: try again", entry=entry.entry_id
        )
    old = state.now == 0 or round_is_old(state, ctx.stamp_ms)
    if old and not state.batch.priced and len(state.batch.inbox) >= MAX_INBOX:
        return no(RejectCode.NOT_READY, "no recent price round to seal with: try again", round_s=state.now)
    return None


def _deposit(ctx: Context, entry: InboxEntry, account: Account) -> None:
    state = ctx.state
    touch(state, account)
    state.batch.inbox.append(account.account_id)
    state.credited += entry.amount
    cause = "deposit" if entry.entry_kind is InboxEntryKind.DEPOSIT else "donation"
    change_collateral(ctx, account, entry.amount, cause)
    ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=entry.amount))


def _change(ctx: Context, entry: InboxEntry) -> None:
    """Governor's or guardian's: no account's entry."""
    ctx.state.batch.inbox.append(0)
    if entry.change is not None and apply_change(ctx, entry.change):
        ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=0, amount=0))
    else:
        ctx.events.append(EntrySkipped(entry_id=entry.entry_id, reason="no longer applies"))


def _withdraw(ctx: Context, entry: InboxEntry, account: Account) -> None:
    state: EngineState = ctx.state
    touch_positions(state, account)
    if not prices_fresh(state, account):
        ctx.events.append(EntrySkipped(entry_id=entry.entry_id, reason="price stale for too long"))
        return
    amount = min(entry.amount, margin_of(state, account).withdrawable)
    if amount == 0:
        ctx.events.append(EntrySkipped(entry_id=entry.entry_id, reason="nothing withdrawable"))
        return
    change_collateral(ctx, account, -amount, "withdrawal")
    claim(ctx, account, amount, fee=0)
    ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=amount))


def _cancel(ctx: Context, entry: InboxEntry, account: Account) -> None:
    """Void a slot or the whole account, in the engine and, when the batch settles, on the chain."""
    sequence, slots = entry.order_sequence, account.slots
    touch(ctx.state, account)
    orders = [order for order in live_orders(account) if order.sequence <= sequence]
    if entry.slot == ALL_SLOTS:
        account.min_sequence = max(account.min_sequence, sequence)
        account.action_sequence = max(account.action_sequence, sequence)
    elif entry.slot == 0:
        orders = []
        account.taker_sequence = max(account.taker_sequence, sequence)
        account.used_taker_sequence = max(account.used_taker_sequence, sequence)
    else:
        orders = [order for order in orders if order.slot == entry.slot]
        slot = slots.setdefault(entry.slot, SlotState())
        slot.sequence = max(slot.sequence, sequence)
        if sequence >= slot.used_sequence:
            slot.used_sequence, slot.filled = sequence, VOIDED_LOTS
            live = live_order(account, entry.slot)
            if live is not None and live not in orders and live.amend:
                orders.append(live)  # its first fill would carry over what the void counts as filled
    for order in orders:
        cancel(ctx, order, CancelReason.USER)
    ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=0))


def _approve_agent(ctx: Context, entry: InboxEntry, account: Account) -> None:
    touch(ctx.state, account)
    set_agent(ctx, account, entry.agent, entry.agent_expiry, entry.amount)
    ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=0))


def _revoke_agent(ctx: Context, entry: InboxEntry, account: Account) -> None:
    touch(ctx.state, account)
    set_agent(ctx, account, entry.agent, 0, 0)
    account.action_sequence = max(account.action_sequence, entry.created * 1000)
    ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=0))


def _leave(ctx: Context, entry: InboxEntry, account: Account) -> None:
    """A close or a liquidation whose work is done, or cannot be."""
    touch_positions(ctx.state, account)
    why = leaves_queue(ctx.state, entry, account)
    check(why is not None, "inbox: a forced entry leaves before it is done")
    if why == CLOSED:
        ctx.events.append(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=0))
    else:
        ctx.events.append(EntrySkipped(entry_id=entry.entry_id, reason=str(why)))


FORCED = (InboxEntryKind.CLOSE, InboxEntryKind.LIQUIDATE)
PRICED = (InboxEntryKind.WITHDRAWAL, *FORCED)

REQUESTS = {
    InboxEntryKind.CLOSE: _leave,
    InboxEntryKind.LIQUIDATE: _leave,
    InboxEntryKind.WITHDRAWAL: _withdraw,
    InboxEntryKind.CANCEL: _cancel,
    InboxEntryKind.APPROVE_AGENT: _approve_agent,
    InboxEntryKind.REVOKE_AGENT: _revoke_agent,
}
