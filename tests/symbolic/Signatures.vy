# pragma version 0.4.3
# The recovery of signers: never the zero address, never from the upper half of s.

from contracts.modules import eip712

initializes: eip712


@deploy
def __init__():
    eip712.__init__()


@pure
@internal
def _holds(condition: bool):
    if not condition:
        raw_revert(concat(method_id("Panic(uint256)", output_type=Bytes[4]), convert(1, bytes32)))


@view
@external
def check_nobody_is_no_signer(separator: bytes32, struct_hash: bytes32, r: uint256, s: uint256, v: uint256):
    self._holds(eip712.signer(separator, struct_hash, r, s, v) != empty(address))


@view
@external
def check_high_s_is_refused(separator: bytes32, struct_hash: bytes32, r: uint256, s: uint256, v: uint256):
    signer: address = eip712.signer(separator, struct_hash, r, s, v)
    self._holds(s <= 57896044618658097711785492504343953926418782139537452191302581570759080747168)
