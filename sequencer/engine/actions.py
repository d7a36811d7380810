"""AgentApproval, WithdrawRequest and TransferRequest: who may act for an account, and its money's ways out."""

from evermark.protocol.batch import FEE_ACCOUNT
from evermark.protocol.orders import MAX_EXPIRY_S, NO_ADDRESS, ApproveAgent, Transfer, Withdraw
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_COLLATERAL, MAX_SEQUENCE, MIN_FIRST_DEPOSIT
from sequencer.engine.batch_builder import (
    MAX_ACTIONS,
    MAX_WITHDRAWALS,
    STAGE_ACTIONS,
    STAGE_WITHDRAWALS,
    OpenAction,
)
from sequencer.engine.commands import AgentApproval, TransferRequest, WithdrawRequest
from sequencer.engine.context import Context, no
from sequencer.engine.events import AgentChanged, CancelReason, Transferred
from sequencer.engine.halting import check_halted
from sequencer.engine.holds import hold
from sequencer.engine.ledger import change_collateral, claim, register
from sequencer.engine.matching import agent_is_live
from sequencer.engine.open_orders import cancel, live_orders
from sequencer.engine.risk import available, prices_fresh
from sequencer.engine.sealing import enter, round_is_old, seal, touch, touch_positions
from sequencer.engine.state import Account, EngineState

MAX_AGENT_LIFE_S = 365 * 86_400


def approve_agent(ctx: Context, command: AgentApproval) -> None:
    """Let an agent trade for the account, or revoke it; a revoked agent's orders are cancelled."""
    state, approval = ctx.state, command.approval
    account = state.account(command.account)
    refusal = _check_action(ctx, account, approval) or _check_approval(state, command)
    if refusal is not None or account is None:
        ctx.refuse(refusal or _unknown(command.account), command.account)
        return
    if len(state.batch.actions) >= MAX_ACTIONS or not state.batch.has_room_for_account(0):
        seal(ctx)
    batch = enter(ctx, STAGE_ACTIONS)
    touch(state, account)
    batch.actions.append(OpenAction(command.account, approval, command.signature))
    account.action_sequence = approval.action_sequence
    set_agent(ctx, account, approval.agent, approval.agent_expiry, approval.transfer_cap)


def set_agent(ctx: Context, account: Account, agent: bytes, expiry: int, transfer_cap: int) -> None:
    """Put a session key in force, or end it (expiry 0); the orders of one that ends are cancelled."""
    key = (account.account_id, agent)
    if expiry:
        ctx.state.agents[key] = (expiry, transfer_cap)
    else:
        ctx.state.agents.pop(key, None)
        for order in live_orders(account):
            if order.signer == agent:
                cancel(ctx, order, CancelReason.AGENT_REVOKED)
    ctx.events.append(AgentChanged(account=account.account_id, agent=agent, expiry=expiry))


def withdraw(ctx: Context, command: WithdrawRequest) -> None:
    """Turn collateral into a claim of the owner, as far as positions and open orders leave it free."""
    state, signed = ctx.state, command.withdraw
    account = state.account(command.account)
    refusal = _check_action(ctx, account, signed)
    if refusal is not None or account is None:
        ctx.refuse(refusal or _unknown(command.account), command.account)
        return
    refusal = _check_withdrawal(state, account, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account)
        return
    batch = state.batch
    if len(batch.withdrawals) >= MAX_WITHDRAWALS or not batch.has_room_for_account(account.open_positions):
        seal(ctx)
    batch = enter(ctx, STAGE_WITHDRAWALS)
    touch_positions(state, account)
    batch.withdrawals.append((command.account, signed, command.fee, command.signature))
    account.action_sequence = signed.action_sequence
    amount = signed.amount - command.fee
    change_collateral(ctx, account, -amount, "withdrawal")
    change_collateral(ctx, account, -command.fee, "withdrawal_fee")
    if command.fee:
        fee_account = state.accounts[FEE_ACCOUNT]
        touch(state, fee_account)
        change_collateral(ctx, fee_account, command.fee, "withdrawal_fee")
    claim(ctx, account, amount, command.fee)


def transfer(ctx: Context, command: TransferRequest) -> None:
    """Move collateral to another sub-account of the owner; from 10 USDC on it may open that account."""
    state, signed = ctx.state, command.transfer
    account = state.account(command.account)
    target = state.accounts.get(state.account_ids.get((signed.owner, signed.to_sub_account), 0))
    refusal = _check_action(ctx, account, signed)
    if refusal is not None or account is None:
        ctx.refuse(refusal or _unknown(command.account), command.account)
        return
    refusal = _check_transfer(state, account, target, command) or _check_signer(state, account, command)
    if refusal is not None:
        ctx.refuse(refusal, command.account)
        return
    batch = state.batch
    if len(batch.actions) >= MAX_ACTIONS or not batch.has_room_for_account(account.open_positions + 1):
        seal(ctx)
    batch = enter(ctx, STAGE_ACTIONS)
    touch_positions(state, account)
    target = target or register(ctx, signed.owner, signed.to_sub_account)
    touch(state, target)
    batch.actions.append(OpenAction(command.account, signed, command.signature, target.account_id))
    account.action_sequence = signed.action_sequence
    if command.signer != account.owner:
        expiry, cap = state.agents[command.account, command.signer]
        state.agents[command.account, command.signer] = (expiry, cap - signed.amount)
    change_collateral(ctx, account, -signed.amount, "transfer")
    change_collateral(ctx, target, signed.amount, "transfer")
    ctx.events.append(
        Transferred(
            account=command.account, target=target.account_id, amount=signed.amount, signer=command.signer
        )
    )


