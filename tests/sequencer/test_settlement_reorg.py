"""A batch that was confirmed and is gone: deeper than anything that settlement waits for."""

from pathlib import Path

import pytest
from sequencer_world import World
from settling_house import ChainModel, House

from sequencer.settlement.errors import Unreachable


@pytest.mark.safety("E05", "sequencer")
async def test_a_confirmed_batch_that_is_gone_is_told(tmp_path: Path) -> None:
    """A chain that took back more than was waited for, or a node that lags: one line says so, and nothing is sent."""
    world = World()
    chain = ChainModel(len(world.markets))
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(4)
        await house.settle_all()
        taken_back, posted = chain.settled.pop(), list(chain.posted)
        with pytest.raises(Unreachable, match="where batch 4 was confirmed: it lags"):
            await house.line.step()
        assert chain.posted == posted
        chain.settled.append(taken_back)
        await house.settle_all()
