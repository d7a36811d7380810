"""Little room on the journal's disk: orders are refused with a code of their own, the rest goes on."""

from pathlib import Path

import pytest
from small_core import MAKER, SmallCore

from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from sequencer.engine.events import CommandRejected, OrderAccepted, OrderCancelled, RoundApplied
from sequencer.storage import StorageWatch, free_bytes


@pytest.mark.safety("G07", "sequencer")
async def test_full_disk_refuses_orders_and_takes_cancels(tmp_path: Path) -> None:
    """Below the reserve nothing of an order is journaled; cancels and prices are; with room again so are orders."""
    async with SmallCore(tmp_path) as small:
        await small.fund()
        free = 1_000
        watch = StorageWatch(small.core.pipeline, lambda: free, reserve_bytes=1_000)

        async def order(slot: int) -> list[object]:
            command = small.world.sign_order(MAKER, 3, Side.BUY, 900, 1_100_000, slot=slot)
            return list(await small.submit(command))

        watch.look()
        assert isinstance((await order(1))[0], OrderAccepted)
        free = 999
        watch.look()
        head = small.core.journal.head().sequence
        (refused,) = await order(2)
        assert isinstance(refused, CommandRejected)
        assert refused.reject.code is RejectCode.STORAGE_LOW
        assert small.core.journal.head().sequence == head
        small.world.now_s += 3
        assert any(isinstance(one, RoundApplied) for one in await small.submit(small.world.round()))
        assert isinstance((await small.submit(small.world.cancel(MAKER, 3, 1)))[0], OrderCancelled)
        free = 1_000
        watch.look()
        assert isinstance((await order(3))[0], OrderAccepted)


def test_free_bytes_is_what_the_system_says(tmp_path: Path) -> None:
    """Some room, and less of it than the file system has in all."""
    assert 0 < free_bytes(tmp_path) < 2**60
