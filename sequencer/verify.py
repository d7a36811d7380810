"""Checks an exchange from outside: journal, engine and vault have to tell the same story to the last unit.

The journal is replayed from nothing, every sealed batch is encoded again and held against what was
settled, and the engine's state right after the last settled batch is compared with the vault's storage in
that batch's block.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from eth_hash.auto import keccak

from evermark.chain import Manifest
from evermark.protocol.batch import FIRST_USER_ACCOUNT, encode_batch
from sequencer.engine.apply import apply
from sequencer.engine.events import BatchSealed
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import JournalRefused, SqliteJournal, decode_command
from sequencer.replay import Applied, replay
from sequencer.settlement.backlog import Backlog
from sequencer.verify_chain import ChainFacts, SettledBatch, read_chain

MAX_DIFFERENCES = 100  # named in the report; more are only counted


class Difference(msgspec.Struct, frozen=True):
    """One place where the two sides disagree."""

    where: str
    expected: str  # journal and engine
    found: str  # chain


class VerifyReport(msgspec.Struct, kw_only=True):
    """What was compared and what differed. `ok` is the verdict; it is False when anything could not be
    checked."""

    ok: bool = False
    problem: str = ""  # why the check could not be finished
    journal_records: int = 0
    journal_hash: str = ""
    batches_sealed: int = 0
    batches_settled: int = 0
    fills_settled: int = 0
    block: int = 0
    boundary: int = 0  # journal sequence of the last settled batch
    accounts_compared: int = 0
    positions_compared: int = 0
    state_hash: str = ""  # at the boundary
    invariants: dict[str, bool] = {}
    difference_count: int = 0
    differences: list[Difference] = []
    seconds: float = 0.0

    def differ(self, where: str, expected: object, found: object) -> None:
        """Note a disagreement, if it is one."""
        if expected == found:
            return
        self.difference_count += 1
        if self.difference_count <= MAX_DIFFERENCES:
            self.differences.append(Difference(where, _shown(expected), _shown(found)))


async def verify(journal_path: Path, manifest: Manifest, rpc_url: str) -> VerifyReport:
    """Compare a journal with the chain behind `rpc_url`. Never writes to either, and may run beside a
    sequencer."""
    report, began = VerifyReport(), time.monotonic()
    try:
        await _verify(report, journal_path, manifest, rpc_url)
    except JournalRefused as error:
        report.problem = str(error)
    report.seconds = round(time.monotonic() - began, 3)
    report.ok = not report.problem and not report.difference_count and all(report.invariants.values())
    return report


async def _verify(report: VerifyReport, journal_path: Path, manifest: Manifest, rpc_url: str) -> None:
    facts = await read_chain(rpc_url, manifest)
    journal = SqliteJournal(journal_path, read_only=True)
    try:
        boundary = facts.settled[-1].journal_sequence if facts.settled else 0
        state, fills, sizes = _compare_batches(report, journal, facts, boundary)
        report.invariants["6 replay is deterministic"] = _replays_to(journal, boundary, state_hash(state))
    finally:
        journal.close()
    report.boundary, report.block, report.fills_settled = boundary, facts.block, fills
    report.batches_settled = len(facts.settled)
    report.state_hash = state_hash(state).hex()
    report.invariants |= _invariants(state, facts)
    report.invariants["batches settle once, in order"] = sizes
    _compare_totals(report, state, facts)
    _compare_accounts(report, state, facts)


def _compare_batches(
    report: VerifyReport, journal: SqliteJournal, facts: ChainFacts, boundary: int
) -> tuple[EngineState, int, bool]:
    """Replay everything; returns the state at the boundary, the fills settled, and whether batch ids are
    1, 2, 3..."""
    at_boundary, state = EngineState(), EngineState()
    replay(journal, at_boundary, until=boundary)
    backlog = Backlog(journal.record)
    settled = {batch.batch_id: batch for batch in facts.settled}
    fills = 0
    for record in journal.read():
        command = decode_command(record.payload, record.sequence)
        events = apply(state, command, record.sequence, record.stamp_ms)
        backlog.observe(Applied(record.sequence, record.stamp_ms, command, events, record.hash))
        for event in events:
            if isinstance(event, BatchSealed):
                sealed = backlog.sealed(event.batch.batch_id)
                found = settled.pop(event.batch.batch_id, None)
                report.batches_sealed += 1
                if found is not None and sealed is not None:
                    fills += len(sealed.batch.fills)
                    _compare_batch(report, encode_batch(sealed.batch), sealed.batch.journal_hash, found)
        report.journal_records, report.journal_hash = record.sequence, record.hash.hex()
    for batch_id in settled:
        report.differ(f"batch {batch_id}", "never sealed by this journal", "settled")
    ids = [batch.batch_id for batch in facts.settled]
    return at_boundary, fills, ids == list(range(1, len(ids) + 1)) and facts.totals.batch_id == len(ids)


def _compare_batch(report: VerifyReport, encoded: bytes, journal_hash: bytes, found: SettledBatch) -> None:
    where = f"batch {found.batch_id}"
    report.differ(f"{where} hash", keccak(encoded), found.batch_hash)
    report.differ(f"{where} calldata", encoded, found.calldata)
    report.differ(f"{where} journal hash", journal_hash, found.journal_hash)


def _replays_to(journal: SqliteJournal, boundary: int, expected: bytes) -> bool:
    again = EngineState()
    replay(journal, again, until=boundary)
    return state_hash(again) == expected


def _invariants(state: EngineState, facts: ChainFacts) -> dict[str, bool]:
    """The protocol's invariants 1 and 2, of the engine at the boundary and of the vault in its block."""
    collateral = sum(account.collateral for account in state.accounts.values())
    on_chain = sum(account.collateral for account in facts.accounts.values())
    zero_sum = open_interest = chain_zero_sum = chain_open_interest = True
    for market_id, market in enumerate(state.markets):
        sizes = [
            account.positions[market_id].size
            for account in state.accounts.values()
            if market_id in account.positions
        ]
        zero_sum &= sum(sizes) == 0
        open_interest &= _longs(sizes) == market.open_interest
        chain_sizes = [
            position.size for (_, market_of), position in facts.positions.items() if market_of == market_id
        ]
        chain_zero_sum &= sum(chain_sizes) == 0
        chain_open_interest &= _longs(chain_sizes) == facts.markets[market_id].open_interest
    return {
        "1 engine: collateral + pool + claims = credited": collateral + state.funding_pool + state.claimed
        == state.credited,
        "1 vault: collateral + pool + unpaid claims = credited": on_chain
        + facts.totals.funding_pool
        + facts.unpaid_claims
        == facts.totals.credited,
        "1 vault: tokens cover credited and unconsumed": facts.tokens
        >= facts.totals.credited + facts.unconsumed,
        "2 engine: sizes sum to zero": zero_sum,
        "2 engine: open interest = longs": open_interest,
        "2 vault: sizes sum to zero": chain_zero_sum,
        "2 vault: open interest = longs": chain_open_interest,
    }


