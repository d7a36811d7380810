"""Orders over HTTP: what a good one answers, and that a repetition changes nothing."""

import asyncio
from typing import Any

import pytest
from gateway_world import AGENT, CHAIN_ID, MAKER, TAKER, VAULT, Answered, Caller, GatewayWorld

from evermark.client.signed import message_json
from evermark.protocol.merkle import merkle_paths
from evermark.protocol.orders import Order, OrderBatch, Side, TimeInForce, Trigger
from evermark.protocol.signing import Signer, digest, domain_separator, struct_hash
from sequencer.history import projection


async def test_resting_order_is_open(world: GatewayWorld, caller: Caller) -> None:
    """An order that rests is answered as open, with its hash, journal position and everything that was
    signed.
    """
    order = world.order(MAKER)
    answer = await caller.place(order, MAKER, client_id="first")
    assert answer.status == 200
    assert (answer.body["status"], answer.body["remaining"], answer.body["filled"]) == ("open", 1_000, 0)
    assert answer.body["journal_sequence"] == world.journaled
    assert answer.headers["X-Chain-Time-Ms"] == str(world.now_s * 1000)
    by_hash = await caller.get(f"/v1/orders/{answer.body['order_hash']}")
    owner = "0x" + MAKER.address.hex()
    by_client = await caller.get(f"/v1/orders?owner={owner}&sub_account=0&client_id=first")
    assert by_hash.body == by_client.body == answer.body


async def test_taker_fills_against_maker(world: GatewayWorld, caller: Caller) -> None:
    """A crossing order is filled at the maker's price, pays its fee, and both sides see it."""
    maker = await caller.place(world.order(MAKER, side=Side.SELL, limit_price=1_100_000), MAKER)
    taking = world.order(
        TAKER, limit_price=1_105_000, slot=0, time_in_force=TimeInForce.IOC, expiry=world.now_s + 30
    )
    taker = await caller.place(taking, TAKER)
    assert (taker.body["status"], taker.body["filled"], taker.body["average_price"]) == (
        "filled",
        1_000,
        "1100000",
    )
    assert taker.body["fee"] == 440_000  # 1,100 USDC at 0.04 %
    seen = await caller.get(f"/v1/orders/{maker.body['order_hash']}")
    assert (seen.body["status"], seen.body["fee"]) == ("filled", 110_000)
    owner = "0x" + TAKER.address.hex()
    fills = (await caller.get(f"/v1/accounts/{owner}/0/fills")).body
    assert [(fill["role"], fill["size"], fill["price"]) for fill in fills] == [("taker", 1_000, 1_100_000)]
    account = (await caller.get(f"/v1/accounts/{owner}/0")).body
    assert account["positions"][0]["size"] == 1_000
    assert account["positions"][0]["entry_price"] == "1100000"
    trades = (await caller.get("/v1/markets/BTC-PERP/trades")).body
    assert [(trade["side"], trade["size"]) for trade in trades] == [("buy", 1_000)]
    candles = (await caller.get("/v1/markets/BTC-PERP/candles?interval=1h")).body
    assert [(candle["o"], candle["v"], candle["n"]) for candle in candles] == [(1_100_000, 1_000, 1)]


@pytest.mark.safety("D08", "sequencer")
async def test_repeated_order_gets_first_answer(world: GatewayWorld, caller: Caller) -> None:
    """The same order again, at once or after a restart, is the same answer and no second order."""
    order = world.order(MAKER, side=Side.SELL, limit_price=1_100_000)
    first = await caller.place(order, MAKER)
    await caller.place(world.order(TAKER, limit_price=1_100_000, slot=2, size=400), TAKER)
    journaled = world.journaled
    assert (await caller.place(order, MAKER)).body == first.body
    assert world.journaled == journaled
    await world.restart()
    assert (await caller.place(order, MAKER)).body == first.body
    assert world.journaled == journaled
    now = await caller.get(f"/v1/orders/{first.body['order_hash']}")
    assert (now.body["status"], now.body["filled"], now.body["remaining"]) == ("open", 400, 600)


@pytest.mark.safety("D08", "sequencer")
async def test_repeated_rejection_survives_restart(world: GatewayWorld, caller: Caller) -> None:
    """An order that the engine refused stays refused with the same answer, also by a new process."""
    order = world.order(MAKER, size=10_000_000)
    first = await caller.place(order, MAKER)
    assert (first.status, first.error) == (422, "INSUFFICIENT_MARGIN")
    await world.restart()
    again = await caller.place(order, MAKER)
    assert (again.status, again.body) == (first.status, first.body)
    seen = await caller.get(f"/v1/orders/{first.body['order_hash']}")
    assert (seen.body["status"], seen.body["reason"]) == ("rejected", "INSUFFICIENT_MARGIN")


