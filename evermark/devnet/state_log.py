"""Persistence of a devnet: one JSON line a block, synced before anybody sees the block, replayed at start."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class StateRefused(ValueError):
    """The recorded chain cannot be restored; the text says what does not match."""


class StateLog:
    """Blocks as {"timestamp", "transactions": [raw hex], "hash"} behind a header line; for one process."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "blocks.jsonl"
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StateRefused(f"{self._path}: another devnet uses it") from None

    def read(self) -> Iterator[dict[str, Any]]:
        """Header first, then every whole line; a torn last line (a crash while writing) is cut off."""
        good = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    if not line.endswith(b"\n") or not isinstance(row, dict):
                        raise ValueError
                except ValueError:
                    if line.endswith(b"\n"):
                        raise StateRefused(f"{self._path}: line {number} is damaged") from None
                    break
                good += len(line)
                yield row
        os.truncate(self._path, good)

    def append_block(self, block: Any) -> None:
        """Record a mined block."""
        raws = [transaction.encode().hex() for transaction in block.transactions]
        self.append({"timestamp": block.header.timestamp, "transactions": raws, "hash": block.hash.hex()})

    def append(self, row: dict[str, Any]) -> None:
        """Write one line through to the disk."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file and let another devnet have it."""
        self._file.close()
