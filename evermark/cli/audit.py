"""Journal against chain: the verification as plain values, and what a journal contains, counted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from evermark.cli import output
from evermark.cli.chain import quiet_retries
from evermark.cli.errors import CliError

Progress = Callable[[str, int, int], None]  # what is being done, done, in all


class Tally(msgspec.Struct):
    """What a journal contains, counted."""

    fills_matched: int = 0
    batches: int = 0
    funding_hours: int = 0
    liquidations: int = 0
    withdrawals: int = 0
    confirmed_batch: int = 0  # newest batch that the journal knows to be on the chain


def describe_disagreement(report: dict[str, Any]) -> str:
    """The first thing that a verification found wrong, and how many more there are."""
    if report["problem"]:
        return f"verify: {report['problem']}"
    broken = [f"invariant {name!r} is broken" for name, holds in report["invariants"].items() if not holds]
    broken += [
        f"{difference['where']}: journal {difference['expected']}, chain {difference['found']}"
        for difference in report["differences"]
    ]
    more = len(broken) - 1
    return f"verify: {broken[0] if broken else 'failed'}" + (f" (and {more} more)" if more > 0 else "")


async def verify_run(
    journal: Path | str,
    manifest: Path,
    rpc_url: str,
    *,
    from_block: int | None = None,
    until_record: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a journal with the chain; the report as plain values."""
    from evermark.chain import ManifestRefused, load_manifest
    from sequencer.verify import silent, verify

    try:
        report = await verify(
            journal,
            load_manifest(manifest),
            rpc_url,
            from_block=from_block,
            until_record=until_record,
            checkpoints=checkpoints,
            progress=progress or silent,
        )
    except ManifestRefused as error:
        raise CliError(str(error)) from None
    return dict(msgspec.to_builtins(report))


def download(journal_url: str, cache: Path, progress: Progress) -> tuple[Path, int]:
    """The published journal as a local one, and its last record; what an earlier download holds is not fetched again.

    Raises CliError for a publication that is damaged, or another one than the cache began with.
    """
    from sequencer.journal import JournalRefused, open_journal
    from sequencer.journal.copying import append_records
    from sequencer.publication import PagesAway, UrlPages, read_index, read_published

    path = cache / "journal.db"
    try:
        quiet_retries()
        source, journal = UrlPages(journal_url, output.say), open_journal(path)
        try:
            index, head = read_index(source), journal.head()
            if head.sequence and "0x" + journal.record(1).hash.hex() != index.genesis_hash:
                raise CliError(f"--cache: {cache} holds another journal than {journal_url}")
            records = read_published(source, head)
            head = append_records(journal, records, index.records, partial(progress, "downloading"))
            if head.sequence == index.records and "0x" + head.hash.hex() != index.head_hash:
                raise CliError(f"--cache: {cache} holds another journal than {journal_url}")
        finally:
            journal.close()
    except JournalRefused as error:
        silent = isinstance(error, PagesAway)
        hint = "; start the exchange, or name another publication with --journal-url" if silent else ""
        raise CliError(f"{error}{hint}") from None
    return path, head.sequence


def tally(journal_path: Path) -> Tally:
    """Replay a journal and count what its commands did."""
    from sequencer.engine.events import (
        BatchSealed,
        FundingApplied,
        Liquidated,
        Reversed,
        Trade,
        WithdrawalClaimed,
    )
    from sequencer.engine.state import EngineState
    from sequencer.journal import SqliteJournal
    from sequencer.replay import Applied, replay

    counts, hours, state = Tally(), set[int](), EngineState()
    reversals: list[Reversed] = []

    def observe(applied: Applied) -> None:
        for event in applied.events:
            counts.fills_matched += isinstance(event, Trade)
            if isinstance(event, Reversed):
                counts.fills_matched -= event.trades_voided(reversals[-1] if reversals else None)
                reversals.append(event)
            counts.batches += isinstance(event, BatchSealed)
            counts.liquidations += isinstance(event, Liquidated)
            counts.withdrawals += isinstance(event, WithdrawalClaimed)
            if isinstance(event, FundingApplied):
                hours.add(event.hour)

    journal = SqliteJournal(journal_path, read_only=True)
    try:
        replay(journal, state, [observe])
    finally:
        journal.close()
    counts.funding_hours, counts.confirmed_batch = len(hours), state.confirmed_batch
    return counts


async def check_restored(journal: Path, manifest: Path, rpc_url: str) -> None:
    """A journal and a chain of different moments or exchanges are refused, naming what does not match."""
    report = await verify_run(journal, manifest, rpc_url)
    if not report["ok"]:
        raise CliError(f"--state: {describe_disagreement(report)}")
    confirmed, settled = tally(journal).confirmed_batch, report["batches_settled"]
    if confirmed > settled:
        raise CliError(f"--state: the journal has batch {confirmed} confirmed, the chain ends with {settled}")
