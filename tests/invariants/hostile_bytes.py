"""What a hostile sequencer may do to the bytes of a batch: change, cut, add, repeat, or send an old batch under a new number."""

from __future__ import annotations

from collections.abc import Callable

from hostile_world import World

ID_END, ROUND_END, HASH_END = 4 + 6, 4 + 11, 4 + 43  # selector, batch id u48, round u40, hash of the prices

ByteAttack = Callable[[World, bytes], bytes]


def change_a_byte(world: World, data: bytes) -> bytes:
    at = world.random.randrange(4, len(data))
    return data[:at] + bytes([data[at] ^ world.random.randrange(1, 256)]) + data[at + 1 :]


def flip_a_bit(world: World, data: bytes) -> bytes:
    at = world.random.randrange(4, len(data))
    return data[:at] + bytes([data[at] ^ 1 << world.random.randrange(8)]) + data[at + 1 :]


def truncate(world: World, data: bytes) -> bytes:
    return data[: -world.random.randint(1, min(80, len(data) - 4))]


def add_bytes(world: World, data: bytes) -> bytes:
    return data + bytes(world.random.choice((1, 2, 31, 32, 64)))


def cut_out(world: World, data: bytes) -> bytes:
    at = world.random.randrange(4, len(data))
    return data[:at] + data[at + world.random.randint(1, 8) :]


def repeat_a_piece(world: World, data: bytes) -> bytes:
    at, size = world.random.randrange(4, len(data)), world.random.choice((1, 2, 3, 26, 90))
    return data[: at + size] + data[at:]


def replay(world: World, data: bytes) -> bytes:
    """A batch that settled before, as it was."""
    return world.random.choice(world.settled) if world.settled else data[:-1]


def replay_as_next(world: World, data: bytes) -> bytes:
    """A batch that settled before, under the next id and the pinned round."""
    old = world.random.choice(world.settled) if world.settled else data[:-1]
    return data[:HASH_END] + old[HASH_END:]


BYTE_ATTACKS: dict[str, ByteAttack] = {
    function.__name__: function
    for function in (
        change_a_byte,
        flip_a_bit,
        truncate,
        add_bytes,
        cut_out,
        repeat_a_piece,
        replay,
        replay_as_next,
    )
}
