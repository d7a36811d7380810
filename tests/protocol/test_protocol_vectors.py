"""The golden vectors: today's formulas and encodings give what was written down."""

import json

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from make_vectors import FILES, directory, render

from evermark.protocol.batch import AccountOwner, decode_batch, encode_batch
from evermark.protocol.markets import load_markets


@pytest.mark.parametrize("name", sorted(FILES))
def test_vectors_are_reproduced(name):
    """A difference is a change of the protocol: contracts and clients would disagree with this code."""
    assert (directory() / f"{name}.json").read_text() == render(name)


def read(name):
    return json.loads((directory() / f"{name}.json").read_text())


def test_signing_vectors_are_eth_accounts():
    """An independent library recovers the same signer from the written typed data and signature."""
    for case in read("signing"):
        data = case["typed_data"]
        for kind in data["types"][data["primaryType"]]:
            value = data["message"][kind["name"]]
            if "int" in kind["type"] and isinstance(value, str):
                data["message"][kind["name"]] = int(value)
            if kind["type"].endswith("[]"):
                data["message"][kind["name"]] = [int(item) for item in value]
        signable = encode_typed_data(full_message=data)
        recovered = Account.recover_message(signable, signature=case["signature"])
        assert recovered.lower() == case["signer"]


def test_batch_vectors_decode():
    """The written bytes decode, and encode again to themselves."""
    symbols = [market.symbol for market in load_markets()]
    for case in read("batch"):
        encoded = bytes.fromhex(case["encoded"][2:])
        owners = {
            int(account): AccountOwner(bytes.fromhex(owner[2:]), sub_account)
            for account, (owner, sub_account) in case["owners"].items()
        }
        assert encode_batch(decode_batch(encoded, owners, symbols)) == encoded
