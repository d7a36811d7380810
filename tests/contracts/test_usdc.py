"""The test token: transfers, allowances, permits, and a mint for everybody."""

import boa
import pytest
from contract_cases import START_S, STRANGER, Signer, flipped, text
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

from evermark.protocol.signing import domain_separator

ALICE = Signer(b"\x31" * 32)
ALL = 2**256 - 1


@pytest.fixture
def alice():
    return text(ALICE.address)


@pytest.fixture
def spender(chain):
    return chain.generate_address("spender")


def permit_of(usdc, signer, owner, spender, amount, deadline, nonce=0, chain_id=None):
    """An EIP-2612 permit, hashed by eth_account's own encoder."""
    fields = [("owner", "address"), ("spender", "address"), ("value", "uint256")]
    fields += [("nonce", "uint256"), ("deadline", "uint256")]
    domain = [("name", "string"), ("version", "string")]
    domain += [("chainId", "uint256"), ("verifyingContract", "address")]
    message = {"owner": owner, "spender": str(spender), "value": amount, "nonce": nonce, "deadline": deadline}
    encoded = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain],
                "Permit": [{"name": name, "type": kind} for name, kind in fields],
            },
            "primaryType": "Permit",
            "domain": {
                "name": "Test USD Coin",
                "version": "1",
                "chainId": boa.env.evm.patch.chain_id if chain_id is None else chain_id,
                "verifyingContract": str(usdc.address),
            },
            "message": message,
        }
    )
    return signer.sign(keccak(b"\x19" + encoded.version + encoded.header + encoded.body))


def vrs(signature):
    return 27 + signature.parity, signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")


def test_it_is_a_token_with_six_decimals(usdc, owner):
    """Name, symbol, decimals and supply."""
    assert (usdc.name(), usdc.symbol(), usdc.decimals()) == ("Test USD Coin", "USDC", 6)
    assert usdc.totalSupply() == usdc.balanceOf(owner) == 1_000_000_000


def test_transfer_moves_what_is_held(usdc, owner, spender):
    """No more than the balance, not to nobody; a transfer to oneself changes nothing."""
    usdc.transfer(spender, 7, sender=owner)
    assert (usdc.balanceOf(owner), usdc.balanceOf(spender)) == (999_999_993, 7)
    with boa.reverts("usdc: balance too low"):
        usdc.transfer(owner, 8, sender=spender)
    with boa.reverts("usdc: to nobody"):
        usdc.transfer("0x" + "00" * 20, 1, sender=owner)
    usdc.transfer(owner, 5, sender=owner)
    assert usdc.balanceOf(owner) == 999_999_993


def test_transfer_from_uses_the_allowance(usdc, owner, spender):
    """An allowance goes down; the greatest one stays."""
    usdc.approve(spender, 10, sender=owner)
    usdc.transferFrom(owner, spender, 4, sender=spender)
    assert usdc.allowance(owner, spender) == 6
    with boa.reverts("usdc: allowance too low"):
        usdc.transferFrom(owner, spender, 7, sender=spender)
    usdc.approve(spender, ALL, sender=owner)
    usdc.transferFrom(owner, spender, 7, sender=spender)
    assert usdc.allowance(owner, spender) == ALL
    assert usdc.balanceOf(spender) == 11


def test_a_permit_is_an_approval_by_signature(usdc, alice, spender):
    """It sets the allowance and uses up its nonce."""
    signature = permit_of(usdc, ALICE, alice, spender, 50, START_S)
    usdc.permit(alice, spender, 50, START_S, *vrs(signature))
    assert usdc.allowance(alice, spender) == 50
    assert usdc.nonces(alice) == 1
    with boa.reverts("usdc: permit signer is not the owner"):
        usdc.permit(alice, spender, 50, START_S, *vrs(signature))


@pytest.mark.parametrize(
    "signed, sent, reason",
    [
        ({}, {"amount": 51}, "not the owner"),
        ({}, {"deadline": START_S + 1}, "not the owner"),
        ({"deadline": START_S - 1}, {"deadline": START_S - 1}, "permit expired"),
        ({"nonce": 1}, {}, "not the owner"),
        ({"chain_id": 5}, {}, "not the owner"),
        ({"signer": STRANGER}, {}, "not the owner"),
    ],
)
def test_a_permit_for_something_else_is_refused(usdc, alice, spender, signed, sent, reason):
    """Every signed field counts, and so do the chain and the signer."""
    facts = {"amount": 50, "deadline": START_S}
    signature = permit_of(usdc, **{"signer": ALICE, "owner": alice, "spender": spender, **facts, **signed})
    facts |= sent
    with boa.reverts():
        usdc.permit(alice, spender, facts["amount"], facts["deadline"], *vrs(signature))
    with pytest.raises(boa.BoaError, match=reason):
        usdc.permit(alice, spender, facts["amount"], facts["deadline"], *vrs(signature))
    assert usdc.allowance(alice, spender) == 0


def test_a_malleable_or_empty_signature_is_refused(usdc, alice, spender):
    """High s, and a signature that recovers nobody, even for the zero address."""
    signature = permit_of(usdc, ALICE, alice, spender, 50, START_S)
    with boa.reverts("usdc: high s"):
        usdc.permit(alice, spender, 50, START_S, *vrs(flipped(signature)))
    nothing = (27, bytes(32), bytes(32))
    with boa.reverts("usdc: permit signer is not the owner"):
        usdc.permit("0x" + "00" * 20, spender, 50, START_S, *nothing)
    usdc.permit(alice, spender, 50, START_S, *vrs(signature))


def test_the_domain_of_permits_is_told(usdc):
    """As EIP-2612 asks, and the one that permits are checked under."""
    told = domain_separator(boa.env.evm.patch.chain_id, bytes.fromhex(str(usdc.address)[2:]), "Test USD Coin")
    assert usdc.DOMAIN_SEPARATOR() == told
