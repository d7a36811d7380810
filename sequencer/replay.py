"""Journal -> engine state: the same records always give the same state, so a restart is a replay."""

from collections.abc import Callable, Sequence

import msgspec

from sequencer.engine.apply import apply
from sequencer.engine.commands import AnyCommand
from sequencer.engine.events import Event
from sequencer.engine.state import EngineState
from sequencer.journal import Head, Journal, Record, decode_command


class Applied(msgspec.Struct, frozen=True):
    """One command that is durable and in force, with everything that it did."""

    sequence: int
    stamp_ms: int
    command: AnyCommand
    events: Sequence[Event]
    hash: bytes  # head of the hash chain with this record


Subscriber = Callable[[Applied], None]


def replay(
    journal: Journal,
    state: EngineState,
    subscribers: Sequence[Subscriber] = (),
    *,
    after: int = 0,
    until: int | None = None,
) -> Head:
    """Apply the records after sequence `after`, up to and including `until`, to `state`.

    Returns the last record's position. Raises JournalRefused for a broken chain or an unknown command.
    """
    head = Head(after, 0, b"")
    for record in journal.read(after + 1):
        if until is not None and record.sequence > until:
            break
        apply_record(record, state, subscribers)
        head = Head(record.sequence, record.stamp_ms, record.hash)
    return head


def apply_record(record: Record, state: EngineState, subscribers: Sequence[Subscriber]) -> None:
    """Apply one record of the journal. Raises JournalRefused for an unknown command."""
    command = decode_command(record.payload, record.sequence)
    events = apply(state, command, record.sequence, record.stamp_ms)
    applied = Applied(record.sequence, record.stamp_ms, command, events, record.hash)
    for subscriber in subscribers:
        subscriber(applied)