def _unknown(account: int) -> Reject:
    return no(RejectCode.UNKNOWN_ACCOUNT, "no such account", "owner", account=account)


def _check_action(
    ctx: Context, account: Account | None, signed: ApproveAgent | Withdraw | Transfer
) -> Reject | None:
    state = ctx.state
    if account is None or (account.owner, account.sub_account) != (signed.owner, signed.sub_account):
        return no(RejectCode.UNKNOWN_ACCOUNT, "the account is not the message's", "owner")
    if signed.owner == NO_ADDRESS:
        return no(RejectCode.NOT_AUTHORISED, "reserved accounts sign nothing", "owner")
    halted = check_halted(state, account.account_id)
    if halted is not None:
        return halted
    if round_is_old(state, ctx.stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round", stamp_ms=ctx.stamp_ms, round_s=state.now)
    if not state.now <= signed.deadline <= MAX_EXPIRY_S:
        return no(
            RejectCode.EXPIRED, "the deadline has passed", "deadline", deadline=signed.deadline, now=state.now
        )
    if not account.action_sequence < signed.action_sequence <= MAX_SEQUENCE:
        return no(
            RejectCode.STALE_SEQUENCE,
            "action sequence does not grow",
            "action_sequence",
            sequence=signed.action_sequence,
            seen=account.action_sequence,
        )
    return None


def _check_approval(state: EngineState, command: AgentApproval) -> Reject | None:
    approval = command.approval
    if len(approval.agent) != 20 or approval.agent in (NO_ADDRESS, approval.owner):
        return no(RejectCode.BAD_COMBINATION, "an agent is another address than the owner's", "agent")
    if not 0 <= approval.transfer_cap <= MAX_COLLATERAL:
        return no(RejectCode.OUT_OF_RANGE, "transfer cap is out of range", "transfer_cap")
    most = min(state.now + MAX_AGENT_LIFE_S, MAX_EXPIRY_S)
    expiry = approval.agent_expiry
    if expiry and not state.now <= expiry <= most:
        return no(
            RejectCode.OUT_OF_RANGE,
            "an agent lives at most 365 days",
            "agent_expiry",
            expiry=expiry,
            most=most,
        )
    return None


def _check_withdrawal(state: EngineState, account: Account, command: WithdrawRequest) -> Reject | None:
    signed, fee = command.withdraw, command.fee
    if not (0 < signed.amount <= MAX_COLLATERAL and 0 <= signed.max_fee <= MAX_COLLATERAL):
        return no(RejectCode.OUT_OF_RANGE, "amount or maximum fee is out of range", "amount")
    if not 0 <= fee <= signed.max_fee or fee >= signed.amount:
        return no(
            RejectCode.FEE_ABOVE_MAXIMUM,
            "the fee is above the signed maximum or takes all",
            "max_fee",
            fee=fee,
            max_fee=signed.max_fee,
            amount=signed.amount,
        )
    return _check_free(state, account, signed.amount)


def _check_transfer(
    state: EngineState, account: Account, target: Account | None, command: TransferRequest
) -> Reject | None:
    signed = command.transfer
    if not 0 < signed.amount <= MAX_COLLATERAL:
        return no(RejectCode.OUT_OF_RANGE, "amount is out of range", "amount")
    if not 0 <= signed.to_sub_account < 2**16:
        return no(RejectCode.OUT_OF_RANGE, "sub-account is out of range", "to_sub_account")
    if signed.to_sub_account == signed.sub_account:
        return no(RejectCode.BAD_COMBINATION, "a transfer goes to another sub-account", "to_sub_account")
    if target is None and signed.amount < MIN_FIRST_DEPOSIT:
        return no(
            RejectCode.BELOW_FIRST_DEPOSIT,
            "too little to open the sub-account",
            "amount",
            amount=signed.amount,
            least=MIN_FIRST_DEPOSIT,
        )
    return _check_free(state, account, signed.amount)


def _check_signer(state: EngineState, account: Account, command: TransferRequest) -> Reject | None:
    """An agent stays within its cap, and takes the next action sequence: a stolen key cannot use up the
    sequences with which the owner would revoke it."""
    signed = command.transfer
    if command.signer == account.owner:
        return None
    if not agent_is_live(state, account, command.signer):
        return no(RejectCode.NOT_AUTHORISED, "the signer is neither the owner nor a live agent", "signature")
    _, cap = state.agents[account.account_id, command.signer]
    if signed.amount > cap:
        return no(
            RejectCode.ABOVE_TRANSFER_CAP,
            "the amount is above what the agent may still move",
            "amount",
            amount=signed.amount,
            cap=cap,
        )
    if signed.action_sequence != account.action_sequence + 1:
        return no(
            RejectCode.STALE_SEQUENCE,
            "an agent's transfer takes the next action sequence",
            "action_sequence",
            sequence=signed.action_sequence,
            seen=account.action_sequence,
        )
    return None


def _check_free(state: EngineState, account: Account, amount: int) -> Reject | None:
    """Positions and open orders leave `amount` free, at fresh prices, and nothing holds it."""
    refusal = hold(state, account)
    if refusal is not None:
        return refusal
    if not prices_fresh(state, account):
        return no(RejectCode.STALE_PRICE, "the price of an open position is stale")
    free = available(state, account)
    if amount > free:
        return no(
            RejectCode.INSUFFICIENT_WITHDRAWABLE,
            "positions and open orders need the collateral",
            "amount",
            requested=amount,
            withdrawable=free,
        )
    return None
