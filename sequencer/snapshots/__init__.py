"""Snapshots of the engine beside the journal, so that a start replays only what came after one. The journal
alone decides: a snapshot that is damaged, foreign, or of another version of the engine is passed over."""

from sequencer.snapshots.files import (
    Snapshot,
    SnapshotFiles,
    SnapshotUnusable,
    code_digest,
    make_snapshot,
)
from sequencer.snapshots.recovery import Recovered, recover
from sequencer.snapshots.taking import Snapshotter

__all__ = [
    "Recovered",
    "Snapshot",
    "SnapshotFiles",
    "SnapshotUnusable",
    "Snapshotter",
    "code_digest",
    "make_snapshot",
    "recover",
]
