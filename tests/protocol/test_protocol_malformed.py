"""Each way in which a batch can be malformed is told by its own words; a change to what is allowed there is none."""

import pytest
from protocol_strategies import SYMBOLS

from evermark.protocol.batch import (
    FILL_CASH,
    FILL_ORDERS,
    SHIFT_SCHEME,
    SHIFT_TRIGGER,
    AccountOwner,
    AgentApproval,
    Batch,
    Fill,
    MalformedBatch,
    OrderRow,
    SlotCancel,
    TriggerBit,
    decode_batch,
    encode_batch,
)
from evermark.protocol.orders import ApproveAgent, Cancel, Order, Side, Signature

OWNER = b"\x0a" * 20
OWNERS = {3: AccountOwner(OWNER, 0)}
ORDER = Order(
    owner=OWNER,
    sub_account=0,
    market=SYMBOLS[0],
    side=Side.BUY,
    size=5,
    limit_price=7,
    max_fee_ppm=9,
    slot=1,
    sequence=2,
    expiry=3,
)
SIGNATURE = Signature(int.from_bytes(b"\x55" * 32, "big"), int.from_bytes(b"\x66" * 32, "big"), 1)
R, SIBLING = b"\x55" * 32, b"\x77" * 32
CANCEL = Cancel(owner=OWNER, sub_account=0, all_slots=False, slot=1, sequence=2, deadline=3)
FLAGS_AT = 6 + 5 + 32 + 6 + 32 + 1 + 2 + 6 + 5 + 4  # of the first row, in a batch without fee classes


def batch(**parts) -> bytes:
    header = {
        "batch_id": 1,
        "round": 1,
        "prices_hash": bytes(32),
        "journal_sequence": 1,
        "journal_hash": bytes(32),
    }
    tables = {"fee_classes": (), "markets": (0,), "accounts": (3,), "pairs": ((0, 0),), "orders": ()}
    return encode_batch(Batch(**header, **tables | parts))


def row(pair: int = 0, path=None) -> dict:
    return {"orders": (OrderRow(pair, 0, ORDER, SIGNATURE, path),)}


def refused(data: bytes, why: str, owners=OWNERS, symbols=SYMBOLS) -> None:
    with pytest.raises(MalformedBatch, match=f"^batch: {why}$"):
        decode_batch(data, owners, symbols)


def test_rows_and_actions_name_what_there_is():
    """An account of the table whose owner is known, a pair of the table, and a market that is listed."""
    for data in (batch(**row()), batch(actions=(SlotCancel(0, CANCEL, SIGNATURE),))):
        decode_batch(data, OWNERS, SYMBOLS)
        refused(data, "no account at index 0", owners={})
    refused(batch(actions=(SlotCancel(1, CANCEL, SIGNATURE),)), "no account at index 1")
    refused(batch(**row(pair=1)), "no pair 1")
    refused(batch(**row()), "no market 0", symbols=())


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        (2 << SHIFT_SCHEME, "signature scheme 2 is reserved"),
        (3 << SHIFT_SCHEME, "signature scheme 3 is reserved"),
        (7 << SHIFT_TRIGGER, "trigger 7"),
        (4 << SHIFT_TRIGGER, "trailing bytes or a non-canonical encoding"),  # it needs a price
    ],
)
def test_flags_name_what_there_is(bits, why):
    """Two signature schemes, and four triggers."""
    data = bytearray(batch(**row()))
    flags = int.from_bytes(data[FLAGS_AT : FLAGS_AT + 2], "big") | bits
    data[FLAGS_AT : FLAGS_AT + 2] = flags.to_bytes(2, "big")
    refused(bytes(data), why)


def test_evidence_has_the_length_of_its_siblings():
    """And of a signature, unless it is the row's before, which there must be."""
    data = batch(**row(path=((True, SIBLING),)))
    at = data.index(SIBLING) - 4
    assert data[at : at + 4] == bytes((0, 2 + 32 + 64, 1, 1))
    for head in ((0, 97, 1, 1), (0, 99, 1, 1), (0, 65, 1, 1), (0, 98, 1, 3), (0, 2, 1, 1), (0, 1, 1, 2)):
        refused(data[:at] + bytes(head) + data[at + 4 :], "evidence of another length")
    for siblings in (1, 3):
        refused(data[:at] + bytes((0, 2 + 32 * siblings, 1, 2)) + data[at + 4 :], "no signature before")


def test_signatures_of_actions_end_in_27_or_28():
    for parity in (0, 1):
        data = batch(actions=(SlotCancel(0, CANCEL, Signature(SIGNATURE.r, SIGNATURE.s, parity)),))
        assert decode_batch(data, OWNERS, SYMBOLS).actions[0].signature.parity == parity
        at = data.index(R) + 64
        assert data[at] == 27 + parity
        for v in (0, 1, 26, 29):
            refused(data[:at] + bytes((v,)) + data[at + 1 :], f"v is {v}")


def test_tags_and_kinds_are_known():
    """Four actions, two entries of section 3, eight kinds of fills."""
    approval = ApproveAgent(
        owner=OWNER,
        sub_account=0,
        agent=b"\x0b" * 20,
        agent_expiry=5,
        transfer_cap=6,
        action_sequence=7,
        deadline=8,
    )
    data = batch(actions=(AgentApproval(0, approval, SIGNATURE),))
    at = data.index(b"\x0b" * 20) - 3
    for tag in (0, 5, 255):
        refused(data[:at] + bytes((tag,)) + data[at + 1 :], f"action tag {tag}")
    data = batch(triggers=(TriggerBit(0xABCD),))
    at = data.index(b"\xab\xcd") - 1
    for tag in (0, 3):
        refused(data[:at] + bytes((tag,)) + data[at + 1 :], f"funding tag {tag}")
    data = batch(fills=(Fill(FILL_ORDERS, 0xABCD, 1, 1),))
    at = data.index(b"\xab\xcd") - 1
    assert decode_batch(data[:at] + bytes((FILL_CASH,)) + data[at + 1 :], OWNERS, SYMBOLS).fills[0].kind == 7
    for kind in (8, 15):
        refused(data[:at] + bytes((kind,)) + data[at + 1 :], f"fill kind {kind}")
