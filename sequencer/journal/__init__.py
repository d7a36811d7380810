"""The journal: append-only, hash-chained, durable before any answer. `Journal` is the seam: SQLite embedded,
PostgreSQL replicated.
"""

from sequencer.journal.codec import decode_command, encode_command
from sequencer.journal.opening import open_journal
from sequencer.journal.records import (
    GENESIS_HASH,
    Appended,
    Fenced,
    Head,
    Journal,
    JournalRefused,
    Record,
    Unknown,
    chain_hash,
)
from sequencer.journal.sqlite import SqliteJournal
from sequencer.journal.writer import JournalWriter

__all__ = [
    "GENESIS_HASH",
    "Appended",
    "Fenced",
    "Head",
    "Journal",
    "JournalRefused",
    "JournalWriter",
    "Record",
    "SqliteJournal",
    "Unknown",
    "chain_hash",
    "decode_command",
    "encode_command",
    "open_journal",
]
