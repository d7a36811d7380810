"""The batch codec: everything round-trips, and nothing malformed decodes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocol_strategies import (
    ADDRESSES,
    APPROVALS,
    CANCELS,
    SIGNATURES,
    SYMBOLS,
    TRANSFERS,
    WITHDRAWS,
    orders,
    unsigned,
)

from evermark.protocol.batch import (
    FILL_DELEVERAGE,
    FILL_FUND,
    FILL_LIQUIDATION,
    FILL_ORDERS,
    FILL_TAKEOVER,
    FLAG_EXTENSION,
    NO_INDEX,
    AccountOwner,
    AgentApproval,
    Batch,
    CollateralTransfer,
    Fill,
    InboxUse,
    MalformedBatch,
    OrderRow,
    SlotCancel,
    TriggerBit,
    Withdrawal,
    byte_width,
    decode_batch,
    encode_batch,
)
from evermark.protocol.orders import Signature

SIGNATURE = Signature(1, 1, 0)
HASHES = st.binary(min_size=32, max_size=32)


def owned(message, owner):
    return msgspec.structs.replace(message, owner=owner.owner, sub_account=owner.sub_account)


@st.composite
def batches(draw):
    """A batch that is consistent as a message, though not as money."""
    accounts = tuple(sorted(draw(st.sets(unsigned(32, 3), min_size=1, max_size=6))))
    owners = {account: AccountOwner(draw(ADDRESSES), draw(unsigned(16))) for account in accounts}
    indices = st.integers(0, len(accounts) - 1)
    markets = st.integers(0, len(SYMBOLS) - 1)
    pairs = tuple(sorted(draw(st.sets(st.tuples(indices, markets), min_size=1, max_size=8))))
    classes = draw(
        st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), unsigned(16)), min_size=1, max_size=3)
    )

    shared = draw(st.lists(SIGNATURES, min_size=1, max_size=2))

    def row():
        pair = draw(st.integers(0, len(pairs) - 1))
        index, market = pairs[pair]
        order = owned(draw(orders(market=st.just(SYMBOLS[market]))), owners[accounts[index]])
        path = draw(st.none() | st.lists(st.tuples(st.booleans(), HASHES), max_size=6).map(tuple))
        signature = draw(st.sampled_from(shared) | SIGNATURES)
        return OrderRow(pair, draw(st.integers(0, len(classes) - 1)), order, signature, path)

    def action():
        index = draw(indices)
        message = owned(draw(st.one_of(CANCELS, APPROVALS, TRANSFERS)), owners[accounts[index]])
        if hasattr(message, "to_sub_account"):
            return CollateralTransfer(index, draw(unsigned(16)), message, draw(SIGNATURES))
        kind = AgentApproval if hasattr(message, "agent") else SlotCancel
        return kind(index, message, draw(SIGNATURES))

    def fill():
        kind = draw(
            st.sampled_from((FILL_ORDERS, FILL_LIQUIDATION, FILL_TAKEOVER, FILL_DELEVERAGE, FILL_FUND))
        )
        keeper = draw(unsigned(16)) if kind in (FILL_LIQUIDATION, FILL_TAKEOVER) else NO_INDEX
        return Fill(kind, draw(unsigned(16)), draw(unsigned(16)), draw(unsigned(62, 1)), keeper)

    def withdrawal():
        index = draw(indices)
        signed = owned(draw(WITHDRAWS), owners[accounts[index]])
        return Withdrawal(index, signed, draw(unsigned(96)), draw(SIGNATURES))

    some = st.integers(0, 3)
    batch = Batch(
        batch_id=draw(unsigned(48)),
        round=draw(unsigned(40)),
        prices_hash=draw(st.binary(min_size=32, max_size=32)),
        journal_sequence=draw(unsigned(48)),
        journal_hash=draw(st.binary(min_size=32, max_size=32)),
        fee_classes=tuple(classes),
        markets=tuple(sorted({market for _, market in pairs})),
        accounts=accounts,
        pairs=pairs,
        orders=tuple(row() for _ in range(draw(some))),
        inbox=tuple(InboxUse(draw(unsigned(16))) for _ in range(draw(some))),
        actions=tuple(action() for _ in range(draw(some))),
        funding_hours=tuple(draw(unsigned(32)) for _ in range(draw(some))),
        triggers=tuple(TriggerBit(draw(unsigned(16))) for _ in range(draw(some))),
        fills=tuple(fill() for _ in range(draw(some))),
        withdrawals=tuple(withdrawal() for _ in range(draw(some))),
    )
    return batch, owners


@given(batches())
def test_a_batch_round_trips(made):
    """Decoding gives the batch, encoding it again the bytes."""
    batch, owners = made
    data = encode_batch(batch)
    assert decode_batch(data, owners, SYMBOLS) == batch
    assert encode_batch(decode_batch(data, owners, SYMBOLS)) == data


@given(batches(), st.data())
def test_every_truncation_and_extension_is_malformed(made, data):
    """The whole input is consumed exactly."""
    batch, owners = made
    encoded = encode_batch(batch)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for bad in (encoded[:cut], encoded + b"\x00"):
        with pytest.raises(MalformedBatch):
            decode_batch(bad, owners, SYMBOLS)


@given(batches(), st.data())
def test_a_changed_byte_is_malformed_or_another_batch(made, data):
    """No two encodings of one batch: whatever decodes encodes to its own bytes."""
    batch, owners = made
    encoded = bytearray(encode_batch(batch))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_batch(bytes(encoded), owners, SYMBOLS)
    except MalformedBatch:
        return
    assert other != batch
    assert encode_batch(other) == bytes(encoded)


@given(st.binary(max_size=400))
def test_random_bytes_never_crash_the_decoder(data):
    """Only MalformedBatch comes out of garbage."""
    try:
        decode_batch(data, {}, SYMBOLS)
    except MalformedBatch:
        pass


@given(orders())
def test_a_plain_order_needs_no_extension(order):
    """`is_plain` is what decides the extension flag."""
    row = OrderRow(0, 0, order, SIGNATURE)
    batch = Batch(
        batch_id=1,
        round=1,
        prices_hash=bytes(32),
        journal_sequence=1,
        journal_hash=bytes(32),
        fee_classes=((0, 0),),
        markets=(SYMBOLS.index(order.market),),
        accounts=(3,),
        pairs=((0, SYMBOLS.index(order.market)),),
        orders=(row,),
    )
    encoded = encode_batch(batch)
    start = 6 + 5 + 32 + 6 + 32 + 5 + 2 + 6 + 5 + 4
    flags = int.from_bytes(encoded[start : start + 2], "big")
    assert bool(flags & FLAG_EXTENSION) is not order.is_plain
    owner = {3: AccountOwner(order.owner, order.sub_account)}
    assert decode_batch(encoded, owner, SYMBOLS).orders == (row,)


def test_values_that_do_not_fit_are_not_encoded():
    """A field too large for its width raises instead of being cut."""
    with pytest.raises(OverflowError):
        encode_batch(
            Batch(
                batch_id=2**48,
                round=1,
                prices_hash=bytes(32),
                journal_sequence=1,
                journal_hash=bytes(32),
                fee_classes=(),
                markets=(),
                accounts=(),
                pairs=(),
                orders=(),
            )
        )


@pytest.mark.parametrize("value, width", [(0, 1), (255, 1), (256, 2), (2**16, 3), (2**62 - 1, 8)])
def test_sizes_take_as_few_bytes_as_possible(value, width):
    """One to eight bytes."""
    assert byte_width(value) == width
