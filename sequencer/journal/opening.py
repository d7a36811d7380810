"""Which journal a location means: a path is SQLite's, an address PostgreSQL's."""

from pathlib import Path

from sequencer.journal.records import Journal, JournalRefused
from sequencer.journal.sqlite import SqliteJournal

SCHEMES = ("postgresql://", "postgres://")


def open_journal(location: Path | str, *, read_only: bool = False) -> Journal:
    """Open, or create unless `read_only`. Raises JournalRefused."""
    if not str(location).startswith(SCHEMES):
        return SqliteJournal(Path(location), read_only=read_only)
    try:
        from sequencer.journal.postgres import PostgresJournal
    except ImportError:
        raise JournalRefused(
            "journal: PostgreSQL needs the package psycopg: install evermark with its extra `postgres`"
        ) from None
    return PostgresJournal(str(location), read_only=read_only)