def _longs(sizes: Iterable[int]) -> int:
    return sum(size for size in sizes if size > 0)


def _compare_totals(report: VerifyReport, state: EngineState, facts: ChainFacts) -> None:
    """Invariant 5 for everything that is not an account's."""
    report.differ("last batch id", len(facts.settled), facts.totals.batch_id)
    report.differ("funding pool", state.funding_pool, facts.totals.funding_pool)
    report.differ("dust", state.dust, facts.totals.dust)
    report.differ("accounts", max(len(state.accounts), 2), facts.totals.accounts)
    report.differ("inbox entries consumed", state.entry_count, facts.totals.inbox_head - 1)
    report.differ("claims", state.claim_count, facts.totals.claims)
    report.differ("claimed", state.claimed, facts.unpaid_claims + facts.paid_claims)
    report.differ("credited", state.credited - facts.paid_claims, facts.totals.credited)
    for market_id, market in enumerate(state.markets):
        found = facts.markets[market_id]
        where = f"market {market.market.symbol}"
        report.differ(f"{where} open interest", market.open_interest, found.open_interest)
        report.differ(f"{where} cumulative funding", market.cumulative, found.cumulative_funding)
        report.differ(f"{where} last funding hour", market.funding_hour, found.last_funding_hour)


def _compare_accounts(report: VerifyReport, state: EngineState, facts: ChainFacts) -> None:
    """Invariant 5 for every account and position."""
    for account_id, account in state.accounts.items():
        found = facts.accounts.get(account_id)
        where = f"account {account_id}"
        if found is None:
            report.differ(where, "registered", "not registered")
            continue
        report.accounts_compared += 1
        report.differ(f"{where} owner", account.owner, bytes.fromhex(found.owner[2:]))
        report.differ(f"{where} sub-account", account.sub_account, found.sub_account)
        report.differ(f"{where} collateral", account.collateral, found.collateral)
        if account_id >= FIRST_USER_ACCOUNT:  # the vault keeps the reserved accounts' words non-zero with it
            report.differ(f"{where} taker sequence", account.used_taker_sequence, found.taker_sequence)
        report.differ(f"{where} action sequence", account.action_sequence, found.action_sequence)
        report.differ(f"{where} open positions", account.open_positions, found.open_positions)
        for market_id in range(len(state.markets)):
            position = account.positions.get(market_id)
            on_chain = facts.positions[account_id, market_id]
            size = position.size if position else 0
            report.differ(f"{where} market {market_id} size", size, on_chain.size)
            if size and position:
                report.positions_compared += 1
                report.differ(
                    f"{where} market {market_id} entry funding",
                    position.entry_cumulative,
                    on_chain.entry_cumulative,
                )
                report.differ(
                    f"{where} market {market_id} entry mark", position.entry_mark, on_chain.entry_mark
                )


def _shown(value: Any) -> str:
    text = "0x" + value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."
