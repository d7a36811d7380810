"""An operation that the vault refuses is found by simulating shorter batches; its account is halted, everybody else goes on."""

from pathlib import Path

import pytest
from sequencer_world import World, key
from settling_house import MAKER, TAKER, ChainModel, House
from test_reversal import assert_replays_to_the_same

from evermark.protocol.orders import Side
from evermark.protocol.reject import RejectCode
from evermark.protocol.signing import Signer
from sequencer.engine.commands import HaltAccount, InboxEntry, InboxEntryKind, ReversalCause
from sequencer.engine.events import CommandRejected
from sequencer.settlement.errors import Refused


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> ChainModel:
    """Each batch is simulated before it is sent: none is sent behind another."""
    chain = ChainModel(len(world.markets))
    chain.overdue_in_s = 0
    return chain


async def fund(house: House, *signers: Signer) -> None:
    """Deposits of traders 3, 4 and so on, and the round after them."""
    world, submit = house.world, house.core.pipeline.submit
    await submit(world.round())
    for signer in signers:
        await submit(world.deposit(signer, 100_000))
    world.now_s += 3
    await submit(world.round())


@pytest.mark.safety("E01", "sequencer")
async def test_an_operation_that_reverts_is_isolated_and_its_account_halted(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """One trader's order makes the vault refuse the batch: that order is left out, the trader may only cancel, and everybody
    else trades and settles on."""
    poison = key(13)
    async with House(tmp_path, world, chain) as house:
        core, submit = house.core, house.core.pipeline.submit
        await submit(world.round())
        for signer in (MAKER, TAKER, poison):
            await submit(world.deposit(signer, 100_000))
        for number in range(4):
            world.now_s += 3
            await submit(world.round())
            await submit(world.sign_order(MAKER, 3, Side.BUY, 1_500, 1_100_000, slot=1 + number))
            await submit(world.taker(TAKER, 4, Side.SELL, 500, 1_100_000))
            if number == 2:
                await submit(world.sign_order(poison, 5, Side.BUY, 300, 1_090_000, slot=7))
                bad = world.taker(poison, 5, Side.SELL, 500, 1_100_000)
                await submit(bad)
            await submit(world.taker(TAKER, 4, Side.SELL, 300, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        trades = core.state.trade_count
        chain.poisoned = {5}
        await house.settle_all()
        assert core.backlog.reversals == 1
        told = core.backlog.last_reversal
        assert told is not None
        assert told.cause is ReversalCause.REVERTING_BATCH
        assert core.state.halted == {5: False}
        assert core.state.accounts[5].open_positions == 0
        assert not core.state.accounts[5].orders
        voided = told.last_trade + 1 - told.first_trade
        assert core.state.trade_count == trades + voided - 1
        refused = await submit(world.taker(poison, 5, Side.SELL, 500, 1_100_000))
        assert [one.reject.code for one in refused if isinstance(one, CommandRejected)] == [
            RejectCode.ACCOUNT_HALTED
        ]
        assert core.history.order(bad.order_hash).status == "voided"  # type: ignore[union-attr]
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        await assert_replays_to_the_same(house)
        await house.core.pipeline.submit(HaltAccount(account=5, halted=False, reason="cured"))
        again = world.taker(poison, 5, Side.SELL, 500, 1_100_000)
        events = await house.core.pipeline.submit(again)
        assert not any(isinstance(event, CommandRejected) for event in events)


@pytest.mark.safety("E01", "sequencer")
async def test_a_release_from_before_does_not_let_go_an_account_that_is_halted_anew(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """The operator let an account go too early. Its next orders make the vault refuse again: one reversal halts it, and takes
    all of them, while a release of another account comes again."""
    poison, other = key(13), key(14)
    async with House(tmp_path, world, chain) as house:
        submit = house.core.pipeline.submit
        await fund(house, MAKER, TAKER, poison, other)
        for account in (5, 6):
            await submit(HaltAccount(account=account, halted=True, reason="vault: signature"))
        await house.settle_all()
        await submit(world.sign_order(MAKER, 3, Side.BUY, 3_000, 1_100_000, slot=1))
        for account in (5, 6):
            await submit(HaltAccount(account=account, halted=False, reason="too early"))
        for _ in range(3):
            await submit(world.taker(poison, 5, Side.SELL, 300, 1_100_000))
            await submit(world.taker(other, 6, Side.SELL, 300, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        chain.poisoned = {5}
        for _ in range(3):
            await house.settle_all()
            world.now_s += 3
            await submit(world.round())
        assert house.core.backlog.reversals == 1
        assert house.core.state.halted == {5: False}
        assert house.core.state.accounts[5].open_positions == 0
        assert house.core.state.accounts[6].open_positions == 1
        await house.settle_all()
        assert house.all_confirmed()
        await assert_replays_to_the_same(house)


async def test_a_maker_whose_orders_revert_is_found_by_the_second_taker(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """The first refused trade does not tell which side is to blame; what two have in common does."""
    async with House(tmp_path, world, chain) as house:
        submit, third = house.core.pipeline.submit, key(13)
        await fund(house, MAKER, TAKER, third)
        await submit(world.sign_order(MAKER, 3, Side.BUY, 1_500, 1_100_000, slot=1))
        await submit(world.taker(TAKER, 4, Side.SELL, 500, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        await submit(world.taker(third, 5, Side.SELL, 500, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        chain.poisoned = {3}
        await house.settle_all()
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        assert set(house.core.state.halted) == {3, 4}
        assert house.core.backlog.reversals == 2
        assert house.core.state.accounts[3].open_positions == 0
        await assert_replays_to_the_same(house)


async def test_two_operations_in_one_batch_are_isolated_one_after_the_other(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """What the first reversal made void is not looked at again; whoever has done nothing trades on."""
    poisons = [key(13), key(14)]
    async with House(tmp_path, world, chain) as house:
        submit = house.core.pipeline.submit
        await fund(house, MAKER, TAKER, *poisons)
        for slot in range(1, 7):
            await submit(world.sign_order(MAKER, 3, Side.BUY, 300, 1_100_000, slot=slot))
        for signer, account in ((TAKER, 4), (poisons[0], 5), (TAKER, 4), (poisons[1], 6), (TAKER, 4)):
            await submit(world.taker(signer, account, Side.SELL, 300, 1_100_000))
        chain.poisoned = {5, 6}
        for _ in range(4):
            world.now_s += 3
            await submit(world.round())
            await house.settle_all()
        assert house.core.state.halted == {5: False, 6: False}
        assert house.core.backlog.reversals == 2
        assert house.core.state.accounts[4].positions[0].size == -900
        assert house.all_confirmed()
        await assert_replays_to_the_same(house)


async def test_a_maker_with_two_takers_in_one_batch_is_found_at_once(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Without the first taker the rest is still refused; without the maker it is not."""
    async with House(tmp_path, world, chain) as house:
        submit, third = house.core.pipeline.submit, key(13)
        await fund(house, MAKER, TAKER, third)
        await submit(world.sign_order(MAKER, 3, Side.BUY, 1_500, 1_100_000, slot=1))
        await submit(world.taker(TAKER, 4, Side.SELL, 500, 1_100_000))
        await submit(world.taker(third, 5, Side.SELL, 500, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        chain.poisoned = {3}
        await house.settle_all()
        assert set(house.core.state.halted) == {3}


async def test_of_several_makers_the_one_whose_order_reverts_is_halted(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """The taker and the other makers have done nothing; the taker's order is left out with it."""
    async with House(tmp_path, world, chain) as house:
        submit, third = house.core.pipeline.submit, key(13)
        await fund(house, MAKER, TAKER, third)
        await submit(world.sign_order(MAKER, 3, Side.BUY, 300, 1_100_000, slot=1))
        await submit(world.sign_order(third, 5, Side.BUY, 300, 1_100_000, slot=1))
        await submit(world.taker(TAKER, 4, Side.SELL, 600, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        chain.poisoned = {5}
        await house.settle_all()
        assert house.core.state.halted == {5: False}
        await assert_replays_to_the_same(house)


@pytest.mark.parametrize("poisoned", [5, 6])
async def test_of_an_entry_of_the_inbox_the_maker_whose_order_reverts_is_halted(
    tmp_path: Path, world: World, chain: ChainModel, poisoned: int
) -> None:
    """A close by the inbox fills against two makers, and the vault takes no order of one. The entry is nobody's and stays;
    that maker is halted, and the close goes on without its order."""
    makers = [key(13), key(14)]
    async with House(tmp_path, world, chain) as house:
        core, submit = house.core, house.core.pipeline.submit
        await fund(house, MAKER, TAKER, *makers)
        await submit(world.sign_order(MAKER, 3, Side.BUY, 500, 1_100_000, slot=1))
        await submit(world.taker(TAKER, 4, Side.SELL, 500, 1_100_000))
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        for at, signer in enumerate(makers):
            await submit(world.sign_order(signer, 5 + at, Side.SELL, 250, 1_100_000, slot=7))
        world.entries += 1
        close = InboxEntry(
            entry_id=world.entries,
            entry_kind=InboxEntryKind.CLOSE,
            owner=TAKER.address,
            sub_account=0,
            amount=0,
            size=-500,
            mark=1_100_000,
        )
        await submit(close)
        assert core.state.accounts[4].positions[0].size == 0
        world.now_s += 3
        await submit(world.round())
        chain.poisoned = {poisoned}
        await house.settle_all()
        assert core.state.halted == {poisoned: False}
        assert core.state.accounts[4].positions[0].size == 0
        assert core.state.accounts[11 - poisoned].positions[0].size == -250
        assert core.state.accounts[poisoned].open_positions == 0
        assert core.backlog.reversals == 1
        world.now_s += 3
        await submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        await assert_replays_to_the_same(house)


async def test_a_refusal_that_is_no_accounts_stands_still(
    tmp_path: Path, world: World, chain: ChainModel
) -> None:
    """Nobody is halted when every batch is refused."""
    async with House(tmp_path, world, chain) as house:
        await house.core.pipeline.submit(world.round())
        await house.core.pipeline.submit(world.deposit(MAKER, 100_000))
        world.now_s += 3
        await house.core.pipeline.submit(world.round())
        chain.refusal = "vault: only the sequencer"
        with pytest.raises(Refused, match="only the sequencer"):
            await house.line.step()
        assert (house.core.state.halted, house.core.backlog.reversals) == ({}, 0)
