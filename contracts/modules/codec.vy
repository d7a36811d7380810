# pragma version 0.4.3
"""
@title codec
@license Apache-2.0
@notice Reads the fields of a settlement batch from calldata; layout in `evermark/protocol/batch.py`.
@dev A batch of any length never enters memory: each read is one word of calldata that ends where the wanted fields end, so
     that they stand right-aligned. No field ends before offset 36; the hottest loops repeat the one line below in place. A read beyond the end of calldata reverts, which is what refuses truncated input.
"""


@view
@internal
def word(end: uint256) -> uint256:
    """
    @dev The 32 bytes of calldata that end before offset `end`.
    """
    return convert(slice(msg.data, unsafe_sub(end, 32), 32), uint256)


@view
@internal
def sized(end: uint256, width_minus_one: uint256) -> uint256:
    """
    @dev The integer of 1 to 8 bytes that ends before offset `end`.
    """
    limit: uint256 = 256
    return self.word(end) & unsafe_sub(limit << (width_minus_one << 3), 1)
