"""Journal -> engine state: the same records always give the same state, so a restart is a replay.

A reversal goes back to an earlier state. A replay knows from the journal's index that it comes, and keeps that state when it
passes it; who applies records as they come asks for it (`StateAt`), and gets it by a replay of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from sequencer.engine.apply import apply
from sequencer.engine.commands import AnyCommand, Command, Reverse
from sequencer.engine.events import Event
from sequencer.engine.snapshot import restore, snapshot
from sequencer.engine.state import EngineState
from sequencer.journal import Head, Journal, Record, decode_command

Kind = TypeVar("Kind", bound=Command)

StateAt = Callable[[int], EngineState]  # a new state, right after a record


class Applied(msgspec.Struct, frozen=True, gc=False):
    """One command that is durable and in force, with everything that it did."""

    sequence: int
    stamp_ms: int
    command: AnyCommand
    events: Sequence[Event]
    hash: bytes  # head of the hash chain with this record


Subscriber = Callable[[Applied], None]


class Reversal(msgspec.Struct, frozen=True):
    """A reversal in the journal: what records `after` + 1 to `sequence` - 1 did is void."""

    after: int
    sequence: int

    def voids(self, record: int) -> bool:
        """Whether what this record did is void."""
        return self.after < record < self.sequence


def replay(
    journal: Journal,
    state: EngineState,
    subscribers: Sequence[Subscriber] = (),
    *,
    after: int = 0,
    until: int | None = None,
    state_at: StateAt | None = None,
) -> Head:
    """Apply the records after sequence `after`, up to and including `until`, to `state`.

    `state_at` gives states from before the replay's beginning; by default it replays the journal from nothing.
    Returns the last record's position. Raises JournalRefused for a broken chain or an unknown command.
    """
    last: Record | None = None
    kept = KeptStates(reversals(journal, after, until), state_at or (lambda at: make_state(journal, at)))
    kept.pass_by(after, state)
    for record in journal.read(after + 1):
        if until is not None and record.sequence > until:
            break
        apply_record(record, state, subscribers, kept)
        kept.pass_by(record.sequence, state)
        last = record
    return Head(after, 0, b"") if last is None else Head(last.sequence, last.stamp_ms, last.hash)


def reversals(journal: Journal, after: int = 0, until: int | None = None) -> list[Reversal]:
    """The reversals among these records, in order."""
    found = []
    for sequence, command in commands_of(journal, Reverse, after, until):
        found.append(Reversal(command.after, sequence))
    return found


def commands_of(
    journal: Journal, kind: type[Kind], after: int = 0, until: int | None = None
) -> Iterator[tuple[int, Kind]]:
    """The commands of one kind with their sequences. The database finds them, so that nothing else is read."""
    for record in journal.beginning_with(f'{{"kind":"{kind.__name__}"'.encode(), after):
        if until is not None and record.sequence > until:
            break
        command = decode_command(record.payload, record.sequence)
        if isinstance(command, kind):
            yield record.sequence, command


def make_state(journal: Journal, sequence: int) -> EngineState:
    """The state right after a record, from nothing."""
    state = EngineState()
    replay(journal, state, until=sequence)
    return state


def apply_record(
    record: Record, state: EngineState, subscribers: Sequence[Subscriber], state_at: StateAt
) -> Applied:
    """Apply one record of the journal. Raises JournalRefused for an unknown command."""
    command = decode_command(record.payload, record.sequence)
    past = state_at(command.after) if isinstance(command, Reverse) else None
    events = apply(state, command, record.sequence, record.stamp_ms, past)
    applied = Applied(record.sequence, record.stamp_ms, command, events, record.hash)
    for subscriber in subscribers:
        subscriber(applied)
    return applied


class KeptStates:
    """The states that the reversals ahead go back to, each kept from when it passes until the last of them has used it."""

    def __init__(self, ahead: Sequence[Reversal], otherwise: StateAt) -> None:
        self._wanted = Counter(reversal.after for reversal in ahead)
        self._kept: dict[int, bytes] = {}
        self._otherwise = otherwise

    def pass_by(self, sequence: int, state: EngineState) -> None:
        """The replay is right after this record."""
        if sequence in self._wanted:
            self._kept[sequence] = snapshot(state)

    def __call__(self, sequence: int) -> EngineState:
        data = self._kept.get(sequence)
        if data is None:
            return self._otherwise(sequence)
        self._wanted[sequence] -= 1
        if not self._wanted[sequence]:
            del self._kept[sequence], self._wanted[sequence]
        return restore(data)
