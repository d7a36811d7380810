"""Reversals back across a change of the governor's: the newest round comes again by the rules that the chain has, so that what
stands settles at once, and a start from any point passes through it alike."""

from pathlib import Path

import pytest
from sequencer_world import PRICES, World, key
from settling_house import MAKER, TAKER, ChainModel, House, trade
from test_reversal import assert_replays_to_the_same, commands, executed, stranger

from evermark.chain.batches import decode_outline
from evermark.protocol.governance import AnyChange, DelistMarket, SetKeeper, SettleMarket
from evermark.protocol.oracle import SETTLED_BIT
from evermark.protocol.orders import Side
from sequencer.engine.commands import (
    InboxEntry,
    InboxEntryKind,
    MarketMode,
    OracleRound,
    ReversalCause,
    Reverse,
)
from sequencer.settlement.chain import Receipt
from sequencer.settlement.errors import Refused

MARKET, PRICE = 0, 1_099_000


class GovernedChain(ChainModel):
    """Its oracle knows the settlement price from the batch that consumes the governor's entry on."""

    settled_by = 0  # the entry

    async def start_settle(self, batch: bytes) -> "object":
        receipt: Receipt = await super().start_settle(batch)  # type: ignore[assignment]
        self.learn()
        return receipt

    def learn(self) -> None:
        consumed = sum(len(decode_outline(batch).inbox) for batch in self.settled)
        if self.settled_by and consumed >= self.settled_by:
            self.jumps[MARKET] = PRICE << SETTLED_BIT


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def chain(world: World) -> GovernedChain:
    return GovernedChain(len(world.markets))


def governed(world: World, change: AnyChange) -> InboxEntry:
    world.entries += 1
    return InboxEntry(
        entry_id=world.entries,
        entry_kind=InboxEntryKind.GOVERNOR,
        owner=b"\x77" * 20,
        sub_account=0,
        amount=0,
        change=change,
    )


async def delisted(house: House) -> None:
    """Positions in a market that is delisted, all of it settled."""
    await house.fund_and_trade(2)
    await house.core.pipeline.submit(governed(house.world, DelistMarket(MARKET)))
    house.world.now_s += 3
    await house.core.pipeline.submit(house.world.round())
    await house.settle_all()
    assert house.all_confirmed()


async def settle_market(house: House, chain: GovernedChain) -> InboxEntry:
    """The engine consumes the entry, and positions end; nothing of it reaches the chain."""
    entry = governed(house.world, SettleMarket(MARKET, PRICE))
    chain.settled_by = entry.entry_id
    await house.core.pipeline.submit(entry)
    for _ in range(2):
        house.world.now_s += 3
        await house.core.pipeline.submit(house.world.round())
    assert house.core.state.markets[MARKET].mark == PRICE
    assert not house.core.state.markets[MARKET].holders
    return entry


async def goes_on(house: House) -> None:
    """Whatever waits settles by itself, and trading in another market with it."""
    for _ in range(2):
        house.world.now_s += 3
        await house.core.pipeline.submit(house.world.round())
    await house.settle_all()
    assert house.all_confirmed()
    assert house.core.backlog.reversals == 1
    assert not house.core.state.markets[MARKET].holders
    await assert_replays_to_the_same(house)


@pytest.mark.safety("G26", "sequencer")
async def test_a_missed_window_takes_a_settlement_price_back(
    tmp_path: Path, world: World, chain: GovernedChain
) -> None:
    """The round in force has the keepers' price again, as the lane will; the entry is consumed again, and from the next round on
    the settlement price holds."""
    async with House(tmp_path, world, chain) as house:
        core = house.core
        await delisted(house)
        await settle_market(house, chain)
        world.now_s += 150
        await core.pipeline.submit(world.round())
        chain.refusal = "vault: round too old"
        assert await house.line.step()
        chain.refusal = ""
        at = core.state.markets[MARKET]
        assert (at.mark, at.effective_mode) == (PRICES[MARKET][1], MarketMode.SETTLED)
        assert at.holders
        found = commands(core)
        (reverse,) = [command for command in found if isinstance(command, Reverse)]
        assert reverse.with_prices
        assert isinstance(found[found.index(reverse) + 1], OracleRound)
        await goes_on(house)


