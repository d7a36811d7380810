"""Reversals: what can never settle is taken back by a journaled command, what stands of it happens again, and everybody who
follows the journal, live, at a restart or from a snapshot, comes to the same end."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sequencer_world import World
from settling_house import MAKER, TAKER, ChainModel, House, trade

from evermark.protocol.batch import NO_INDEX, Batch, InboxUse, encode_batch
from evermark.protocol.oracle import Round, aggregate, prices_hash
from evermark.protocol.orders import Side
from evermark.protocol.units import USDC
from sequencer.core import Core
from sequencer.engine.commands import (
    ForeignBatch,
    InboxEntry,
    PlaceOrder,
    ReversalCause,
    Reverse,
)
from sequencer.engine.events import CommandRejected
from sequencer.engine.invariants import check_invariants
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.followers import Followers
from sequencer.journal import decode_command
from sequencer.pipeline import Making
from sequencer.replay import replay
from sequencer.settlement.errors import Refused, Unreachable


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> ChainModel:
    return ChainModel(len(world.markets))


def round_of(world: World) -> Round:
    """The round of now as a lane without history has it."""
    reports = [signed.report for signed in world.price_reports()]
    no_prices = ChainModel(len(world.markets)).lane.prices
    return aggregate(reports, 3, no_prices, [0] * len(world.markets))


def stranger(
    world: World, batch_id: int, entries: Sequence[InboxEntry], accounts: Sequence[int]
) -> ForeignBatch:
    """Somebody else's batch: deposits of the head, credited to these accounts; 0 names none."""
    round_, known = round_of(world), sorted(set(accounts) - {0})
    batch = Batch(
        batch_id=batch_id,
        round=round_.round,
        prices_hash=prices_hash(round_),
        journal_sequence=0,
        journal_hash=bytes(32),
        fee_classes=(),
        markets=(),
        accounts=tuple(known),
        pairs=(),
        orders=(),
        inbox=tuple(InboxUse(known.index(key) if key else NO_INDEX) for key in accounts),
    )
    return ForeignBatch(
        batch_id=batch_id,
        calldata=encode_batch(batch),
        round=round_,
        entries=tuple(entries),
        rates=(),
        block_number=9,
    )


def executed(chain: ChainModel, batch: ForeignBatch) -> None:
    """It is on the chain now."""
    chain.settled.append(batch.calldata)
    chain.foreign[batch.batch_id] = batch


def commands(core: Core, after: int = 0) -> list[Any]:
    return [decode_command(record.payload, record.sequence) for record in core.reader.read(after + 1)]


def positions(core: Core) -> dict[int, int]:
    held = {key: account.positions.get(0) for key, account in core.state.accounts.items()}
    return {key: position.size for key, position in held.items() if position is not None}


async def assert_replays_to_the_same(house: House) -> None:
    """From nothing, and at a start from whatever snapshot there is."""
    core = house.core
    check_invariants(core.state)
    state = EngineState()
    replay(core.reader, state)
    assert state_hash(state) == state_hash(core.state)
    expected, memory = state_hash(core.state), core._followers.encode_memory()
    orders = dict(core.history._orders)
    await house.__aexit__()
    again = Core(house.directory, house.world.genesis, lambda: house.world.now_s * 1000)
    assert state_hash(again.state) == expected
    followers = Followers(again.history, again.market_data, again.backlog, again.reports)
    assert followers.encode_memory() == memory
    assert {key: order for key, order in again.history._orders.items() if key in orders} == orders
    await again.close()
    await house.__aenter__()


