"""InboxEntry: deposits, donations and withdrawals that come through the chain, in queue order, each exactly
once."""

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.orders import NO_ADDRESS
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_COLLATERAL
from sequencer.engine.batch_builder import MAX_INBOX, STAGE_INBOX
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.engine.context import Context, no
from sequencer.engine.events import EntryApplied, EntrySkipped
from sequencer.engine.ledger import change_collateral, register
from sequencer.engine.risk import margin_of, prices_fresh
from sequencer.engine.sealing import enter, round_is_old, seal, touch, touch_positions
from sequencer.engine.state import Account, EngineState


def consume_entry(ctx: Context, entry: InboxEntry) -> None:
    """Apply the next entry, or consume it without effect where the vault does the same."""
    state = ctx.state
    account = state.accounts.get(state.account_ids.get((entry.owner, entry.sub_account), 0))
    needs_prices = entry.entry_kind is InboxEntryKind.WITHDRAWAL and account is not None
    refusal = _check(ctx, entry, needs_prices)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    batch = state.batch
    pairs = account.open_positions if needs_prices and account is not None else 0
    if len(batch.inbox) >= MAX_INBOX or not batch.has_room_for_account(pairs):
        seal(ctx)
    enter(ctx, STAGE_INBOX, priced=needs_prices)
    state.entry_count += 1
    if entry.entry_kind is InboxEntryKind.DEPOSIT:
        _deposit(ctx, entry, account or register(ctx, entry.owner, entry.sub_account))
    elif entry.entry_kind is InboxEntryKind.DONATION:
        _deposit(ctx, entry, state.accounts[INSURANCE_FUND])
    elif account is None:
        state.batch.inbox.append(0)
        ctx.emit(EntrySkipped(entry_id=entry.entry_id, reason="unknown account"))
    else:
        _withdraw(ctx, entry, account)


def _check(ctx: Context, entry: InboxEntry, needs_prices: bool) -> Reject | None:
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
    if needs_prices and round_is_old(state, ctx.stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round: try again", round_s=state.now)
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
    ctx.emit(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=entry.amount))


def _withdraw(ctx: Context, entry: InboxEntry, account: Account) -> None:
    state: EngineState = ctx.state
    touch_positions(state, account)
    state.batch.inbox.append(account.account_id)
    if not prices_fresh(state, account):
        ctx.emit(EntrySkipped(entry_id=entry.entry_id, reason="stale price"))
        return
    amount = min(entry.amount, margin_of(state, account).withdrawable)
    if amount == 0:
        ctx.emit(EntrySkipped(entry_id=entry.entry_id, reason="nothing withdrawable"))
        return
    change_collateral(ctx, account, -amount, "withdrawal")
    state.claimed += amount
    state.claim_count += 1
    ctx.emit(EntryApplied(entry_id=entry.entry_id, account=account.account_id, amount=amount))
