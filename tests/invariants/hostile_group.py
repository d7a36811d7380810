"""A trader with many accounts against an honest exchange: whatever it trades with itself, others do not pay for it (B10).

Prices move by at most 1 % a round, less than any maintenance margin, and the honest sequencer closes out everybody below
maintenance before they move again. Then the insurance fund never loses, no account ends below zero, and the group as a whole
never has more than its prices gave it.
"""

from __future__ import annotations

from typing import Any

from builders import USDC, Party
from hostile_ledger import INSURANCE_FUND, equity, maintenance, wealth
from hostile_machines import SEEDS, ExchangeMachine
from hostile_world import TRADED, World, deployed
from hypothesis.stateful import initialize, rule

from evermark.protocol.orders import Side

LARGEST_MOVE_PPM = 10_000
NUMBERS = (21, 22, 23, 24)  # further owners; the first has three sub-accounts


class ManyAccounts(ExchangeMachine):
    """Seven owners in one hand, with ten accounts."""

    group: list[Party]
    ceiling: int  # what the group may own: its deposits, and what prices gave and took
    fund_floor: int

    def deploy(self) -> Any:
        return deployed(leveraged=False)

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        super().begin(seed)
        world = self.world
        self.group = list(world.hostile)
        for number, sub_account in [(number, 0) for number in NUMBERS] + [(21, 1), (21, 2)]:
            self.group.append(world.exchange.deposit(number, 300 * USDC, sub_account))
        world.observe()
        self.ceiling = self.owned()
        self.fund_floor = equity(world.exchange, world.now, INSURANCE_FUND)

    def owned(self) -> int:
        owners = {party.signer.address for party in self.group}
        return sum(wealth(self.world.exchange, self.world.now, owner) for owner in owners)

    def holds(self) -> None:
        """The group owns no more than it should, and nobody else paid for it."""
        world = self.world
        assert self.owned() <= self.ceiling, "the group made money out of nothing"
        fund = equity(world.exchange, world.now, INSURANCE_FUND)
        assert fund >= self.fund_floor, "the insurance fund paid"
        for account in world.now.accounts:
            assert equity(world.exchange, world.now, account) >= 0, f"account {account} ended below zero"

    @rule(seed=SEEDS)
    def the_group_trades(self, seed: int) -> None:
        """Any two of its accounts, up to the largest leverage, anywhere in the band, at lawful fees."""
        world = self.seeded(seed)
        pick, batch = world.random, world.exchange.batch()
        for _ in range(pick.randint(1, 3)):
            maker, taker = pick.choice(self.group), pick.choice(self.group)
            market = pick.randrange(len(TRADED))
            mark = world.exchange.last[market].mark_ticks
            edge = mark * TRADED[market].price_band_ppm // 10**6
            price = mark + pick.choice((0, 0, pick.randint(-edge, edge)))
            side = pick.choice((Side.BUY, Side.SELL))
            size = world.size(taker, market) * pick.choice((1, 1, 2))
            resting = world.order(batch, maker, side.opposite, size, price, market, slot=pick.randint(1, 3))
            batch.fill(resting, world.order(batch, taker, side, size, price, market), size)
        world.try_settle(batch.data(), "group")
        self.holds()

    @rule(seed=SEEDS)
    def somebody_deposits(self, seed: int) -> None:
        world = self.seeded(seed)
        amount = world.random.choice((1, 50, 500)) * USDC
        world.deposit(world.random.choice(self.group), amount)
        self.ceiling += amount
        self.holds()

    @rule(seed=SEEDS)
    def an_honest_batch(self, seed: int) -> None:
        """Consumes the inbox and pays out to the group what it signed for."""
        world = self.seeded(seed)
        batch = world.exchange.batch()
        world.inbox_entries(batch, len(world.pending))
        party = world.random.choice(self.group)
        batch.name(party.account)
        batch.withdraw(party, world.random.choice((1, 20 * USDC, 300 * USDC)))
        world.try_settle(batch.data(), "out and in")
        self.holds()

    @rule(seed=SEEDS)
    def prices_move(self, seed: int) -> None:
        """By at most 1 %; then everybody below maintenance is closed out."""
        world = self.seeded(seed)
        before = [price.mark_ticks for price in world.exchange.last]
        held = [sum(world.now.held(party.account, at) for party in self.group) for at in range(len(TRADED))]
        marks = {
            number: mark + mark * world.random.randint(-LARGEST_MOVE_PPM, LARGEST_MOVE_PPM) // 10**6
            for number, mark in enumerate(before)
        }
        world.exchange.round(marks)
        world.observe()
        self.ceiling += sum(
            held[number] * (marks[number] - before[number]) * market.lot_tick_value
            for number, market in enumerate(TRADED)
        )
        self.sweep(world)
        self.holds()

    def sweep(self, world: World) -> None:
        """An honest sequencer's liquidations, until nobody is left, and the fund sells what it took."""
        for _ in range(30):
            batch, fills = world.exchange.batch(), 0
            for party in self.group:
                fills += self.close_out(world, batch, party)
            if not fills:
                return
            assert world.try_settle(batch.data(), "sweep") is not None, world.counts
            batch = world.exchange.batch()
            world.fund_exit(batch, set())
            if batch.fills:
                assert world.try_settle(batch.data(), "fund exit") is not None, world.counts
        raise AssertionError("liquidations do not end")

    def close_out(self, world: World, batch: Any, party: Party) -> int:
        """One position of an account below maintenance: by the fund below two thirds, else on the book at the mark."""
        required = maintenance(world.exchange, world.now, party.account)
        held = equity(world.exchange, world.now, party.account)
        open_markets = [at for account, at in world.now.positions if account == party.account]
        if held >= required or not open_markets:
            return 0
        market = open_markets[0]
        position = world.now.held(party.account, market)
        if 3 * held < 2 * required:
            batch.take_over(party.account, market, abs(position), None)
            return 1
        side = Side.BUY if position > 0 else Side.SELL
        mark = world.exchange.last[market].mark_ticks
        slot = 1 + market
        taken = any(row.account == world.honest[0].account and row.order.slot == slot for row in batch.rows)
        if taken:
            return 0
        maker = world.order(batch, world.honest[0], side, abs(position), mark, market, slot=slot)
        batch.liquidate(party.account, market, maker, abs(position), None)
        return 1
