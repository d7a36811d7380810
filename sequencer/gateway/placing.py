"""Orders on their way from the request to the answer: signature, repetitions, pipeline.

By callbacks: a task and its futures for each order would cost as much as half of its signature. Whoever wants to wait awaits
`order` or `orders`. The callbacks are structs that the garbage collector need not visit: it looks ten times a second at whatever
is under way, and a closure is a dozen objects to it.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from evermark.protocol.merkle import Path
from evermark.protocol.orders import NO_ADDRESS, ApproveAgent, Cancel, Order, Signature, Transfer, Withdraw
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.events import CommandRejected, Event
from sequencer.engine.state import Account
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer, Reply, unknown, unknown_market
from sequencer.gateway.checking import Recovered, RecoveredOrders
from sequencer.gateway.limits import Limiter
from sequencer.gateway.refusal import Refusal, engine_refusal, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.signers import Signers
from sequencer.pipeline import PipelineStopped, resolve

SEQUENCE_AHEAD_S = 86_400  # a slot's sequence is milliseconds of at most a day ahead, so that it stays usable


class OrderDesk:
    """Places orders. What cannot be right is a Refusal, and nothing is submitted then."""

    def __init__(self, services: Services, limiter: Limiter, signers: Signers) -> None:
        self._services = services
        self._state = services.state
        self.limiter = limiter
        self._signers = signers
        self._under_way: dict[bytes, _UnderWay] = {}  # in the pipeline, by order hash
        self._asking: set[asyncio.Future[None]] = set()

    @property
    def overload(self) -> Refusal | None:
        """Why no order is taken at the moment, None when orders are."""
        return self._signers.overload

    async def order(self, request: wire.OrderRequest) -> Answer:
        """Place an order; a repetition of one seen before gets the first answer again. Raises Refusal."""
        return await _replied(partial(self.place, request))

    async def orders(self, request: wire.OrdersRequest) -> Answer:
        """Place the orders of an `OrderBatch`, one account's under one agent's signature; an answer for each, in order.
        Raises Refusal."""
        return await _replied(partial(self.place_batch, request))

    def place(self, request: wire.OrderRequest, reply: Reply) -> None:
        """Place an order and reply when its answer is there. Raises Refusal for what is refused at once, and then there is no
        reply."""
        order, signature = parse.order_of(request.order), parse.signature_of(request)
        self._require_ready()
        if order.market not in self._state.market_ids:
            raise unknown_market(parse.symbol(order.market))
        account = self._account(order)

        signed = _Placing(self, account.account_id, order, signature, request.client_id, reply)
        self._signers.ask_order(order, signature, request, account, signed)

    def place_batch(self, request: wire.OrdersRequest, reply: Reply) -> None:
        """The same for the orders of an `OrderBatch`."""
        orders = [parse.order_of(fields, f"orders[{at}]") for at, fields in enumerate(request.orders)]
        signature = parse.signature_of(request)
        self._require_ready()
        client_ids = request.client_ids or [""] * len(orders)
        self._require_one_account(orders, client_ids)
        account = self._account(orders[0])

        def signed(recovered: RecoveredOrders | BaseException) -> None:
            if isinstance(recovered, BaseException):
                reply(recovered)
                return
            sent = _Sent(account.account_id, signature, recovered.signer or NO_ADDRESS)
            hashes, known, paths = recovered.struct_hashes, recovered.known, recovered.paths
            answers = _Answers(len(orders), reply)
            try:
                self.limiter.order(account.account_id, len(orders))
                for at, each in enumerate(zip(orders, hashes, known, client_ids, paths, strict=True)):
                    self.submit(sent, *each, _One(answers, at))
            except Exception as error:
                reply(error)

        self._signers.ask_orders(orders, signature, request, account, signed)

    def submit(
        self,
        sent: "_Sent",
        order: Order,
        order_hash: bytes,
        known: bool,
        client_id: str,
        path: Path | None,
        reply: Reply,
    ) -> None:
        """Reply once: with the first answer to an order that was seen before, or when the order is applied. Whoever repeats it
        until then waits for the same answer, also when the connection that it came by is gone meanwhile."""
        record = self._services.history.order(order_hash)
        under_way = self._under_way.get(order_hash)
        if record is not None:
            reply(Answer.stored(record.first_answer))
        elif under_way is not None:
            under_way.repeated += (reply,)
        elif known:
            asking = asyncio.ensure_future(self._tell_again(order_hash, reply))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        elif (late := self._untimely(order)) is not None:
            reply(late)
        else:
            command = PlaceOrder(
                account=sent.account,
                order=order,
                order_hash=order_hash,
                signature=sent.signature,
                signer=sent.signer,
                client_id=client_id,
                path=path,
            )
            self._submit_order(command, reply)

    def _submit_order(self, command: PlaceOrder, reply: Reply) -> None:
        under_way = self._under_way[command.order_hash] = _UnderWay(self, command.order_hash, reply)
        self._services.submit(command, under_way)

    async def _tell_again(self, order_hash: bytes, reply: Reply) -> None:
        """The first answer to an order that only the store remembers."""
        answer: Answer | Exception
        try:
            record = await self._services.history.find_order(order_hash)
            if record is None:
                raise LookupError("the history has lost an order")
            answer = Answer.stored(record.first_answer)
        except Exception as error:
            answer = error
        reply(answer)

    def applied(self, order: "_UnderWay", outcome: list[Event] | PipelineStopped) -> None:
        """From here on the history knows it."""
        del self._under_way[order.order_hash]
        answer: Answer | Exception
        try:
            answer = self._order_answer(order.order_hash, outcome)
        except Exception as error:
            answer = error
        order.reply(answer)
        for reply in order.repeated:
            reply(answer)

    def _order_answer(self, order_hash: bytes, outcome: list[Event] | PipelineStopped) -> Answer:
        if isinstance(outcome, PipelineStopped):
            raise unknown()
        record = self._services.history.order(order_hash)
        if record is not None:
            return Answer.stored(record.first_answer)
        # Not in history, hence not journaled: the pipeline was full or stopping.
        rejects = [event.reject for event in outcome if isinstance(event, CommandRejected)]
        return Answer.refused(engine_refusal(rejects[0], order_hash))

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
                raise unknown_market(parse.symbol(order.market))
            if (order.owner, order.sub_account) != (first.owner, first.sub_account):
                raise refuse(RejectCode.BAD_COMBINATION, "the orders are of several accounts", "orders")
        if len(client_ids) != len(orders):
            raise refuse(
                RejectCode.BAD_COMBINATION, "client_ids are one for each order, or none", "client_ids"
            )
        if len({(order.slot, order.sequence) for order in orders}) != len(orders):
            raise refuse(RejectCode.BAD_COMBINATION, "two orders have one slot and sequence", "orders")

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


class _Sent(msgspec.Struct, frozen=True, gc=False):
    """What the orders of one message have in common."""

    account: int
    signature: Signature
    signer: bytes


class _Placing(msgspec.Struct, frozen=True, gc=False):
    """One order until its signature is checked."""

    desk: OrderDesk
    account: int
    order: Order
    signature: Signature
    client_id: str
    reply: Reply

    def __call__(self, recovered: Recovered | BaseException) -> None:
        if isinstance(recovered, BaseException):
            self.reply(recovered)
            return
        sent = _Sent(self.account, self.signature, recovered.signer or NO_ADDRESS)
        hashed, known = recovered.struct_hash, recovered.known
        try:
            self.desk.limiter.order(self.account)
            self.desk.submit(sent, self.order, hashed, known, self.client_id, None, self.reply)
        except Exception as error:
            self.reply(error)


class _UnderWay(msgspec.Struct, gc=False):
    """One order in the pipeline, and who waits for its answer."""

    desk: OrderDesk
    order_hash: bytes
    reply: Reply
    repeated: tuple[Reply, ...] = ()

    def __call__(self, outcome: list[Event] | PipelineStopped) -> None:
        self.desk.applied(self, outcome)


class _Answers:
    """Gathers the answers to the orders of one message; what replies to one of them with an error replies to all, unless it is a
    refusal."""

    def __init__(self, count: int, reply: Reply) -> None:
        self._bodies = [b""] * count
        self._missing = count
        self._error: BaseException | None = None
        self._reply = reply

    def take(self, at: int, answer: Answer | BaseException) -> None:
        """The one to order number `at`."""
        if isinstance(answer, Refusal):
            answer = Answer.refused(answer)
        if isinstance(answer, Answer):
            self._bodies[at] = answer.body
        else:
            self._error = answer
        self._missing -= 1
        if not self._missing:
            self._reply(self._error or Answer(b'{"orders":[' + b",".join(self._bodies) + b"]}"))


class _One(msgspec.Struct, frozen=True, gc=False):
    """The answer to order number `at` of a message."""

    answers: _Answers
    at: int

    def __call__(self, answer: Answer | BaseException) -> None:
        self.answers.take(self.at, answer)


async def _replied(place: Callable[[Reply], None]) -> Answer:
    done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    place(partial(resolve, done))
    return await done
