"""The chain as a witness: a start on another chain, or with another journal, ends with one line that says which."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from sequencer_world import World
from small_core import SmallCore

from sequencer.core import Core
from sequencer.engine.events import BatchSealed
from sequencer.journal import JournalRefused
from sequencer.settlement.witness import Settled, check_witness


class Chain:
    def __init__(self, settled: Settled | None, before: Sequence[Settled] = ()) -> None:
        self.settled = settled
        self.before = {batch.batch_id: batch for batch in before}

    async def newest_settled(self) -> Settled | None:
        return self.settled

    async def settled_batch(self, batch_id: int) -> Settled:
        return self.before[batch_id]


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Core, list[Settled]]:
    """A stopped exchange, some of its batches confirmed, and what the vault would tell of each batch."""

    async def run() -> tuple[Core, list[Settled]]:
        batches: list[Settled] = []
        async with SmallCore(tmp_path, World()) as small:
            core = small.core

            def note(applied: object) -> None:
                for event in applied.events:  # type: ignore[attr-defined]
                    if isinstance(event, BatchSealed):
                        sequence = event.batch.journal_sequence
                        hash_ = core.reader.record(sequence).hash
                        batches.append(Settled(event.batch.batch_id, sequence, hash_))

            core.pipeline.subscribe(note)
            await small.fund()
            await small.trade(120)
        core = Core(tmp_path, small.world.genesis, lambda: small.world.now_s * 1000)
        assert 0 < core.state.confirmed_batch < core.state.sealed_batch
        return core, batches

    return asyncio.run(run())


def check(core: Core, settled: Settled | None, before: Sequence[Settled] = ()) -> None:
    try:
        work = check_witness(
            Chain(settled, before), core.state, core.reader.record, core.journal.head().sequence
        )
        asyncio.run(work)
    finally:
        asyncio.run(core.close())


@pytest.mark.parametrize("back", [0, 1])
def test_the_journal_of_this_chain_starts(sealed: tuple[Core, list[Settled]], back: int) -> None:
    """The vault may be as far as the journal, or behind by batches that are not confirmed."""
    core, batches = sealed
    check(core, batches[-1 - back])


def test_chain_without_the_confirmed_batches_is_refused(sealed: tuple[Core, list[Settled]]) -> None:
    """Another chain with the same addresses, or a node that has not caught up."""
    core, batches = sealed
    with pytest.raises(
        JournalRefused, match=r"has settled batch 1, but the journal knows batch \d+ as confirmed"
    ):
        check(core, batches[0])


def test_empty_chain_is_refused(sealed: tuple[Core, list[Settled]]) -> None:
    """A chain that was begun anew under an old journal."""
    core, _ = sealed
    with pytest.raises(JournalRefused, match="has settled batch 0, but the journal knows"):
        check(core, None)


@pytest.mark.safety("G05", "sequencer")
def test_journal_that_ends_before_the_chain_is_refused(sealed: tuple[Core, list[Settled]]) -> None:
    """What the vault settled was in the journal once."""
    core, batches = sealed
    head = core.journal.head().sequence
    ahead = Settled(batches[-1].batch_id + 1, head + 9, b"x" * 32)
    with pytest.raises(JournalRefused, match=rf"at record {head + 9}, but this journal ends at batch"):
        check(core, ahead)


def test_chain_that_another_journal_settled_is_refused(sealed: tuple[Core, list[Settled]]) -> None:
    """The same batch number with another history behind it."""
    core, batches = sealed
    last = batches[-1]
    with pytest.raises(JournalRefused, match="was settled by another journal"):
        check(core, Settled(last.batch_id, last.journal_sequence, b"x" * 32))


def test_a_start_after_somebody_executed_overdue_work_looks_at_the_batch_before(
    sealed: tuple[Core, list[Settled]],
) -> None:
    """Their batch names no journal. The newest one that does has to be this journal's."""
    core, batches = sealed
    last = batches[-1]
    foreign = [Settled(last.batch_id + ahead, 0, bytes(32)) for ahead in (1, 2)]
    check(core, foreign[-1], [last, *foreign])


def test_another_journals_batch_behind_somebody_elses_is_refused(
    sealed: tuple[Core, list[Settled]],
) -> None:
    """A stranger's batch on top of it hides nothing."""
    core, batches = sealed
    last = batches[-1]
    other = Settled(last.batch_id, last.journal_sequence, b"x" * 32)
    with pytest.raises(JournalRefused, match="was settled by another journal"):
        check(core, Settled(last.batch_id + 1, 0, bytes(32)), [other])
