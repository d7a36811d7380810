"""Nobody else's batch comes below one of this journal's: the vault takes any batch with the next id, so one that was meant to
follow on ours would settle on top of theirs, in a state that no journal has.
"""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sequencer_world import START_S, World
from settling_house import ChainModel, House, eventually, mine, nothing_is_mined, trade

from sequencer.engine.commands import FundingHour
from sequencer.settlement.chain import HOUR_OVERDUE_S, SHORTEST_DUE_S, ExchangeChain
from sequencer.settlement.errors import Unreachable

HOUR_S = 3_600


@pytest.mark.parametrize("hour_overdue_in_s, together", [(151, True), (150, False)])
async def test_what_is_behind_a_late_funding_hour_waits_for_it(
    tmp_path: Path, hour_overdue_in_s: int, together: bool
) -> None:
    """Posting an hour shortly before it is overdue lets anybody apply it: the batch that holds it is the last of those under way,
    and nothing follows on it until it is mined."""
    world = World()
    chain = ChainModel(len(world.markets))
    chain.hour_overdue_in_s = hour_overdue_in_s
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(1)
        hour = world.now_s // HOUR_S - 1
        await house.core.pipeline.submit(FundingHour(reports=world.funding_reports(hour)))
        await trade(house.core, world, 3)
        waiting = nothing_is_mined(chain)
        sealed = [
            house.core.backlog.sealed(number) for number in range(1, house.core.backlog.last_sealed + 1)
        ]
        (with_hour,) = [one.batch.batch_id for one in sealed if one is not None and one.batch.funding_hours]
        assert 1 < with_hour < len(sealed)
        stepping = asyncio.ensure_future(house.line.step())
        first = len(sealed) if together else with_hour - 1
        await eventually(lambda: len(waiting) == first)
        assert (hour in chain.hours) == together, "an hour is not posted before its batch may be sent"
        mine(waiting)
        assert await stepping
        if not together:
            del waiting[:]
            stepping = asyncio.ensure_future(house.line.step())
            await eventually(lambda: len(waiting) == 1)
            mine(waiting)
            assert await stepping
            assert len(chain.settled) == with_hour, "alone"


@pytest.mark.safety("E05", "sequencer")
async def test_a_batch_whose_predecessor_may_be_replaced_waits_until_that_is_deep(tmp_path: Path) -> None:
    """A reorganisation may take it back, and somebody else's overdue work may take its id: nothing is sent on top of it before,
    unless its own window would be over by then. Where nothing is overdue nobody waits."""
    world = World()
    chain = ChainModel(len(world.markets))
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        chain.depth_lag, chain.overdue_in_s = 1, 150
        assert await house.line.step()
        assert len(chain.settled) == 1, "with nothing behind it"
        with pytest.raises(Unreachable, match="batch 1 is not deep enough, and somebody may take its place"):
            await house.line.step()
        assert len(chain.settled) == 1
        chain.depth_lag = 0
        assert await house.line.step()
        assert len(chain.settled) == 2, "deep enough"
        chain.depth_lag = 1
        await house.core.pipeline.submit(world.round())
        with pytest.raises(Unreachable, match="batch 2 is not deep enough"):
            await house.line.step()
        world.now_s += 61
        assert await house.line.step()
        assert len(chain.settled) == 3, "half of its window is over"
        await trade(house.core, world, 3)
        chain.overdue_in_s = 151
        assert await house.line.step()
        assert len(chain.settled) == house.core.backlog.last_sealed, "nothing is overdue"


async def test_what_a_reorganisation_may_bring_back_counts_as_waiting() -> None:
    """An entry is overdue that newer blocks have consumed, as long as they are not deep enough; and an hour that nobody has
    posted yet, where it is about to be."""
    due, hour = START_S + 90, START_S // HOUR_S - 2
    contracts = _Contracts(due, hour - 1)
    chain: Any = object.__new__(ExchangeChain)
    chain._contracts, chain._confirmations = contracts, 2
    block = asyncio.get_running_loop().create_future()
    block.set_result(101)
    chain._w3 = SimpleNamespace(eth=SimpleNamespace(block_number=block))
    assert await chain.overdue_from_s(START_S) == due
    contracts.consumed_in = 99
    assert await chain.overdue_from_s(START_S) == START_S + SHORTEST_DUE_S
    assert await chain.overdue_from_s(START_S, (hour,)) == (hour + 1) * HOUR_S + HOUR_OVERDUE_S
    contracts.posted = {hour}
    assert await chain.overdue_from_s(START_S) == (hour + 1) * HOUR_S + HOUR_OVERDUE_S
    contracts.applied = hour
    assert await chain.overdue_from_s(START_S, (hour,)) == START_S + SHORTEST_DUE_S


class _Contracts:
    """An inbox with one entry, consumed in block 100, and one market."""

    def __init__(self, due: int, applied: int) -> None:
        self.due, self.applied = due, applied
        self.consumed_in = 100
        self.posted: set[int] = set()

    async def inbox_range(self, block: int) -> tuple[int, int]:
        return (2 if block >= self.consumed_in else 1), 2

    async def inbox_entry(self, entry_id: int) -> SimpleNamespace:
        assert entry_id == 1
        return SimpleNamespace(due=self.due)

    async def market_count(self, block: int) -> int:
        assert block == 99
        return 1

    async def market(self, market_id: int, block: int) -> SimpleNamespace:
        assert (market_id, block) == (0, 99)
        return SimpleNamespace(last_funding_hour=self.applied)

    async def funding_posted_at(self, hour: int) -> int:
        return (hour + 1) * HOUR_S + 5 if hour in self.posted else 0
