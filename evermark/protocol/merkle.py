"""The Merkle tree of an `OrderBatch`: one agent signature covers many orders.

Nodes are type-tagged, so that no inner node can pass for an order: leaf = keccak(0x00 || order struct hash),
node = keccak(0x01 || left || right). An odd node at the end of a level is carried up unchanged.
"""

from collections.abc import Sequence

from evermark.protocol.keccak import keccak

MAX_BATCH_ORDERS = 64  # of one signature; a path then has at most 6 siblings

Path = tuple[tuple[bool, bytes], ...]  # siblings from leaf to root as (sibling is on the left, hash)


def _levels(order_hashes: Sequence[bytes]) -> list[list[bytes]]:
    if not order_hashes:
        raise ValueError("an order batch needs at least one order")
    levels = [[keccak(b"\x00" + leaf) for leaf in order_hashes]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        level = [keccak(b"\x01" + below[i] + below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            level.append(below[-1])
        levels.append(level)
    return levels


def merkle_root(order_hashes: Sequence[bytes]) -> bytes:
    """Root over the orders' struct hashes, 32 bytes. Raises ValueError for an empty batch."""
    return _levels(order_hashes)[-1][0]


def merkle_paths(order_hashes: Sequence[bytes]) -> tuple[bytes, list[Path]]:
    """The root and every order's path to it, with each node hashed once. Raises ValueError for an empty batch."""
    levels = _levels(order_hashes)
    return levels[-1][0], [_path(levels, index) for index in range(len(order_hashes))]


def merkle_proof(order_hashes: Sequence[bytes], index: int) -> Path:
    """One order's path."""
    return _path(_levels(order_hashes), index)


def _path(levels: list[list[bytes]], index: int) -> Path:
    proof = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append((sibling < index, level[sibling]))
        index //= 2
    return tuple(proof)


def proof_root(order_hash: bytes, proof: Sequence[tuple[bool, bytes]]) -> bytes:
    """The root that a proof leads to from one order's struct hash."""
    node = keccak(b"\x00" + order_hash)
    for is_left, sibling in proof:
        node = keccak(b"\x01" + sibling + node) if is_left else keccak(b"\x01" + node + sibling)
    return node
