"""Traders' orders through the real desk of the gateway, as an unreliable network carries them: twice, with a connection that is
lost before the answer, again to the successor of a sequencer that died, or forged on the way.

Sockets and slow readers are not here (tests/gateway has them): the desk is what both kinds of request share.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from evermark.client.signed import message_json
from evermark.protocol.reject import RejectCode
from sequencer.engine.commands import PlaceOrder
from sequencer.gateway.answers import Answer
from sequencer.gateway.refusal import Refusal
from sequencer.gateway.wire import OrderRequest
from tests.simulation.disk import Disk
from tests.simulation.judge import require
from tests.simulation.process import Process

FORGED, LOST, TWICE, AGAIN = 0.05, 0.08, 0.08, 0.2  # shares of orders
PATIENCE_S = 4.0  # after which a client takes its connection to be lost
TRIES = 4
DECIDED = (200, 422)  # statuses of what the engine has said of an order
NOT_TAKEN = (RejectCode.BAD_SIGNATURE, RejectCode.NOT_AUTHORISED)
BEFORE = (
    RejectCode.NOT_READY,
    RejectCode.UNKNOWN_ACCOUNT,
    RejectCode.UNKNOWN_MARKET,
)  # than anything is checked


class Door:
    """`await place(command)` returns when the trader knows, or has given up."""

    def __init__(self, rng: Random, disk: Disk, process: Callable[[], Process | None]) -> None:
        self._rng, self._disk, self._process = rng, disk, process
        self.acknowledged: list[bytes] = []  # journal payloads
        self._told: set[bytes] = set()
        self.forged = self.lost = self.repeated = 0

    async def place(self, command: PlaceOrder) -> None:
        """The order of a trader whose account the sequencer knows."""
        request = {
            "order": message_json(command.order),
            "signature": "0x" + command.signature.to_bytes().hex(),
        }
        pick = self._rng.random()
        if pick < FORGED:
            await self._forge(request, command)
        elif pick < FORGED + LOST:
            await self._lose(request)
        elif pick < FORGED + LOST + TWICE:
            await self._same(command, request, at_once=True)
            return
        answer = await self._insist(request)
        self._note(command, answer)
        if answer is not None and self._rng.random() < AGAIN:
            await self._same(command, request, at_once=False)

    async def _forge(self, request: dict[str, Any], command: PlaceOrder) -> None:
        """Other data than were signed, or another's key: refused, and nothing of it reaches the journal."""
        process = self._process()
        if process is None:
            return
        self.forged += 1
        order = request["order"] | {"limitPrice": request["order"]["limitPrice"] + 1}
        try:
            answer = await self._ask(process, request | {"order": order})
        except Refusal as refusal:
            require(refusal.reject.code in NOT_TAKEN + BEFORE, f"a forged order is named: {refusal}")
        else:
            require(answer is None, "a forged order is refused")
        require(self._record(command.order_hash) is None, "what was not signed is not in the journal")

    async def _lose(self, request: dict[str, Any]) -> None:
        """The connection ends at some moment; nobody hears what became of it."""
        process = self._process()
        if process is not None:
            self.lost += 1
            asking = asyncio.ensure_future(self._ask(process, request))
            await asyncio.sleep(self._rng.uniform(0, 0.04))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _same(self, command: PlaceOrder, request: dict[str, Any], *, at_once: bool) -> None:
        """Sent twice, one after another or at the same time: the same answer, unless a reversal came between."""
        before = self._reversals()
        if at_once:
            answers = await asyncio.gather(self._insist(request), self._insist(request))
        else:
            first = await self._insist(request)
            await asyncio.sleep(self._rng.expovariate(1 / 5))
            answers = [first, await self._insist(request)]
        self._note(command, answers[0])
        decided = [one for one in answers if one is not None and one.http_status in DECIDED]
        if len(decided) == 2 and self._reversals() == before:
            self.repeated += 1
            require(decided[0] == decided[1], "a repeated order gets its first answer")

    async def _insist(self, request: dict[str, Any]) -> Answer | None:
        """What a client does: ask again, whoever leads by then. None when nobody knows."""
        for _ in range(TRIES):
            process = self._process()
            if process is not None:
                try:
                    answer = await self._ask(process, request)
                except Refusal as refusal:
                    answer = Answer.refused(refusal)
                if answer is not None and answer.http_status != 503:
                    return answer
            await asyncio.sleep(self._rng.uniform(0.2, 2))
        return None

    async def _ask(self, process: Process, request: dict[str, Any]) -> Answer | None:
        """One request of one connection. None when it was lost; raises Refusal."""
        try:
            order = msgspec.convert(request, OrderRequest)
            return await asyncio.wait_for(process.desk.order(order), PATIENCE_S)
        except TimeoutError:
            return None

    def _note(self, command: PlaceOrder, answer: Answer | None) -> None:
        if answer is None or answer.http_status not in DECIDED:
            return
        record = self._record(command.order_hash)
        require(record is not None, "acknowledged implies durable: an order")
        assert record is not None
        if command.order_hash not in self._told:
            self._told.add(command.order_hash)
            self.acknowledged.append(record)

    def _record(self, order_hash: bytes) -> bytes | None:
        wanted = b64encode(order_hash)
        for record in reversed(self._disk.records):
            if record.payload.startswith(b'{"kind":"PlaceOrder"') and wanted in record.payload:
                return record.payload
        return None

    def _reversals(self) -> int:
        return sum(record.payload.startswith(b'{"kind":"Reverse"') for record in self._disk.records)
