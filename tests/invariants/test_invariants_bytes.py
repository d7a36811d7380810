"""Every single-byte change of a lawful batch either reverts or leaves a state in which all invariants hold."""

import hunting
import pytest
from builders import USDC, Refused, send
from hostile_ledger import look
from hostile_rules import judge
from hostile_world import TRADED, World, anchored, deployed

from evermark.protocol.batch import FILL_FUND, FILL_LIQUIDATION, FILL_TAKEOVER, MalformedBatch, decode_batch
from evermark.protocol.orders import Side

# Every bit of every byte nightly; in CI one bit of every third byte.
STRIDE = 1 if hunting.IS_NIGHTLY else 3


@pytest.fixture
def world():
    with anchored():
        yield World(deployed(), 1)


def trading(world: World) -> bytes:
    """Fills, an amended order, a deposit, a cancel, an approval and a withdrawal."""
    exchange, batch = world.exchange, world.exchange.batch()
    rich, other, thief = world.honest[0], world.honest[1], world.hostile[0]
    world.deposit(other, 50 * USDC)
    batch.inbox(other.account)
    mark = exchange.last[0].mark_ticks
    resting = world.order(batch, rich, Side.BUY, 700, mark + 40, 0, slot=2)
    batch.fill(resting, world.order(batch, other, Side.SELL, 300, mark, 0), 300)
    batch.fill(resting, world.order(batch, thief, Side.SELL, 900, mark - 50, 0, slot=3), 400)
    batch.cancel(other, slot=1, sequence=exchange.sequence())
    batch.approve(rich, thief.signer.address, exchange.clock + 60)
    batch.withdraw(other, 7 * USDC, fee=3)
    return batch.data()


def closing_out(world: World) -> bytes:
    """After a jump: a liquidation on the book and a take-over by the fund, with a keeper."""
    mark = world.exchange.last[0].mark_ticks
    world.exchange.round({0: mark - mark * 17 // 1_000, 2: 15_000 + 15_000 * 45 // 1_000})
    world.observe()
    batch = world.exchange.batch()
    for slot, party in enumerate(world.poor, 1):
        for market in range(3):
            size = abs(world.now.held(party.account, market))
            margin = world.exchange.margin(party.account)
            if not size or not margin.liquidatable:
                continue
            if 3 * margin.equity < 2 * margin.maintenance:
                cap = TRADED[market].fund_position_cap_lots
                batch.take_over(party.account, market, min(size, cap), world.honest[1].account)
                continue
            side = Side.BUY if world.now.held(party.account, market) > 0 else Side.SELL
            price = world.exchange.last[market].mark_ticks
            maker = world.order(batch, world.honest[0], side, size, price, market, slot=slot)
            batch.liquidate(party.account, market, maker, size, world.honest[1].account)
    return batch.data()


def fund_exit(world: World) -> bytes:
    """What the fund took over goes to a trader, with an hour of funding before it."""
    assert world.try_settle(closing_out(world), "closing out") is not None, world.counts
    hour = world.exchange.clock // 3_600
    world.exchange.round(seconds=3_600 - world.exchange.clock % 3_600 + 10)
    world.exchange.post_funding(hour, {0: 12_345, 1: -5, 2: 77})
    world.observe()
    batch = world.exchange.batch()
    batch.hours, batch.markets = [hour], {0, 1, 2}
    world.fund_exit(batch, set())
    return batch.data()


@pytest.mark.safety("F02", "contract")
@pytest.mark.safety("E01", "contract")
@pytest.mark.parametrize("lawful", [trading, closing_out, fund_exit])
def test_every_changed_byte_reverts_or_keeps_the_invariants(world, lawful) -> None:
    data = lawful(world)
    kinds = {fill.kind for fill in decoded(world, data).fills}
    assert kinds, "the lawful batch has fills"
    settled = 0
    for at in range(4, len(data), STRIDE):
        for bit in range(8) if hunting.IS_NIGHTLY else [at % 8]:
            other = bytearray(data)
            other[at] ^= 1 << bit
            settled += survives(world, bytes(other))
    with anchored():
        assert world.try_settle(data, "lawful") is not None, world.counts
    # The journal's sequence and hash are the sequencer's own words: they, at least, may change.
    assert settled >= 10


def decoded(world: World, data: bytes):
    from hostile_rules import decode

    return decode(world.exchange, world.now, data)


def survives(world: World, data: bytes) -> bool:
    """Whether the batch settles; then everything that it did is judged."""
    with anchored():
        try:
            send(world.exchange, data)
        except Refused:
            return False
        judge(world.exchange, world.signed.copy(), world.now, look(world.exchange), data)
        return True


def test_the_batches_hold_every_kind_of_fill(world) -> None:
    """What the byte test changes includes liquidations, take-overs and exits of the fund."""
    data = closing_out(world)
    assert {fill.kind for fill in decoded(world, data).fills} == {FILL_LIQUIDATION, FILL_TAKEOVER}
    with pytest.raises(MalformedBatch):
        decode_batch(data[4:-1], {}, [])
    assert FILL_FUND in {fill.kind for fill in decoded(world, fund_exit(world)).fills}
