"""The hash of Ethereum, without the layers that choose a library: they cost three times the hash of a short message."""

from sha3 import keccak_256


def keccak(data: bytes) -> bytes:
    """Keccak-256, 32 bytes."""
    hashed: bytes = keccak_256(data).digest()
    return hashed
