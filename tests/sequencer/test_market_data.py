"""What market data tells after a start: books go on from where they are, whatever a replay or a snapshot left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from sequencer_world import World
from small_core import MAKER, SmallCore

from evermark.protocol.orders import Side
from sequencer.market_data import MarketData


def book_deltas(market_data: MarketData) -> list[dict[str, Any]]:
    return [json.loads(payload) for topic, payload in market_data.drain() if topic == ("book", "BTC-PERP")]


@pytest.mark.parametrize("snapshot", [True, False], ids=["from a snapshot", "from nothing"])
async def test_a_book_goes_on_after_a_start(tmp_path: Path, snapshot: bool) -> None:
    """Its sequence never falls, its first change follows on what a new connection was shown, and the trades are still there."""
    world = World()
    async with SmallCore(tmp_path, world, snapshot_every=60 if snapshot else 10**6) as small:
        market_data = small.core.market_data
        market_data.go_live()
        await small.fund()
        await small.trade(100)
        await small.core.snapshotter.close()
        *_, last = book_deltas(market_data)
        before, trades = market_data.book("BTC-PERP", 50), market_data.trades("BTC-PERP", 1_000)
        assert before["sequence"] == last["sequence"]
        assert trades
    if not snapshot:
        for file in (tmp_path / "snapshots").iterdir():
            file.unlink()
    async with SmallCore(tmp_path, world) as small:
        market_data = small.core.market_data
        market_data.go_live()
        _, shown = market_data.book_snapshot("BTC-PERP")
        sequence = json.loads(shown)["sequence"]
        after = market_data.book("BTC-PERP", 50)
        assert (after["bids"], after["asks"]) == (before["bids"], before["asks"])
        assert market_data.trades("BTC-PERP", 1_000) == trades
        assert sequence == after["sequence"] >= before["sequence"]
        assert book_deltas(market_data) == []
        order = small.world.sign_order(MAKER, 3, Side.BUY, 700, 1_095_000, slot=40)
        await small.core.pipeline.submit(order)
        (delta,) = book_deltas(market_data)
        assert (delta["previous"], delta["bids"]) == (sequence, [[1_095_000, 700]])
        assert delta["sequence"] > sequence
