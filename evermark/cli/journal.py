"""`evermark journal`: backup, restore and check of a sequencer's journal, and its publication as files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from evermark.cli import output
from evermark.cli.errors import CliError

app = typer.Typer(no_args_is_help=True, help="Back up, restore, check and publish a journal.")


Place = Annotated[str, typer.Option("--journal", help="journal.db, or postgresql://...")]


@app.command()
def backup(
    journal: Place, to: Annotated[Path, typer.Option(help="File to make, or an earlier backup.")]
) -> None:
    """Copy a journal into a file, beside a running sequencer; an earlier backup is continued."""
    output.print_fields(_copied(journal, str(to)))


@app.command()
def restore(
    backup_file: Annotated[Path, typer.Option("--from", help="What `backup` made.")],
    to: Annotated[str, typer.Option(help="journal.db of an empty directory, or an empty postgresql://...")],
) -> None:
    """Make a journal from a backup, and replay it to check that it is whole."""
    with _open(to, read_only=False) as target:
        if target.head().sequence:
            raise CliError(
                f"--to: {to} holds a journal of {target.head().sequence} records; restore to an empty place"
            )
    facts = _copied(str(backup_file), to)
    output.print_fields(facts | _replayed(to, None))


@app.command()
def verify(
    journal: Place,
    snapshots: Annotated[Path | None, typer.Option(help="Snapshots to compare with the replay.")] = None,
) -> None:
    """Check the hash chain, replay from nothing, and tell the state hash; snapshots have to agree with it."""
    output.print_fields(_replayed(journal, snapshots))


@app.command()
def snapshot(
    journal: Place, to: Annotated[Path, typer.Option(help="The sequencer's directory of snapshots.")]
) -> None:
    """Replay with this version of the code and leave a snapshot: before an upgrade, so that its start is quick."""
    from sequencer.followers import snapshot_of
    from sequencer.snapshots import SnapshotFiles

    with output.progress() as progress, _open(journal) as opened:
        total = opened.head().sequence

        def observe(applied: Any) -> None:
            if applied.sequence % 1_000 == 0:
                progress("replaying", applied.sequence, total)

        taken = snapshot_of(opened, observe)
    path = SnapshotFiles(to).write(taken)
    output.print_fields({"snapshot": str(path), "state_hash": "0x" + taken.state_hash.hex()})


@app.command()
def publish(
    journal: Place, to: Annotated[Path, typer.Option(help="Directory for a web server to serve.")]
) -> None:
    """Write the settled journal as files, as the sequencer serves it at /v1/journal; whole pages only once."""
    from sequencer.engine.state import EngineState
    from sequencer.publication import Publication, write_files
    from sequencer.replay import replay
    from sequencer.settlement.backlog import Backlog

    with output.progress() as progress, _open(journal) as opened:
        backlog, total = Backlog(opened.record), opened.head().sequence

        def observe(applied: Any) -> None:
            backlog.observe(applied)
            if applied.sequence % 1_000 == 0:
                progress("replaying", applied.sequence, total)

        replay(opened, EngineState(), [observe])
        index = write_files(Publication(opened, lambda: backlog.settled_sequence), to)
    output.print_fields({"records": str(index.records), "head_hash": index.head_hash, "directory": str(to)})


@app.command()
def may_promote(
    node: Annotated[str, typer.Option(help="Connection string of the node that is to become the primary.")],
    other: Annotated[list[str], typer.Option(help="That of another node; once for each of them.")],
    wait: Annotated[float, typer.Option(help="Seconds that the others have to follow the node.")] = 30,
) -> None:
    """Whether a standby of PostgreSQL may be promoted without losing anything; for Patroni's `pre_promote`."""
    from sequencer.journal.promotion import PromotionRefused, check_promotion

    try:
        check_promotion(node, other, wait)
    except PromotionRefused as refused:
        raise CliError(str(refused)) from None
    output.print_fields({"promotion": "a majority follows, and has no more than this node"})


def _copied(source: str, target: str) -> dict[str, str]:
    from sequencer.journal.copying import copy_journal

    began = time.monotonic()
    with output.progress() as progress, _open(source) as have, _open(target, read_only=False) as made:
        before = made.head().sequence
        head = copy_journal(have, made, partial(progress, "copying"))
    return {
        "records": str(head.sequence),
        "copied": str(head.sequence - before),
        "head_hash": "0x" + head.hash.hex(),
        "copy_seconds": f"{time.monotonic() - began:.2f}",
    }


def _replayed(journal: str, snapshots: Path | None) -> dict[str, str]:
    from sequencer.engine.snapshot import state_hash
    from sequencer.engine.state import EngineState
    from sequencer.replay import replay
    from sequencer.snapshots import SnapshotFiles, SnapshotUnusable

    began, state, kept = time.monotonic(), EngineState(), {}
    files = SnapshotFiles(snapshots) if snapshots is not None else None
    try:
        for path in files.newest_first() if files is not None else []:
            found = files.read(path) if files is not None else None
            if found is not None:
                kept[found.sequence] = found
    except SnapshotUnusable as error:
        raise CliError(f"--snapshots: {snapshots}: {error}") from None
    with output.progress() as progress, _open(journal) as opened:
        total = opened.head().sequence

        def observe(applied: Any) -> None:
            snapshot = kept.get(applied.sequence)
            if snapshot is not None and (snapshot.head_hash, snapshot.state_hash) != (
                applied.hash,
                state_hash(state),
            ):
                raise CliError(
                    f"--snapshots: the one of record {applied.sequence} is not what a replay gives"
                )
            if applied.sequence % 1_000 == 0:
                progress("replaying", applied.sequence, total)

        head = replay(opened, state, [observe])
    return {
        "records": str(head.sequence),
        "head_hash": "0x" + head.hash.hex(),
        "state_hash": "0x" + state_hash(state).hex(),
        "snapshots_compared": str(len(kept)),
        "replay_seconds": f"{time.monotonic() - began:.2f}",
    }


@contextmanager
def _open(place: str, *, read_only: bool = True) -> Iterator[Any]:
    """A journal; whatever is wrong with it is one line."""
    from sequencer.journal import JournalRefused, open_journal

    try:
        opened = open_journal(place, read_only=read_only)
        try:
            yield opened
        finally:
            opened.close()
    except JournalRefused as error:
        raise CliError(str(error)) from None
