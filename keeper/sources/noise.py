"""Reproducible noise: integers that depend on a seed and a label alone, so that all keepers see the same."""

from functools import lru_cache
from hashlib import blake2b


@lru_cache(maxsize=65_536)
def noise(seed: int, label: str, at: int, reach: int) -> int:
    """Uniform in -reach .. +reach."""
    raw = blake2b(f"{seed}/{label}/{at}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") % (2 * reach + 1) - reach


def smooth_noise(seed: int, label: str, time_s: int, period_s: int, reach: int) -> int:
    """Noise at multiples of `period_s`, straight lines between them (rounded down)."""
    at, within = divmod(time_s, period_s)
    left = noise(seed, label, at, reach)
    right = noise(seed, label, at + 1, reach)
    return (left * (period_s - within) + right * within) // period_s
