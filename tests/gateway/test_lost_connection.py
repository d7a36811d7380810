"""A connection that ends before its answer: whoever sends the order again gets the answer to the first one, and the journal
holds it once."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from gateway_world import AGENT, CHAIN_ID, MAKER, VAULT, Caller, GatewayWorld

from evermark.client.models import ExchangeInfo
from evermark.client.signed import Domain
from evermark.protocol.signing import struct_hash
from sequencer.engine.commands import AnyCommand, PlaceOrder
from sequencer.gateway.answers import Answer
from sequencer.gateway.desk import Desk
from sequencer.gateway.limits import Limiter
from sequencer.gateway.signers import Signers
from sequencer.gateway.verify import SignatureThreads
from sequencer.gateway.wire import OrderRequest, OrdersRequest
from sequencer.pipeline import Done
from sequencer.replay import commands_of


class SlowPipeline:
    """Hands commands to the real one when it is told to."""

    def __init__(self, world: GatewayWorld) -> None:
        self.asked: list[tuple[AnyCommand, Done]] = []
        self._submit = world.services.submit

    def submit(self, command: AnyCommand, done: Done) -> None:
        self.asked.append((command, done))

    def go_on(self) -> None:
        for command, done in self.asked:
            self._submit(command, done)


@pytest.fixture
def slow(world: GatewayWorld) -> SlowPipeline:
    return SlowPipeline(world)


@pytest.fixture
async def desk(world: GatewayWorld, slow: SlowPipeline) -> AsyncIterator[Desk]:
    services = msgspec.structs.replace(world.services, submit=slow.submit)
    threads = SignatureThreads(1, world.core.history.store.answered, 64)
    yield Desk(services, Limiter(services.settings.limits), Signers(services, threads))
    await threads.close()


async def until(asked: "asyncio.Future[Answer]", slow: SlowPipeline, count: int) -> None:
    while len(slow.asked) < count:
        assert not asked.done()
        await asyncio.sleep(0.001)


def journaled(world: GatewayWorld) -> list[bytes]:
    return [command.order_hash for _, command in commands_of(world.core.reader, PlaceOrder)]


async def test_an_order_sent_again_meets_the_one_under_way(
    world: GatewayWorld, desk: Desk, slow: SlowPipeline
) -> None:
    """Before it is journaled, and after."""
    order = world.order(MAKER)
    request = msgspec.convert(world.body(order, MAKER), OrderRequest)
    first = asyncio.ensure_future(desk.order(request))
    await until(first, slow, 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = asyncio.ensure_future(desk.order(request))
    await asyncio.sleep(0.05)
    slow.go_on()
    answer = await again
    assert (answer.http_status, len(slow.asked)) == (200, 1)
    assert await desk.order(request) == answer
    assert journaled(world) == [struct_hash(order)]
    assert not desk._under_way


async def test_so_does_a_batch(world: GatewayWorld, caller: Caller, desk: Desk, slow: SlowPipeline) -> None:
    """Each order of it, alone or in the same batch again."""
    await caller.post("/v1/agents", world.body(world.approval(MAKER), MAKER))
    orders = [world.order(MAKER, slot=slot) for slot in (3, 4)]
    info = ExchangeInfo(
        chain_id=CHAIN_ID,
        vault="0x" + VAULT.hex(),
        oracle="",
        inbox="",
        token="",
        round_seconds=3,
        markets=(),
    )
    request = msgspec.convert(Domain(info).batch_body(orders, AGENT), OrdersRequest)
    first = asyncio.ensure_future(desk.orders(request))
    await until(first, slow, 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    again = asyncio.ensure_future(desk.orders(request))
    await asyncio.sleep(0.05)
    slow.go_on()
    assert (await again).http_status == 200
    assert len(slow.asked) == 2
    assert journaled(world) == [struct_hash(order) for order in orders]
    assert not desk._under_way
