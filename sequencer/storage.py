"""Watches the room on the journal's disk: orders are refused while there is little, so that what must go on (cancels,
liquidations, prices, the chain) still finds some, and the journal never meets a full disk in a commit.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from evermark.protocol.reject import Reject, RejectCode
from sequencer import metrics
from sequencer.pipeline import Pipeline

LOOK_S = 1.0  # wall time between two looks; at 5,000 orders a second some 4 MB
HOLD = "storage"

log = structlog.get_logger("storage")


def free_bytes(directory: Path) -> int:
    """Room that a process without privileges has."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class StorageWatch:
    """Holds the pipeline while the disk has less than `reserve_bytes`, and lets it go by itself."""

    def __init__(self, pipeline: Pipeline, free: Callable[[], int], reserve_bytes: int) -> None:
        self._pipeline = pipeline
        self._free = free
        self._reserve_bytes = reserve_bytes
        self._low = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Compare once and act on a change."""
        free = self._free()
        metrics.STORAGE_FREE.set(free)
        low = free < self._reserve_bytes
        if low and not self._low:
            message = "the journal's disk is nearly full; cancels are still taken"
            self._pipeline.hold_except(HOLD, Reject(code=RejectCode.STORAGE_LOW, message=message))
            log.error("STORAGE LOW: orders are refused", free_bytes=free, reserve_bytes=self._reserve_bytes)
        elif self._low and not low:
            self._pipeline.release(HOLD)
            log.warning("storage is sufficient again", free_bytes=free)
        self._low = low
