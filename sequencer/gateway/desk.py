"""Signed requests of traders: parse, verify, refuse what cannot be right, submit, answer. HTTP and WebSocket
share it.

What is refused here is never journaled; margin, book and nonces are the engine's to judge.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec

from evermark.protocol.orders import NO_ADDRESS, ApproveAgent, Cancel, Order, Transfer, Withdraw
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import (
    AgentApproval,
    AnyCommand,
    CancelOrder,
    PlaceOrder,
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
from sequencer.engine.state import Account
from sequencer.gateway import parse, wire
from sequencer.gateway.limits import Limiter
from sequencer.gateway.refusal import ENGINE_STATUS, Refusal, engine_refusal, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.signers import Signers
from sequencer.history.records import wire_int
from sequencer.pipeline import PipelineStopped

SEQUENCE_AHEAD_S = 86_400  # a slot's sequence is milliseconds of at most a day ahead, so that it stays usable
ERROR_START = b'{"error"'

Outcome = TypeVar("Outcome")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A JSON body and the HTTP status that it travels under."""

    body: bytes
    http_status: int = 200

    @classmethod
    def of(cls, content: Any) -> "Answer":
        """A successful answer."""
        return cls(msgspec.json.encode(content))

    @classmethod
    def refused(cls, refusal: Refusal) -> "Answer":
        """The answer that a refusal is."""
        return cls(msgspec.json.encode(refusal.to_json()), refusal.http_status)


