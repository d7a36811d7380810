"""By which rules reports are collected while a change of the governor's is under way: those that the chain has confirmed, and
those of batches that still wait for it. A report has to satisfy all of them, so that a round made of it can be posted whether
the change stands or is reversed."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from sequencer.engine.commands import BatchConfirmed, Genesis
from sequencer.engine.events import (
    BatchSealed,
    CommandRejected,
    ForeignBatchApplied,
    KeepersChanged,
    MarketListed,
    Reversed,
)
from sequencer.replay import Applied

# Of many events, the few that matter here.
HEARD = frozenset({BatchSealed, MarketListed, KeepersChanged, ForeignBatchApplied, Reversed})


class Constitution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the oracle's contract judges reports by."""

    markets: int
    oracle_keepers: tuple[bytes, ...]
    funding_keepers: tuple[bytes, ...]
    oracle_quorum: int
    funding_quorum: int


class ConstitutionsMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For a snapshot."""

    confirmed: Constitution
    waiting: tuple[tuple[int, Constitution], ...]
    last_sealed: int


class Constitutions:
    """Follows the journal."""

    def __init__(self, genesis: Genesis) -> None:
        self._confirmed = _of(genesis)
        self._waiting: list[tuple[int, Constitution]] = []  # by the batch that makes it so
        self._last_sealed = 0

    @property
    def markets(self) -> int:
        """How many markets a report may have."""
        return min(one.markets for one in self._all())

    @property
    def oracle_quorum(self) -> int:
        """How many reports make a round."""
        return max(one.oracle_quorum for one in self._all())

    @property
    def funding_quorum(self) -> int:
        """How many reports make a funding hour."""
        return max(one.funding_quorum for one in self._all())

    @property
    def oracle_keepers(self) -> frozenset[bytes]:
        """Whose price reports count."""
        return frozenset.intersection(*(frozenset(one.oracle_keepers) for one in self._all()))

    @property
    def funding_keepers(self) -> frozenset[bytes]:
        """Whose funding reports count."""
        return frozenset.intersection(*(frozenset(one.funding_keepers) for one in self._all()))

    def observe(self, applied: Applied) -> None:
        """Learn of a command and of what it did."""
        command = applied.command
        if isinstance(command, BatchConfirmed) and not any(
            isinstance(event, CommandRejected) for event in applied.events
        ):
            self._confirm(command.batch_id)
        for event in applied.events:
            if type(event) not in HEARD:
                continue
            if isinstance(event, BatchSealed):
                self._last_sealed = event.batch.batch_id
            elif isinstance(event, MarketListed):
                self._change(replace(self._newest, markets=self._newest.markets + 1))
            elif isinstance(event, KeepersChanged):
                self._change(_of(event, self._newest.markets))
            elif isinstance(event, ForeignBatchApplied):
                self._last_sealed = event.batch_id
                self._confirm(event.batch_id)
            elif isinstance(event, Reversed):
                self._confirm(event.batch_id)
                self._waiting, self._last_sealed = [], event.batch_id

    def memory(self) -> ConstitutionsMemory:
        """For a snapshot: what `observe` has learned."""
        return ConstitutionsMemory(self._confirmed, tuple(self._waiting), self._last_sealed)

    def recall(self, memory: ConstitutionsMemory | None, genesis: Genesis) -> None:
        """Go on from a snapshot; one of an older version only knows what was in force, as `genesis`."""
        if memory is None:
            self._confirmed, self._waiting = _of(genesis), []
        else:
            self._confirmed, self._waiting = memory.confirmed, list(memory.waiting)
            self._last_sealed = memory.last_sealed

    @property
    def _newest(self) -> Constitution:
        return self._waiting[-1][1] if self._waiting else self._confirmed

    def _all(self) -> Iterable[Constitution]:
        return [self._confirmed, *(one for _, one in self._waiting)]

    def _change(self, to: Constitution) -> None:
        self._waiting.append((self._last_sealed + 1, to))

    def _confirm(self, batch_id: int) -> None:
        while self._waiting and self._waiting[0][0] <= batch_id:
            _, self._confirmed = self._waiting.pop(0)


def _of(told: Genesis | KeepersChanged, markets: int = 0) -> Constitution:
    return Constitution(
        len(told.markets) if isinstance(told, Genesis) else markets,
        told.oracle_keepers,
        told.funding_keepers,
        told.oracle_quorum,
        told.funding_quorum,
    )
