"""Digests equal eth_account's, and recovery refuses what the contracts refuse."""

import pytest
from coincurve import PrivateKey
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st
from protocol_strategies import ADDRESSES, CANCELS, MESSAGES, WITHDRAWS, orders

from evermark.protocol.orders import Signature
from evermark.protocol.signing import (
    SECP256K1_N,
    TYPE_HASH,
    SignatureRefused,
    Signer,
    digest,
    domain_separator,
    parse_signature,
    recover,
    struct_hash,
    type_string,
    typed_data,
)

KEY = b"\x01" * 32
VAULT = b"\x11" * 20
KEYS = st.integers(1, SECP256K1_N - 1).map(lambda number: number.to_bytes(32, "big"))


def eth_digest(message, chain_id, contract, name):
    signable = encode_typed_data(full_message=typed_data(message, chain_id, contract, name))
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


@given(MESSAGES, st.integers(1, 2**64), ADDRESSES, st.sampled_from(("Evermark", "Evermark Oracle")))
def test_digests_equal_eth_accounts(message, chain_id, contract, name):
    """The fast path gives the 32 bytes that any wallet would sign for the same typed data."""
    ours = digest(domain_separator(chain_id, contract, name), message)
    assert ours == eth_digest(message, chain_id, contract, name)


@given(orders(), KEYS)
def test_a_wallets_signature_recovers_to_its_address(order, key):
    """What eth_account signs we recover, and what we sign eth_account would have signed."""
    signed = Account.from_key(key).sign_typed_data(full_message=typed_data(order, 31_337, VAULT))
    message_digest = digest(domain_separator(31_337, VAULT), order)
    address = Signer(key).address
    assert "0x" + address.hex() == Account.from_key(key).address.lower()
    assert recover(message_digest, parse_signature(bytes(signed.signature))) == address
    assert Signer(key).sign(message_digest).to_bytes() == bytes(signed.signature)


@pytest.mark.safety("D01", "sequencer")
@given(orders())
def test_another_chain_or_contract_gives_another_digest(order):
    """A signature for one deployment means nothing to another."""
    here = digest(domain_separator(1, VAULT), order)
    assert here != digest(domain_separator(2, VAULT), order)
    assert here != digest(domain_separator(1, b"\x12" * 20), order)
    assert here != digest(domain_separator(1, VAULT, "Evermark Oracle"), order)


@pytest.mark.safety("D02", "sequencer")
def test_every_action_has_its_own_type_hash():
    """A signature for one kind of action is none for another."""
    assert len(set(TYPE_HASH.values())) == len(TYPE_HASH)
    for name, type_hash in TYPE_HASH.items():
        assert type_hash == keccak(type_string(name).encode())


@given(CANCELS, WITHDRAWS)
def test_struct_hashes_differ_between_types(cancel, withdraw):
    """Whatever the fields, the type tells them apart."""
    assert struct_hash(cancel) != struct_hash(withdraw)


@pytest.mark.safety("D03", "sequencer")
@given(st.binary(min_size=32, max_size=32), KEYS)
def test_malleable_signatures_are_refused(message_digest, key):
    """(r, n - s, v ^ 1) recovers the same key elsewhere; here a high s is refused."""
    good = Signer(key).sign(message_digest)
    with pytest.raises(SignatureRefused, match="upper half"):
        recover(message_digest, Signature(good.r, SECP256K1_N - good.s, good.parity ^ 1))


@pytest.mark.safety("D04", "sequencer")
@pytest.mark.parametrize(
    "signature",
    [
        Signature(0, 1, 0),
        Signature(1, 0, 0),
        Signature(SECP256K1_N, 1, 0),
        Signature(SECP256K1_N - 1, 1, 0),
        Signature(1, 1, 2),
        Signature(5, 1, 0),
    ],
)
def test_unrecoverable_signatures_are_refused(signature):
    """Zero, out of range, or on no curve point: never the zero address."""
    with pytest.raises(SignatureRefused):
        recover(bytes(32), signature)


@pytest.mark.safety("D03", "sequencer")
def test_s_may_be_anything_in_the_lower_half():
    """From 1 to half the curve's order, both included, and nothing beyond; whose it is eth_account tells alike."""
    message_digest, r = keccak(b"anything"), Signer(KEY).sign(bytes(32)).r
    for s in (1, SECP256K1_N // 2):
        signer = Account._recover_hash(message_digest, vrs=(27, r, s))
        assert "0x" + recover(message_digest, Signature(r, s, 0)).hex() == signer.lower()
    for s in (0, SECP256K1_N // 2 + 1):
        with pytest.raises(SignatureRefused, match="upper half"):
            recover(message_digest, Signature(r, s, 0))


@pytest.mark.parametrize(
    "raw", [b"", b"\x01" * 64, b"\x01" * 66, b"\x01" * 64 + b"\x02", b"\x01" * 64 + b"\x1d"]
)
def test_malformed_signature_bytes_are_refused(raw):
    """65 bytes with v of 0, 1, 27 or 28 and nothing else; the 64-byte compact form is none."""
    with pytest.raises(SignatureRefused):
        parse_signature(raw)


def test_a_signer_never_shows_its_key():
    """Only the address appears in its text."""
    signer = Signer(KEY)
    assert KEY.hex() not in repr(signer)
    assert signer.address.hex() in repr(signer)
    public = PrivateKey(KEY).public_key.format(compressed=False)[1:]
    assert signer.address == keccak(public)[12:]
