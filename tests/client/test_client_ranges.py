"""Raw integers that no signed field can hold: the library says which, before it signs or sends anything."""

import pytest
from gateway_world import AGENT, MAKER, GatewayWorld

from evermark.client import EvermarkClient, NewOrder, OutOfRange
from evermark.client.models import OrderStatus

LIMIT = {"size": "0.01", "price": "108000"}


async def refused(field: str, value: int, work: object) -> None:
    with pytest.raises(OutOfRange) as found:
        await work  # type: ignore[misc]
    assert (found.value.field, found.value.value) == (field, value)
    assert found.value.least <= found.value.most
    assert f"{field}: {value} is not from" in str(found.value)


async def test_every_verb_refuses_what_does_not_fit(world: GatewayWorld, maker: EvermarkClient) -> None:
    """Orders of every kind, money and agents; nothing is journaled, and the slots stay free."""
    resting = await maker.place_limit("BTC-PERP", "buy", **LIMIT)
    await maker.status()
    before = world.journaled
    order = maker.place_limit
    for value in (2**62, 2**64, 2**70, -1):
        await refused("size", value, order("BTC-PERP", "buy", size_lots=value, price="108000"))
        await refused("displaySize", value, order("BTC-PERP", "buy", **LIMIT, display_size_lots=value))
        await refused("size", value, maker.amend(resting, size_lots=value))
        await refused("size", value, maker.place_market("BTC-PERP", "buy", size_lots=value))
    for value in (2**32, 2**64, -1):
        await refused("limitPrice", value, order("BTC-PERP", "buy", size="0.01", price_ticks=value))
        await refused("twapInterval", value, order("BTC-PERP", "buy", **LIMIT, twap_interval_s=value))
        await refused("limitPrice", value, maker.amend(resting, price_ticks=value))
        stop = maker.place_stop("BTC-PERP", "sell", "0.01", trigger_ticks=value, price_ticks=5)
        await refused("triggerPrice", value, stop)
    for value in (2**16, -1):
        await refused("maxFeePpm", value, order("BTC-PERP", "buy", **LIMIT, max_fee_ppm=value))
        await refused("maxBuilderFeePpm", value, order("BTC-PERP", "buy", **LIMIT, builder_fee_ppm=value))
        await refused("toSubAccount", value, maker.transfer(value, "10"))
    for value in (2**95, 2**96, -1):
        await refused("amount", value, maker.withdraw(amount_units=value))
        await refused("amount", value, maker.transfer(1, amount_units=value))
        await refused("transferCap", value, maker.approve_agent(AGENT.address, transfer_cap_units=value))
    now_s = maker.clock.now_s()
    with pytest.raises(OutOfRange, match="agentExpiry"):
        await maker.approve_agent(AGENT.address, expires_in_s=2**32)
    with pytest.raises(OutOfRange, match="expiry: -"):
        await maker.place_limit("BTC-PERP", "buy", **LIMIT, expires_in_s=-2 * now_s)
    assert world.journaled == before
    again = await maker.place_limit("BTC-PERP", "buy", **LIMIT)
    assert again.slot == resting.slot + 1


async def test_a_deposit_says_what_it_can_be(world: GatewayWorld) -> None:
    """Before it asks the chain."""
    async with world.client(MAKER) as client:
        client.rpc_url, client._private_key = "http://127.0.0.1:9", bytes([1] * 32)
        for units in (0, -1, 2**95):
            await refused("amount", units, client.deposit(amount_units=units))


async def test_nothing_of_a_batch_or_a_bracket_is_sent(world: GatewayWorld, maker: EvermarkClient) -> None:
    """One order that does not fit keeps the others from being signed; their slots are given back."""
    await maker.approve_agent(AGENT.address)
    before = world.journaled
    bracket = maker.place_bracket("BTC-PERP", "sell", "0.01", stop_ticks=900_000, take_profit_ticks=2**32)
    await refused("triggerPrice", 2**32, bracket)
    async with world.client(AGENT, owner=MAKER.address) as agent:
        good = NewOrder(market="BTC-PERP", side="buy", **LIMIT)
        for lots in (2**62, -5):
            bad = NewOrder(market="BTC-PERP", side="buy", size_lots=lots, price="108000")
            await refused("size", lots, agent.place_many([good, bad]))
        assert world.journaled == before
        (placed,) = await agent.place_many([good])
        assert isinstance(placed, OrderStatus)
        assert placed.slot == 1
