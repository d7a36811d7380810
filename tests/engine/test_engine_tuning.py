"""A market's parameters change while orders wait: what they reserve is what they would reserve if they came now."""

from engine_world import BUY, SELL, World, market, of_type
from msgspec.structs import replace

from evermark.protocol.governance import TuneMarket
from sequencer.engine.commands import InboxEntryKind
from sequencer.engine.events import MarketTuned
from sequencer.engine.invariants import check_invariants


def test_waiting_orders_reserve_once_and_by_the_new_fees():
    """Orders that would lose against the mark, reduce-only ones and another market's beside them: sums and orders agree at once,
    not only with the next round."""
    world = World(market(0), market(1))
    maker, taker = world.trader(10), world.trader(11)
    world.order(maker, SELL, 400, 10_000, slot=1)
    world.order(taker, BUY, 100, 10_000, slot=1)
    world.order(maker, BUY, 200, 9_990, slot=2)
    world.order(maker, SELL, 300, 9_995, slot=3)
    world.order(taker, SELL, 50, 10_020, slot=4, reduce_only=True)
    world.order(taker, SELL, 50, 10_020, slot=5, market_id=1)
    check_invariants(world.state)
    for ppm in (0, 700, 150):
        tuned = replace(world.state.markets[0].market, maker_fee_ppm=ppm, taker_fee_ppm=1_000)
        assert of_type(world.entry(InboxEntryKind.GOVERNOR, 0, change=TuneMarket(tuned)), MarketTuned)
        check_invariants(world.state)
        fees = {key: account.order_fees for key, account in world.state.accounts.items()}
        world.round([10_000, 10_000])
        check_invariants(world.state)
        assert fees == {key: account.order_fees for key, account in world.state.accounts.items()}
        assert (fees[maker] > 0) == (ppm > 0)
