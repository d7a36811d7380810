"""The ERC-7730 descriptor, with which hardware wallets print what is signed: it shows every field of every type, as its unit."""

import json
from pathlib import Path

import pytest

from evermark.protocol.orders import NO_ADDRESS, ApproveAgent, Order, Side, Transfer, Withdraw
from evermark.protocol.signing import DOMAIN_TYPE, TYPES, type_string, typed_data

DESCRIPTOR = json.loads((Path(__file__).resolve().parents[2] / "contracts" / "erc7730.json").read_text())
SHOWN = ("Order", "Cancel", "Withdraw", "Transfer", "ApproveAgent")
FORMATS = DESCRIPTOR["display"]["formats"]
AMOUNTS = {"amount", "maxFee", "transferCap"}
TIMES = {"expiry", "deadline", "agentExpiry"}
ADDRESSES = {"owner", "builder", "agent"}


def fields_of(name: str) -> dict[str, dict]:
    return {field["path"]: field for field in FORMATS[type_string(name)]["fields"]}


def test_it_describes_what_owners_sign_and_nothing_else() -> None:
    """Every type but `OrderBatch`, which a wallet cannot show: owners never sign it. Reports are keepers'."""
    assert set(FORMATS) == {type_string(name) for name in SHOWN}
    assert "OrderBatch" not in json.dumps(DESCRIPTOR)
    assert DESCRIPTOR["context"]["eip712"]["domain"] == {"name": "Evermark", "version": "1"}


@pytest.mark.parametrize("name", SHOWN)
def test_every_field_is_shown(name: str) -> None:
    """A field that is signed and not shown could hide what an order does."""
    names = [field for _, field in TYPES[name]]
    assert sorted(fields_of(name)) == sorted(names)
    assert sorted(FORMATS[type_string(name)]["required"]) == sorted(names)
    labels = [field["label"] for field in fields_of(name).values()]
    assert all(labels)
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", SHOWN)
def test_units_are_printed(name: str) -> None:
    """USDC with its six decimals, times as dates, addresses by name, fees in per cent."""
    for path, field in fields_of(name).items():
        if path in AMOUNTS:
            assert (field["format"], field["params"]) == ("unit", {"base": "USDC", "decimals": 6})
        elif path in TIMES:
            assert (field["format"], field["params"]["encoding"]) == ("date", "timestamp")
        elif path in ADDRESSES:
            assert field["format"] == "addressName"
        elif path.endswith("FeePpm"):
            assert (field["format"], field["params"]) == ("unit", {"base": "%", "decimals": 4})
        else:
            assert field["format"] == "raw"


@pytest.mark.parametrize(
    "message",
    [
        Order(
            owner=NO_ADDRESS, sub_account=0, market="BTC-PERP", side=Side.BUY, size=1, limit_price=1, max_fee_ppm=0,
            slot=0, sequence=1, expiry=1,
        ),
        Withdraw(owner=NO_ADDRESS, sub_account=0, amount=1, max_fee=0, action_sequence=1, deadline=1),
        Transfer(owner=NO_ADDRESS, sub_account=0, to_sub_account=1, amount=1, action_sequence=1, deadline=1),
        ApproveAgent(
            owner=NO_ADDRESS, sub_account=0, agent=NO_ADDRESS, agent_expiry=0, transfer_cap=0, action_sequence=1,
            deadline=1,
        ),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_its_schemas_are_what_a_wallet_is_given(message) -> None:
    """Wallets match a descriptor by the types of the request."""
    data = typed_data(message, 1, NO_ADDRESS)
    schema = next(
        schema
        for schema in DESCRIPTOR["context"]["eip712"]["schemas"]
        if schema["primaryType"] == data["primaryType"]
    )
    assert schema["types"] == data["types"]
    assert len(schema["types"]["EIP712Domain"]) == DOMAIN_TYPE.count(",") + 1
