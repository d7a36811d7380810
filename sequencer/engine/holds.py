"""When collateral has to stay for a while: after an outage of the chain, and while an account is below zero.

The vault knows the first (`PriceOracle.restarted`), the second is the engine's alone: whoever withdraws through the inbox
does not wait for it.
"""

from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import check
from sequencer.engine.commands import ChainRestarted
from sequencer.engine.context import Context, no
from sequencer.engine.events import ChainRestartNoted
from sequencer.engine.risk import margin_of
from sequencer.engine.state import Account, EngineState

HOLD_S = 300  # of engine time, from when an account is first seen below zero; as long lie between two holds at least


def note_chain(ctx: Context, command: ChainRestarted) -> None:
    """What the chain said of itself: an outage or the hour after it began, or ended."""
    ctx.state.chain_restarted = command.restarted
    ctx.events.append(ChainRestartNoted(restarted=command.restarted))


def note_negative(state: EngineState, account: Account) -> None:
    """An account was seen with negative equity. Each such account holds withdrawals once, until it has recovered."""
    check(margin_of(state, account).equity < 0, "holds: the account is not negative")
    if account.account_id in state.negatives:
        return
    for known in sorted(state.negatives):
        if margin_of(state, state.accounts[known]).equity >= 0:
            state.negatives.discard(known)
    state.negatives.add(account.account_id)
    if not state.hold_began or state.now >= state.hold_began + 2 * HOLD_S:
        state.hold_began = state.now


def chain_hold(state: EngineState, account: Account) -> Reject | None:
    """After an outage of the chain nothing is taken from under a position: first its owner may add margin."""
    if not state.chain_restarted or not account.open_positions:
        return None
    return no(
        RejectCode.CHAIN_RESTARTED,
        "the chain was down: for an hour nothing leaves an account with positions",
        "account",
        positions=account.open_positions,
    )


def chain_was_down() -> Reject:
    """Why nobody is liquidated now."""
    return no(RejectCode.CHAIN_RESTARTED, "the chain was down: nobody is liquidated for an hour", "account")


def hold(state: EngineState, account: Account) -> Reject | None:
    """Why an account's withdrawals and transfers wait now, None when they do not."""
    refusal = chain_hold(state, account)
    if refusal is not None:
        return refusal
    until = state.hold_began + HOLD_S
    if state.now >= until or not state.hold_began:
        return None
    if all(margin_of(state, state.accounts[known]).equity >= 0 for known in state.negatives):
        return None
    return no(
        RejectCode.WITHDRAWALS_HELD,
        "an account is below zero: withdrawals and transfers wait, at most five minutes",
        until=until,
        now=state.now,
        retry_after_ms=(until - state.now) * 1000,
    )
