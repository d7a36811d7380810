"""Icebergs, TWAPs and orders with a builder, as the client places them."""

from gateway_world import GatewayWorld

from evermark.client import EvermarkClient


async def test_an_iceberg_shows_a_part(
    world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient
) -> None:
    """The book has what is shown; the order knows the whole, and amends keep its kind."""
    order = await maker.place_limit("BTC-PERP", "sell", "0.05", "110000", display_size_lots=1_000)
    assert (order.status, order.size, order.display_size) == ("open", 5_000, 1_000)
    assert (await taker.book("BTC-PERP")).asks[0][:2] == (1_100_000, 1_000)
    await taker.place_market("BTC-PERP", "buy", "0.015")
    assert (await taker.book("BTC-PERP")).asks[0][:2] == (1_100_000, 500)
    amended = await maker.amend(await maker.order_status(order.order_hash), size="0.04")
    assert (amended.filled, amended.display_size) == (1_500, 1_000)


async def test_a_twap_goes_in_slices(
    world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient
) -> None:
    """The first slice at once, the next ones with the rounds; it is open meanwhile, and can be cancelled."""
    await maker.place_limit("BTC-PERP", "sell", "0.5", "109500")
    order = await taker.place_twap("BTC-PERP", "buy", "0.04", "110000", duration_s=60, interval_s=10)
    assert (order.status, order.filled, order.twap_interval) == ("open", 666, 10)
    assert [found.order_hash for found in await taker.open_orders()] == [order.order_hash]
    for _ in range(12):
        await world.advance()
    found = await taker.order_status(order.order_hash)
    assert found.filled > 666
    await taker.cancel_all()
    assert (await taker.order_status(order.order_hash)).status in ("cancelled", "filled")


async def test_a_builder_is_paid(world: GatewayWorld, maker: EvermarkClient, taker: EvermarkClient) -> None:
    """Fill, order and the builder's ledger show the fee."""
    before = (await maker.account()).collateral
    await maker.place_limit("BTC-PERP", "sell", "0.05", "110000")
    built = {"builder": maker.owner, "builder_fee_ppm": 500}
    order = await taker.place_limit("BTC-PERP", "buy", "0.01", "110000", time_in_force="IOC", **built)
    fee = 1_100 * 500
    assert (order.status, order.builder_fee, order.max_builder_fee_ppm) == ("filled", fee, 500)
    assert order.builder == "0x" + maker.owner.hex()
    (fill,) = await taker.fills()
    assert fill.builder_fee == fee
    earned = [entry for entry in await maker.ledger() if entry["cause"] == "builder_fee"]
    assert [int(entry["amount"]) for entry in earned] == [fee]
    assert (await maker.account()).collateral != before
