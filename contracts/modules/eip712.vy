# pragma version 0.4.3
"""
@title eip712
@license Apache-2.0
@notice The vault's EIP-712 domain and signer recovery; the mirror of `evermark/protocol/signing.py`.
"""

from . import units

DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
NAME_HASH: constant(bytes32) = keccak256("Evermark")
VERSION_HASH: constant(bytes32) = keccak256("1")
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

CHAIN_ID: immutable(uint256)
SEPARATOR: immutable(bytes32)


@deploy
def __init__():
    CHAIN_ID = chain.id
    SEPARATOR = self.separator_of(self)


@view
@internal
def separator_of(vault: address) -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE_HASH, NAME_HASH, VERSION_HASH, chain.id, vault))


@view
@internal
def separator() -> bytes32:
    """
    @dev Recomputed after a fork of the chain, so that a signature for one side is worthless on the other.
    """
    if chain.id == CHAIN_ID:
        return SEPARATOR
    return self.separator_of(self)


@pure
@internal
def signer(separator: bytes32, struct_hash: bytes32, r: uint256, s: uint256, v: uint256) -> address:
    """
    @dev Who signed; never the zero address. Only the low half of s is a signature here, so there is one per key and message.
    """
    if s > HALF_N:
        units.fail("vault: high s")
    recovered: address = ecrecover(keccak256(concat(b"\x19\x01", separator, struct_hash)), v, r, s)
    if recovered == empty(address):
        units.fail("vault: no signer")
    return recovered
