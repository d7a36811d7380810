"""Orders on their way from the request to the answer: signature, repetitions, pipeline.

By callbacks: a task and its futures for each order would cost as much as half of its signature. Whoever wants to wait gets a
future of the answer from `order` and `orders`.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from evermark.protocol.merkle import Path
from evermark.protocol.orders import NO_ADDRESS, ApproveAgent, Cancel, Order, Signature, Transfer, Withdraw
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import PlaceOrder
from sequencer.engine.events import CommandRejected, Event
from sequencer.engine.state import Account
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer, Reply, events_of, unknown_market
from sequencer.gateway.checking import Recovered, RecoveredOrders
from sequencer.gateway.limits import Limiter
from sequencer.gateway.refusal import Refusal, engine_refusal, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.signers import Signers
from sequencer.gateway.verify import resolve

SEQUENCE_AHEAD_S = 86_400  # a slot's sequence is milliseconds of at most a day ahead, so that it stays usable

Placed = asyncio.Future[list[Event]]


class OrderDesk:
    """Places orders. What cannot be right is a Refusal, and nothing is submitted then."""

    def __init__(self, services: Services, limiter: Limiter, signers: Signers) -> None:
        self._services = services
        self._state = services.state
        self._limiter = limiter
        self._signers = signers
        self._under_way: dict[bytes, Placed] = {}  # by order hash: in the pipeline

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
            raise unknown_market(order.market)
        account = self._account(order)
        placing = _Placing(self, account.account_id, order, signature, request.client_id, reply)
        self._signers.ask_order(order, signature, request, account, placing.signed)

    def place_batch(self, request: wire.OrdersRequest, reply: Reply) -> None:
        """The same for the orders of an `OrderBatch`."""
        orders, signature = [parse.order_of(fields) for fields in request.orders], parse.signature_of(request)
        self._require_ready()
        client_ids = request.client_ids or [""] * len(orders)
        self._require_one_account(orders, client_ids)
        account = self._account(orders[0])
        placing = _PlacingBatch(self, account.account_id, orders, signature, client_ids, reply)
        self._signers.ask_orders(orders, signature, request, account, placing.signed)

    def _known(self, order_hash: bytes, stored: bytes | None) -> Answer | Placed | None:
        """What becomes of an order that was seen before: its first answer, or the one that it will have. None for a new one."""
        first = stored or self._remembered(order_hash)
        return self._under_way.get(order_hash) if first is None else Answer.stored(first)

    def _submit_order(self, command: PlaceOrder) -> Placed:
        """Whoever repeats it until it is applied waits for the same answer, also when the connection that it came by is gone
        meanwhile."""
        placed = asyncio.ensure_future(self._services.submit(command))
        self._under_way[command.order_hash] = placed
        placed.add_done_callback(partial(self._applied, command.order_hash))
        return placed

    def _applied(self, order_hash: bytes, placed: Placed) -> None:
        """From here on the history knows it."""
        del self._under_way[order_hash]
        if not placed.cancelled():
            placed.exception()  # nobody may be listening

    def _order_answer(self, order_hash: bytes, placed: Placed) -> Answer:
        events = events_of(placed)
        first = self._remembered(order_hash)
        if first is not None:
            return Answer.stored(first)
        # Not in history, hence not journaled: the pipeline was full or stopping.
        rejects = [event.reject for event in events if isinstance(event, CommandRejected)]
        return Answer.refused(engine_refusal(rejects[0], order_hash))

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


class _Placing:
    """One order between its signature and its answer."""

    __slots__ = ("_account", "_client_id", "_desk", "_order", "_order_hash", "_reply", "_signature")

    def __init__(
        self, desk: OrderDesk, account: int, order: Order, signature: Signature, client_id: str, reply: Reply
    ) -> None:
        self._desk = desk
        self._account = account
        self._order = order
        self._order_hash = b""
        self._signature = signature
        self._client_id = client_id
        self._reply = reply

    def signed(self, recovered: Recovered | BaseException) -> None:
        """The signature is checked."""
        answer: Answer | BaseException | None
        try:
            answer = recovered if isinstance(recovered, BaseException) else self._submit(recovered)
        except Exception as error:
            answer = error
        if answer is not None:
            self._reply(answer)

    def _submit(self, recovered: Recovered) -> Answer | None:
        """The answer, where it is there already. Raises Refusal."""
        desk, self._order_hash = self._desk, recovered.struct_hash
        desk._limiter.order(self._account)
        known = desk._known(self._order_hash, recovered.known)
        if isinstance(known, Answer):
            return known
        if known is None:
            late = desk._untimely(self._order)
            if late is not None:
                raise late
            known = desk._submit_order(
                PlaceOrder(
                    account=self._account,
                    order=self._order,
                    order_hash=self._order_hash,
                    signature=self._signature,
                    signer=recovered.signer or NO_ADDRESS,
                    client_id=self._client_id,
                )
            )
        known.add_done_callback(self._applied)
        return None

    def _applied(self, placed: Placed) -> None:
        answer: Answer | Exception
        try:
            answer = self._desk._order_answer(self._order_hash, placed)
        except Exception as error:
            answer = error
        self._reply(answer)


class _PlacingBatch:
    """The orders of a batch between its signature and their answers."""

    def __init__(
        self,
        desk: OrderDesk,
        account: int,
        orders: list[Order],
        signature: Signature,
        client_ids: list[str],
        reply: Reply,
    ) -> None:
        self._desk = desk
        self._account = account
        self._orders = orders
        self._signature = signature
        self._client_ids = client_ids
        self._reply = reply
        self._hashes: list[bytes] = []
        self._answers: list[Answer | Placed] = []
        self._missing = 1  # answers, and one for the submitting itself

    def signed(self, recovered: RecoveredOrders | BaseException) -> None:
        """The signature is checked."""
        if isinstance(recovered, BaseException):
            self._reply(recovered)
            return
        try:
            self._submit(recovered)
        except Exception as error:
            self._reply(error)
        else:
            self._one_less()

    def _submit(self, recovered: RecoveredOrders) -> None:
        desk, self._hashes = self._desk, recovered.struct_hashes
        desk._limiter.order(self._account, len(self._orders))
        signer = recovered.signer or NO_ADDRESS
        every = zip(
            self._orders, self._hashes, recovered.paths, recovered.known, self._client_ids, strict=True
        )
        for order, hashed, path, stored, client_id in every:
            answer = desk._known(hashed, stored)
            if answer is None:
                answer = self._place(order, hashed, path, client_id, signer)
            self._answers.append(answer)
        for answer in self._answers:
            if not isinstance(answer, Answer):
                self._missing += 1
                answer.add_done_callback(self._one_less)

    def _place(
        self, order: Order, hashed: bytes, path: Path, client_id: str, signer: bytes
    ) -> Answer | Placed:
        late = self._desk._untimely(order)
        if late is not None:
            return Answer.refused(late)
        command = PlaceOrder(
            account=self._account,
            order=order,
            order_hash=hashed,
            signature=self._signature,
            signer=signer,
            client_id=client_id,
            path=path,
        )
        return self._desk._submit_order(command)

    def _one_less(self, _: Placed | None = None) -> None:
        self._missing -= 1
        if self._missing:
            return
        answer: Answer | Exception
        try:
            bodies = [
                (each if isinstance(each, Answer) else self._desk._order_answer(hashed, each)).body
                for hashed, each in zip(self._hashes, self._answers, strict=True)
            ]
            answer = Answer(b'{"orders":[' + b",".join(bodies) + b"]}")
        except Exception as error:
            answer = error
        self._reply(answer)


async def _replied(place: Callable[[Reply], None]) -> Answer:
    done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    place(partial(resolve, done))
    return await done
