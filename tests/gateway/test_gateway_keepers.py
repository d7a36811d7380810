"""Keepers' messages: reports reach the collector, triggers the engine, and only what is signed by whom it
must be.
"""

import asyncio

from gateway_world import KEEPERS, MAKER, MARKS, STRANGER, TAKER, Caller, GatewayWorld

from evermark.protocol.orders import Side, TimeInForce
from evermark.protocol.signing import FundingReport, Liquidate


async def test_quorum_of_reports_makes_a_round(world: GatewayWorld, caller: Caller) -> None:
    """Three registered keepers' reports make one round; each is told how many there are."""
    world.now_s += 3
    marks = (1_101_000, *MARKS[1:])
    for count, keeper in enumerate(KEEPERS, 1):
        answer = await caller.post("/v1/oracle/prices", world.report_body(world.price_report(marks), keeper))
        assert answer.body == {"accepted": True, "have": count, "need": 3}
    await asyncio.sleep(0.3)
    status = (await caller.get("/v1/status")).body
    assert status["markets"]["BTC-PERP"]["mark"] == 1_101_000
    late = await caller.post("/v1/oracle/prices", world.report_body(world.price_report(marks), KEEPERS[0]))
    assert late.body["accepted"] is False


async def test_reports_of_strangers_and_false_ones(world: GatewayWorld, caller: Caller) -> None:
    """An unregistered signer is 403 with digest and address; a report of the future, of no market or of more than there
    are is 400.
    """
    before = world.journaled
    answer = await caller.post("/v1/oracle/prices", world.report_body(world.price_report(), STRANGER))
    assert (answer.status, answer.error) == (403, "NOT_AUTHORISED")
    assert answer.details["recovered"] == "0x" + STRANGER.address.hex()
    for marks in ((), (*MARKS, 1)):
        misfit = world.report_body(world.price_report(marks), KEEPERS[0])
        assert (await caller.post("/v1/oracle/prices", misfit)).status == 400
    world.now_s += 600
    early = world.report_body(world.price_report(), KEEPERS[0])
    world.now_s -= 600
    assert (await caller.post("/v1/oracle/prices", early)).status == 400
    forged = world.report_body(world.price_report(), KEEPERS[0])
    forged["report"]["prices"][0] = "1"
    assert (await caller.post("/v1/oracle/prices", forged)).status == 403
    assert world.journaled == before


async def test_funding_hour(world: GatewayWorld, caller: Caller) -> None:
    """A quorum of funding reports applies the hour, and the market's funding history shows it."""
    hour = world.now_s // 3600
    await world.advance((hour + 1) * 3600 - world.now_s + 3)
    report = FundingReport(hour=hour, rates_ppb=(12_500, -5, 0, 7), samples=b"s" * 32)
    for keeper in KEEPERS:
        answer = await caller.post("/v1/oracle/funding", world.report_body(report, keeper))
        assert answer.status == 200, answer.body
    await asyncio.sleep(0.3)
    rates = (await caller.get("/v1/markets/ETH-PERP/funding")).body
    assert rates == [{"hour": hour, "rate_ppb": -5, "index": MARKS[1]}]
    assert (await caller.get("/v1/status")).body["markets"]["ETH-PERP"]["funding_rate_ppb"] == -5


async def test_liquidation_trigger(world: GatewayWorld, caller: Caller) -> None:
    """A healthy account is refused with both numbers and not journaled; one below maintenance is listed and
    liquidated.
    """
    owner = "0x" + TAKER.address.hex()
    selling = world.order(MAKER, side=Side.SELL, size=1_000_000, limit_price=1_100_000)
    await caller.place(selling, MAKER)
    await caller.place(
        world.order(TAKER, size=1_000_000, limit_price=1_100_000, slot=0, time_in_force=TimeInForce.IOC),
        TAKER,
    )
    account = (await caller.get(f"/v1/accounts/{owner}/0")).body
    price = account["positions"][0]["liquidation_price"]
    assert 900_000 < price < 1_100_000
    trigger = Liquidate(account=account["account"], market="BTC-PERP", round=1, deadline=world.now_s + 60)
    before = world.journaled
    healthy = await caller.post("/v1/liquidations", world.trigger_body(trigger, STRANGER))
    assert (healthy.status, healthy.error) == (422, "HEALTHY_ACCOUNT")
    assert healthy.details["equity"] >= healthy.details["maintenance_margin"]
    assert world.journaled == before
    await world.advance(30, (price + 1, *MARKS[1:]))  # so far in less would be a jump
    assert (await caller.get("/v1/accounts?liquidatable=1")).body["accounts"] == []
    await world.advance(3, (price, *MARKS[1:]))
    listed = (await caller.get("/v1/accounts?liquidatable=1")).body
    assert [found["account"] for found in listed["accounts"]] == [account["account"]]
    bidding = world.order(MAKER, size=1_000_000, limit_price=price, slot=2, reduce_only=True)
    await caller.place(bidding, MAKER)
    done = await caller.post("/v1/liquidations", world.trigger_body(trigger, STRANGER))
    assert done.status == 200, done.body
    assert done.body["liquidated"][0]["market"] == "BTC-PERP"
    assert done.body["liquidated"][0]["size"] > 0
    trades = (await caller.get("/v1/markets/BTC-PERP/trades?limit=1")).body
    assert trades[0]["liquidation"] is True


async def test_trigger_refusals(world: GatewayWorld, caller: Caller) -> None:
    """Reserved and unknown accounts, unknown markets and past deadlines are refused at the gate."""
    before = world.journaled
    good = {"account": 3, "market": "BTC-PERP", "round": 1, "deadline": world.now_s + 60}
    for change, status in (
        ({"account": 1}, 404),
        ({"account": 99}, 404),
        ({"market": "X"}, 404),
        ({"deadline": 1}, 400),
    ):
        trigger = Liquidate(**(good | change))
        answer = await caller.post("/v1/liquidations", world.trigger_body(trigger, STRANGER))
        assert answer.status == status, change
    assert world.journaled == before
