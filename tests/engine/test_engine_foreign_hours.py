"""A funding hour that somebody else applies after a market was listed for which nobody had reported."""

from engine_world import World, market, of_type

from evermark.protocol.batch import Batch, encode_batch
from evermark.protocol.governance import ListMarket
from evermark.protocol.oracle import prices_hash
from sequencer.engine.commands import ForeignBatch, InboxEntryKind
from sequencer.engine.events import ForeignBatchApplied, FundingApplied
from sequencer.engine.snapshot import restore, snapshot


def test_a_market_beyond_the_posted_rates_has_a_rate_of_zero():
    """As the vault counts it: the listed market's hour is applied and pays nothing, the other's as posted."""
    world = World(market(0))
    world.entry(InboxEntryKind.GOVERNOR, 0, change=ListMarket(market(1)))
    hour = world.now_s // 3600
    world.round([10_000, 10_000], after_s=(hour + 1) * 3600 + 5 - world.now_s)
    state = world.state
    assert state.batch.is_empty
    assert state.sealed_batch == state.confirmed_batch
    batch = Batch(
        batch_id=state.confirmed_batch + 1,
        round=state.round.round,
        prices_hash=prices_hash(state.round),
        journal_sequence=0,
        journal_hash=bytes(32),
        fee_classes=(),
        markets=(0, 1),
        accounts=(),
        pairs=(),
        orders=(),
        funding_hours=(hour,),
    )
    events = world.apply(
        ForeignBatch(
            batch_id=batch.batch_id,
            calldata=encode_batch(batch),
            round=state.round,
            entries=(),
            rates=((90_000,),),
            block_number=7,
        )
    )
    assert of_type(events, ForeignBatchApplied)
    told = {event.market_id: event.rate_ppb for event in of_type(events, FundingApplied)}
    assert told == {0: 90_000, 1: 0}
    assert [at.funding_hour for at in state.markets] == [hour, hour]
    assert (state.markets[0].cumulative > 0, state.markets[1].cumulative) == (True, 0)
    assert snapshot(restore(snapshot(state))) == snapshot(state)
