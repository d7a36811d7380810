"""Stops, take-profits, trailing stops and brackets, as the client places them."""

import pytest
from gateway_world import GatewayWorld

from evermark.client import EvermarkClient, Refused
from evermark.protocol.orders import Trigger

FALLEN = (1_080_000, 400_000, 20_000, 25_000)
RISEN = (1_120_000, 400_000, 20_000, 25_000)


@pytest.fixture
async def long(world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient) -> EvermarkClient:
    """A trader long 0.05 BTC from the mark, with bids and asks far out for what closes it."""
    await maker.place_limit("BTC-PERP", "sell", "0.05", "110000")
    await taker.place_market("BTC-PERP", "buy", "0.05")
    await maker.place_limit("BTC-PERP", "buy", "0.2", "107000")
    await maker.place_limit("BTC-PERP", "buy", "0.2", "106900")
    return taker


async def size(client: EvermarkClient) -> int:
    return sum(position.size for position in await client.positions())


async def test_a_stop_at_market(world: GatewayWorld, long: EvermarkClient) -> None:
    """Waits for the mark, then closes within its slippage of the trigger; it can only reduce."""
    stop = await long.place_stop("BTC-PERP", "sell", "0.05", "108000")
    assert (stop.status, stop.trigger, stop.trigger_price) == ("untriggered", "mark below", 1_080_000)
    assert (stop.time_in_force, stop.reduce_only, stop.limit_price) == ("IOC", True, 1_047_600)
    assert stop.is_open
    await world.advance(marks=FALLEN)
    assert (await long.order_status(stop.order_hash)).status == "filled"
    assert await size(long) == 0


async def test_a_take_profit_with_a_limit(world: GatewayWorld, long: EvermarkClient) -> None:
    """Wakes above for a seller, and rests at its price."""
    order = await long.place_take_profit("BTC-PERP", "sell", "0.05", "111000", price="112500")
    assert (order.trigger, order.time_in_force) == ("mark above", "GTC")
    await world.advance(marks=RISEN)
    found = await long.order_status(order.order_hash)
    assert (found.status, found.is_open) == ("triggered", True)
    amended = await long.amend(found, price="112600")
    assert (amended.status, amended.trigger, amended.limit_price) == ("open", "none", 1_126_000)


async def test_a_trailing_stop_begins_at_the_mark(world: GatewayWorld, long: EvermarkClient) -> None:
    """Its distance from the mark, then behind the last price; amending keeps the condition."""
    stop = await long.place_stop("BTC-PERP", "sell", "0.05", trailing="500")
    assert (stop.trigger, stop.trigger_price, stop.trailing_offset) == ("last below", 1_095_000, 5_000)
    amended = await long.amend(stop, size="0.03")
    assert (amended.status, amended.size, amended.trailing_offset) == ("untriggered", 3_000, 5_000)
    assert await long.cancel(amended) == (amended.order_hash,)


async def test_a_bracket_leaves_nothing_behind(world: GatewayWorld, long: EvermarkClient) -> None:
    """Each names the other's slot; when one has closed the position, the other is gone."""
    stop, profit = await long.place_bracket("BTC-PERP", "sell", "0.05", stop="108000", take_profit="115000")
    assert (stop.bracket_link, profit.bracket_link) == (profit.slot, stop.slot)
    assert len(await long.open_orders()) == 2
    await world.advance(marks=FALLEN)
    assert await size(long) == 0
    assert await long.open_orders() == []
    assert (await long.order_status(profit.order_hash)).reason in ("bracket", "reduce_only")


async def test_a_refused_half_takes_the_other_with_it(long: EvermarkClient) -> None:
    """A take-profit that is met already leaves no stop alone, and its slots are free again."""
    with pytest.raises(Refused) as refused:
        await long.place_bracket("BTC-PERP", "sell", "0.05", stop="108000", take_profit="109000")
    assert refused.value.name == "WOULD_TRIGGER_AT_ONCE"
    assert await long.open_orders() == []
    placed = await long.place_stop("BTC-PERP", "sell", "0.05", "108000", on="last")
    assert placed.trigger == "last below"
    assert Trigger.LAST_BELOW.value == 4
    with pytest.raises(TypeError):
        await long.place_stop("BTC-PERP", "sell", "0.05")
