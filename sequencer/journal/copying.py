"""Copies of a journal, record by record and checked against the chain: what backup, restore and a stranger's audit
have in common."""

from collections.abc import Callable, Iterable

from sequencer.journal.records import Appended, Head, Journal, JournalRefused, Record

GROUP = 2_000  # records of one commit

Progress = Callable[[int, int], None]  # records done, records in all


def no_progress(done: int, total: int) -> None:
    """For whoever does not look."""


def copy_journal(source: Journal, target: Journal, progress: Progress = no_progress) -> Head:
    """Bring `target`, which is empty or holds a beginning of `source`, up to the head of `source`.

    Raises JournalRefused when `target` holds anything else, or `source` is damaged.
    """
    total = source.head().sequence
    check_beginning(target, source.record, total)
    start = target.head().sequence
    return append_records(target, source.read(start + 1), total, progress)


def check_beginning(target: Journal, record: Callable[[int], Record], total: int) -> None:
    """Raises JournalRefused unless `target` is a beginning of the journal that `record` reads."""
    head = target.head()
    if head.sequence > total:
        raise JournalRefused(
            f"journal: {target.name} has {head.sequence} records, more than the {total} of the source"
        )
    if head.sequence and record(head.sequence).hash != head.hash:
        raise JournalRefused(f"journal: {target.name} holds another journal; copy to an empty place")


def append_records(
    target: Journal, records: Iterable[Record], total: int, progress: Progress = no_progress
) -> Head:
    """Append `records`, which have to follow on the head of `target` and carry the hashes that result."""
    epoch, group = target.take_epoch(), list[Record]()
    for record in records:
        group.append(record)
        if len(group) == GROUP:
            _append(target, group, epoch)
            progress(record.sequence, total)
            group = []
    if group:
        _append(target, group, epoch)
    progress(target.head().sequence, total)
    return target.head()


def _append(target: Journal, group: list[Record], epoch: int) -> None:
    entries = [(record.stamp_ms, record.payload) for record in group]
    outcome = target.append(entries, group[0].sequence, epoch)
    if not isinstance(outcome, Appended):
        raise JournalRefused(f"journal: {target.name} does not take record {group[0].sequence}: {outcome}")
    if outcome.hashes != tuple(record.hash for record in group):
        raise JournalRefused(
            f"journal: the records from {group[0].sequence} on do not have the hashes that they came with"
        )
