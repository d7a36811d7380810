"""Both ends of every integer that is signed: the gateway, and before it whoever signs, take what fits and name what does not."""

from typing import Any

import msgspec
import pytest
from gateway_world import MAKER, Caller, GatewayWorld

from evermark.client.errors import OutOfRange
from evermark.client.signed import check_ranges, hex_text
from evermark.protocol.orders import ApproveAgent, Cancel, Order, Side, Transfer, Withdraw
from evermark.protocol.ranges import beyond, range_of
from evermark.protocol.signing import TYPES, FundingReport, Liquidate, Message, PriceReport, order_values
from sequencer.gateway import parse, wire

OWNER = MAKER.address
TIME_S, SEQUENCE = 1_760_129_400, 7

SAMPLES: dict[str, Message] = {
    "Order": Order(
        owner=OWNER,
        sub_account=0,
        market="BTC-PERP",
        side=Side.BUY,
        size=1_000,
        limit_price=1_000_000,
        max_fee_ppm=500,
        slot=1,
        sequence=SEQUENCE,
        expiry=TIME_S,
    ),
    "Cancel": Cancel(owner=OWNER, sub_account=0, all_slots=False, slot=1, sequence=SEQUENCE, deadline=TIME_S),
    "Withdraw": Withdraw(
        owner=OWNER, sub_account=0, amount=5, max_fee=1, action_sequence=SEQUENCE, deadline=TIME_S
    ),
    "Transfer": Transfer(
        owner=OWNER, sub_account=0, to_sub_account=1, amount=5, action_sequence=SEQUENCE, deadline=TIME_S
    ),
    "ApproveAgent": ApproveAgent(
        owner=OWNER,
        sub_account=0,
        agent=bytes(range(20)),
        agent_expiry=TIME_S,
        transfer_cap=0,
        action_sequence=SEQUENCE,
        deadline=TIME_S,
    ),
    "PriceReport": PriceReport(round=TIME_S // 3, timestamp=TIME_S, prices=(1 << 32 | 1, 0)),
    "FundingReport": FundingReport(hour=TIME_S // 3600, rates_ppb=(12_500, -12_500), samples=bytes(32)),
    "Liquidate": Liquidate(account=3, market="BTC-PERP", round=TIME_S // 3, deadline=TIME_S),
}
# Where each goes: path, the key of its fields, its schema, and what makes a message of them.
DOORS: dict[str, tuple[str, str, Any, Any]] = {
    "Order": ("/v1/orders", "order", wire.OrderRequest, parse.order_of),
    "Cancel": ("/v1/cancels", "cancel", wire.CancelRequest, parse.cancel_of),
    "Withdraw": ("/v1/withdrawals", "withdraw", wire.WithdrawalRequest, parse.withdraw_of),
    "Transfer": ("/v1/transfers", "transfer", wire.TransferRequest, parse.transfer_of),
    "ApproveAgent": ("/v1/agents", "approval", wire.AgentRequest, parse.approval_of),
    "PriceReport": ("/v1/oracle/prices", "report", wire.PriceReportRequest, parse.price_report_of),
    "FundingReport": ("/v1/oracle/funding", "report", wire.FundingReportRequest, parse.funding_report_of),
    "Liquidate": ("/v1/liquidations", "trigger", wire.LiquidationRequest, parse.trigger_of),
}
OPS = {
    "Order": "order",
    "Cancel": "cancel",
    "Withdraw": "withdraw",
    "Transfer": "transfer",
    "ApproveAgent": "agent",
}
INTEGERS = [(name, field, kind) for name in SAMPLES for kind, field in TYPES[name] if "int" in kind]


def with_value(name: str, field: str, kind: str, value: object) -> Message:
    """The sample with another value in one field; of a list in its last item."""
    attribute = "".join("_" + letter.lower() if letter.isupper() else letter for letter in field)
    old = getattr(SAMPLES[name], attribute)
    changed = (*old[:-1], value) if kind.endswith("[]") else value
    return msgspec.structs.replace(SAMPLES[name], **{attribute: changed})


def body(message: Message) -> dict[str, Any]:
    """A request for it, signed by nobody."""
    name = type(message).__name__
    values = order_values(message) if isinstance(message, Order) else msgspec.structs.astuple(message)
    named = zip(TYPES[name], values, strict=True)
    fields = {field: hex_text(value) if isinstance(value, bytes) else value for (_, field), value in named}
    return {DOORS[name][1]: fields, "signature": "0x" + "00" * 64 + "1b"}


def test_every_signed_integer_is_looked_at() -> None:
    """None of a type that somebody signs is forgotten here; a root is no integer."""
    assert {*SAMPLES, "OrderBatch"} == set(TYPES)
    assert len(INTEGERS) == 13 + 4 + 5 + 5 + 5 + 3 + 2 + 3


@pytest.mark.safety("H02", "api")
@pytest.mark.parametrize("name, field, kind", INTEGERS)
def test_both_ends_fit_and_nothing_beyond_them(name: str, field: str, kind: str) -> None:
    """What signs and what receives have the same range of each field."""
    least, most = range_of(name, field, kind)
    _, key, schema, make = DOORS[name]
    for value in (least, most):
        message = with_value(name, field, kind, value)
        assert beyond(message) is None
        request = parse.Parser(schema).parse(msgspec.json.encode(body(message)))
        assert make(getattr(request, key)) == message
    for value in (least - 1, most + 1, -(2**300), 2**300):
        found = beyond(with_value(name, field, kind, value))
        assert found is not None
        assert (found.field, found.value, found.least, found.most) == (field, value, least, most)
        assert str(found) == f"{field}: {value} is not from {least} to {most}"


@pytest.mark.safety("H02", "api")
async def test_what_does_not_fit_is_refused_by_code_and_field(world: GatewayWorld, caller: Caller) -> None:
    """Over HTTP and over the WebSocket, in a batch of orders too, and never as an error of the server's."""
    before = world.journaled
    async with caller.socket() as socket:
        for name, field, kind in INTEGERS:
            least, most = range_of(name, field, kind)
            path = DOORS[name][0]
            for value in (least - 1, most + 1, 2**300):
                sent = body(with_value(name, field, kind, value))
                answers = [(await caller.post(path, sent)).body]
                if name in OPS:
                    await socket.send_json({"op": OPS[name], "id": 1, **sent})
                    answers.append(await socket.receive_json())
                if name == "Order":
                    many = {"orders": [sent["order"]], "signature": sent["signature"]}
                    answers.append((await caller.post("/v1/order-batches", many)).body)
                for answer in answers:
                    refused = answer["error"]
                    told = (refused["name"], refused["field"].rpartition(".")[2])
                    assert told == ("OUT_OF_RANGE", field), (name, field, value, answer)
    assert (world.journaled, world.unexpected) == (before, 0)


@pytest.mark.parametrize(
    "field, value", [("size", 1.5), ("slot", True), ("sequence", "7"), ("owner", b"x" * 21)]
)
def test_what_is_no_integer_or_no_address_is_a_mistake(field: str, value: object) -> None:
    """An encoder would cut an address and take a truth for a number."""
    message = with_value("Order", field, "", value)
    with pytest.raises(TypeError, match=f"^{field}: "):
        check_ranges(message)  # type: ignore[arg-type]


def test_the_library_says_field_value_and_range() -> None:
    """As attributes and in one line."""
    with pytest.raises(
        OutOfRange, match="OUT_OF_RANGE: size: -1 is not from 0 to 4611686018427387903"
    ) as refused:
        check_ranges(with_value("Order", "size", "uint64", -1))  # type: ignore[arg-type]
    assert (refused.value.field, refused.value.value, refused.value.least) == ("size", -1, 0)
    assert isinstance(refused.value, ValueError)
