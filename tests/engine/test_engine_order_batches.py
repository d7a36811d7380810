"""Orders that came in an `OrderBatch`: signed by an agent, settled with their path, bounded by the bytes of a batch."""

import pytest
from engine_world import BUY, IOC, SELL, USDC, World, of_type, owner_of, rejection

from evermark.protocol.batch import encode_batch
from evermark.protocol.reject import RejectCode
from sequencer.engine.batch_builder import MAX_BYTES
from sequencer.engine.events import OrderRested, Trade
from sequencer.engine.snapshot import restore, snapshot

AGENT = owner_of(500)
PATH = tuple((at % 2 == 0, bytes([at]) * 32) for at in range(6))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def holder(world):
    account = world.trader(10)
    world.approve(account, AGENT, life_s=100_000)
    return account


def test_a_batch_order_settles_with_its_path(world, holder):
    """Resting, over a snapshot, and in the sealed batch beside plain orders."""
    assert of_type(world.order(holder, SELL, 500, 10_000, signer=AGENT, path=PATH), OrderRested)
    world.state = restore(snapshot(world.state))
    buyer = world.trader(11)
    assert of_type(world.order(buyer, BUY, 500, 10_000, IOC), Trade)
    world.state = restore(snapshot(world.state))
    world.next_round()
    assert [row.path for row in world.sealed[-1].batch.orders] == [PATH, None]
    world.assert_settled()


@pytest.mark.safety("D12", "sequencer")
def test_an_owner_never_signs_blindly(world, holder):
    """Its own key's order batch is refused, as the vault would; so is a path that no batch of 64 has."""
    owner = world.state.accounts[holder].owner
    assert rejection(world.order(holder, SELL, 500, 10_000, path=PATH)).code is RejectCode.NOT_AUTHORISED
    assert rejection(world.order(holder, SELL, 500, 10_000, signer=owner, path=())).code is (
        RejectCode.NOT_AUTHORISED
    )
    longer = (*PATH, (True, bytes(32)))
    refused = rejection(world.order(holder, SELL, 500, 10_000, signer=AGENT, path=longer))
    assert refused.code is RejectCode.NOT_AUTHORISED


def test_a_batch_stays_within_its_bytes(world):
    """Paths are long: the batch ends before the vault would refuse its size."""
    makers = [world.trader(100 + number) for number in range(4)]
    taker = world.trader(50, 10**6)
    for account in (*makers, taker):
        world.approve(account, AGENT, life_s=100_000)
    world.next_round()
    before = len(world.sealed)
    for turn in range(130):
        maker = makers[turn % 4]
        world.order(maker, SELL, 20, 10_000, slot=1 + turn, signer=AGENT, path=PATH)
        world.order(taker, BUY, 20, 10_000, IOC, signer=AGENT, path=PATH)
    world.next_round()
    sizes = [len(encode_batch(sealed.batch)) for sealed in world.sealed[before:]]
    assert len(sizes) > 2
    assert max(sizes) <= MAX_BYTES
    assert max(sizes) > MAX_BYTES // 3
    world.assert_settled()
    assert world.collateral(taker) < 10**6 * USDC
