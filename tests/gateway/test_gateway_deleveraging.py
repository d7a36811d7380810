"""Auto-deleveraging as traders see it: their place in the queue, and word when it came to them."""

import pytest
from gateway_world import MAKER, MARKS, STRANGER, TAKER, Caller, GatewayWorld
from test_gateway_sockets import until

from evermark.protocol.orders import Side, TimeInForce
from evermark.protocol.signing import Liquidate
from sequencer.gateway.deleveraging import lights


def test_lights_are_fifths_of_the_queue() -> None:
    """The first fifth has five lights, the last one; a queue of one goes first."""
    assert [lights(place, 10) for place in range(1, 11)] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert [lights(place, 3) for place in range(1, 4)] == [5, 4, 2]
    assert lights(1, 1) == 5


@pytest.mark.safety("B20", "sequencer")
async def test_an_account_sees_its_place_and_is_told(world: GatewayWorld, caller: Caller) -> None:
    """Without a fund the trigger of a keeper deleverages the maker: it stood in the queue, and its channel tells the
    fill as a deleveraging; the target's does not."""
    selling = world.order(MAKER, side=Side.SELL, size=1_000_000, limit_price=1_100_000)
    await caller.place(selling, MAKER)
    await caller.place(
        world.order(TAKER, size=1_000_000, limit_price=1_100_000, slot=0, time_in_force=TimeInForce.IOC),
        TAKER,
    )
    maker, taker = ("0x" + key.address.hex() for key in (MAKER, TAKER))
    (place,) = (await caller.get(f"/v1/accounts/{maker}/0/deleveraging")).body
    assert (place["market"], place["place"], place["of"], place["lights"]) == ("BTC-PERP", 1, 1, 5)
    account = (await caller.get(f"/v1/accounts/{taker}/0")).body
    fallen = account["positions"][0]["liquidation_price"] * 98 // 100
    await world.advance(30, (fallen, *MARKS[1:]))  # so far in less would be a jump
    (moved,) = (await caller.get(f"/v1/accounts/{maker}/0/deleveraging")).body
    assert moved["score_ppm"] > place["score_ppm"]
    listed = (await caller.get("/v1/accounts?liquidatable=1")).body["accounts"]
    assert [found["account"] for found in listed] == [account["account"]]
    trigger = Liquidate(account=account["account"], market="BTC-PERP", round=1, deadline=world.now_s + 60)
    async with caller.socket() as socket:
        for owner in (maker, taker):
            request = {"op": "subscribe", "channel": "account", "owner": owner, "sub_account": 0}
            await socket.send_json(request)
            await until(socket, "account", "snapshot")
        done = await caller.post("/v1/liquidations", world.trigger_body(trigger, STRANGER))
        assert done.body["liquidated"][-1]["deleveraged"] is True
        updates = [await until(socket, "account", "update") for _ in range(2)]
    told = {update["owner"]: update["fills"][-1] for update in updates}
    for owner, deleveraged in ((maker, True), (taker, False)):
        fill = told[owner]
        assert (fill["liquidation"], fill["deleveraged"], fill["order_hash"]) == (True, deleveraged, "")
    assert (await caller.get(f"/v1/accounts/{maker}/0/deleveraging")).body == []
