"""Snapshot files: one state with the journal position that it belongs to, written whole or not at all.

A file is a line of text, the SHA-256 of what follows, and a MessagePack message. It appears under its name
only after it is on the disk and was read back; the newest two are kept.
"""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec

import evermark.protocol
import sequencer
from sequencer.crash_points import reached
from sequencer.engine.snapshot import SnapshotRefused, restore, snapshot
from sequencer.engine.state import EngineState
from sequencer.journal import Head

FORMAT = 1  # of the file around the engine's own snapshot
KEPT = 2  # the newest and its predecessor
MAGIC = b"evermark snapshot\n"
SUFFIX = ".snapshot"

# Whatever turns records into the state and into the memory of those who follow it. Another text of these files
# may replay to another state, so a snapshot counts only for the version that wrote it.
CODE = (
    "engine/*.py",
    "settlement/backlog.py",
    "history/candles.py",
    "followers.py",
    "market_data.py",
    "replay.py",
    "reports.py",
)


class SnapshotUnusable(ValueError):
    """Why a snapshot cannot be started from; one line."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange after record `sequence` of the journal whose first record has `genesis_hash`."""

    format: int
    code: bytes  # see `code_digest`
    genesis_hash: bytes
    sequence: int
    stamp_ms: int
    head_hash: bytes  # of record `sequence`
    state_hash: bytes
    state: bytes
    memory: bytes  # of the parts that follow the engine

    def engine_state(self) -> EngineState:
        """The state. Raises SnapshotUnusable."""
        if sha256(self.state).digest() != self.state_hash:
            raise SnapshotUnusable("its state does not have its state hash")
        try:
            state = restore(self.state)
        except SnapshotRefused as error:
            raise SnapshotUnusable(str(error)) from None
        if state.sequence != self.sequence:
            raise SnapshotUnusable(f"its state is after record {state.sequence}, not {self.sequence}")
        return state


def make_snapshot(state: EngineState, head: Head, genesis_hash: bytes, memory: bytes) -> Snapshot:
    """A snapshot of `state`, which has applied the record at `head` last."""
    data = snapshot(state)
    return Snapshot(
        format=FORMAT,
        code=code_digest(),
        genesis_hash=genesis_hash,
        sequence=head.sequence,
        stamp_ms=head.stamp_ms,
        head_hash=head.hash,
        state_hash=sha256(data).digest(),
        state=data,
        memory=memory,
    )


@cache
def code_digest() -> bytes:
    """SHA-256 of the source text that a replay runs."""
    house = Path(sequencer.__file__).parent
    language = Path(evermark.protocol.__file__).parent
    files = [file for pattern in CODE for file in sorted(house.glob(pattern))]
    digest = sha256()
    for file in [*files, *sorted(language.glob("*.py"))]:
        text = file.read_bytes()
        digest.update(f"{file.name} {len(text)}\n".encode() + text)
    return digest.digest()


class SnapshotFiles:
    """The snapshots of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def newest_first(self) -> list[Path]:
        """Files of snapshots; their names ascend with their sequence."""
        return sorted(self.directory.glob("*" + SUFFIX), reverse=True)

    @property
    def newest_sequence(self) -> int:
        """The record that the newest one was taken of, by its name; 0 without any."""
        return max((int(path.stem) for path in self.newest_first() if path.stem.isdecimal()), default=0)

    def read(self, path: Path) -> Snapshot:
        """A snapshot as it was written, by this version. Raises SnapshotUnusable."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise SnapshotUnusable(f"it does not read: {error.strerror}") from None
        start = len(MAGIC) + 32
        if not raw.startswith(MAGIC):
            raise SnapshotUnusable("it is no snapshot")
        if sha256(raw[start:]).digest() != raw[len(MAGIC) : start]:
            raise SnapshotUnusable("it is damaged: its content does not have its hash")
        try:
            found = msgspec.msgpack.decode(raw[start:], type=Snapshot)
        except msgspec.MsgspecError as error:
            raise SnapshotUnusable(f"it has another layout: {error}") from None
        if found.format != FORMAT:
            raise SnapshotUnusable(f"it has format {found.format}, this version reads {FORMAT}")
        if found.code != code_digest():
            raise SnapshotUnusable("another version of the engine wrote it")
        return found

    def write(self, taken: Snapshot, needed: int = 0) -> Path:
        """Write, read back, and only then give it its name; older ones than the last two are removed, but for the newest that
        is not after record `needed`.

        Raises OSError or SnapshotUnusable, and then nothing has changed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{taken.sequence:015}{SUFFIX}"
        draft = path.with_suffix(".draft")
        body = msgspec.msgpack.encode(taken)
        with draft.open("wb") as file:
            reached("snapshot: draft opened")
            file.write(MAGIC + sha256(body).digest() + body)
            file.flush()
            reached("snapshot: written")
            os.fsync(file.fileno())
            reached("snapshot: on the disk")
        if snapshot(self.read(draft).engine_state()) != taken.state:
            raise SnapshotUnusable("its state does not restore to itself")
        draft.replace(path)
        reached("snapshot: named")
        _sync_directory(self.directory)
        for left_over in (*self._left_over(needed), *self.directory.glob("*.draft")):
            left_over.unlink(missing_ok=True)
            reached("snapshot: older one removed")
        return path

    def _left_over(self, needed: int) -> list[Path]:
        older = self.newest_first()[KEPT:]
        base = next((path for path in self.newest_first() if int(path.stem) <= needed), None)
        return [path for path in older if path != base]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
