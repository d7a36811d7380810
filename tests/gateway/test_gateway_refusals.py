"""Every way to be refused: a stable code, a 4xx, and nothing in the journal that was refused at the gate."""

import gzip
from typing import Any

import msgspec
import pytest
from gateway_world import (
    AGENT,
    CHAIN_ID,
    MAKER,
    STRANGER,
    TAKER,
    VAULT,
    Answered,
    Caller,
    GatewayWorld,
    running,
)

from evermark.protocol.orders import Side, TimeInForce
from evermark.protocol.signing import digest, domain_separator
from sequencer.engine.commands import MarketMode
from sequencer.gateway.limits import Limits, Rate
from sequencer.gateway.services import GatewaySettings


async def refused_at_gate(
    world: GatewayWorld, answer: Answered, before: int, status: int, name: str, field: str | None = None
) -> None:
    assert (answer.status, answer.error) == (status, name), answer.body
    if field is not None:
        assert answer.body["error"]["field"] == field
    assert world.journaled == before, "a refusal of the gate was journaled"


async def test_what_operators_ask_is_not_on_the_public_port(caller: Caller) -> None:
    """Liveness and readiness are for everybody; the metrics have a port of their own (`test_standby.py` asks there)."""
    assert (await caller.get("/health")).status == 200
    assert (await caller.get("/ready")).status == 200
    answer = await caller.get("/metrics")
    assert (answer.status, answer.error) == (404, "UNSUPPORTED")


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "MALFORMED"),
    (b"{", "MALFORMED"),
    (b"[]", "WRONG_TYPE"),
    (b"null", "WRONG_TYPE"),
    (b"{}", "MALFORMED"),
    (b'{"order": NaN}', "MALFORMED"),
    (b'{"order": Infinity}', "MALFORMED"),
    (b"\xff\xfe", "MALFORMED"),
    (b'{"order": "\\ud800"}', "WRONG_TYPE"),
    (b'{"order": ' + b"[" * 20_000, "WRONG_TYPE"),
    (b'{"what": ' + b'{"a":' * 10_000, "UNKNOWN_FIELD"),
    (b'{"order": {}} trailing', "MALFORMED"),
]


@pytest.mark.safety("H02", "api")
@pytest.mark.parametrize("data, name", MALFORMED)
async def test_malformed_json(world: GatewayWorld, caller: Caller, data: bytes, name: str) -> None:
    """Bytes that are no request are 400 with a format code, whatever they look like."""
    before = world.journaled
    answer = await caller.post("/v1/orders", data=data)
    assert answer.status == 400
    assert answer.error in (name, "MALFORMED")
    assert world.journaled == before


# A raw JSON value in place of one field of a correctly signed order.
FIELDS: list[tuple[str, str, str]] = [
    ("size", "1.0", "WRONG_TYPE"),
    ("size", "1e3", "WRONG_TYPE"),
    ("size", "1e309", "OUT_OF_RANGE"),
    ("size", "-0", "MALFORMED"),
    ("size", "-1", "OUT_OF_RANGE"),
    ("size", "true", "WRONG_TYPE"),
    ("size", "null", "WRONG_TYPE"),
    ("size", '"1000 "', "WRONG_TYPE"),
    ("size", '"1e3"', "WRONG_TYPE"),
    ("size", '"01000"', "WRONG_TYPE"),
    ("size", '"-0"', "WRONG_TYPE"),
    ("size", '"١٠٠٠"', "WRONG_TYPE"),
    ("size", '"0x3e8"', "WRONG_TYPE"),
    ("size", '"1_000"', "WRONG_TYPE"),
    ("size", str(2**62), "OUT_OF_RANGE"),
    ("size", "9" * 5_000, "OUT_OF_RANGE"),
    ("limitPrice", '"1090000"', "WRONG_TYPE"),
    ("limitPrice", str(2**32), "OUT_OF_RANGE"),
    ("sequence", str(2**48), "OUT_OF_RANGE"),
    ("slot", "65536", "OUT_OF_RANGE"),
    ("side", '"BUY"', "OUT_OF_RANGE"),
    ("side", "0", "WRONG_TYPE"),
    ("timeInForce", '"DAY"', "OUT_OF_RANGE"),
    ("postOnly", "1", "WRONG_TYPE"),
    ("owner", '"0x12"', "OUT_OF_RANGE"),
    ("owner", '"0x' + "11" * 20 + '\\n"', "OUT_OF_RANGE"),
    ("market", '"btc-perp"', "OUT_OF_RANGE"),
]