@pytest.mark.safety("D08", "sequencer")
async def test_repetition_that_memory_has_forgotten_gets_first_answer(
    world: GatewayWorld, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store remembers an order that traded and ended, and one that was refused, when only the newest ones are in memory."""
    monkeypatch.setattr(projection, "RECENT_ORDERS", 1)
    await caller.place(world.order(TAKER, side=Side.SELL, limit_price=1_100_000, size=400), TAKER)
    ended = world.order(MAKER, limit_price=1_100_000, slot=0, time_in_force=TimeInForce.IOC)
    refused = world.order(MAKER, size=10_000_000)
    first = [await caller.place(order, MAKER) for order in (ended, refused)]
    assert (first[0].body["status"], first[0].body["filled"]) == ("cancelled", 400)
    assert first[1].error == "INSUFFICIENT_MARGIN"
    for slot in (3, 4):
        await caller.place(world.order(TAKER, limit_price=1_000_000, slot=slot), TAKER)
    history, journaled = world.core.history, world.journaled
    await history.settled()
    await history.store.read(lambda connection: None)  # what was counted is stored
    for order, answer in zip((ended, refused), first, strict=True):
        assert history.order(struct_hash(order)) is None
        again = await caller.place(order, MAKER)
        assert (again.status, again.body) == (answer.status, answer.body)
    assert world.journaled == journaled


async def test_concurrent_repetitions_place_one_order(world: GatewayWorld, caller: Caller) -> None:
    """Ten copies at the same moment are one order."""
    order = world.order(MAKER)
    journaled = world.journaled
    answers = await asyncio.gather(*(caller.place(order, MAKER) for _ in range(10)))
    assert len({str(answer.body) for answer in answers}) == 1
    assert world.journaled == journaled + 1


@pytest.mark.safety("G08", "sequencer")
async def test_status_is_always_answered(world: GatewayWorld, caller: Caller) -> None:
    """Whatever became of a request, its status is open, filled, cancelled, rejected or never_seen."""
    unknown = await caller.get("/v1/orders/0x" + "ab" * 32)
    assert (unknown.status, unknown.body["status"]) == (200, "never_seen")
    owner = "0x" + MAKER.address.hex()
    unnamed = await caller.get(f"/v1/orders?owner={owner}&sub_account=0&client_id=nothing")
    assert unnamed.body["status"] == "never_seen"
    order = world.order(MAKER)
    placed = await caller.place(order, MAKER, client_id="mine")
    await caller.post("/v1/cancels", world.body(world.cancel(MAKER, sequence=order.sequence), MAKER))
    by_client = await caller.get(f"/v1/orders?owner={owner}&sub_account=0&client_id=mine")
    assert by_client.body["order_hash"] == placed.body["order_hash"]
    assert (by_client.body["status"], by_client.body["reason"]) == ("cancelled", "user")
    await world.restart()
    after = await caller.get(f"/v1/orders?owner={owner}&sub_account=0&client_id=mine")
    assert after.body == by_client.body


async def test_agent_trades_and_may_not_withdraw(world: GatewayWorld, caller: Caller) -> None:
    """An approved agent places and cancels; it withdraws nothing and approves nobody."""
    refused = await caller.place(world.order(MAKER), AGENT)
    assert (refused.status, refused.error) == (401, "BAD_SIGNATURE")
    approved = await caller.post("/v1/agents", world.body(world.approval(MAKER), MAKER))
    assert approved.body["agent"] == "0x" + AGENT.address.hex()
    order = world.order(MAKER)
    assert (await caller.place(order, AGENT)).body["status"] == "open"
    cancelled = await caller.post(
        "/v1/cancels", world.body(world.cancel(MAKER, sequence=order.sequence), AGENT)
    )
    assert len(cancelled.body["cancelled"]) == 1
    for path, message in (
        ("/v1/withdrawals", world.withdrawal(MAKER, action_sequence=2)),
        ("/v1/agents", world.approval(MAKER, action_sequence=2)),
    ):
        answer = await caller.post(path, world.body(message, AGENT))
        assert (answer.status, answer.error) == (403, "NOT_AUTHORISED")


async def test_withdrawal_names_its_batch(world: GatewayWorld, caller: Caller) -> None:
    """A withdrawal answers with the open batch that carries the claim, and the ledger shows it."""
    answer = await caller.post("/v1/withdrawals", world.body(world.withdrawal(MAKER), MAKER))
    assert answer.status == 200
    assert (answer.body["amount"], answer.body["fee"]) == (5_000_000, 0)
    assert answer.body["batch"] == world.core.state.sealed_batch + 1
    replayed = await caller.post("/v1/withdrawals", world.body(world.withdrawal(MAKER), MAKER))
    assert (replayed.status, replayed.error) == (422, "STALE_SEQUENCE")
    ledger = (await caller.get(f"/v1/accounts/0x{MAKER.address.hex()}/0/ledger")).body
    assert [row["amount"] for row in ledger] == [-5_000_000, 100_000_000_000]


async def test_a_withdrawal_above_the_limit_says_when_it_is_paid(world: GatewayWorld, caller: Caller) -> None:
    """The receipt names claim and time, and the account shows what is still delayed."""
    await world.fund(MAKER, usdc=200_000)
    answers = [
        await caller.post(
            "/v1/withdrawals",
            world.body(world.withdrawal(MAKER, amount=amount, action_sequence=number), MAKER),
        )
        for number, amount in ((1, 90_000 * 10**6), (2, 60_000 * 10**6))
    ]
    assert [(one.body["claim"], one.body["payable_at"] > 0) for one in answers] == [(1, False), (2, True)]
    due = answers[1].body["payable_at"]
    assert due == world.core.state.now + 1_800
    account = (await caller.get(f"/v1/accounts/0x{MAKER.address.hex()}/0")).body
    assert account["delayed_withdrawals"] == [{"claim": 2, "amount": "60000000000", "payable_at": due}]


@pytest.mark.safety("D12", "api")
async def test_transfers_by_owner_and_capped_agent(world: GatewayWorld, caller: Caller) -> None:
    """The owner opens another sub-account; an agent moves up to its cap, and the ledger shows both sides."""
    moved = await caller.post("/v1/transfers", world.body(world.transfer(MAKER), MAKER))
    account = world.core.state.account_ids[MAKER.address, 0]
    assert moved.body == {"account": account, "target": account + 2, "amount": 10_000_000}
    approval = world.approval(MAKER, action_sequence=2, transfer_cap=15_000_000)
    await caller.post("/v1/agents", world.body(approval, MAKER))
    for amount, status, name in ((15_000_001, 422, "ABOVE_TRANSFER_CAP"), (15_000_000, 200, "")):
        transfer = world.transfer(MAKER, amount=amount, action_sequence=3)
        answer = await caller.post("/v1/transfers", world.body(transfer, AGENT))
        assert (answer.status, answer.error) == (status, name)
    late = world.transfer(MAKER, action_sequence=4, deadline=world.now_s - 1)
    assert (await caller.post("/v1/transfers", world.body(late, MAKER))).error == "EXPIRED"
    ledger = (await caller.get(f"/v1/accounts/0x{MAKER.address.hex()}/1/ledger")).body
    assert [(row["cause"], row["amount"]) for row in ledger] == [
        ("transfer", 15_000_000),
        ("transfer", 10_000_000),
    ]


async def test_a_transfer_over_the_websocket(world: GatewayWorld, caller: Caller) -> None:
    """The same body with op and id."""
    async with caller.socket() as socket:
        body = world.body(world.transfer(MAKER), MAKER)
        await socket.send_json({"op": "transfer", "id": 7, **body})
        answer = await socket.receive_json()
    assert (answer["id"], answer["result"]["amount"]) == (7, 10_000_000)


async def test_a_stop_is_untriggered_then_triggered_then_filled(world: GatewayWorld, caller: Caller) -> None:
    """Its status follows it; open orders count it, and a restart remembers it."""
    await caller.place(world.order(TAKER, side=Side.BUY, size=3_000, limit_price=1_098_000), TAKER)
    condition = {"trigger": Trigger.MARK_BELOW, "trigger_price": 1_095_000}
    stop = world.order(MAKER, side=Side.SELL, size=2_000, limit_price=1_090_000, slot=3, **condition)
    placed = await caller.place(stop, MAKER)
    assert (placed.status, placed.body["status"], placed.body["remaining"]) == (200, "untriggered", 2_000)
    assert (placed.body["trigger"], placed.body["trigger_price"]) == ("mark below", 1_095_000)
    path = f"/v1/accounts/0x{MAKER.address.hex()}/0"
    for status in ("open", "untriggered"):
        (found,) = (await caller.get(f"{path}/orders?status={status}")).body
        assert found["order_hash"] == placed.body["order_hash"]
    assert (await caller.get(path)).body["open_orders"] == 1
    await world.restart()
    await world.advance(marks=(1_095_000, 400_000, 20_000, 25_000))
    after = (await caller.get(f"/v1/orders/{placed.body['order_hash']}")).body
    assert (after["status"], after["filled"]) == ("filled", 2_000)
    assert (await caller.get(f"{path}/orders?status=open")).body == []


async def test_a_triggered_limit_order_is_open(world: GatewayWorld, caller: Caller) -> None:
    """Woken and not filled, it rests: status `triggered`. What would wake at once is refused with both prices."""
    condition = {"trigger": Trigger.MARK_ABOVE, "trigger_price": 1_105_000}
    placed = await caller.place(world.order(MAKER, slot=3, **condition), MAKER)
    await world.advance(marks=(1_105_000, 400_000, 20_000, 25_000))
    after = (await caller.get(f"/v1/orders/{placed.body['order_hash']}")).body
    assert (after["status"], after["remaining"]) == ("triggered", 1_000)
    late = await caller.place(world.order(MAKER, slot=4, **condition), MAKER)
    assert (late.status, late.error) == (422, "WOULD_TRIGGER_AT_ONCE")
    assert late.details == {"price": 1_105_000, "trigger": 1_105_000}


async def agents_batch(
    world: GatewayWorld, caller: Caller, orders: list[Order], signer: Signer, **more: Any
) -> Answered:
    """POST the orders under one signature."""
    root, _ = merkle_paths([struct_hash(order) for order in orders])
    signature = signer.sign(digest(domain_separator(CHAIN_ID, VAULT), OrderBatch(root=root)))
    body = {
        "orders": [message_json(order) for order in orders],
        "signature": "0x" + signature.to_bytes().hex(),
    }
    return await caller.post("/v1/order-batches", body | more)


async def approved(world: GatewayWorld, caller: Caller) -> None:
    await caller.post("/v1/agents", world.body(world.approval(MAKER), MAKER))


@pytest.mark.safety("D08", "sequencer")
async def test_an_order_batch_is_answered_order_by_order(world: GatewayWorld, caller: Caller) -> None:
    """One signature, an answer each: resting, refused by the engine, too late; repeated, the same answers again."""
    await approved(world, caller)
    orders = [
        world.order(MAKER, slot=1),
        world.order(MAKER, slot=2, size=1),
        world.order(MAKER, slot=3, expiry=world.now_s),
        world.order(MAKER, slot=4, limit_price=1_080_000),
    ]
    answer = await agents_batch(world, caller, orders, AGENT, client_ids=["a", "b", "c", "d"])
    assert answer.status == 200
    names = [one.get("status") or one["error"]["name"] for one in answer.body["orders"]]
    assert names == ["open", "BELOW_MIN_NOTIONAL", "EXPIRED", "open"]
    assert answer.body["orders"][3]["client_id"] == "d"
    before = world.journaled
    again = await agents_batch(world, caller, orders, AGENT)
    assert again.body == answer.body
    assert world.journaled == before
    bid = world.order(TAKER, side=Side.SELL, limit_price=1_080_000, slot=0, time_in_force=TimeInForce.IOC)
    filled = await caller.place(bid, TAKER)
    assert filled.body["filled"] == 1_000
    await world.advance()
    assert world.core.state.sealed_batch > 0


@pytest.mark.safety("D12", "api")
@pytest.mark.safety("D15", "api")
async def test_an_order_batch_is_an_agents_alone(world: GatewayWorld, caller: Caller) -> None:
    """The owner's key, a stranger's, another account's agent: refused, and nothing is journaled."""
    orders = [world.order(MAKER, slot=1), world.order(MAKER, slot=2)]
    before = world.journaled
    for signer, status, name in (
        (MAKER, 403, "NOT_AUTHORISED"),
        (AGENT, 401, "BAD_SIGNATURE"),
        (TAKER, 401, "BAD_SIGNATURE"),
    ):
        answer = await agents_batch(world, caller, orders, signer)
        assert (answer.status, answer.error) == (status, name)
    assert world.journaled == before
    await approved(world, caller)
    before = world.journaled
    mixed = [world.order(MAKER, slot=1), world.order(TAKER, slot=1)]
    twice = [orders[0], orders[0]]
    for bad in (mixed, twice):
        answer = await agents_batch(world, caller, bad, AGENT)
        assert (answer.status, answer.error) == (400, "BAD_COMBINATION")
    many = [world.order(MAKER, slot=1 + at) for at in range(65)]
    assert (await agents_batch(world, caller, many, AGENT)).error == "OUT_OF_RANGE"
    assert (await agents_batch(world, caller, orders, AGENT, client_ids=["a"])).error == "BAD_COMBINATION"
    unknown = [world.order(MAKER, market="DOGE-PERP")]
    assert (await agents_batch(world, caller, unknown, AGENT)).error == "UNKNOWN_MARKET"
    assert world.journaled == before
