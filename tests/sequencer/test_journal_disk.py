"""The SQLite journal on a disk that crashes, loses power, fails and rots: at every write and sync that SQLite makes,
none left to luck."""

import random
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from fast_directory import fast_directory
from recording_disk import (
    FULL,
    IO_ERROR_SYNC,
    IO_ERROR_WRITE,
    Operation,
    RecordingDisk,
    killed,
    powerless,
    recording_disk,
)
from structlog.testing import capture_logs

from sequencer.journal import Appended, JournalRefused, SqliteJournal
from sequencer.journal.wal import inspect_wal

GROUP = 7  # records of one append; a journal must never hold a part of a group


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """The crashes here are computed, not suffered: memory will do."""
    with fast_directory() as directory:
        yield directory


def live(path: Path, disk: RecordingDisk, groups: int, payload_bytes: int) -> None:
    """One owner's life: appends, each noted when it was acknowledged, and a graceful end."""
    journal = SqliteJournal(path)
    try:
        epoch = journal.take_epoch()
        for _ in range(groups):
            first = journal.head().sequence + 1
            entries = [(at, bytes([at % 256]) * payload_bytes) for at in range(first, first + GROUP)]
            assert isinstance(journal.append(entries, first, epoch), Appended)
            disk.mark(first + GROUP - 1)
    finally:
        journal.close()


@pytest.fixture
def life(memory_path: Path) -> Sequence[Operation]:
    """What SQLite did to its files in two lives of a journal, with marks where appends were acknowledged."""
    with recording_disk() as disk:
        for _ in range(2):
            live(memory_path / "journal.db", disk, groups=6, payload_bytes=700)
    return disk.operations


def opened(directory: Path, files: dict[str, bytes]) -> int:
    """Open the journal that a crash left; its head, after everything was read and checked."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    journal = SqliteJournal(directory / "journal.db")
    try:
        sequences = [record.sequence for record in journal.read()]
        assert sequences == list(range(1, len(sequences) + 1))
        assert journal.head().sequence == len(sequences)
        return len(sequences)
    finally:
        journal.close()


def acknowledged(operations: Sequence[Operation]) -> int:
    return max((operation.offset for operation in operations if operation.kind == "mark"), default=0)


@pytest.mark.safety("G02", "sequencer")
def test_kill_after_every_write_and_sync(life: Sequence[Operation], memory_path: Path) -> None:
    """Whatever SQLite did last: the journal opens, holds what was acknowledged, and groups are whole."""
    for at in range(len(life) + 1):
        head = opened(memory_path / f"killed-{at}", killed(life[:at]))
        assert acknowledged(life[:at]) <= head <= acknowledged(life[:at]) + GROUP
        assert head % GROUP == 0


@pytest.mark.safety("G03", "sequencer")
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_power_cut_after_every_write_and_sync(
    life: Sequence[Operation], memory_path: Path, kept: float
) -> None:
    """The same when the disk forgets what was not synced, all of it or any sectors."""
    chance = random.Random(7)
    for at in range(len(life) + 1):
        head = opened(memory_path / f"dark-{at}", powerless(life[:at], chance, kept))
        assert acknowledged(life[:at]) <= head <= acknowledged(life[:at]) + GROUP
        assert head % GROUP == 0


@pytest.mark.safety("G06", "sequencer")
@pytest.mark.parametrize("error", [FULL, IO_ERROR_WRITE, IO_ERROR_SYNC])
def test_failure_of_every_write_and_sync_ends_the_owner(memory_path: Path, error: int) -> None:
    """ENOSPC and EIO at any operation: the owner ends with one line, and what it acknowledged is there."""
    for fail_at in count(1):
        path = memory_path / str(fail_at) / "journal.db"
        with recording_disk() as disk:
            disk.fail_at, disk.error = fail_at, error
            try:
                live(path, disk, groups=3, payload_bytes=700)
            except JournalRefused as refusal:
                told = str(refusal)
            else:
                told = ""
        if disk.count < fail_at:
            break
        assert "\n" not in told
        assert not told or str(path) in told
        journal = SqliteJournal(path)
        assert journal.head().sequence >= acknowledged(disk.operations)
        assert sum(1 for _ in journal.read()) == journal.head().sequence
        journal.close()
    assert fail_at > 20


def left_behind(path: Path, groups: int = 12) -> None:
    """A journal whose owner was killed: its log was not written back."""
    with recording_disk() as disk:
        journal = SqliteJournal(path)
        epoch = journal.take_epoch()
        for first in range(1, groups * GROUP, GROUP):
            journal.append(
                [(at, at.to_bytes(100, "big")) for at in range(first, first + GROUP)], first, epoch
            )
        operations = list(disk.operations)
        journal.close()
    for name, content in killed(operations).items():
        (path.parent / name).write_bytes(content)


@pytest.mark.safety("G04", "sequencer")
def test_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    """A commit that was being written goes, and one line says how many bytes it had."""
    path = tmp_path / "journal.db"
    left_behind(path)
    log = path.with_name("journal.db-wal")
    whole = inspect_wal(path)
    assert whole.torn_bytes == 0
    log.write_bytes(log.read_bytes()[:-100])
    assert inspect_wal(path).torn_bytes > 0
    with capture_logs() as logs:
        journal = SqliteJournal(path)
    assert [line["head"] for line in logs if line["event"].startswith("torn tail cut")] == [11 * GROUP]
    assert sum(1 for _ in journal.read()) == 11 * GROUP
    journal.close()
    with capture_logs() as logs:
        SqliteJournal(path).close()
    assert logs == []


@pytest.mark.safety("G05", "sequencer")
def test_every_flipped_bit_in_the_log_is_found(tmp_path: Path) -> None:
    """SQLite would end its log at a bad frame and forget the commits behind it; the journal refuses to. Only the
    last commit looks the same damaged as torn, and what witnesses it are the history, the snapshots and the chain."""
    path = tmp_path / "journal.db"
    left_behind(path)
    assert_found_or_harmless(path, path.with_name("journal.db-wal"), least=11 * GROUP)


@pytest.mark.safety("G05", "sequencer")
def test_every_flipped_bit_in_the_database_is_found(tmp_path: Path) -> None:
    """Records, pages between them, the header: a start reads everything as it was, or refuses."""
    path = tmp_path / "journal.db"
    left_behind(path, groups=150)
    SqliteJournal(path).close()
    assert_found_or_harmless(path, path, least=150 * GROUP)


def assert_found_or_harmless(path: Path, file: Path, least: int) -> None:
    files = {one: one.read_bytes() for one in path.parent.iterdir()}
    chance, refused = random.Random(5), 0
    for _ in range(250):
        for one in path.parent.iterdir():
            one.unlink()
        for one, content in files.items():
            one.write_bytes(content)
        raw = bytearray(files[file])
        at = chance.randrange(len(raw))
        raw[at] ^= 1 << chance.randrange(8)
        file.write_bytes(raw)
        try:
            journal = SqliteJournal(path)
            try:
                assert sum(1 for _ in journal.read()) >= least, f"byte {at}"
            finally:
                journal.close()
        except JournalRefused:
            refused += 1
    assert refused > 100
