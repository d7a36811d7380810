"""Backup, restore and publication of a journal: whole, checked, continued where they were, refused when foreign."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from sequencer_world import World
from small_core import SmallCore
from typer.testing import CliRunner

from evermark.cli import audit
from evermark.cli.errors import CliError
from evermark.cli.journal import app
from sequencer.engine.snapshot import state_hash
from sequencer.journal import SqliteJournal
from sequencer.publication import Publication, page_path, write_files


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A stopped exchange's directory, and its state hash."""
    directory = tmp_path_factory.mktemp("copies") / "exchange"

    async def run() -> str:
        async with SmallCore(directory, World(), snapshot_every=100) as small:
            await small.fund()
            await small.trade(180)
            return state_hash(small.core.state).hex()

    return directory, asyncio.run(run())


def called(*arguments: object) -> dict[str, str]:
    """Run `evermark journal ...`; its fields. Raises what the command raises."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return dict(line.split(None, 1) for line in done.output.splitlines() if "  " in line)


@pytest.mark.safety("G22", "ops")
def test_backup_restores_on_an_empty_machine(exchange: tuple[Path, str], tmp_path: Path) -> None:
    """The restored journal replays to the same state hash, and both copying and replaying are timed."""
    directory, expected = exchange
    backup = tmp_path / "backup.journal"
    made = called("backup", "--journal", directory / "journal.db", "--to", backup)
    assert made["copied"] == made["records"]
    restored = called("restore", "--from", backup, "--to", tmp_path / "new" / "journal.db")
    assert restored["state_hash"] == "0x" + expected
    assert restored["head_hash"] == made["head_hash"]
    assert float(restored["copy_seconds"]) >= 0
    assert float(restored["replay_seconds"]) > 0


def test_backup_is_continued_beside_a_running_exchange(tmp_path: Path) -> None:
    """A second backup into the same file copies only what is new, while the sequencer owns the journal."""

    async def run() -> None:
        async with SmallCore(tmp_path / "exchange") as small:
            await small.fund()
            place, backup = tmp_path / "exchange" / "journal.db", tmp_path / "backup.journal"
            first = called("backup", "--journal", place, "--to", backup)
            await small.trade(20)
            second = called("backup", "--journal", place, "--to", backup)
            assert int(second["copied"]) == int(second["records"]) - int(first["records"]) == 20
            assert second["head_hash"] == "0x" + small.core.journal.head().hash.hex()

    asyncio.run(run())


def test_copies_of_something_else_are_refused(exchange: tuple[Path, str], tmp_path: Path) -> None:
    """A backup of another journal is not continued, a journal not overwritten, a damaged one not copied."""
    directory, _ = exchange
    other = tmp_path / "other"

    async def run() -> None:
        async with SmallCore(other, World(start_s=1_900_000_000)) as small:
            await small.fund()

    asyncio.run(run())
    with pytest.raises(CliError, match="holds another journal; copy to an empty place"):
        called("backup", "--journal", directory / "journal.db", "--to", other / "journal.db")
    with pytest.raises(CliError, match="holds a journal of 4 records; restore to an empty place"):
        called("restore", "--from", directory / "journal.db", "--to", other / "journal.db")
    db = sqlite3.connect(other / "journal.db")
    db.execute("DROP TRIGGER record_is_final")
    db.execute("UPDATE record SET stamp_ms = stamp_ms + 1 WHERE sequence = 2")
    db.commit()
    db.close()
    with pytest.raises(CliError, match="record 2 does not match its hash"):
        called("backup", "--journal", other / "journal.db", "--to", tmp_path / "damaged.journal")


@pytest.mark.safety("G09", "sequencer")
def test_verify_compares_the_snapshots(exchange: tuple[Path, str]) -> None:
    """A replay from nothing gives the state hash that each snapshot carries."""
    directory, expected = exchange
    found = called("verify", "--journal", directory / "journal.db", "--snapshots", directory / "snapshots")
    assert found["state_hash"] == "0x" + expected
    assert found["snapshots_compared"] == "2"


def silent(what: str, done: int, total: int) -> None:
    """Nobody looks."""


def test_published_files_are_the_settled_journal(
    exchange: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages as files, continued as more is settled, downloaded and continued again: the journal up to the last
    confirmed batch, record by record, and not one record further."""
    monkeypatch.setattr("sequencer.publication.PAGE_RECORDS", 25)
    directory, _ = exchange
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    journal = SqliteJournal(directory / "journal.db", read_only=True)
    records = list(journal.read())
    for settled in (60, 110):
        write_files(Publication(journal, lambda settled=settled: settled), mirror)
        path, last = audit.download(mirror.as_uri(), cache, silent)
        copy = SqliteJournal(path, read_only=True)
        assert list(copy.read()) == records[:settled]
        assert last == settled
        copy.close()
    assert len(list((mirror / "pages").iterdir())) == 5
    told = called("publish", "--journal", directory / "journal.db", "--to", mirror)
    assert 0 < int(told["records"]) < len(records)
    journal.close()


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda line: line | {"stamp_ms": line["stamp_ms"] + 1}, "do not have the hashes"),
        (lambda line: line | {"payload": line["payload"].replace("1", "2", 1)}, "do not have the hashes"),
        (lambda line: line | {"hash": "0xzz"}, "is no hash"),
        (lambda line: line | {"sequence": "one"}, "page 0 is none"),
    ],
)
def test_changed_publication_is_refused(
    exchange: tuple[Path, str], tmp_path: Path, change: object, complaint: str
) -> None:
    """A mirror cannot change a record without being found out."""
    directory, _ = exchange
    journal = SqliteJournal(directory / "journal.db", read_only=True)
    write_files(Publication(journal, lambda: 50), tmp_path)
    journal.close()
    page = tmp_path / page_path(0)
    lines = [json.loads(line) for line in page.read_text().splitlines()]
    lines[20] = change(lines[20])  # type: ignore[operator]
    page.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CliError, match=complaint):
        audit.download(tmp_path.as_uri(), tmp_path / "cache", silent)


def test_cache_of_another_journal_is_refused(exchange: tuple[Path, str], tmp_path: Path) -> None:
    """A download is continued only from the journal that it began with; a place without one is named."""
    directory, _ = exchange
    journal = SqliteJournal(directory / "journal.db", read_only=True)
    write_files(Publication(journal, lambda: 50), tmp_path / "mirror")
    journal.close()
    cache = tmp_path / "cache"

    async def run() -> None:
        async with SmallCore(cache, World(start_s=1_900_000_000)) as small:
            await small.fund()

    asyncio.run(run())
    with pytest.raises(CliError, match=r"--cache: .* holds another journal"):
        audit.download((tmp_path / "mirror").as_uri(), cache, silent)
    with pytest.raises(CliError, match=r"index\.json does not read"):
        audit.download((tmp_path / "nowhere").as_uri(), tmp_path / "fresh", silent)
    with pytest.raises(CliError, match="is no http, https or file address"):
        audit.download("ftp://somewhere", tmp_path / "fresh", silent)
