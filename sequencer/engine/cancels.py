"""CancelOrder: ends waiting orders at once. What was cancelled never trades again, whatever arrives late."""

from evermark.protocol.orders import MAX_EXPIRY_S, Cancel
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_SEQUENCE
from sequencer.engine.commands import CancelOrder
from sequencer.engine.context import Context, no
from sequencer.engine.events import CancelReason
from sequencer.engine.matching import agent_is_live
from sequencer.engine.open_orders import cancel, live_order, live_orders
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.order_checks import SEQUENCE_AHEAD_MS
from sequencer.engine.state import Account, EngineState, SlotState
from sequencer.engine.trigger_checks import MAX_SLOT


def cancel_order(ctx: Context, command: CancelOrder) -> None:
    """Cancel a slot, or all of an account, up to the signed sequence; the sequence stays void afterwards."""
    state, signed = ctx.state, command.cancel
    refusal = _check(state, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account)
        return
    account = state.accounts[command.account]
    if signed.all_slots:
        account.min_sequence = max(account.min_sequence, signed.sequence)
    elif signed.slot == 0:
        account.taker_sequence = max(account.taker_sequence, signed.sequence)
    else:
        slot = account.slots.setdefault(signed.slot, SlotState())
        slot.sequence = max(slot.sequence, signed.sequence)
    for order in _meant(account, signed):
        if order.sequence <= signed.sequence:
            cancel(ctx, order, CancelReason.USER)


def _meant(account: Account, signed: Cancel) -> list[RestingOrder]:
    """The waiting orders that the cancel speaks of, whatever their sequence."""
    if signed.all_slots:
        return live_orders(account)
    order = live_order(account, signed.slot)
    return [] if order is None else [order]


def _check(state: EngineState, command: CancelOrder) -> Reject | None:
    signed, now = command.cancel, state.now
    account = state.accounts.get(command.account)
    if account is None or (account.owner, account.sub_account) != (signed.owner, signed.sub_account):
        return no(
            RejectCode.UNKNOWN_ACCOUNT, "the account is not the cancel's", "owner", account=command.account
        )
    if not agent_is_live(state, account, command.signer):
        return no(RejectCode.NOT_AUTHORISED, "the signer is neither the owner nor a live agent", "signature")
    if not (0 <= signed.slot <= MAX_SLOT and 0 < signed.sequence <= MAX_SEQUENCE):
        return no(RejectCode.OUT_OF_RANGE, "slot or sequence is out of range", "sequence")
    if not now <= signed.deadline <= MAX_EXPIRY_S:
        return no(
            RejectCode.EXPIRED, "the deadline has passed", "deadline", deadline=signed.deadline, now=now
        )
    most = now * 1000 + SEQUENCE_AHEAD_MS
    if signed.sequence > most:
        return no(RejectCode.SEQUENCE_TOO_FAR, "sequence is too far ahead", "sequence", most=most)
    if not _voids_something(account, signed):
        return no(RejectCode.UNKNOWN_ORDER, "no such order waits", "slot", slot=signed.slot)
    return None


def _voids_something(account: Account, signed: Cancel) -> bool:
    if signed.all_slots:
        live = any(order.sequence <= signed.sequence for order in live_orders(account))
        return live or signed.sequence > account.min_sequence
    if signed.slot == 0:
        return signed.sequence > account.taker_sequence
    slot = account.slots.get(signed.slot)
    if slot is None or signed.sequence > slot.sequence:
        return True
    return slot.live is not None and slot.live.sequence <= signed.sequence
