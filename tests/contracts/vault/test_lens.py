"""The views of the vault, which its lens answers at the vault's own address."""

import json

import boa
import pytest
from builders import Exchange, Party, Refused, Side, send
from eth_abi import decode, encode
from eth_hash.auto import keccak

from evermark.chain.artifacts import load_artifact
from evermark.protocol.signing import domain_separator


def call(exchange: Exchange, signature: str, *arguments: int) -> bytes:
    """Calls the vault with a selector that its own code may not know."""
    types = signature[signature.index("(") + 1 : -1].split(",") if arguments else []
    data = keccak(signature.encode())[:4] + encode(types, arguments)
    return bytes(send(exchange, data).output)


def test_the_vault_answers_at_its_own_address(exchange: Exchange, maker: Party, taker: Party) -> None:
    """An account, its position and its slot, as stored; the words that they decode are the vault's."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, 600_000)
    batch.settle()
    vault = exchange.vault
    assert decode(["uint256"], call(exchange, "market_count()")) == (len(exchange.markets),)
    assert vault.account(maker.account).open_positions == 1
    assert vault.position(maker.account, 0).size == -vault.position(taker.account, 0).size != 0
    assert (
        vault.account(maker.account).collateral
        == decode(
            ["(address,uint256,int256,uint256,uint256,uint256,uint256)"],
            call(exchange, "account(uint256)", maker.account),
        )[0][2]
    )
    assert vault.totals().credited == vault.word(2**39 + 514)


def test_ids_that_no_account_has(exchange: Exchange) -> None:
    """Unknown and overlong ids decode to nothing, whatever table such a key lies in."""
    vault = exchange.vault
    for account_id in (77, 2**39, 2**40 + 3, 2**200):
        assert vault.account(account_id).collateral == 0
        assert vault.position(account_id, 0).size == 0
        assert vault.slot(account_id, 1).sequence == 0
        assert vault.agent(account_id, exchange.sequencer).expiry == 0
    assert vault.account_of("0x" + "00" * 19 + "03", 0) == 0


def test_the_vaults_domain_is_told_field_by_field(exchange: Exchange) -> None:
    """EIP-5267: a wallet that asks the vault what it signs for gets the domain that signatures are checked under."""
    fields = decode(
        ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"],
        call(exchange, "eip712Domain()"),
    )
    chain_id = boa.env.evm.patch.chain_id
    address = str(exchange.vault.address)
    assert fields == (b"\x0f", "Evermark", "1", chain_id, address.lower(), bytes(32), ())
    told = domain_separator(chain_id, bytes.fromhex(address[2:]))
    assert call(exchange, "domain_separator()") == told


def test_what_neither_knows_reverts(exchange: Exchange) -> None:
    """An unknown selector, an empty call, and ether sent along are refused."""
    for data in (keccak(b"upgrade()")[:4], b"", b"\x01"):
        with pytest.raises(Refused):
            send(exchange, data)
    boa.env.set_balance(exchange.sequencer, 1)
    paid = boa.env.execute_code(
        to_address=exchange.vault.address,
        sender=exchange.sequencer,
        data=keccak(b"market_count()")[:4],
        value=1,
    )
    assert paid.is_error


def test_the_lens_alone_has_nothing_to_show(exchange: Exchange) -> None:
    """Asked by anybody but a vault it has no words to read."""
    lens = boa.loads_abi(json.dumps(load_artifact("lens").abi)).at(exchange.lens.address)
    with pytest.raises(boa.BoaError):
        lens.totals()
