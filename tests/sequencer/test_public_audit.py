"""A stranger's audit: with the published journal, a node and the manifest, and nothing of the sequencer's."""

import asyncio
from pathlib import Path

import pytest
from real_exchange import RealExchange
from test_settlement import registered, trade

from evermark.cli import audit
from sequencer import verify_replay
from sequencer.verify import verify

pytestmark = pytest.mark.timeout(180)


async def test_stranger_verifies_from_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Download over HTTP, replay, compare every batch and balance; a second time from a checkpoint, and from a later
    block; only settled records are published."""
    monkeypatch.setattr(verify_replay, "CHECKPOINT_EVERY", 5)
    steps: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        steps.append(what)
        assert done <= total

    async with RealExchange(tmp_path, speed=2.0) as running:
        for trader in (0, 1):
            await running.deposit(trader, 100_000)
        await running.spawn()
        await running.post_round()
        await running.eventually(lambda: registered(running), "both accounts exist")
        for slot in (1, 2, 3):
            await running.post_round()
            await trade(running, slot)
            await running.clock.sleep(3)
        await running.settled()
        cache = tmp_path / "stranger"
        url = running.url + "/v1/journal"
        journal, last = await asyncio.to_thread(audit.download, url, cache, progress)
        common = (journal, running.manifest, running.devnet.url)
        first = await verify(*common, until_record=last, checkpoints=cache / "checkpoints", progress=progress)
        assert first.ok, first
        assert first.fills_settled == 3
        assert first.boundary < first.journal_records == last
        assert first.batches_settled == first.batches_on_chain >= 3
        assert first.resumed_at == 0
        again = await verify(*common, until_record=last, checkpoints=cache / "checkpoints")
        assert again.ok, again
        assert again.resumed_at > 0
        assert again.state_hash == first.state_hash
        assert (again.fills_settled, again.batches_sealed) == (first.fills_settled, first.batches_sealed)
        behind = await verify(*common, until_record=first.boundary)
        assert behind.ok, (
            behind
        )  # as if the sequencer had not published the last batch yet: one less to compare
        assert behind.batches_settled == behind.batches_on_chain - 1
        late = await verify(*common, from_block=first.block)
        assert late.ok, late
        assert late.fills_settled < first.fills_settled
        assert late.batches_settled == first.batches_settled
        empty = await verify(*common, from_block=10**9)
        assert empty.problem.startswith("chain: no batch was settled from that block on")
        status, _ = await running.post("/v1/journal/index.json", {})
        assert status == 405
        async with running.http.get(f"{url}/pages/../../etc/passwd") as answer:
            assert answer.status == 404
        assert await running.stop() == 0
    assert set(steps) == {"downloading", "replaying"}