class Desk:
    """Orders, cancels, agents, withdrawals and transfers. Every verb raises Refusal for what it does not submit."""

    def __init__(self, services: Services, limiter: Limiter, signers: Signers) -> None:
        self._services = services
        self._state = services.state
        self._limiter = limiter
        self._signers = signers
        self._under_way: dict[bytes, asyncio.Future[list[Event]]] = {}  # by order hash: in the pipeline

    @property
    def overload(self) -> Refusal | None:
        """Why no order is taken at the moment, None when orders are."""
        return self._signers.overload

    async def order(self, request: wire.OrderRequest) -> Answer:
        """Place an order; a repetition of one seen before gets the first answer again."""
        order, signature = parse.order_of(request.order), parse.signature_of(request)
        self._require_ready()
        if order.market not in self._state.market_ids:
            raise unknown_market(order.market)
        account = self._account(order)
        recovered = await self._signers.trader(order, signature, request, account, agents=True)
        order_hash = recovered.struct_hash
        self._limiter.order(account.account_id)
        first = recovered.known or self._remembered(order_hash)
        if first is not None:
            return _first_answer(first)
        if order_hash in self._under_way:
            events = await outcome(asyncio.shield(self._under_way[order_hash]))
            return self._order_answer(order_hash, events)
        self._require_timely(order)
        command = PlaceOrder(
            account=account.account_id,
            order=order,
            order_hash=order_hash,
            signature=signature,
            signer=recovered.signer or NO_ADDRESS,
            client_id=request.client_id,
        )
        return self._order_answer(order_hash, await outcome(asyncio.shield(self._place(command))))

    async def orders(self, request: wire.OrdersRequest) -> Answer:
        """Place the orders of an `OrderBatch`, one account's under one agent's signature; an answer for each, in order."""
        orders, signature = [parse.order_of(fields) for fields in request.orders], parse.signature_of(request)
        self._require_ready()
        client_ids = request.client_ids or [""] * len(orders)
        self._require_one_account(orders, client_ids)
        account = self._account(orders[0])
        recovered = await self._signers.order_batch(orders, signature, request, account)
        self._limiter.order(account.account_id, len(orders))
        answers: list[Answer | asyncio.Future[list[Event]]] = []
        for order, hashed, path, known, client_id in zip(
            orders, recovered.struct_hashes, recovered.paths, recovered.known, client_ids, strict=True
        ):
            first = known or self._remembered(hashed)
            if first is not None:
                answers.append(_first_answer(first))
            elif hashed in self._under_way:
                answers.append(self._under_way[hashed])
            elif (late := self._untimely(order)) is not None:
                answers.append(Answer.refused(late))
            else:
                command = PlaceOrder(
                    account=account.account_id,
                    order=order,
                    order_hash=hashed,
                    signature=signature,
                    signer=recovered.signer or NO_ADDRESS,
                    client_id=client_id,
                    path=path,
                )
                answers.append(self._place(command))
        placing = [asyncio.shield(each) for each in answers if not isinstance(each, Answer)]
        await outcome(asyncio.gather(*placing))
        bodies = [
            (each if isinstance(each, Answer) else self._order_answer(hashed, each.result())).body
            for hashed, each in zip(recovered.struct_hashes, answers, strict=True)
        ]
        return Answer(b'{"orders":[' + b",".join(bodies) + b"]}")

    async def cancel(self, request: wire.CancelRequest) -> Answer:
        """Cancel one slot or everything; allowed even before the exchange is ready for orders."""
        cancel, signature = parse.cancel_of(request.cancel), parse.signature_of(request)
        account = self._account(cancel)
        recovered = await self._signers.trader(cancel, signature, request, account, agents=True)
        self._limiter.cancel(account.account_id)
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
        self._limiter.order(account.account_id)
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
        self._limiter.order(account.account_id)
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
        self._limiter.order(account.account_id)
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

    def _place(self, command: PlaceOrder) -> "asyncio.Future[list[Event]]":
        """Submit one order. Whoever repeats it until it is applied waits for the same answer, also when the connection that it
        came by is gone meanwhile: what waits for it has to be shielded."""
        placing = asyncio.ensure_future(self._services.submit(command))
        self._under_way[command.order_hash] = placing
        placing.add_done_callback(lambda done: self._applied(command.order_hash, done))
        return placing

    def _applied(self, order_hash: bytes, done: "asyncio.Future[list[Event]]") -> None:
        """From here on the history knows it."""
        del self._under_way[order_hash]
        if not done.cancelled():
            done.exception()  # nobody may be listening

    def _order_answer(self, order_hash: bytes, events: list[Event]) -> Answer:
        first = self._remembered(order_hash)
        if first is not None:
            return _first_answer(first)
        # Not in history, hence not journaled: the pipeline was full or stopping.
        rejects = [event.reject for event in events if isinstance(event, CommandRejected)]
        return Answer.refused(engine_refusal(rejects[0], order_hash))

    async def _submit(self, command: AnyCommand) -> list[Event]:
        events = await submit(self._services, command)
        for event in events:
            if isinstance(event, CommandRejected):
                raise engine_refusal(event.reject)
        return events

    def _remembered(self, order_hash: bytes) -> bytes | None:
        record = self._services.history.order(order_hash)
        return None if record is None else record.first_answer

    def _account(self, message: Order | Cancel | Withdraw | Transfer | ApproveAgent) -> Account:
        account_id = self._state.account_ids.get((message.owner, message.sub_account))
        if account_id is None:
            owner = "0x" + message.owner.hex()
            raise refuse(
                RejectCode.UNKNOWN_ACCOUNT,
                "this owner has no such sub-account; a first deposit opens it",
                "owner",
                owner=owner,
                sub_account=message.sub_account,
            )
        return self._state.accounts[account_id]

    def _require_ready(self) -> None:
        missing = self._services.missing()
        if missing:
            raise refuse(RejectCode.NOT_READY, "not ready: " + ", ".join(missing), retry_after_ms=1_000)

    def _require_one_account(self, orders: list[Order], client_ids: list[str]) -> None:
        first = orders[0]
        for order in orders:
            if order.market not in self._state.market_ids:
                raise unknown_market(order.market)
            if (order.owner, order.sub_account) != (first.owner, first.sub_account):
                raise refuse(RejectCode.BAD_COMBINATION, "the orders are of several accounts", "orders")
        if len(client_ids) != len(orders):
            raise refuse(
                RejectCode.BAD_COMBINATION, "client_ids are one for each order, or none", "client_ids"
            )
        if len({(order.slot, order.sequence) for order in orders}) != len(orders):
            raise refuse(RejectCode.BAD_COMBINATION, "two orders have one slot and sequence", "orders")

    def _require_timely(self, order: Order) -> None:
        refusal = self._untimely(order)
        if refusal is not None:
            raise refusal

    def _untimely(self, order: Order) -> Refusal | None:
        now = self._services.now_s()
        if order.expiry <= now:
            return refuse(RejectCode.EXPIRED, "the order has expired", "expiry", expiry=order.expiry, now=now)
        most = (now + SEQUENCE_AHEAD_S) * 1000
        if order.sequence > most:
            return refuse(
                RejectCode.SEQUENCE_TOO_FAR,
                "the sequence is more than a day of milliseconds ahead",
                "sequence",
                sequence=order.sequence,
                most=most,
            )
        return None

    def _require_deadline(self, deadline: int) -> None:
        now = self._services.now_s()
        if deadline < now:
            raise refuse(
                RejectCode.EXPIRED, "the deadline has passed", "deadline", deadline=deadline, now=now
            )


async def submit(services: Services, command: AnyCommand) -> list[Event]:
    """The command's events once it is durable and applied. Raises Refusal when the pipeline ends before."""
    return await outcome(services.submit(command))


async def outcome(submitted: Awaitable[Outcome]) -> Outcome:
    """What the pipeline gives. Raises Refusal when it ends before."""
    try:
        return await submitted
    except PipelineStopped:
        message = "the sequencer is stopping; the journal knows the outcome"
        raise refuse(RejectCode.NOT_READY, message, outcome="unknown", retry_after_ms=1_000) from None


def unknown_market(symbol: str) -> Refusal:
    """There is no such market."""
    return refuse(RejectCode.UNKNOWN_MARKET, "there is no such market", "market", market=symbol)


def _first_answer(raw: bytes) -> Answer:
    return Answer(raw, ENGINE_STATUS if raw.startswith(ERROR_START) else 200)
