"""What the chain has not confirmed yet, rebuilt from the journal: sealed batches and where their reports are.

Nothing here is stored but in snapshots: a restart replays the journal, and the vault's last batch id says where
to go on.
"""

import asyncio
from collections.abc import Callable

import msgspec

from evermark.protocol.batch import FILL_CASH, Batch
from evermark.protocol.oracle import Round, SignedFundingReport, SignedPriceReport
from evermark.protocol.units import BrokenInvariant, check
from sequencer import metrics
from sequencer.engine.commands import BatchConfirmed, FundingHour, OracleRound
from sequencer.engine.events import (
    BatchSealed,
    CommandRejected,
    ForeignBatchApplied,
    FundingApplied,
    Reversed,
    RoundApplied,
)
from sequencer.journal import Record, decode_command
from sequencer.replay import Applied
from sequencer.settlement.errors import unknown_round
from sequencer.settlement.rounds import KEPT_ROUNDS, PostableRound, rounds_to_post

CALM_BATCHES = 3  # unconfirmed batches that are no reason to slow down
SPACING_S = 3  # chain seconds between rounds for each batch above that
MAX_SPACING_S = 20  # prices stay fresh for 60 s, and the engine seals by itself after 20 s


# Of many events, the few that matter here.
HEARD = frozenset((BatchSealed, RoundApplied, FundingApplied, Reversed, ForeignBatchApplied))


class SealedBatch(msgspec.Struct, frozen=True):
    """A batch ready for the chain: journal hash filled in, with the round that it pins."""

    batch: Batch
    round: Round


class BacklogMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backlog knows after one record."""

    batches: tuple[SealedBatch, ...]
    rounds: tuple[PostableRound, ...]
    hour_records: dict[int, int]
    hashes: tuple[tuple[int, bytes], tuple[int, bytes]]
    newest_round: Round | None
    fills_settled: int
    last_sealed: int
    last_confirmed: int
    sealed_at: dict[int, int]
    settled_sequence: int
    confirmed_sequence: int
    entries_settled: int
    reversals: int
    fills_voided: int
    last_reversal: Reversed | None
    reversed_sequence: int


class Backlog:
    """Sealed and unconfirmed batches, and an index from rounds and hours to the records that hold their
    reports."""

    def __init__(self, record: Callable[[int], Record]) -> None:
        """`record` reads one journal record by sequence."""
        self._record = record
        self._batches: dict[int, SealedBatch] = {}
        self._rounds: list[PostableRound] = []  # from the last confirmed batch's on, ascending
        self._hour_records: dict[int, int] = {}
        self._hashes = ((0, b""), (0, b""))  # of the last two records
        self.newest_round: Round | None = None
        self.fills_settled = 0
        self.last_sealed = 0
        self.last_confirmed = 0
        self._sealed_at: dict[int, int] = {}  # by batch: the record that sealed it
        self.settled_sequence = 0  # the record that sealed the last confirmed batch
        self.confirmed_sequence = (
            1  # the record that the last confirmed batch ends with; the genesis before the first
        )
        self.entries_settled = 0  # inbox entries that confirmed batches consumed
        self.reversals = self.fills_voided = 0
        self.last_reversal: Reversed | None = None
        self.reversed_sequence = 0  # the record of the last reversal
        self.changed = asyncio.Event()

    def observe(self, applied: Applied) -> None:
        """Subscriber of the pipeline and of replay."""
        self._hashes = (self._hashes[1], (applied.sequence, applied.hash))
        if not HEARD.isdisjoint(map(type, applied.events)):
            self._hear(applied)
        if isinstance(applied.command, BatchConfirmed) and not _refused(applied):
            self._confirm(applied.command.batch_id)

    def _hear(self, applied: Applied) -> None:
        for event in applied.events:
            if isinstance(event, BatchSealed):
                self._seal(event)
                self._sealed_at[event.batch.batch_id] = applied.sequence
            elif isinstance(event, RoundApplied):
                self.newest_round = event.round
                self._rounds.append(PostableRound(applied.sequence, event.round, event.jumps_ppm))
                del self._rounds[:-KEPT_ROUNDS]
                self.changed.set()
            elif isinstance(event, FundingApplied):
                if isinstance(applied.command, FundingHour):
                    self._hour_records[event.hour] = applied.sequence
            elif isinstance(event, Reversed):
                self._reverse(event, applied.sequence)
            elif isinstance(event, ForeignBatchApplied):
                self._batch_of_others(event, applied.sequence)

    def memory(self) -> BacklogMemory:
        """For a snapshot: everything that `observe` has learned."""
        return BacklogMemory(
            tuple(self._batches.values()),
            tuple(self._rounds),
            self._hour_records,
            self._hashes,
            self.newest_round,
            self.fills_settled,
            self.last_sealed,
            self.last_confirmed,
            self._sealed_at,
            self.settled_sequence,
            self.confirmed_sequence,
            self.entries_settled,
            self.reversals,
            self.fills_voided,
            self.last_reversal,
            self.reversed_sequence,
        )

    def recall(self, memory: BacklogMemory) -> None:
        """Go on from a snapshot."""
        self._batches = {sealed.batch.batch_id: sealed for sealed in memory.batches}
        self._rounds, self._hour_records = list(memory.rounds), dict(memory.hour_records)
        self._hashes, self.newest_round = memory.hashes, memory.newest_round
        self.fills_settled = memory.fills_settled
        self.last_sealed, self.last_confirmed = memory.last_sealed, memory.last_confirmed
        self._sealed_at, self.settled_sequence = dict(memory.sealed_at), memory.settled_sequence
        self.confirmed_sequence = memory.confirmed_sequence
        self.entries_settled = memory.entries_settled
        self.reversals, self.last_reversal = memory.reversals, memory.last_reversal
        self.fills_voided, self.reversed_sequence = memory.fills_voided, memory.reversed_sequence
        self.changed.set()

    def sealed(self, batch_id: int) -> SealedBatch | None:
        """The batch with this id, while it is sealed and not confirmed."""
        return self._batches.get(batch_id)

    @property
    def oldest_round_s(self) -> int | None:
        """Time of the round that the oldest unconfirmed batch pins, None without one."""
        oldest = self._batches.get(self.last_confirmed + 1)
        return None if oldest is None else oldest.round.timestamp

    def round_spacing_s(self) -> int:
        """How far apart rounds should be for the chain to keep up.

        Each round ends a batch, and a batch that is not settled within two minutes of its round never will
        be: when batches queue, fewer and fuller ones catch up.
        """
        waiting = self.last_sealed - self.last_confirmed - CALM_BATCHES
        return min(MAX_SPACING_S, max(0, waiting * SPACING_S))

    @property
    def base_sequence(self) -> int:
        """The record after which everything that waits for the chain was done, none of it void."""
        return max(self.confirmed_sequence, self.reversed_sequence)

    def waiting(self) -> list[SealedBatch]:
        """Every batch that is sealed and not confirmed, in order."""
        return list(self._batches.values())

    def price_reports(self, round_: int) -> tuple[SignedPriceReport, ...]:
        """The reports that made a round. Raises Refused when it is not kept."""
        sequences = (known.sequence for known in self._rounds if known.round.round == round_)
        sequence = next(sequences, None)
        if sequence is None:
            raise unknown_round(round_)
        command = self._command(sequence)
        if not isinstance(command, OracleRound):
            raise BrokenInvariant("settlement: the round's record is no round")
        return command.reports

    def funding_reports(self, hour: int) -> tuple[SignedFundingReport, ...]:
        """The reports that made a funding hour."""
        command = self._command(self.funding_record(hour))
        if not isinstance(command, FundingHour):
            raise BrokenInvariant("settlement: the hour's record is no funding hour")
        return command.reports

    def funding_record(self, hour: int) -> int:
        """The record of a funding hour that waits."""
        return self._hour_records[hour]

    def rounds_to_post(self, round_: Round, lane_round: int) -> list[int]:
        """Rounds that the lane needs, ascending, before a batch may pin `round_`. Raises Refused when it is not kept."""
        return rounds_to_post(self._rounds, round_.round, lane_round) if round_.round > lane_round else []

    def _seal(self, event: BatchSealed) -> None:
        hashes = dict(self._hashes)
        sequence = event.batch.journal_sequence
        hash_ = hashes[sequence] if sequence in hashes else self._record(sequence).hash
        batch = msgspec.structs.replace(event.batch, journal_hash=hash_)
        check(
            batch.batch_id == self.last_sealed + 1,
            f"settlement: batch {batch.batch_id} after {self.last_sealed}",
        )
        self._batches[batch.batch_id] = SealedBatch(batch, event.round)
        self.last_sealed = batch.batch_id
        metrics.BATCHES_SEALED.set(batch.batch_id)
        self.changed.set()

    def _confirm(self, batch_id: int) -> None:
        final_round = 0
        for confirmed in [key for key in self._batches if key <= batch_id]:
            batch = self._batches.pop(confirmed).batch
            final_round = max(final_round, batch.round)
            self.fills_settled += trades_of(batch)
            self.settled_sequence = self._sealed_at.pop(confirmed)
            self.confirmed_sequence = batch.journal_sequence
            self.entries_settled += len(batch.inbox)
            for hour in batch.funding_hours:
                self._hour_records.pop(hour, None)
        self._rounds = [known for known in self._rounds if known.round.round >= final_round]
        self.last_confirmed = max(self.last_confirmed, batch_id)
        metrics.BATCHES_SETTLED.set(self.last_confirmed)

    def _reverse(self, event: Reversed, sequence: int) -> None:
        """Nothing waits any more. Rounds stay, unless prices are taken back too: their reports are in the journal."""
        self._confirm(event.batch_id)  # its confirmation may be among what is void
        self._batches, self._sealed_at, self._hour_records = {}, {}, {}
        if event.round:  # those after it were made by rules that are void
            self._rounds = [known for known in self._rounds if known.round.round <= event.round]
            # The newest one comes again, but may be refused now: its keepers may be void as well.
            self.newest_round = self._rounds[-1].round if self._rounds else None
        self.last_sealed = event.batch_id
        self.reversals += 1
        self.fills_voided += event.trades_voided(self.last_reversal)
        self.last_reversal, self.reversed_sequence = event, sequence
        metrics.REVERSALS.inc()
        self.changed.set()

    def _batch_of_others(self, event: ForeignBatchApplied, sequence: int) -> None:
        self.last_sealed = self.last_confirmed = event.batch_id
        self.settled_sequence = self.confirmed_sequence = sequence
        self.entries_settled += event.entries
        self.fills_settled += event.fills
        metrics.BATCHES_SETTLED.set(event.batch_id)

    def _command(self, sequence: int) -> object:
        record = self._record(sequence)
        return decode_command(record.payload, record.sequence)


def trades_of(batch: Batch) -> int:
    """How many of its fills are trades; positions that end in cash are none."""
    return sum(fill.kind != FILL_CASH for fill in batch.fills)


def _refused(applied: Applied) -> bool:
    return any(isinstance(event, CommandRejected) for event in applied.events)
