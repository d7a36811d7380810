# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title OrderVerifier
@license Apache-2.0
@notice See contracts/interfaces/IOrderVerifier.vyi. Knows scheme 1, the `OrderBatch`; scheme 2 and 3 are reserved.
"""

from .interfaces import IOrderVerifier
from .modules import codec
from .modules import door
from .modules import eip712
from .modules import ledger
from .modules import order_hash
from .modules import row_layout
from .modules import units

implements: IOrderVerifier

ORDER_BATCH_TYPE_HASH: constant(bytes32) = keccak256("OrderBatch(bytes32 root)")
FEES_END: constant(uint256) = 86
ORDER_BATCH: constant(uint256) = 1
SAME_ROOT: constant(uint256) = 2
MAX_SIBLINGS: constant(uint256) = 8


@view
@external
def settle() -> uint256:
    vault: door.IVault = door.IVault(msg.sender)
    packed: uint256 = 0
    inbox: address = empty(address)
    oracle: address = empty(address)
    packed, inbox, oracle = staticcall vault.clerk_task()
    markets_at: uint256 = FEES_END + 4 * (codec.word(FEES_END) & units.U8) + 1
    accounts_at: uint256 = markets_at + (codec.word(markets_at) & units.U8) + 2
    pairs_at: uint256 = accounts_at + 4 * (codec.word(accounts_at) & units.U16) + 2
    row_at: uint256 = pairs_at + 3 * (codec.word(pairs_at) & units.U16) + 4
    separator: bytes32 = eip712.separator_of(msg.sender)
    verified: uint256 = 0
    root: bytes32 = empty(bytes32)  # of the scheme-1 row before, and who signed it
    signer: uint256 = 0
    for i: uint256 in range(codec.word(row_at) & units.U16, bound=1024):
        flags: uint256 = row_layout.head(row_at) >> 168
        if flags >> 14 == ORDER_BATCH:
            pair_index: uint256 = row_layout.head(row_at) >> 152 & units.U16
            if pair_index >= codec.word(pairs_at) & units.U16:
                units.fail("vault: no such pair")
            pair: uint256 = codec.word(pairs_at + 3 * pair_index + 3)
            account: uint256 = codec.word(accounts_at + 4 * (pair >> 8 & units.U16) + 4) & units.U32
            b: uint256 = staticcall vault.word(ledger.B | account)
            symbol: uint256 = staticcall vault.word(ledger.MARKET_H | pair & units.U8)
            root, signer = self._signer(row_at, flags, order_hash.of(row_at, b, symbol), separator, root, signer)
            if signer == b & units.U160:
                units.fail("vault: owner signed blindly")
            if (staticcall vault.word(ledger.AGENTS | account << 160 | signer)) & units.U64 < packed >> 32 & units.U40:
                units.fail("vault: not a live agent")
            verified += 1
        elif flags >> 14 != 0:
            units.fail("vault: scheme reserved")
        row_at = row_layout.end(row_at, flags)
    return verified


@view
@internal
def _signer(
    row_at: uint256, flags: uint256, struct_hash: bytes32, separator: bytes32, last_root: bytes32, last_signer: uint256
) -> (bytes32, uint256):
    """
    @dev The root that the row's siblings lead to, and who signed it.
    """
    at: uint256 = row_layout.size_end(row_at, flags) + 4  # where length, sides and kind end
    body: uint256 = codec.word(at)
    end: uint256 = at - 2 + (body >> 16 & units.U16)
    kind: uint256 = body & units.U8
    siblings_end: uint256 = end
    if kind != SAME_ROOT:
        siblings_end = end - row_layout.SIGNATURE_BYTES
    count: uint256 = (siblings_end - at) // 32
    if siblings_end != at + 32 * count or kind > SAME_ROOT or (body >> 8 & units.U8) >> count != 0:
        units.fail("vault: malformed evidence")
    node: bytes32 = keccak256(concat(b"\x00", struct_hash))
    for i: uint256 in range(count, bound=MAX_SIBLINGS):
        sibling: bytes32 = convert(codec.word(at + 32 * i + 32), bytes32)
        if body >> 8 + i & 1 == 1:
            node = keccak256(concat(b"\x01", sibling, node))
        else:
            node = keccak256(concat(b"\x01", node, sibling))
    if kind == SAME_ROOT:
        if node != last_root:
            units.fail("vault: another root")
        return node, last_signer
    batch_hash: bytes32 = keccak256(abi_encode(ORDER_BATCH_TYPE_HASH, node))
    r: uint256 = codec.word(end - 32)
    signer: address = eip712.signer(separator, batch_hash, r, codec.word(end), 27 + kind)
    return node, convert(signer, uint256)