@pytest.mark.safety("H02", "api")
@pytest.mark.parametrize("field, raw, name", FIELDS)
async def test_field_of_wrong_type(
    world: GatewayWorld, caller: Caller, field: str, raw: str, name: str
) -> None:
    """Floats, exponents, -0, unicode digits, booleans as numbers and numbers out of width are refused by
    name.
    """
    body = world.body(world.order(MAKER), MAKER)
    parts = [
        f'"{key}": {raw if key == field else msgspec.json.encode(value).decode()}'
        for key, value in body["order"].items()
    ]
    data = '{"order": {' + ", ".join(parts) + '}, "signature": "' + body["signature"] + '"}'
    before = world.journaled
    answer = await caller.post("/v1/orders", data=data.encode())
    await refused_at_gate(world, answer, before, 400, name)


async def test_decimal_string_is_the_same_integer(world: GatewayWorld, caller: Caller) -> None:
    """An integer that may exceed 2^53 is also taken as its canonical decimal string."""
    body = world.body(world.order(MAKER), MAKER)
    body["order"]["size"] = str(body["order"]["size"])
    assert (await caller.post("/v1/orders", body)).body["status"] == "open"


@pytest.mark.parametrize("where", ["body", "order"])
async def test_unknown_field(world: GatewayWorld, caller: Caller, where: str) -> None:
    """A field that the schema does not know is refused and named."""
    body = world.body(world.order(MAKER), MAKER)
    (body if where == "body" else body["order"])["leverage"] = 5
    before = world.journaled
    answer = await caller.post("/v1/orders", body)
    field = "leverage" if where == "body" else "order.leverage"
    await refused_at_gate(world, answer, before, 400, "UNKNOWN_FIELD", field)


async def test_missing_field(world: GatewayWorld, caller: Caller) -> None:
    """A field without a default that is missing is refused and named."""
    body = world.body(world.order(MAKER), MAKER)
    del body["order"]["expiry"]
    before = world.journaled
    answer = await caller.post("/v1/orders", body)
    await refused_at_gate(world, answer, before, 400, "MALFORMED", "order.expiry")


async def test_signature_of_other_data(world: GatewayWorld, caller: Caller) -> None:
    """A changed field makes a bad signature; the refusal shows the digest checked and the address
    recovered.
    """
    order = world.order(MAKER)
    body = world.body(order, MAKER)
    body["order"]["size"] = 2_000
    before = world.journaled
    answer = await caller.post("/v1/orders", body)
    await refused_at_gate(world, answer, before, 401, "BAD_SIGNATURE", "signature")
    changed = world.order(MAKER, size=2_000, sequence=order.sequence)
    expected = digest(domain_separator(CHAIN_ID, VAULT), changed)
    assert answer.details["digest"] == "0x" + expected.hex()
    assert len(answer.details["recovered"]) == 42
    assert answer.details["owner"] == "0x" + MAKER.address.hex()


@pytest.mark.parametrize("signature", ["0x" + "00" * 65, "0x" + "ff" * 65, "0x" + "11" * 64 + "05"])
async def test_impossible_signature(world: GatewayWorld, caller: Caller, signature: str) -> None:
    """A signature from which no key recovers is refused, not an error."""
    body = world.body(world.order(MAKER), MAKER) | {"signature": signature}
    before = world.journaled
    await refused_at_gate(world, await caller.post("/v1/orders", body), before, 401, "BAD_SIGNATURE")


