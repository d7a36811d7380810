"""What a crash left in SQLite's write-ahead log, found out before SQLite opens it.

SQLite ends its log silently at the first frame whose checksum is wrong. That is right for the last commit, which
a crash may have torn, and wrong for an earlier one: commits behind it were acknowledged. So the log is read here
first (sqlite.org/fileformat2.html, section 4): a torn tail is reported, anything else refused.
"""

import struct
from pathlib import Path

import msgspec

from sequencer.journal.records import JournalRefused

HEADER, FRAME_HEADER = 32, 24
MAGICS = {0x377F0682: "<", 0x377F0683: ">"}  # the byte order of the checksums' words


class WalTail(msgspec.Struct, frozen=True):
    """The log of the last owner: bytes of whole commits, and bytes behind them that were never acknowledged."""

    committed_bytes: int
    torn_bytes: int


def inspect_wal(path: Path) -> WalTail:
    """Read the log beside the database `path`. Raises JournalRefused when acknowledged commits are damaged."""
    log = path.with_name(path.name + "-wal")
    raw = log.read_bytes() if log.exists() else b""
    if len(raw) < HEADER + FRAME_HEADER or not any(raw[:HEADER]):
        return WalTail(0, len(raw))
    magic, _, page_bytes = struct.unpack_from(">III", raw)
    order = MAGICS.get(magic, "")
    if not order or _checksum(raw[:24], order) != struct.unpack_from(">II", raw, 24):
        raise JournalRefused(_damaged(log, 0))
    frame_bytes = FRAME_HEADER + page_bytes
    count = (len(raw) - HEADER) // frame_bytes
    whole, committed = _valid_frames(raw, order, frame_bytes, count)
    live = _live_frames(raw, frame_bytes, count)
    # One commit behind the first bad frame may be the one that was being written; two cannot.
    if sum(commits for at, commits in live if at >= whole) > 1:
        raise JournalRefused(_damaged(log, HEADER + whole * frame_bytes))
    last_live = live[-1][0] + 1 if live else 0
    torn = max(0, last_live - committed) * frame_bytes
    if last_live == count:  # a frame that was cut short
        torn += (len(raw) - HEADER) % frame_bytes
    return WalTail(HEADER + committed * frame_bytes, torn)


def _valid_frames(raw: bytes, order: str, frame_bytes: int, count: int) -> tuple[int, int]:
    """(frames whose checksums follow on each other, frames up to the last commit among them)."""
    sums, committed = _checksum(raw[:24], order), 0
    for at in range(count):
        start = HEADER + at * frame_bytes
        if raw[start + 8 : start + 16] != raw[16:24]:
            return at, committed
        sums = _checksum(raw[start : start + 8], order, sums)
        sums = _checksum(raw[start + FRAME_HEADER : start + frame_bytes], order, sums)
        if sums != struct.unpack_from(">II", raw, start + 16):
            return at, committed
        if struct.unpack_from(">I", raw, start + 4)[0]:
            committed = at + 1
    return count, committed


def _live_frames(raw: bytes, frame_bytes: int, count: int) -> list[tuple[int, bool]]:
    """(number, ends a commit) of each frame that carries this log's salt; others are of an earlier log."""
    starts = ((at, HEADER + at * frame_bytes) for at in range(count))
    return [
        (at, any(raw[start + 4 : start + 8]))
        for at, start in starts
        if raw[start + 8 : start + 16] == raw[16:24]
    ]


def _checksum(data: bytes, order: str, sums: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for at in range(0, len(words), 2):
        first = (first + words[at] + second) & 0xFFFFFFFF
        second = (second + words[at + 1] + first) & 0xFFFFFFFF
    return first, second


def _damaged(log: Path, at: int) -> str:
    return (
        f"journal: {log} is damaged at byte {at}, in front of commits that were acknowledged: "
        f"restore the journal from a backup or a replica"
    )