@pytest.mark.safety("G26", "sequencer")
async def test_a_strangers_settlement_is_followed_by_a_newer_round(
    tmp_path: Path, world: World, chain: GovernedChain
) -> None:
    """His batch consumed the governor's entry. A round that may have been posted before it is not gone on with: the lane may
    hold it by the old rules."""
    async with House(tmp_path, world, chain) as house:
        core = house.core
        await delisted(house)
        before = core.state.confirmed_batch
        entry = governed(world, SettleMarket(MARKET, PRICE))
        executed(chain, stranger(world, before + 1, [entry], (0,)))
        chain.settled_by = entry.entry_id
        chain.learn()
        chain.block_times[9] = world.now_s
        world.now_s += 3
        await core.pipeline.submit(world.round())
        assert not await house.line.step()
        assert core.backlog.reversals == 0
        world.now_s += 3
        await core.pipeline.submit(world.round())
        assert await house.line.step()
        assert (core.state.confirmed_batch, core.state.markets[MARKET].mark) == (before + 1, PRICE)
        await goes_on(house)


async def test_nothing_else_takes_prices_back(tmp_path: Path, world: World, chain: GovernedChain) -> None:
    """Without a change of the governor's a reversal leaves the newest round in force, made as it was."""
    async with House(tmp_path, world, chain) as house:
        await house.fund_and_trade(2)
        await house.settle_all()
        await trade(house.core, world, 2)
        world.now_s += 150
        await house.core.pipeline.submit(world.round())
        chain.refusal = "vault: round too old"
        assert await house.line.step()
        (reverse,) = [command for command in commands(house.core) if isinstance(command, Reverse)]
        assert not reverse.with_prices


class StrictChain(GovernedChain):
    """Says that the lane has other prices, as the vault does."""

    async def simulate_settle(self, batch: bytes) -> None:
        try:
            await super().simulate_settle(batch)
        except AssertionError as error:
            raise Refused("vault: prices hash differs") from error


@pytest.mark.parametrize("late", [True, False])
async def test_what_follows_on_a_late_batch_across_a_change_is_reversed_at_once(
    tmp_path: Path, world: World, late: bool
) -> None:
    """For the late batch the newest round was posted, which the chain made by the rules from before the settlement price that
    waits. The batch on that round can never settle, and does not wait for the end of its window. Prices that differ for no such
    reason stand settlement still."""
    chain = StrictChain(len(world.markets))
    chain.now_s, chain.overdue_in_s = lambda: world.now_s, 0
    async with House(tmp_path, world, chain) as house:
        core = house.core
        await delisted(house)
        market = world.markets[1].symbol
        for signer, account, side in ((MAKER, 3, Side.BUY), (TAKER, 4, Side.SELL)):
            order = world.sign_order(signer, account, side, 500, 400_000, market=market, slot=9)
            await core.pipeline.submit(order)
        world.now_s += 100 if late else 3
        await core.pipeline.submit(world.round())
        await settle_market(house, chain)
        if not late:
            chain.settled_by = 0  # the chain never learns of the price
            with pytest.raises(Refused, match="vault: prices hash differs"):
                await house.settle_all()
            assert core.backlog.reversals == 0
            return
        world.now_s += 15
        await core.pipeline.submit(world.round())
        oldest = core.backlog.sealed(core.state.confirmed_batch + 1)
        assert oldest is not None
        assert world.now_s - oldest.round.timestamp > 120
        await house.settle_all()
        assert core.backlog.reversals == 1
        assert core.backlog.last_reversal.cause is ReversalCause.MISSED_WINDOW  # type: ignore[union-attr]
        await goes_on(house)


async def test_a_round_that_is_void_for_good_is_not_posted(
    tmp_path: Path, world: World, chain: GovernedChain
) -> None:
    """A reversal takes a change of keepers back, and the newest round, signed by the new ones, is refused when it comes again.
    Until the next one the round from before is the newest: nothing asks for reports that are void."""
    async with House(tmp_path, world, chain) as house:
        core = house.core
        await house.fund_and_trade(2)
        await house.settle_all()
        stands, keepers = core.state.round.round, world.keepers
        for change in (SetKeeper(0, key(7).address, True), SetKeeper(0, keepers[0].address, False)):
            await core.pipeline.submit(governed(world, change))
        world.keepers = sorted([*keepers[1:], key(7)], key=lambda signer: signer.address)
        world.now_s += 150
        await core.pipeline.submit(world.round())
        assert core.backlog.newest_round == core.state.round
        assert core.state.round.round > stands
        chain.refusal = "vault: round too old"
        assert await house.line.step()
        chain.refusal = ""
        assert core.backlog.newest_round == core.state.round
        assert core.state.round.round <= stands
        await house.settle_all()
        with pytest.raises(Refused, match="oracle: round 1 is not among those"):
            core.backlog.price_reports(1)
        for _ in range(2):
            world.now_s += 3
            await core.pipeline.submit(world.round())
        await house.settle_all()
        assert house.all_confirmed()
        await assert_replays_to_the_same(house)
