"""CancelOrder: ends waiting orders at once. What was cancelled never trades again, whatever arrives late."""

from typing import Final

from evermark.protocol.orders import MAX_EXPIRY_S
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_SEQUENCE
from sequencer.engine.commands import CancelOrder
from sequencer.engine.context import Context, no
from sequencer.engine.events import CancelReason
from sequencer.engine.matching import agent_is_live
from sequencer.engine.open_orders import cancel, live_orders
from sequencer.engine.order_checks import SEQUENCE_AHEAD_MS
from sequencer.engine.state import Account, EngineState, SlotState
from sequencer.engine.trigger_checks import MAX_SLOT

# Looking a name up in a module or an enumeration costs compiled code more than the comparison that wants it.
_USER: Final = CancelReason.USER


def cancel_order(ctx: Context, command: CancelOrder) -> None:
    """Cancel a slot, or all of an account, up to the signed sequence; the sequence stays void afterwards."""
    account = ctx.state.account(command.account)
    refusal = _check(ctx.state, command, account)
    if refusal is not None or account is None:
        ctx.refuse(refusal or _not_of(command), command.account)
        return
    signed = command.cancel
    number, sequence = signed.slot, signed.sequence
    if signed.all_slots:
        account.min_sequence = max(account.min_sequence, sequence)
        for order in live_orders(account):
            if order.sequence <= sequence:
                cancel(ctx, order, _USER)
    elif number == 0:
        account.taker_sequence = max(account.taker_sequence, sequence)
    else:
        slot = account.slots.get(number)
        if slot is None:
            slot = account.slots[number] = SlotState()
        slot.sequence = max(slot.sequence, sequence)
        if slot.live is not None and slot.live.sequence <= sequence:
            cancel(ctx, slot.live, _USER)


def _check(state: EngineState, command: CancelOrder, account: Account | None) -> Reject | None:
    signed, now = command.cancel, state.now
    if account is None or account.owner != signed.owner or account.sub_account != signed.sub_account:
        return _not_of(command)
    if not agent_is_live(state, account, command.signer):
        return no(RejectCode.NOT_AUTHORISED, "the signer is neither the owner nor a live agent", "signature")
    slot, sequence, deadline = signed.slot, signed.sequence, signed.deadline
    if not (0 <= slot <= MAX_SLOT and 0 < sequence <= MAX_SEQUENCE):
        return no(RejectCode.OUT_OF_RANGE, "slot or sequence is out of range", "sequence")
    if not now <= deadline <= MAX_EXPIRY_S:
        return no(RejectCode.EXPIRED, "the deadline has passed", "deadline", deadline=deadline, now=now)
    most = state.now_ms + SEQUENCE_AHEAD_MS
    if sequence > most:
        return no(RejectCode.SEQUENCE_TOO_FAR, "sequence is too far ahead", "sequence", most=most)
    if signed.all_slots:
        voids = sequence > account.min_sequence or any(
            order.sequence <= sequence for order in live_orders(account)
        )
    else:
        voids = _voids_something(account, slot, sequence)
    return None if voids else no(RejectCode.UNKNOWN_ORDER, "no such order waits", "slot", slot=slot)


def _not_of(command: CancelOrder) -> Reject:
    message = "the account is not the cancel's"
    return no(RejectCode.UNKNOWN_ACCOUNT, message, "owner", account=command.account)


def _voids_something(account: Account, number: int, sequence: int) -> bool:
    """A cancel of that slot up to that sequence ends an order, or one that could still come."""
    if number == 0:
        return sequence > account.taker_sequence
    slot = account.slots.get(number)
    if slot is None or sequence > slot.sequence:
        return True
    return slot.live is not None and slot.live.sequence <= sequence
