# pragma version 0.4.3
"""
@title order_hash
@license Apache-2.0
@notice The EIP-712 struct hash of the order in a row; the mirror of `evermark/protocol/signing.py`.
"""

from . import codec
from . import ledger
from . import row_layout
from . import units

TYPE_HASH: constant(bytes32) = keccak256(
    "Order(address owner,uint16 subAccount,string market,string side,uint64 size,uint32 limitPrice,uint32 maxFeePpm,address builder,uint32 maxBuilderFeePpm,uint16 slot,uint48 sequence,uint64 expiry,bool amend,bool reduceOnly,string timeInForce,bool postOnly,string trigger,uint32 triggerPrice,uint32 trailingOffset,uint64 displaySize,uint32 twapInterval,uint16 bracketLink)"
)


@view
@internal
def of(row_at: uint256, b: uint256, symbol: uint256) -> bytes32:
    """
    @param b Word B of the row's account.
    @param symbol Hash of its market's symbol.
    """
    head: uint256 = row_layout.head(row_at)
    flags: uint256 = head >> 168
    size_end: uint256 = row_layout.size_end(row_at, flags)
    extension: uint256 = row_layout.evidence_end(row_at, flags)
    prices: uint256 = 0
    link: uint256 = 0
    if flags & row_layout.FLAG_EXTENSION != 0:
        prices = codec.word(extension + 22)
        link = codec.word(extension + row_layout.SIGNED_BYTES)
    return keccak256(
        abi_encode(
            TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            symbol,
            keccak256("sell") if flags & 1 != 0 else keccak256("buy"),
            codec.sized(size_end, flags >> 10 & 7),
            head >> 48 & units.U32,
            head >> 32 & units.U16,
            link >> 16 & units.U160,
            link & units.U16,
            head >> 128 & units.U16,
            head >> 80 & units.U48,
            head & units.U32,
            flags >> 5 & 1,
            flags >> 4 & 1,
            self._time_in_force(flags >> 1 & 3),
            flags >> 3 & 1,
            self._trigger(flags >> 7 & 7),
            prices >> 144 & units.U32,
            prices >> 112 & units.U32,
            prices >> 48 & units.U64,
            prices >> 16 & units.U32,
            prices & units.U16,
        )
    )


@pure
@internal
def _time_in_force(code: uint256) -> bytes32:
    if code == 0:
        return keccak256("GTC")
    if code == 1:
        return keccak256("GTD")
    return keccak256("IOC") if code == 2 else keccak256("FOK")


@pure
@internal
def _trigger(code: uint256) -> bytes32:
    if code == 0:
        return keccak256("none")
    if code == 1:
        return keccak256("mark above")
    if code == 2:
        return keccak256("mark below")
    if code == 3:
        return keccak256("last above")
    if code != 4:
        units.fail("vault: unknown trigger")
    return keccak256("last below")
