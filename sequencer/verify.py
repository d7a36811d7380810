"""Checks an exchange from outside: journal, engine and vault have to tell the same story to the last unit.

The journal is replayed from nothing, every sealed batch is encoded again and held against what was
settled, and the engine's state right after the last settled batch is compared with the vault's storage in
that batch's block.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from evermark.chain import Manifest
from evermark.protocol.batch import FIRST_USER_ACCOUNT
from sequencer.engine.commands import ForeignBatch
from sequencer.engine.sealing import pay_dust
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import Journal, JournalRefused, open_journal
from sequencer.replay import commands_of, replay
from sequencer.settlement.errors import FROZEN_BATCH_ID
from sequencer.snapshots import SnapshotFiles
from sequencer.verify_chain import ChainFacts, read_chain
from sequencer.verify_replay import Difference, Findings, Progress, VerifyReplay, differ


class VerifyReport(msgspec.Struct, kw_only=True):
    """What was compared and what differed. `ok` is the verdict; it is False when anything could not be
    checked."""

    ok: bool = False
    problem: str = ""  # why the check could not be finished
    journal_records: int = 0
    journal_hash: str = ""
    batches_sealed: int = 0
    batches_settled: int = 0
    batches_on_chain: int = 0  # more than `batches_settled` when a published journal lags behind
    fills_settled: int = 0
    foreign_batches: int = 0  # somebody else's, which the journal follows
    reversals: int = 0
    fills_voided: int = 0
    block: int = 0
    boundary: int = 0  # journal sequence of the last settled batch
    accounts_compared: int = 0
    positions_compared: int = 0
    state_hash: str = ""  # at the boundary
    invariants: dict[str, bool] = {}
    difference_count: int = 0
    differences: list[Difference] = []
    seconds: float = 0.0

    resumed_at: int = 0  # record after which the replay went on from a checkpoint

    def differ(self, where: str, expected: object, found: object) -> None:
        """Note a disagreement, if it is one."""
        findings = Findings(difference_count=self.difference_count, differences=self.differences)
        differ(findings, where, expected, found)
        self.difference_count = findings.difference_count


def silent(what: str, done: int, total: int) -> None:
    """For whoever does not look at the progress."""


async def verify(
    journal_path: Path | str,
    manifest: Manifest,
    rpc_url: str,
    *,
    from_block: int | None = None,
    until_record: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Compare a journal with the chain behind `rpc_url`. Never writes to either, and may run beside a
    sequencer.

    Batches settled before `from_block` are replayed but not compared one by one; a published journal ends at
    `until_record`, and the chain is read as of the last batch that it can know. With a directory for `checkpoints`
    an interrupted verification goes on; without one the journal is replayed a second time, to compare.
    """
    report, began = VerifyReport(), time.monotonic()
    try:
        followed = _followed(journal_path)
        facts = await read_chain(rpc_url, manifest, from_block, until_record, followed)
        _verify(report, journal_path, facts, followed, checkpoints, progress)
    except JournalRefused as error:
        report.problem = str(error)
    report.seconds = round(time.monotonic() - began, 3)
    report.ok = not report.problem and not report.difference_count and all(report.invariants.values())
    return report


def _followed(place: Path | str) -> dict[int, int]:
    """Somebody else's batches that the journal follows: by id the record that does."""
    journal = open_journal(place, read_only=True)
    try:
        return {command.batch_id: sequence for sequence, command in commands_of(journal, ForeignBatch)}
    finally:
        journal.close()


def _verify(
    report: VerifyReport,
    place: Path | str,
    facts: ChainFacts,
    followed: Mapping[int, int],
    checkpoints: Path | None,
    progress: Progress,
) -> None:
    journal = open_journal(place, read_only=True)
    if facts.partial and not facts.settled:
        raise JournalRefused("chain: no batch was settled from that block on; begin at an earlier one")
    last_settled = facts.settled[-1] if facts.settled else None
    boundary = 0
    if last_settled is not None:
        boundary = followed.get(last_settled.batch_id, last_settled.journal_sequence)
    keep = None if checkpoints is None else SnapshotFiles(checkpoints)
    try:
        replayed = VerifyReplay(journal, facts.settled, boundary, keep)
        replayed.run(progress)
        state = replayed.at_boundary
        if keep is None:
            again = _replays_to(journal, boundary, state_hash(state))
            report.invariants["6 replay is deterministic"] = again
    finally:
        journal.close()
    _take_over(report, replayed)
    report.boundary, report.block = boundary, facts.block
    ids = [batch.batch_id for batch in facts.settled]
    last = ids[-1] if ids else 0
    report.batches_settled, report.batches_on_chain = last, facts.on_chain
    report.state_hash = state_hash(state).hex()
    pay_dust(state)  # as the vault has, whose batch ended here
    report.invariants |= _invariants(state, facts)
    in_order = ids == list(range(last - len(ids) + 1, last + 1)) and (facts.partial or len(ids) == last)
    in_order &= facts.totals.batch_id in (last, FROZEN_BATCH_ID)
    report.invariants["batches settle once, in order"] = in_order
    _compare_totals(report, state, facts)
    _compare_accounts(report, state, facts)


def _take_over(report: VerifyReport, replayed: VerifyReplay) -> None:
    """What the replay found, into the report."""
    found = replayed.findings
    report.batches_sealed, report.fills_settled = found.batches_sealed, found.fills_settled
    report.foreign_batches, report.fills_voided = found.foreign_batches, found.fills_voided
    report.reversals = len(replayed.reversals)
    report.difference_count, report.differences = found.difference_count, found.differences
    report.journal_records, report.journal_hash = replayed.head.sequence, replayed.head.hash.hex()
    report.resumed_at = replayed.resumed_at
    for batch_id in replayed.never_sealed():
        report.differ(f"batch {batch_id}", "never sealed by this journal", "settled")


def _replays_to(journal: Journal, boundary: int, expected: bytes) -> bool:
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
    report.differ("funding pool", state.funding_pool, facts.totals.funding_pool)
    report.differ("dust", state.dust, facts.totals.dust)
    report.differ("accounts", max(len(state.accounts), 2), facts.totals.accounts)
    report.differ("inbox entries consumed", state.entry_count, facts.totals.inbox_head - 1)
    report.differ("claims", state.claim_count, facts.totals.claims)
    report.differ("outflow", tuple(state.outflow), tuple(facts.outflow))
    for due, claim, _, _ in state.delayed_claims:
        promised = facts.claim_dues[claim - 1] if claim <= len(facts.claim_dues) else None
        report.differ(f"claim {claim} due", due, promised)
    paid = state.claimed - facts.unpaid_claims  # what it must be; the logs tell when they were read whole
    if not facts.partial:
        report.differ("claimed", state.claimed, facts.unpaid_claims + facts.paid_claims)
    report.differ("credited", state.credited - paid, facts.totals.credited)
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