async def test_high_s_signature(world: GatewayWorld, caller: Caller) -> None:
    """The mirrored signature of a valid one is refused: one message has one signature."""
    curve = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    body = world.body(world.order(MAKER), MAKER)
    raw = bytes.fromhex(body["signature"][2:])
    mirrored = (
        raw[:32] + (curve - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big") + bytes([55 - raw[64]])
    )
    before = world.journaled
    answer = await caller.post("/v1/orders", body | {"signature": "0x" + mirrored.hex()})
    await refused_at_gate(world, answer, before, 401, "BAD_SIGNATURE")


async def test_wrong_chain(world: GatewayWorld, caller: Caller) -> None:
    """Signed for another chain or contract: said so, whether the client names its domain or not."""
    order, before = world.order(MAKER), world.journaled
    for named in ({"chain_id": 1}, {"verifying_contract": "0x" + "99" * 20}):
        answer = await caller.place(order, MAKER, **named)
        await refused_at_gate(world, answer, before, 401, "WRONG_CHAIN", next(iter(named)))
    signature = MAKER.sign(digest(domain_separator(1, VAULT), order))
    body = world.body(order, MAKER) | {"signature": "0x" + signature.to_bytes().hex()}
    answer = await caller.post("/v1/orders", body)
    await refused_at_gate(world, answer, before, 401, "WRONG_CHAIN", "signature")
    assert (answer.details["chain_id"], answer.details["expected"]) == (1, CHAIN_ID)


@pytest.mark.safety("D15", "api")
async def test_one_user_cannot_use_anothers_account(world: GatewayWorld, caller: Caller) -> None:
    """A's valid signature over B's account is 403 for every signed request, and nothing is journaled."""
    resting = world.order(MAKER)
    await caller.place(resting, MAKER)
    before = world.journaled
    attempts: dict[str, Any] = {
        "/v1/orders": world.order(MAKER, slot=2),
        "/v1/cancels": world.cancel(MAKER, sequence=resting.sequence),
        "/v1/withdrawals": world.withdrawal(MAKER),
        "/v1/agents": world.approval(MAKER),
        "/v1/transfers": world.transfer(MAKER),
    }
    for path, message in attempts.items():
        answer = await caller.post(path, world.body(message, TAKER))
        await refused_at_gate(world, answer, before, 403, "NOT_AUTHORISED", "signature")
        assert answer.details["recovered"] == "0x" + TAKER.address.hex()


async def test_expired_agent(world: GatewayWorld, caller: Caller) -> None:
    """An agent whose approval ran out is no longer one."""
    await caller.post("/v1/agents", world.body(world.approval(MAKER, agent_expiry=world.now_s + 10), MAKER))
    await world.advance(12)
    answer = await caller.place(world.order(MAKER), AGENT)
    assert (answer.status, answer.error) == (403, "NOT_AUTHORISED")


async def test_expired(world: GatewayWorld, caller: Caller) -> None:
    """An expired order or deadline is refused at the gate with both times."""
    before = world.journaled
    answer = await caller.place(world.order(MAKER, expiry=world.now_s), MAKER)
    await refused_at_gate(world, answer, before, 400, "EXPIRED", "expiry")
    assert answer.details == {"expiry": world.now_s, "now": world.now_s}
    cancel = world.cancel(MAKER, deadline=world.now_s - 1)
    answer = await caller.post("/v1/cancels", world.body(cancel, MAKER))
    await refused_at_gate(world, answer, before, 400, "EXPIRED", "deadline")


async def test_sequence_rules(world: GatewayWorld, caller: Caller) -> None:
    """A sequence too far ahead stops at the gate; one that does not grow is the engine's refusal."""
    before = world.journaled
    far = world.order(MAKER, sequence=(world.now_s + 90_000) * 1000)
    await refused_at_gate(world, await caller.place(far, MAKER), before, 400, "SEQUENCE_TOO_FAR", "sequence")
    first = world.order(MAKER)
    await caller.place(first, MAKER)
    stale = await caller.place(world.order(MAKER, sequence=first.sequence, limit_price=1_080_000), MAKER)
    assert (stale.status, stale.error) == (422, "STALE_SEQUENCE")
    assert stale.body["order_hash"].startswith("0x")


async def test_unknown_market_and_account(world: GatewayWorld, caller: Caller) -> None:
    """What does not exist is 404 before anything is journaled."""
    before = world.journaled
    answer = await caller.place(world.order(MAKER, market="DOGE-PERP"), MAKER)
    await refused_at_gate(world, answer, before, 404, "UNKNOWN_MARKET", "market")
    answer = await caller.place(world.order(STRANGER), STRANGER)
    await refused_at_gate(world, answer, before, 404, "UNKNOWN_ACCOUNT", "owner")
    for path in ("/v1/markets/DOGE-PERP/book", f"/v1/accounts/0x{STRANGER.address.hex()}/0"):
        assert (await caller.get(path)).status == 404


async def test_engine_refusals_carry_numbers(world: GatewayWorld, caller: Caller) -> None:
    """Margin and size refusals are 422 with the numbers that decided them."""
    poor = await caller.place(world.order(MAKER, size=10_000_000), MAKER)
    assert (poor.status, poor.error) == (422, "INSUFFICIENT_MARGIN")
    assert int(poor.details["required"]) > int(poor.details["available"])
    small = await caller.place(world.order(MAKER, size=1), MAKER)
    assert (small.status, small.error) == (422, "BELOW_MIN_NOTIONAL")
    assert small.details == {"notional": 1_090_000, "min_notional": 10_000_000}
    trailing = await caller.place(world.order(MAKER, trailing_offset=5), MAKER)
    assert (trailing.status, trailing.error) == (
        422,
        "BAD_COMBINATION",
    )  # an offset needs a trigger that trails
    iceberg = await caller.place(world.order(MAKER, display_size=5), MAKER)
    assert (iceberg.status, iceberg.error) == (422, "OUT_OF_RANGE")
    assert iceberg.details["value"] == 5 < iceberg.details["least"]


async def test_halted_market(world: GatewayWorld, caller: Caller) -> None:
    """A halted market takes no order, and cancels still work."""
    order = world.order(MAKER)
    await caller.place(order, MAKER)
    await world.set_mode(0, MarketMode.HALTED)
    answer = await caller.place(world.order(MAKER, slot=2, side=Side.SELL, limit_price=1_110_000), MAKER)
    assert (answer.status, answer.error) == (422, "MARKET_HALTED")
    status = (await caller.get("/v1/status")).body
    assert status["markets"]["BTC-PERP"]["mode"] == "halted"
    await caller.post("/v1/cancels", world.body(world.cancel(MAKER, sequence=order.sequence), MAKER))


async def test_not_ready(world: GatewayWorld, caller: Caller) -> None:
    """While something is missing, orders are 503 with Retry-After, cancels pass, and /ready names what is
    missing.
    """
    order = world.order(MAKER)
    await caller.place(order, MAKER)
    world.missing = ["prices"]
    before = world.journaled
    answer = await caller.place(world.order(MAKER, slot=2), MAKER)
    await refused_at_gate(world, answer, before, 503, "NOT_READY")
    assert answer.headers["Retry-After"] == "1"
    ready = await caller.get("/ready")
    assert (ready.status, ready.body) == (503, {"ready": False, "missing": ["prices"]})
    assert (await caller.get("/health")).status == 200
    cancelled = await caller.post(
        "/v1/cancels", world.body(world.cancel(MAKER, sequence=order.sequence), MAKER)
    )
    assert len(cancelled.body["cancelled"]) == 1


@pytest.mark.safety("H01", "api")
async def test_body_too_large_and_compressed(world: GatewayWorld, caller: Caller) -> None:
    """A body above the limit is 413, a compressed one 415 before it is inflated."""
    before = world.journaled
    answer = await caller.post("/v1/orders", data=b" " * (64 * 1024 + 1))
    await refused_at_gate(world, answer, before, 413, "BODY_TOO_LARGE")
    bomb = gzip.compress(b" " * 10_000_000)
    answer = await caller.post("/v1/orders", data=bomb, Content_Encoding="gzip")
    await refused_at_gate(world, answer, before, 415, "UNSUPPORTED")


async def test_unknown_routes_and_methods(caller: Caller) -> None:
    """Whatever is no route is a JSON refusal too; there is no administration here."""
    for path in ("/", "/v1", "/admin", "/v1/admin/halt", "/v1/markets", "/v1/orders/0x12", "/debug"):
        answer = await caller.get(path)
        assert answer.status in (400, 404)
        assert answer.error
    answer = await caller.post("/v1/status", {})
    assert answer.status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/v1/markets/BTC-PERP/book?depth=0",
        "/v1/markets/BTC-PERP/book?depth=1e3",
        "/v1/markets/BTC-PERP/trades?limit=-1",
        "/v1/markets/BTC-PERP/trades?limit=%D9%A1",
        "/v1/markets/BTC-PERP/candles?interval=2m",
        "/v1/markets/BTC-PERP/candles?start=99999999999999999999",
        "/v1/accounts/0x12/0",
        "/v1/accounts/0x1111111111111111111111111111111111111111/65536",
        "/v1/accounts?limit=100000",
        "/v1/orders?owner=me",
    ],
)
async def test_bad_queries(caller: Caller, path: str) -> None:
    """A query outside its range is 400, never an error."""
    answer = await caller.get(path)
    assert answer.status == 400
    assert answer.error in ("OUT_OF_RANGE", "MALFORMED")


