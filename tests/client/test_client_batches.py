"""`place_many`: many orders, one signature of an agent's key."""

import pytest
from gateway_world import AGENT, MAKER, GatewayWorld

from evermark.client import Evermark, EvermarkClient, NewOrder, Refused
from evermark.client.models import OrderStatus


def quotes(count: int) -> list[NewOrder]:
    return [
        NewOrder(market="BTC-PERP", side="buy", size="0.01", price=str(108_000 - at), client_id=f"q{at}")
        for at in range(count)
    ]


@pytest.mark.parametrize("order_entry", ["http", "websocket"])
async def test_many_orders_at_once(world: GatewayWorld, maker: EvermarkClient, order_entry: str) -> None:
    """Each gets a slot and an answer; a refused one gives its slot back and says why."""
    await maker.approve_agent(AGENT.address)
    async with world.client(AGENT, owner=MAKER.address, order_entry=order_entry) as agent:
        bad = NewOrder(market="BTC-PERP", side="buy", size="0.00001", price="108000")
        found = await agent.place_many([*quotes(20), bad])
        placed = [one for one in found if isinstance(one, OrderStatus)]
        assert [order.slot for order in placed] == list(range(1, 21))
        assert {order.status for order in placed} == {"open"}
        assert placed[7].client_id == "q7"
        refused = found[-1]
        assert isinstance(refused, Refused)
        assert refused.name == "BELOW_MIN_NOTIONAL"
        (again,) = await agent.place_many(quotes(1))
        assert isinstance(again, OrderStatus)
        assert again.slot == 21
        assert len(await agent.cancel_all()) == 21


async def test_an_owners_key_is_refused_before_it_signs(world: GatewayWorld, maker: EvermarkClient) -> None:
    """The client says so without sending; an agent that is none is refused with its slots free."""
    with pytest.raises(ValueError, match="agent"):
        await maker.place_many(quotes(2))
    async with world.client(AGENT, owner=MAKER.address) as stranger:
        with pytest.raises(Refused) as refused:
            await stranger.place_many(quotes(2))
        assert refused.value.name == "BAD_SIGNATURE"
        with pytest.raises(ValueError, match="1 to 64"):
            await stranger.place_many([])
    await maker.approve_agent(AGENT.address)
    async with world.client(AGENT, owner=MAKER.address) as agent:
        found = await agent.place_many(quotes(2))
        assert [order.slot for order in found if isinstance(order, OrderStatus)] == [1, 2]


def test_there_is_a_plain_form() -> None:
    """For scripts."""
    assert callable(Evermark.place_many)
