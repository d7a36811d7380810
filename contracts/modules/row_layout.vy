# pragma version 0.4.3
"""
@title row_layout
@license Apache-2.0
@notice Where the parts of an order row stand in calldata, for the contracts that work for the vault; layout in
        `evermark/protocol/batch.py`. The vault itself reads its rows in its own, hotter, way (modules/orders.vy).
@dev A row: head of 23 bytes (flags u16, pair u16, fee class u8, slot u16, sequence u48, limit price u32, max fee u16, expiry u32), size of 1 to
     8 bytes, evidence, and with the extension flag 46 bytes more. Evidence is r and s of 32 bytes each under scheme 0, and a length
     u16 with that many bytes under any other.
"""

from . import codec
from . import units

HEAD_BYTES: constant(uint256) = 23
SIGNATURE_BYTES: constant(uint256) = 64
EXTENSION_BYTES: constant(uint256) = 46
SIGNED_BYTES: constant(uint256) = 44  # of the extension: all but the builder's account index
FLAG_EXTENSION: constant(uint256) = 1 << 13


@view
@internal
def head(row_at: uint256) -> uint256:
    """
    @dev The head, right-aligned: expiry u32, max fee u16 at 32, limit price u32 at 48, sequence u48 at 80, slot u16 at 128, fee class u8
         at 144, pair u16 at 152, flags u16 at 168.
    """
    return codec.word(row_at + HEAD_BYTES) & (2**184 - 1)


@view
@internal
def size_end(row_at: uint256, flags: uint256) -> uint256:
    """
    @dev Where the size ends and the evidence begins.
    """
    return row_at + HEAD_BYTES + 1 + (flags >> 10 & 7)


@view
@internal
def evidence_end(row_at: uint256, flags: uint256) -> uint256:
    """
    @dev Where the evidence ends and the extension, if there is one, begins.
    """
    at: uint256 = self.size_end(row_at, flags)
    if flags >> 14 == 0:
        return at + SIGNATURE_BYTES
    return at + 2 + (codec.word(at + 2) & units.U16)


@view
@internal
def end(row_at: uint256, flags: uint256) -> uint256:
    """
    @dev Where the next row begins.
    """
    at: uint256 = self.evidence_end(row_at, flags)
    if flags & FLAG_EXTENSION != 0:
        return at + EXTENSION_BYTES
    return at
