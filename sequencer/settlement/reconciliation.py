"""Engine and vault compared while the exchange runs: the sums after each settled batch have to be the same.

The engine's sums at a batch's last record are kept until the vault has settled that batch; then they are held against
the vault's words as of one block. A difference holds all withdrawals and raises an alarm, until an operator has found
out why. `evermark verify` compares every account; this is the watch between two of those.
"""

import asyncio
from typing import Protocol

import msgspec
import structlog

from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import FUNDING_SCALE
from sequencer import metrics
from sequencer.engine.commands import TransferRequest, WithdrawRequest
from sequencer.engine.events import BatchSealed, ForeignBatchApplied, Reversed
from sequencer.engine.sealing import whole_dust
from sequencer.engine.state import EngineState
from sequencer.pipeline import Pipeline
from sequencer.replay import Applied
from sequencer.settlement.errors import Refused, Unreachable

EVERY_S = 30.0  # wall time between two comparisons
KEPT_BATCHES = 1_000
HOLD = "reconciliation"

log = structlog.get_logger("reconciliation")


class MarketSums(msgspec.Struct, frozen=True):
    """One market: open interest in lots, cumulative funding, last funding hour."""

    open_interest: int
    cumulative: int
    funding_hour: int


class Sums(msgspec.Struct, frozen=True):
    """What engine and vault must agree on after a batch. Quote amounts in units of 1e-6 USDC."""

    owed: int  # collateral of all accounts and the funding pool
    funding_pool: int
    dust: int
    accounts: int
    inbox_consumed: int
    claims: int
    markets: tuple[MarketSums, ...]


class VaultSums(msgspec.Struct, frozen=True):
    """The vault's side, as of one block."""

    batch_id: int
    sums: Sums
    uncovered: int  # tokens that are missing for everything credited and waiting; at most 0 when solvent


class SumsSource(Protocol):
    """Where the vault's side comes from; `settlement.chain.ExchangeChain` on a real chain."""

    async def vault_sums(self) -> VaultSums:
        """As of the newest final block. Raises Unreachable."""
        ...


class Reconciliation:
    """Follows the pipeline (`observe`) and compares until cancelled (`run`)."""

    def __init__(self, source: SumsSource, pipeline: Pipeline, every_s: float = EVERY_S) -> None:
        self._source = source
        self._pipeline = pipeline
        self._last: tuple[int, Sums] = (pipeline.sequence, sums_of(pipeline.state))
        self._batches: dict[int, Sums] = {}
        self._every_s = every_s
        self.alarm = ""  # empty, or what differs
        self.compared = 0  # the newest batch that was compared
        pipeline.subscribe(self.observe)

    def observe(self, applied: Applied) -> None:
        """Note the sums; a batch ends at the record before the one that sealed it, or at that one."""
        now = (applied.sequence, sums_of(self._pipeline.state))
        for event in applied.events:
            if isinstance(event, BatchSealed):
                for sequence, sums in (self._last, now):
                    if sequence == event.batch.journal_sequence:
                        self._batches[event.batch.batch_id] = sums
            elif isinstance(event, Reversed):
                self._batches = {key: sums for key, sums in self._batches.items() if key <= event.batch_id}
            elif isinstance(event, ForeignBatchApplied):
                self._batches[event.batch_id] = now[1]
        while len(self._batches) > KEPT_BATCHES:
            del self._batches[next(iter(self._batches))]
        self._last = now

    async def run(self) -> None:
        """Compare again and again until cancelled."""
        while True:
            try:
                await self.step()
            except (Unreachable, Refused) as error:
                log.warning("the vault could not be read", reason=str(error))
            await asyncio.sleep(self._every_s)

    async def step(self) -> bool:
        """One comparison. False when the vault's batch is not one whose sums are known here, or may still be somebody else's:
        settlement confirms those that are this journal's."""
        vault = await self._source.vault_sums()
        expected = self._batches.get(vault.batch_id)
        if expected is None or vault.batch_id > self._pipeline.state.confirmed_batch:
            return False
        self.compared = vault.batch_id
        self._batches = {key: sums for key, sums in self._batches.items() if key >= vault.batch_id}
        if vault.uncovered > 0:
            self._raise(f"the vault lacks {vault.uncovered} tokens for what it owes")
        elif expected != vault.sums:
            self._raise(f"batch {vault.batch_id}: " + _first_difference(expected, vault.sums))
        elif self.alarm:
            log.warning("engine and vault agree again", was=self.alarm)
            self.alarm = ""
            metrics.RECONCILIATION_ALARM.set(0)
            self._pipeline.release(HOLD)
        return True

    def _raise(self, reason: str) -> None:
        if reason != self.alarm:
            log.error("ENGINE AND VAULT DIFFER: withdrawals are held", reason=reason)
        self.alarm = reason
        metrics.RECONCILIATION_ALARM.set(1)
        message = "withdrawals are held while engine and vault are reconciled"
        self._pipeline.hold_only(
            HOLD, Reject(code=RejectCode.NOT_READY, message=message), (WithdrawRequest, TransferRequest)
        )


def sums_of(state: EngineState) -> Sums:
    """The engine's side after its last command, as if the open batch ended with it."""
    whole = whole_dust(state)
    return Sums(
        state.credited - state.claimed,
        state.funding_pool - whole,
        state.dust - whole * FUNDING_SCALE,
        max(len(state.accounts), 2),
        state.entry_count,
        state.claim_count,
        tuple(MarketSums(at.open_interest, at.cumulative, at.funding_hour) for at in state.markets),
    )


def _first_difference(expected: Sums, found: Sums) -> str:
    for field in Sums.__struct_fields__:
        ours, theirs = getattr(expected, field), getattr(found, field)
        if field == "markets":
            pairs = zip(ours, theirs, strict=True)
            number, ours, theirs = next((at, *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1])
            field = f"market {number}"
        if ours != theirs:
            return f"{field}: engine {ours}, vault {theirs}"
    raise AssertionError("nothing differs")
