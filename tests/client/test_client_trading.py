"""The client against a real gateway: orders, amends, cancels, withdrawals, agents, restarts,
subscriptions.
"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from gateway_world import AGENT, MAKER, STRANGER, TAKER, GatewayWorld

from evermark.client import Evermark, EvermarkClient, NotFound, NotRepresentable, Refused, Unreachable
from evermark.client.signed import order_hash


async def test_limit_order_in_human_units(maker: EvermarkClient) -> None:
    """Sizes and prices in human units; slots and sequences take care of themselves."""
    first = await maker.place_limit("BTC-PERP", "buy", "0.01", "109000", client_id="a")
    second = await maker.place_limit("BTC-PERP", "buy", Decimal("0.02"), 108_000, post_only=True)
    assert (first.status, first.size, first.limit_price, first.slot) == ("open", 1_000, 1_090_000, 1)
    assert (second.size, second.slot, second.post_only) == (2_000, 2, True)
    assert {order.order_hash for order in await maker.open_orders()} == {first.order_hash, second.order_hash}
    assert await maker.order_status(client_id="a") == await maker.order_status(first.order_hash) == first
    with pytest.raises(NotRepresentable):
        await maker.place_limit("BTC-PERP", "buy", "0.000001", "109000")
    with pytest.raises(NotFound):
        await maker.place_limit("DOGE-PERP", "buy", 1, 1)


@pytest.mark.parametrize("order_entry", ["http", "websocket"])
async def test_market_order_and_position(
    world: GatewayWorld, maker: EvermarkClient, order_entry: str
) -> None:
    """A market order fills at the book, over HTTP as over the WebSocket, and shows in position and fills."""
    await maker.place_limit("BTC-PERP", "sell", "0.05", "110000")
    async with world.client(TAKER, order_entry=order_entry) as taker:
        bought = await taker.place_market("BTC-PERP", "buy", "0.03")
        assert (bought.status, bought.filled, bought.average_price_ticks) == (
            "filled",
            3_000,
            Decimal(1_100_000),
        )
        (position,) = await taker.positions()
        assert (position.size, position.entry_price, position.notional) == (3_000, "1100000", 3_300_000_000)
        (fill,) = await taker.fills()
        assert (fill.role, fill.fee, fill.order_hash) == ("taker", 1_320_000, bought.order_hash)
        closed = await taker.place_market("BTC-PERP", "sell", "0.03", reduce_only=True)
        assert closed.status == "cancelled"  # nobody bids
        assert await taker.balance() == 100_000_000_000 - 3_300_000_000 - 1_320_000


@pytest.mark.parametrize("order_entry", ["http", "websocket"])
async def test_amend_and_cancel(world: GatewayWorld, order_entry: str) -> None:
    """An amend keeps the slot and carries the fills over; cancels name what left the book."""
    async with world.client(MAKER, order_entry=order_entry) as maker, world.client(TAKER) as taker:
        placed = await maker.place_limit("BTC-PERP", "sell", "0.05", "110000")
        await taker.place_market("BTC-PERP", "buy", "0.02")
        amended = await maker.amend(placed, size="0.04", price="110001")
        assert (amended.slot, amended.size, amended.filled, amended.remaining) == (
            placed.slot,
            4_000,
            2_000,
            2_000,
        )
        assert (await maker.order_status(placed.order_hash)).reason == "replaced"
        assert await maker.cancel(amended) == (amended.order_hash,)
        with pytest.raises(Refused) as refused:
            await maker.cancel(amended)
        assert refused.value.name == "UNKNOWN_ORDER"
        orders = [await maker.place_limit("BTC-PERP", "buy", "0.01", 109_000 - at) for at in range(3)]
        assert set(await maker.cancel_all()) == {order.order_hash for order in orders}
        again = await maker.place_limit("BTC-PERP", "buy", "0.01", 109_000)
        assert again.is_open


async def test_two_sessions_of_one_account(world: GatewayWorld) -> None:
    """A slot that another session took costs a second attempt, which nobody notices."""
    async with world.client(MAKER) as one, world.client(MAKER) as other:
        first, second = await asyncio.gather(
            one.place_limit("BTC-PERP", "buy", "0.01", 109_000),
            other.place_limit("BTC-PERP", "buy", "0.01", 108_000),
        )
        third = await one.place_limit("BTC-PERP", "buy", "0.01", 107_000)
        assert len({first.slot, second.slot, third.slot}) == 3


async def test_refusal_carries_code_and_numbers(maker: EvermarkClient) -> None:
    """A refusal is an exception with stable code, name and the numbers that decided it."""
    with pytest.raises(Refused) as refused:
        await maker.place_limit("BTC-PERP", "buy", 100, 109_000)
    assert (refused.value.code, refused.value.name, refused.value.http_status) == (
        300,
        "INSUFFICIENT_MARGIN",
        422,
    )
    assert int(refused.value.details["required"]) > int(refused.value.details["available"])
    assert refused.value.order_hash.startswith("0x")


async def test_withdraw_and_agent(world: GatewayWorld, maker: EvermarkClient) -> None:
    """The owner withdraws and approves an agent, whose key then trades for the account."""
    receipt = await maker.withdraw("25.5")
    assert (receipt.amount, receipt.fee) == (25_500_000, 0)
    assert (receipt.claim, receipt.payable_at) == (1, 0)
    assert (await maker.account()).delayed_withdrawals == ()
    await maker.approve_agent(AGENT.address)
    async with world.client(AGENT, owner=MAKER.address) as agent:
        assert (await agent.place_limit("BTC-PERP", "buy", "0.01", 109_000)).is_open
        with pytest.raises(Refused) as refused:
            await agent.withdraw(1)
        assert refused.value.name == "NOT_AUTHORISED"
        await maker.approve_agent(AGENT.address, expires_in_s=0)
        with pytest.raises(Refused):
            await agent.place_limit("BTC-PERP", "buy", "0.01", 108_000)


async def test_transfer_into_a_sub_account(world: GatewayWorld, maker: EvermarkClient) -> None:
    """An isolated account is one transfer away; its own client trades there, and an agent moves only its cap."""
    receipt = await maker.transfer(4, "2500.5")
    assert receipt.amount == 2_500_500_000
    async with world.client(MAKER, sub_account=4) as isolated:
        assert (await isolated.account()).account == receipt.target
        placed = await isolated.place_limit("BTC-PERP", "buy", "0.01", "109000")
        assert placed.status == "open"
    await maker.approve_agent(AGENT.address, transfer_cap_units=20_000_000)
    async with world.client(AGENT, owner=MAKER.address) as agent:
        assert (await agent.transfer(4, 20)).target == receipt.target
        with pytest.raises(Refused) as refused:
            await agent.transfer(4, "0.000001")
    assert refused.value.name == "ABOVE_TRANSFER_CAP"


async def test_unknown_account_and_silence(world: GatewayWorld) -> None:
    """No account is a refusal, nobody there is Unreachable."""
    async with world.client(STRANGER) as stranger:
        with pytest.raises(Refused) as refused:
            await stranger.account()
        assert refused.value.name == "UNKNOWN_ACCOUNT"
    async with EvermarkClient("http://127.0.0.1:9", MAKER) as lost:
        with pytest.raises(Unreachable):
            await lost.status()


async def test_repeated_post_is_one_order(world: GatewayWorld, maker: EvermarkClient) -> None:
    """Sending exactly the same order again gets the first answer and places nothing."""
    await maker.status()
    order = world.order(MAKER, slot=7)
    first = await maker.place_order(order)
    assert first.order_hash == order_hash(order)
    journaled = world.journaled
    assert await maker.place_order(order) == first
    assert world.journaled == journaled


@pytest.mark.safety("G08", "api")
@pytest.mark.parametrize("order_entry", ["http", "websocket"])
async def test_orders_survive_a_restart_in_mid_flight(world: GatewayWorld, order_entry: str) -> None:
    """While the gateway goes away and comes back, orders under way are answered, and each is placed once."""
    port = int(world.url.rsplit(":", 1)[1])
    async with world.client(MAKER, order_entry=order_entry) as maker:
        await maker.open_orders()
        placing = [
            asyncio.create_task(maker.place_limit("BTC-PERP", "buy", "0.01", 109_000 - at))
            for at in range(20)
        ]
        await asyncio.wait(placing, return_when=asyncio.FIRST_COMPLETED)
        await world.restart(port)
        answers = await asyncio.gather(*placing)
        assert [answer.status for answer in answers] == ["open"] * 20
        resting = await maker.open_orders()
        assert sorted(order.order_hash for order in resting) == sorted(order.order_hash for order in answers)


async def next_of(messages: AsyncIterator[dict[str, Any]], kind: str) -> dict[str, Any]:
    async with asyncio.timeout(8):
        async for message in messages:
            if message["type"] == kind:
                return message
    raise AssertionError("the subscription ended")


async def test_subscription_survives_restart(world: GatewayWorld, taker: EvermarkClient) -> None:
    """After the gateway restarts, subscriptions reconnect by themselves and begin with a marker and a
    snapshot.
    """
    port = int(world.url.rsplit(":", 1)[1])
    async with world.client(MAKER) as maker:
        messages = maker.subscribe("book", "BTC-PERP")
        assert (await next_of(messages, "snapshot"))["bids"] == []
        await taker.place_limit("BTC-PERP", "buy", "0.01", 109_000)
        assert (await next_of(messages, "delta"))["bids"] == [[1_090_000, 1_000]]
        await world.restart(port)
        await next_of(messages, "reconnected")
        assert (await next_of(messages, "snapshot"))["bids"] == [[1_090_000, 1_000, 1]]
        await taker.place_limit("BTC-PERP", "buy", "0.01", 109_001)
        assert (await next_of(messages, "delta"))["bids"] == [[1_090_010, 1_000]]
        await messages.aclose()  # type: ignore[attr-defined]


async def test_gap_leads_to_new_snapshot(
    world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient
) -> None:
    """When a delta does not follow on the last one, the client asks for a snapshot instead of passing it
    on.
    """
    messages = maker.subscribe("book", "BTC-PERP")
    await next_of(messages, "snapshot")
    await taker.place_limit("BTC-PERP", "buy", "0.01", 109_000)
    await next_of(messages, "delta")
    world.hub.publish(
        ("book", "BTC-PERP"),
        b'{"channel":"book","market":"BTC-PERP","type":"delta","sequence":9999,"previous":9998,"bids":[],"asks":[]}',
    )
    assert (await next_of(messages, "snapshot"))["bids"] == [[1_090_000, 1_000, 1]]
    await taker.place_limit("BTC-PERP", "buy", "0.01", 108_000)
    assert (await next_of(messages, "delta"))["bids"] == [[1_080_000, 1_000]]
    await messages.aclose()  # type: ignore[attr-defined]


async def test_refused_subscription_raises(maker: EvermarkClient) -> None:
    """A channel that the exchange refuses ends the iterator with its refusal."""
    with pytest.raises(Refused) as refused:
        async for _ in maker.subscribe("book", "DOGE-PERP"):
            pass
    assert refused.value.name == "UNKNOWN_MARKET"


async def test_plain_client(world: GatewayWorld) -> None:
    """The synchronous client does the same in plain code."""

    def script() -> tuple[str, str, int]:
        with Evermark(world.url, MAKER) as maker, Evermark(world.url, TAKER) as taker:
            maker.sell("BTC-PERP", "0.01", "110000")
            bought = taker.market_buy("BTC-PERP", "0.01")
            resting = maker.buy("BTC-PERP", "0.01", "109000")
            maker.cancel(resting)
            snapshot = next(iter(maker.subscribe("book", "BTC-PERP")))
            return bought.status, str(snapshot["type"]), taker.positions()[0].size

    assert await asyncio.to_thread(script) == ("filled", "snapshot", 1_000)
