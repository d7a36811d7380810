"""What a journal holds and the protocol that every journal speaks.

Record k carries h_k = sha256(h_(k-1) || sequence u64 || stamp_ms u64 || payload), so the head's hash names
the whole history; h_0 is 32 zero bytes.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Protocol

import msgspec

GENESIS_HASH = bytes(32)

Entry = tuple[int, bytes]  # (stamp_ms, payload): what is appended, before it has a sequence
Row = tuple[int, int, bytes, bytes]  # sequence, stamp_ms, payload, hash: a record as databases give it

# How the payloads begin that a replay has to know of before it comes to them: journals keep an index of these.
SOUGHT = b'{"kind":"Reverse"'

_position = struct.Struct(">QQ").pack


class Record(msgspec.Struct, frozen=True):
    """One durable record. `sequence` counts from 1; `stamp_ms` is chain time and never falls."""

    sequence: int
    stamp_ms: int
    payload: bytes
    hash: bytes


class Head(msgspec.Struct, frozen=True):
    """The newest record's position; all zero before the first."""

    sequence: int
    stamp_ms: int
    hash: bytes


class Appended(msgspec.Struct, frozen=True):
    """All entries are durable, from `first_sequence` on; one chain hash each."""

    first_sequence: int
    hashes: tuple[bytes, ...]


class Fenced(msgspec.Struct, frozen=True):
    """Nothing was written: somebody else owns the journal or has moved its head. The only answer is to
    exit."""

    epoch: int
    head_sequence: int


class Unknown(msgspec.Struct, frozen=True):
    """The outcome was not learned; the head tells. Replicated journals alone answer so."""

    reason: str


class JournalRefused(RuntimeError):
    """The journal cannot be used: in use elsewhere, tampered with, of another format, or its disk failed.

    The message is one line that names the place and the fact.
    """


def chain_hash(previous: bytes, sequence: int, stamp_ms: int, payload: bytes) -> bytes:
    """h_k from h_(k-1) and the record's content."""
    return sha256(previous + _position(sequence, stamp_ms) + payload).digest()


def chained(head: Head, entries: Sequence[Entry]) -> list[Row]:
    """`entries` as rows that follow on `head`."""
    rows = []
    previous, sequence = head.hash, head.sequence
    for stamp_ms, payload in entries:
        sequence += 1
        previous = chain_hash(previous, sequence, stamp_ms, payload)
        rows.append((sequence, stamp_ms, payload, previous))
    return rows


def check_rows(rows: Iterable[Row], first: int, previous: bytes) -> Head:
    """Where the last of `rows` is, which begin with record `first` and follow on the hash `previous`.

    Raises JournalRefused at the first one that is missing or does not match; on a damaged page a column may hold anything.
    Every start runs this over the whole journal, so it calls nothing of ours.
    """
    at, stamp_ms = first - 1, 0
    for sequence, stamp_ms, payload, hash_ in rows:
        at += 1
        if sequence != at:
            raise JournalRefused(f"journal: record {at} is missing, {sequence} follows")
        try:
            expected = sha256(previous + _position(sequence, stamp_ms) + payload).digest()
        except (TypeError, struct.error):
            raise JournalRefused(
                f"journal: record {at} is damaged; restore the journal from a backup or a replica"
            ) from None
        if hash_ != expected:
            raise JournalRefused(
                f"journal: record {at} does not match its hash: it was changed or is damaged; "
                f"restore the journal from a backup or a replica"
            )
        previous = expected
    return Head(at, stamp_ms, previous)


class Journal(Protocol):
    """An append-only log with one owner at a time, told apart by its epoch."""

    name: str  # where it is, for messages; nothing secret
    location: str  # as `open_journal` takes it; there may be a password in it

    def append(
        self, entries: Sequence[Entry], expected_sequence: int, epoch: int
    ) -> Appended | Fenced | Unknown:
        """Make `entries` durable, the first one as record `expected_sequence`, all or none."""
        ...

    def read(self, from_sequence: int = 1) -> Iterator[Record]:
        """Records in order, each checked against the chain."""
        ...

    def record(self, sequence: int) -> Record:
        """One record by its sequence. Raises KeyError beyond the head."""
        ...

    def beginning_with(self, prefix: bytes, after: int = 0) -> list[Record]:
        """Records after `after` whose payload begins with `prefix`, as stored: the database looks for them, by an index where
        it is SOUGHT. Not held against the chain."""
        ...

    def check_chain(self, until: int) -> None:
        """Read and check records 1 to `until`. Raises JournalRefused at the first broken one."""
        ...

    def head(self) -> Head:
        """The newest durable record."""
        ...

    def take_epoch(self) -> int:
        """Become the owner: every earlier epoch is fenced from now on."""
        ...

    def beat(self, epoch: int) -> bool:
        """Show whoever stands by that the owner of `epoch` lives. False when somebody else owns the journal."""
        ...

    def close(self) -> None:
        """Release files and locks."""
        ...