async def test_rate_limits(tmp_path: Any) -> None:
    """An account's orders above its budget are 429 with Retry-After; its cancels have their own, larger
    one.
    """
    limits = Limits(orders_per_account=Rate(1.0, 3), cancels_per_account=Rate(1.0, 20))
    async with running(tmp_path, GatewaySettings(limits=limits)) as world:
        await world.fund(MAKER, TAKER)
        caller = Caller(world)
        placed = [await caller.place(world.order(MAKER, slot=slot), MAKER) for slot in range(1, 5)]
        assert [answer.status for answer in placed] == [200, 200, 200, 429]
        assert placed[3].error == "RATE_LIMITED"
        assert placed[3].headers["Retry-After"] == "1"
        forged = await caller.place(world.order(TAKER), AGENT)
        assert forged.error == "BAD_SIGNATURE"
        assert (await caller.place(world.order(TAKER), TAKER)).status == 200, (
            "a forger spent the owner's budget"
        )
        cancels = [world.cancel(MAKER, slot=slot) for slot in range(1, 4)]
        answers = [await caller.post("/v1/cancels", world.body(cancel, MAKER)) for cancel in cancels]
        assert [answer.status for answer in answers] == [200, 200, 200]
        await caller.close()


async def test_requests_per_address(tmp_path: Any) -> None:
    """One address above its budget is 429 on reads too."""
    limits = Limits(requests_per_ip=Rate(1.0, 5))
    async with running(tmp_path, GatewaySettings(limits=limits)) as world:
        caller = Caller(world)
        statuses = [(await caller.get("/health")).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        await caller.close()


async def test_fok_without_liquidity_is_rejected_by_engine(world: GatewayWorld, caller: Caller) -> None:
    """An FOK that cannot fill is the book's refusal."""
    order = world.order(MAKER, slot=0, time_in_force=TimeInForce.FOK, limit_price=1_100_000)
    answer = await caller.place(order, MAKER)
    assert answer.status in (200, 422)
    assert answer.error in ("", "NO_LIQUIDITY", "FOK_NOT_FILLABLE")
