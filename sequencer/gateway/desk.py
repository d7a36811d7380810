"""Signed requests of traders: parse, verify, refuse what cannot be right, submit, answer. HTTP and WebSocket
share it.

What is refused here is never journaled; margin, book and nonces are the engine's to judge.
"""

from evermark.protocol.orders import NO_ADDRESS
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import (
    AgentApproval,
    AnyCommand,
    CancelOrder,
    TransferRequest,
    WithdrawRequest,
)
from sequencer.engine.events import (
    AgentChanged,
    CommandRejected,
    Event,
    OrderCancelled,
    Transferred,
    WithdrawalClaimed,
)
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer, submit
from sequencer.gateway.placing import OrderDesk
from sequencer.gateway.refusal import engine_refusal, refuse
from sequencer.history.records import wire_int


class Desk(OrderDesk):
    """Orders, cancels, agents, withdrawals and transfers. Every verb raises Refusal for what it does not submit."""

    async def cancel(self, request: wire.CancelRequest) -> Answer:
        """Cancel one slot or everything; allowed even before the exchange is ready for orders."""
        cancel, signature = parse.cancel_of(request.cancel), parse.signature_of(request)
        account = self._account(cancel)
        recovered = await self._signers.trader(cancel, signature, request, account, agents=True)
        self.limiter.cancel(account.account_id)
        self._require_deadline(cancel.deadline)
        command = CancelOrder(
            account=account.account_id,
            cancel=cancel,
            signature=signature,
            signer=recovered.signer or NO_ADDRESS,
        )
        events = await self._submit(command)
        hashes = [event.order_hash for event in events if isinstance(event, OrderCancelled)]
        return Answer.of({"cancelled": ["0x" + order_hash.hex() for order_hash in hashes]})

    async def approve(self, request: wire.AgentRequest) -> Answer:
        """Approve or revoke an agent; the owner's own signature only."""
        approval, signature = parse.approval_of(request.approval), parse.signature_of(request)
        self._require_ready()
        account = self._account(approval)
        await self._signers.trader(approval, signature, request, account, agents=False)
        self.limiter.order(account.account_id)
        self._require_deadline(approval.deadline)
        events = await self._submit(
            AgentApproval(account=account.account_id, approval=approval, signature=signature)
        )
        expiry = next(event.expiry for event in events if isinstance(event, AgentChanged))
        return Answer.of(
            {"account": account.account_id, "agent": "0x" + approval.agent.hex(), "expiry": expiry}
        )

    async def withdraw(self, request: wire.WithdrawalRequest) -> Answer:
        """Withdraw collateral; the owner's own signature only. The claim travels in the open batch."""
        withdraw, signature = parse.withdraw_of(request.withdraw), parse.signature_of(request)
        self._require_ready()
        account = self._account(withdraw)
        await self._signers.trader(withdraw, signature, request, account, agents=False)
        self.limiter.order(account.account_id)
        self._require_deadline(withdraw.deadline)
        fee = min(self._services.settings.withdrawal_fee, withdraw.max_fee, withdraw.amount)
        command = WithdrawRequest(account=account.account_id, withdraw=withdraw, fee=fee, signature=signature)
        events = await self._submit(command)
        claim = next(event for event in events if isinstance(event, WithdrawalClaimed))
        batch = self._services.market_data.claim_batch(account.account_id, withdraw.action_sequence)
        return Answer.of(
            {
                "account": account.account_id,
                "amount": wire_int(withdraw.amount),
                "fee": wire_int(claim.fee),
                "batch": batch,
                "claim": claim.claim,
                "payable_at": claim.payable_at,
            }
        )

    async def transfer(self, request: wire.TransferRequest) -> Answer:
        """Move collateral to another sub-account of the owner; an agent may, within its cap."""
        transfer, signature = parse.transfer_of(request.transfer), parse.signature_of(request)
        self._require_ready()
        account = self._account(transfer)
        recovered = await self._signers.trader(transfer, signature, request, account, agents=True)
        self.limiter.order(account.account_id)
        self._require_deadline(transfer.deadline)
        command = TransferRequest(
            account=account.account_id,
            transfer=transfer,
            signature=signature,
            signer=recovered.signer or NO_ADDRESS,
        )
        events = await self._submit(command)
        done = next(event for event in events if isinstance(event, Transferred))
        return Answer.of({"account": done.account, "target": done.target, "amount": wire_int(done.amount)})

    async def _submit(self, command: AnyCommand) -> list[Event]:
        events = await submit(self._services, command)
        for event in events:
            if isinstance(event, CommandRejected):
                raise engine_refusal(event.reject)
        return events

    def _require_deadline(self, deadline: int) -> None:
        now = self._services.now_s()
        if deadline < now:
            raise refuse(
                RejectCode.EXPIRED, "the deadline has passed", "deadline", deadline=deadline, now=now
            )
