"""A liquidation keeper judges an account by what the API tells of it: to the unit as the engine does, and with it the vault."""

import random

import msgspec
import pytest
from engine_world import BUY, IOC, SELL, USDC, World, market

from evermark.client.models import AccountInfo
from evermark.protocol.units import PPM
from keeper.exchange import account_view
from keeper.liquidator import judge
from sequencer.engine.risk import margin_of
from sequencer.gateway.views import account_json


@pytest.mark.safety("C02", "keeper")
@pytest.mark.parametrize("seed", range(3))
def test_a_keeper_reaches_the_engines_integers(seed: int) -> None:
    """Random longs and shorts in two markets with tiers, funding that is owed and paid, prices that move by ticks: whether an
    account is liquidatable, by what ratio, and where it is closed first agree on every account after every round, and each
    batch of it settles on the reference vault."""
    chance = random.Random(seed)
    world = World(market(0), market(1))
    ids = {at.market.symbol: at.market.market_id for at in world.state.markets}
    listed = {at.market.market_id: at.market for at in world.state.markets}
    maker = world.trader(10, 1_000_000)
    traders = [world.trader(20 + number, chance.randrange(300, 1_200)) for number in range(16)]
    for account in traders:
        for market_id in (0, 1):
            lots, side = chance.randrange(1, 12_000), chance.choice((BUY, SELL))
            world.order(maker, SELL if side is BUY else BUY, lots, 10_000, market_id=market_id)
            world.order(account, side, lots, 10_000, IOC, market_id=market_id)
    world.next_round()
    marks, seen = [10_000, 10_000], set()
    hour = world.now_s // 3_600 - 1
    for step in range(12):
        marks = [max(1, mark + chance.randrange(-250, 251)) for mark in marks]
        world.round(marks)
        if step % 4 == 3:
            hour += 1
            world.funding([chance.randrange(-(10**6), 10**6) for _ in marks], hour)
        known = dict(enumerate(marks))
        for account in traders:
            holder = world.state.accounts[account]
            told = msgspec.json.encode(account_json(world.state, holder))
            view = account_view(msgspec.json.decode(told, type=AccountInfo, strict=False), ids)
            margin = margin_of(world.state, holder)
            judged = judge(view, listed, known)
            assert (judged is not None) == margin.liquidatable
            if judged is not None:
                largest = max(position.maintenance for position in holder.positions.values())
                assert holder.positions[judged[0]].maintenance == largest
                assert judged[1] == margin.equity * PPM // margin.maintenance
            seen.add(margin.liquidatable)
    assert seen == {True, False}
    assert world.state.claimed == 0 < world.state.credited // USDC
    world.assert_settled()
