"""The exchange of `three_ways.py` with a journal: batches can be held back from the contracts, given up and reversed."""

import boa
from eth_hash.auto import keccak

from evermark.chain.vault import decode_round
from evermark.protocol.batch import NO_INDEX, Batch, InboxUse, encode_batch
from evermark.protocol.oracle import Round, prices_hash
from sequencer.engine.apply import apply
from sequencer.engine.commands import ForeignBatch, InboxEntry, ReversalCause, Reverse
from sequencer.engine.events import BatchSealed, Event
from sequencer.journal import Record, encode_command
from sequencer.replay import make_state
from sequencer.settlement.reversal import ReversalPlan, reversal_commands
from sequencer.snapshots.earlier import EarlierStates
from tests.agreement.three_ways import ThreeWays

PUBLIC_LANE = 1


class Records:
    """A journal in memory, as far as replays read one."""

    name = "memory"

    def __init__(self) -> None:
        self._records: list[Record] = []

    def append(self, stamp_ms: int, payload: bytes) -> None:
        self._records.append(Record(len(self._records) + 1, stamp_ms, payload, b"\x11" * 32))

    def read(self, from_sequence: int = 1):
        return iter(self._records[from_sequence - 1 :])

    def beginning_with(self, prefix: bytes, after: int = 0):
        return (record for record in self.read(after + 1) if record.payload.startswith(prefix))

    def record(self, sequence: int) -> Record:
        return self._records[sequence - 1]


class Reversing(ThreeWays):
    """While `holding`, what the engine seals reaches neither contracts nor model."""

    def __init__(self, markets, start_s: int) -> None:
        self.journal = Records()
        self.holding = False
        super().__init__(markets, start_s)

    def _apply(self, command) -> list[Event]:
        """As a sequencer does: into the journal first."""
        self.journal.append(self.clock_ms, encode_command(command))
        past = make_state(self.journal, command.after) if isinstance(command, Reverse) else None
        return apply(self.state, command, self.sequence, self.clock_ms, past)

    def settle(self, event: BatchSealed) -> None:
        if not self.holding:
            super().settle(event)

    def reverse(self, cause: ReversalCause, *foreign: ForeignBatch) -> list[Event]:
        """Back to the last settled batch, and again what stands; from then on batches settle."""
        self.holding = False
        last = self.settled[-1]
        plan = ReversalPlan(last.batch_id, last.journal_sequence, cause, foreign)
        commands = reversal_commands(plan, EarlierStates(self.journal), self.sequence)
        return [event for command in commands for event in self.send(command)]

    def execute_overdue(self, entries: list[InboxEntry]) -> ForeignBatch:
        """Anybody's batch of these entries of governor or guardian, at a round of this moment in the public lane."""
        boa.env.evm.patch.timestamp = self.now
        newest = max(self.reports)
        self.oracle.post_round_public(self.report_rows(newest))
        words = self.oracle.round_words(PUBLIC_LANE, newest)
        round_: Round = decode_round(words, self.oracle.market_count())
        batch = Batch(
            batch_id=self.settled[-1].batch_id + 1,
            round=newest,
            prices_hash=prices_hash(round_),
            journal_sequence=0,
            journal_hash=bytes(32),
            fee_classes=(),
            markets=(),
            accounts=(),
            pairs=(),
            orders=(),
            inbox=tuple(InboxUse(NO_INDEX) for _ in entries),
        )
        calldata = encode_batch(batch)
        with boa.env.prank(boa.env.generate_address("stranger")):
            result = boa.env.raw_call(self.vault.address, data=keccak(b"settle()")[:4] + calldata)
            if result.is_error:
                self.vault.handle_error(result)
        self.naive.settle(batch, round_, list(self.queue.values()), self.rates)
        return ForeignBatch(
            batch_id=batch.batch_id,
            calldata=calldata,
            round=round_,
            entries=tuple(entries),
            rates=(),
            block_number=1,
        )
