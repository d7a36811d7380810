"""A directory in memory where there is room for one: what a killed process wrote outlives it there as well."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 * 2**30  # three PostgreSQL nodes, and as much again


def memory_directory() -> Path | None:
    """Where temporary files are fast; None where there is no such place, or it is small as in many containers."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        return MEMORY
    return None


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A temporary directory there, else where the system has them."""
    with tempfile.TemporaryDirectory(dir=memory_directory()) as directory:
        yield Path(directory)