@pytest.mark.safety("G26", "sequencer")
async def test_a_missed_window_takes_fills_back_and_enters_orders_again(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Two minutes without the chain: what was matched is void, resting orders stand again and trade again at today's prices,
    and settlement goes on by itself. The journal keeps everything that happened."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        await house.settle_all()
        core, submit = house.core, house.core.pipeline.submit
        settled, before = core.state.confirmed_batch, core.state.sequence
        world.now_s += 3
        await submit(world.round())
        maker = world.sign_order(MAKER, 3, Side.BUY, 700, 1_100_000, slot=40)
        taker = world.taker(TAKER, 4, Side.SELL, 700, 1_100_000)
        rests = world.sign_order(MAKER, 3, Side.BUY, 300, 1_090_000, slot=41)
        untraded = world.taker(TAKER, 4, Side.SELL, 300, 1_100_900)
        for command in (maker, taker, rests, untraded):
            await submit(command)
        await submit(world.cancel(MAKER, 3, 40))
        held, first_void = positions(core), core.state.trade_count
        for _ in range(41):
            world.now_s += 3
            await submit(world.round())
        chain.refusal = "vault: round too old"
        assert await house.line.step()
        assert core.backlog.reversals == 1
        chain.refusal = ""
        told = core.backlog.last_reversal
        assert told is not None
        assert (told.cause, told.batch_id) == (ReversalCause.MISSED_WINDOW, settled)
        assert (told.first_trade, told.last_trade) == (first_void - 1, first_void)
        again = commands(core, core.state.sequence - 7)
        reverse = next(command for command in again if isinstance(command, Reverse))
        entered = again[again.index(reverse) + 1 :]
        assert [command for command in entered if isinstance(command, PlaceOrder)][-3:] == [
            maker,
            taker,
            rests,
        ]
        assert untraded not in entered
        assert positions(core) == held
        assert 41 in core.state.accounts[3].orders
        assert commands(core)[: before + 1][-1] is not None
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        assert core.state.confirmed_batch > settled
        await assert_replays_to_the_same(house)


async def test_nothing_is_reversed_before_the_window_is_over_or_without_prices(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """A refusal within the two minutes may have another cause; without fresh prices nothing could be entered again."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        chain.refusal = "vault: round too old"
        with pytest.raises(Refused, match="round too old"):
            await house.line.step()
        world.now_s += 200
        with pytest.raises(Unreachable, match="a reversal waits for prices"):
            await house.line.step()
        assert house.core.backlog.reversals == 0
        await house.core.pipeline.submit(world.round())
        assert await house.line.step()
        assert house.core.backlog.reversals == 1


@pytest.mark.safety("G26", "sequencer")
async def test_somebody_elses_batch_is_followed_and_trades_happen_again(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """A stranger executed the two deposits that the sequencer had consumed in a batch of its own: the same accounts, the same
    money, and every order again; the entries are not consumed twice."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(4)
        core = house.core
        trades, held = core.state.trade_count, positions(core)
        entries = [command for command in commands(core) if isinstance(command, InboxEntry)]
        executed(chain, stranger(world, 1, entries, (3, 4)))
        assert await house.line.step()
        assert core.state.confirmed_batch == 1
        assert core.state.entry_count == 2
        assert core.state.trade_count == 2 * trades
        assert positions(core) == held
        assert core.backlog.fills_voided == trades
        (found,) = [command for command in commands(core) if isinstance(command, ForeignBatch)]
        assert found == chain.foreign[1]
        world.now_s += 3
        await core.pipeline.submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        assert core.backlog.fills_settled == trades
        await assert_replays_to_the_same(house)


async def test_a_deposit_that_only_the_stranger_executed_is_credited(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """The sequencer had not even seen it."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        await house.settle_all()
        world.now_s += 3
        await house.core.pipeline.submit(world.round())
        await house.settle_all()
        last = house.core.state.confirmed_batch
        collateral = house.core.state.accounts[3].collateral
        sealed = house.core.state.sealed_batch
        assert last == sealed
        executed(chain, stranger(world, last + 1, [world.deposit(MAKER, 70)], (3,)))
        executed(chain, stranger(world, last + 2, [world.deposit(MAKER, 7)], (3,)))
        await house.settle_all()
        assert house.core.state.accounts[3].collateral == collateral + 77 * USDC
        assert house.core.state.confirmed_batch == last + 2
        await assert_replays_to_the_same(house)


async def test_a_strangers_batch_waits_until_it_is_deep_enough(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """It may be taken back; until it is final nothing is settled and nothing reversed."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        chain.depth_lag = 1
        entries = [command for command in commands(house.core) if isinstance(command, InboxEntry)]
        executed(chain, stranger(world, 1, entries, (3, 4)))
        assert not await house.line.step()
        assert (house.core.backlog.reversals, len(chain.settled)) == (0, 1)
        chain.settled.clear()  # the chain took it back
        while len(chain.settled) < house.core.backlog.last_sealed:
            await house.line.step()
        assert house.core.backlog.reversals == 0


async def test_a_reversal_survives_a_kill_and_a_second_one_voids_the_first(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Again and again without the chain: each reversal goes back to the same batch, enters what stands once, and a start
    from nothing passes through all of them."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(3)
        trades = house.core.state.trade_count
        chain.refusal = "vault: round too old"
        for number in range(1, 4):
            world.now_s += 150
            await house.core.pipeline.submit(world.round())
            assert await house.line.step()
            assert house.core.backlog.reversals == number
            await assert_replays_to_the_same(house)
        core, standing = house.core, house.core.state.trade_count - house.core.backlog.fills_voided
        assert standing == trades  # each trade that is void is counted and taken off its order once
        for account in (3, 4):
            orders = {order.order_hash: order for order in await core.history.orders(account, 100, 0, "")}
            lots = dict.fromkeys(orders, 0)
            for fill in await core.history.fills(account, 1_000, 0):
                lots[fill["order_hash"]] += 0 if fill["voided"] else fill["size"]
            assert {key: order.filled for key, order in orders.items()} == lots
        placed = [command.order_hash for command in commands(house.core) if isinstance(command, PlaceOrder)]
        makers = [one for one in set(placed) if placed.count(one) == 4]
        assert len(makers) == len(set(placed)) == 6
        live = house.core.state.trade_count
        assert live > trades
        chain.refusal = ""
        world.now_s += 3
        await house.core.pipeline.submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        matched = house.core.state.trade_count - house.core.backlog.fills_voided
        assert matched == house.core.backlog.fills_settled == trades


async def test_history_and_market_data_tell_what_is_void(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Void fills are marked and never listed as trades; an order that could not be entered again says so; whoever listens hears
    the range of void trades."""
    async with House(tmp_path, world, chain) as house:
        core = house.core
        await house.fund_and_trade(1)
        await house.settle_all()
        core.market_data.go_live()
        core.market_data.watch(4)
        world.now_s += 3
        await core.pipeline.submit(world.round())
        maker = world.sign_order(MAKER, 3, Side.BUY, 700, 1_100_000, slot=40)
        taker = world.taker(TAKER, 4, Side.SELL, 700, 1_100_000)
        for command in (maker, taker):
            await core.pipeline.submit(command)
        assert core.history.order(maker.order_hash).status == "filled"  # type: ignore[union-attr]
        void = core.state.trade_count
        list(core.market_data.drain())
        core.market_data.drain_accounts()
        world.now_s += 3_700  # the orders expire meanwhile
        await core.pipeline.submit(world.round())
        chain.refusal = "vault: round too old"
        assert await house.line.step()
        record = core.history.order(maker.order_hash)
        assert record is not None
        assert (record.status, record.reason, record.filled, record.traded, record.fee) == (
            "rejected",
            "EXPIRED",
            0,
            0,
            0,
        )
        fills = await core.history.fills(4, 10, 0)
        assert [(fill["trade_id"], fill["voided"]) for fill in fills][:2] == [(void, True), (void - 1, True)]
        assert await core.history.trades("BTC-PERP", 10, 0) == []
        assert core.market_data.trades("BTC-PERP", 10) == []
        told = [payload for topic, payload in core.market_data.drain() if topic == ("trades", "BTC-PERP")]
        assert b'"type":"voided"' in told[0]
        ((account, change),) = core.market_data.drain_accounts()
        assert (account, change.voided) == (4, (void - 1, void))
        assert core.market_data.book("BTC-PERP", 5)["bids"] == []
        await assert_replays_to_the_same(house)


async def test_orders_wait_for_the_reversal_and_follow_it(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """What is submitted while the state is made is neither lost nor between the reversal and what stands."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        world.now_s += 150
        await house.core.pipeline.submit(world.round())
        chain.refusal = "vault: round too old"
        late = world.sign_order(MAKER, 3, Side.BUY, 500, 1_050_000, slot=60)
        pipeline, waiting = house.core.pipeline, []
        alone = pipeline.submit_alone

        def and_an_order(make: Making) -> "asyncio.Future[None]":
            done = alone(make)
            waiting.append(pipeline.submit(late))
            return done

        pipeline.submit_alone = and_an_order  # type: ignore[method-assign]
        assert await house.line.step()
        events = await waiting[0]
        assert not any(isinstance(event, CommandRejected) for event in events)
        journaled = commands(house.core)
        reverse = next(at for at, command in enumerate(journaled) if isinstance(command, Reverse))
        assert journaled.index(late) > reverse
        assert journaled[-1] == late


async def test_a_late_batch_of_fills_settles_and_only_what_cannot_is_reversed(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """After ten minutes without the chain the fills still settle, at their own round and the newest one; a deposit among them
    does not, and from it on everything is entered again."""
    chain.now_s = lambda: world.now_s
    async with House(tmp_path, world, chain) as house:
        core, submit = house.core, house.core.pipeline.submit
        await house.fund_and_trade(2)
        await house.settle_all()
        settled = core.state.confirmed_batch
        await trade(core, world, 2)
        world.now_s += 3
        await submit(world.round())
        fills = core.backlog.last_sealed
        await submit(world.deposit(MAKER, 5))
        await trade(core, world, 2)
        assert core.backlog.last_sealed > fills > settled
        world.now_s += 600
        await submit(world.round())
        await house.settle_all()
        assert core.backlog.reversals == 1
        told = core.backlog.last_reversal
        assert told is not None
        assert (told.batch_id, told.cause) == (fills, ReversalCause.MISSED_WINDOW)
        assert core.state.entry_count == 3
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        assert chain.posted == sorted(chain.posted)
        await assert_replays_to_the_same(house)
