"""Invariant 5: the engine's state after every settled batch equals the vault's, to the last unit."""

import random
from collections import Counter

import boa
import pytest

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side, TimeInForce, Trigger
from sequencer.engine.events import (
    CommandRejected,
    Liquidated,
    OrderTriggered,
    Trade,
    Transferred,
    TwapSliced,
    WrittenOff,
)
from sequencer.engine.risk import free_equity, margin_of
from tests import fast_evm
from tests.agreement.exchange import Exchange, signer
from tests.agreement.three_ways import ThreeWays

SEED_USDC = 2_000_000
START = 1_760_129_400  # 10 October 2025, 20:50 UTC
PRICES = [(1_136_000, 1_136_200), (383_000, 383_100), (19_500, 19_510), (22_100, 22_120)]


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(load_markets(), START)
        made.donate(SEED_USDC * 10**6)
        made.round(PRICES)
        yield made


def test_a_single_fill_settles_and_agrees(exchange):
    """One maker, one taker, one batch: both signatures verified on chain, balances equal to the last unit."""
    maker, taker = signer("maker"), signer("taker")
    exchange.deposit(maker, 100_000 * 10**6)
    exchange.deposit(taker, 50_000 * 10**6)
    exchange.order(maker, 0, Side.SELL, 100_000, 1_136_500, slot=1)
    events = exchange.order(taker, 0, Side.BUY, 40_001, 1_137_000, slot=0)
    assert any(isinstance(event, Trade) for event in events)
    exchange.round(PRICES)
    assert len(exchange.settled) >= 1
    exchange.compare()


def test_funding_settles_and_agrees(exchange):
    """An hour's rate moves money from longs to shorts, rounded as the vault rounds; the pool and its dust agree."""
    long, short = signer("long"), signer("short")
    exchange.deposit(long, 50_000 * 10**6)
    exchange.deposit(short, 50_000 * 10**6)
    exchange.order(short, 0, Side.SELL, 123_457, 1_136_500, slot=1)
    exchange.order(long, 0, Side.BUY, 123_457, 1_137_000, slot=0)
    exchange.round(PRICES, 1_000)
    exchange.confirm()
    exchange.funding(exchange.now // 3600 - 1, [77_777, -5, 3, 1])
    exchange.order(short, 0, Side.SELL, 1_001, 1_136_500, slot=2)
    exchange.order(long, 0, Side.BUY, 1_001, 1_137_000, slot=0)
    exchange.round(PRICES)
    # Two equal and opposite positions: what both roundings keep back is one whole unit, and it is the fund's.
    assert exchange.state.accounts[INSURANCE_FUND].collateral == SEED_USDC * 10**6 + 1
    assert (exchange.state.funding_pool, exchange.state.dust) == (0, 0)
    exchange.compare()


def fallen(share_ppm):
    """BTC's prices after a fall of `share_ppm`; the others unchanged."""
    return [tuple(price * (10**6 - share_ppm) // 10**6 for price in PRICES[0]), *PRICES[1:]]


def test_a_liquidation_on_the_book_a_take_over_and_the_funds_way_out_agree(exchange):
    """Below maintenance a position closes on the book; below two thirds the fund takes it over at the bound and
    sells it at the mark to whoever crosses it."""
    maker, trader, buyer = signer("maker"), signer("trader"), signer("buyer")
    for owner, usdc in ((maker, 500_000), (trader, 2_000), (buyer, 100_000)):
        exchange.deposit(owner, usdc * 10**6)
    exchange.order(maker, 0, Side.SELL, 60_000, 1_136_300, slot=1)
    exchange.order(trader, 0, Side.BUY, 60_000, 1_137_000, slot=0)
    exchange.round(fallen(20_000))
    exchange.order(maker, 0, Side.BUY, 2_000, exchange.state.markets[0].mark - 10, slot=2)
    events = exchange.liquidate(exchange.account(trader), 0, keeper_account=exchange.account(maker))
    assert [event.taken_over for event in events if isinstance(event, Liquidated)] == [False]
    exchange.round(fallen(25_500))
    exchange.compare()
    events = exchange.liquidate(exchange.account(trader), 0, keeper_account=exchange.account(maker))
    assert True in [event.taken_over for event in events if isinstance(event, Liquidated)]
    exchange.round(fallen(25_500))
    exchange.compare()
    fund = exchange.state.accounts[INSURANCE_FUND].positions[0].size
    assert fund > 0
    exchange.order(buyer, 0, Side.BUY, fund, exchange.state.markets[0].mark + 1, slot=0)
    exchange.round(fallen(25_500))
    assert exchange.state.accounts[INSURANCE_FUND].positions[0].size == 0
    exchange.compare()


class RandomTraders:
    """Seeded traders with every kind of order, deposits, withdrawals, price moves, funding and liquidations."""

    def __init__(self, exchange: Exchange, seed: int, violence: int = 1) -> None:
        self.exchange = exchange
        self.violence = (
            violence  # how much further prices jump; above 1 each round is followed by liquidations
        )
        self.random = random.Random(seed)
        self.traders = [signer(f"trader {i}") for i in range(8)]
        self.agent = signer("agent")
        self.prices = [list(price) for price in PRICES]
        self.seen = Counter()
        self.hour = START // 3600 - 1
        for at, trader in enumerate(self.traders):
            exchange.deposit(trader, self.random.randrange(1_500, 6_000) * 10**6 + at)

    def step(self) -> None:
        """One random command."""
        choice = self.random.random()
        if choice < 0.82:
            events = self._order()
        elif choice < 0.85:
            trader = self.random.choice(self.traders)
            events = self.exchange.cancel(trader, self.random.randrange(1, 5), self.random.random() < 0.2)
        elif choice < 0.89:
            events = self._money()
        elif choice < 0.91 and (self.hour + 2) * 3600 <= self.exchange.now:
            self.hour += 1
            events = self.exchange.funding(
                self.hour, [self.random.randrange(-30_000_000, 30_000_000) for _ in PRICES]
            )
        elif choice < 0.925:
            events = self._liquidate()
        else:
            events = self._round()
            if self.violence > 1:
                events += self._escape() + self._liquidate()
        self._count(events)

    def pair_up(self) -> None:
        """Each trader takes the other side of the next one's order, at up to 15 times what both have free."""
        for maker, taker in zip(self.traders, self.traders[1:], strict=False):
            market = self.random.randrange(len(PRICES))
            mark = self.prices[market][1]
            accounts = [self.exchange.state.accounts[self.exchange.account(who)] for who in (maker, taker)]
            free = min(free_equity(self.exchange.state, account) - account.worst for account in accounts)
            size = free * self.random.randrange(5, 16) // self.exchange.markets[market].notional(1, mark)
            if size > 0:
                side = self.random.choice([Side.BUY, Side.SELL])
                self._count(self.exchange.order(maker, market, side.opposite, size, mark, slot=5))
                self._count(self.exchange.order(taker, market, side, size, mark, slot=0))

    def finish_batches(self) -> None:
        """Rounds at the same prices until nothing is open: a round may begin a batch of its own with write-offs."""
        self._count(self.exchange.round([tuple(price) for price in self.prices]))
        while not self.exchange.state.batch.is_empty:
            self._count(self.exchange.round([tuple(price) for price in self.prices]))

    def _order(self):
        trader = self.random.choice(self.traders)
        account = self.exchange.state.accounts[self.exchange.account(trader)]
        slot = self.random.choice([0, 0, 0, 1, 2, 3, 4])
        market = self.random.randrange(len(PRICES))
        side = self.random.choice([Side.BUY, Side.SELL])
        waiting = account.orders.get(slot) or account.untriggered.get(slot)
        if waiting is not None:
            market, side = waiting.market_id, waiting.side
        mark = self.prices[market][1]
        size = max(
            1, self.random.randrange(100, 25_000) * 10**6 // self.exchange.markets[market].notional(1, mark)
        )
        fields = {"reduce_only": self.random.random() < 0.08, "amend": waiting is not None}
        if slot == 0:
            away = side.sign * self.random.randrange(0, 150)
            fields["time_in_force"] = self.random.choice([TimeInForce.IOC, TimeInForce.IOC, TimeInForce.FOK])
        else:
            away = -side.sign * self.random.randrange(-5, 60)
            fields["post_only"] = self.random.random() < 0.1
        price = mark + mark * away // 10_000
        if size % 3 == 0:
            owner = self.traders[size % len(self.traders)].address
            fields |= {"builder": owner, "max_builder_fee_ppm": size % 700}
        by_agent = (account.account_id, self.agent.address) in self.exchange.state.agents
        if by_agent and waiting is None and self.random.random() < 0.3:
            quotes = [(market, side, size, price - side.sign * 2 * at, 5 + at) for at in range(3)]
            return self.exchange.place_together(trader, self.agent, quotes[: self.random.randrange(1, 4)])
        if slot == 4:
            fields |= self._trigger(market, side)
            price = fields["trigger_price"] + side.sign * mark // 200
        elif slot and size % 5 == 0:
            fields["display_size"] = -(-size // 4)
        elif slot == 3 and waiting is None and size % 2:
            spread = {"twap_interval": 10, "expiry": self.exchange.now + 60, "post_only": False}
            fields |= spread | {"time_in_force": TimeInForce.IOC}
            price = mark + side.sign * mark // 100
        if (account.account_id, self.agent.address) in self.exchange.state.agents:
            fields["by"] = self.agent
        return self.exchange.order(trader, market, side, size, price, slot, **fields)

    def _trigger(self, market, side):
        """A stop or take-profit near the mark or the last price."""
        kind = self.random.choice(list(Trigger)[1:])
        upward = kind in (Trigger.MARK_ABOVE, Trigger.LAST_ABOVE)
        at = self.exchange.state.markets[market]
        base = at.mark if kind in (Trigger.MARK_ABOVE, Trigger.MARK_BELOW) else at.last_price or at.mark
        away = base * self.random.randrange(1, 80) // 10_000 + 1
        price = base + away if upward else base - away
        kinds = [TimeInForce.IOC, TimeInForce.GTC]
        return {"trigger": kind, "trigger_price": price, "time_in_force": self.random.choice(kinds)}

    def _money(self):
        trader = self.random.choice(self.traders)
        amount = self.random.randrange(1, 3_000 * 10**6)
        kind = self.random.randrange(6)
        if kind == 0:
            return self.exchange.deposit(trader, amount)
        if kind == 1:
            return self.exchange.request_withdrawal(trader, amount)
        if kind == 2:
            sequence = self.exchange.clock_ms - self.random.choice((0, 0, 5, 3_000))
            slot = self.random.choice((0, 1, 2, 3, 4, 65_535))
            return self.exchange.request_cancel(trader, slot, sequence)
        if kind == 3:
            if self.random.random() < 0.4:
                return self.exchange.revoke_by_inbox(trader, self.agent)
            return self.exchange.approve_by_inbox(trader, self.agent, self.exchange.now + 5_000, amount)
        return self.exchange.withdraw(trader, amount, fee=min(amount, self.random.randrange(10**6)))

    def _between_accounts(self):
        """Transfers there and back by owner and agent, and the agent's approval."""
        exchange, trader, agent = self.exchange, self.random.choice(self.traders), signer("agent")
        account, to = exchange.account(trader), self.random.randrange(1, 3)
        other = exchange.state.account_ids.get((trader.address, to), 0)
        kind = self.random.randrange(5)
        if kind == 0:
            return exchange.approve(trader, agent, self.random.choice([0, 5_000, 10**6]), 200 * 10**6)
        amount, by = self.random.randrange(1, 150 * 10**6), self.random.choice([trader, trader, agent])
        if kind == 1 and other:
            return exchange.transfer(other, 0, amount, trader)
        return exchange.transfer(account, to, amount, by)

    def _escape(self):
        """Half of those below zero equity close a position at a price better than the mark, against a rich bidder, and stay
        in debt; the fund is given something now and then."""
        events, bidder = [], signer("bidder")
        for trader in self.traders:
            account = self.exchange.state.accounts[self.exchange.account(trader)]
            held = [market for market, position in account.positions.items() if position.size]
            if not held or margin_of(self.exchange.state, account).equity >= 0 or self.random.random() < 0.5:
                continue
            if not self.exchange.account(bidder):
                events += self.exchange.deposit(bidder, 10**12)
            for market in held:
                size, mark = account.positions[market].size, self.exchange.state.markets[market].mark
                side = Side.SELL if size > 0 else Side.BUY
                price = mark - side.sign * (mark // 250)
                events += self.exchange.order(bidder, market, side.opposite, abs(size), price, slot=7)
                events += self.exchange.order(trader, market, side, abs(size), price, 0, reduce_only=True)
                events += self.exchange.cancel(bidder, 7)
        if self.random.random() < 0.3:
            events += self.exchange.donate(self.random.randrange(1, 200 * 10**6))
        return events

    def _liquidate(self):
        """A trigger on every position, healthy or not."""
        events = []
        for account in list(self.exchange.state.accounts.values()):
            for market, position in list(account.positions.items()):
                if position.size and account.owner:
                    events += self.exchange.liquidate(account.account_id, market, keeper_account=3)
        return events

    def _round(self):
        for price in self.prices:
            move = self.random.randrange(-250, 251) * (4 * self.violence if self.random.random() < 0.1 else 1)
            price[0] = max(1000, price[0] + price[0] * move // 10_000)
            price[1] = price[0] + price[0] * self.random.randrange(-20, 21) // 10_000
        given = [None if self.random.random() < 0.05 else tuple(price) for price in self.prices]
        step_s = self.random.choice([5, 5, 10, 30, 600])
        return self.exchange.round(given, step_s)

    def _count(self, events) -> None:
        for event in events:
            self.seen["trades"] += isinstance(event, Trade)
            self.seen["triggered"] += isinstance(event, OrderTriggered)
            self.seen["slices"] += isinstance(event, TwapSliced) and event.filled > 0
            self.seen["transfers"] += isinstance(event, Transferred)
            if isinstance(event, CommandRejected):
                self.seen[event.reject.code.name] += 1
            self.seen["written off"] += isinstance(event, WrittenOff)
            if isinstance(event, Liquidated):
                kind = (
                    "takeovers"
                    if event.taken_over
                    else "deleveraged"
                    if event.deleveraged
                    else "liquidations"
                )
                self.seen[kind] += 1


@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("C02", "sequencer")
@pytest.mark.parametrize("seed", range(3))
def test_random_streams_agree_after_every_batch(exchange, seed):
    """A random stream of every operation: after each settled batch all balances, positions and sums are equal."""
    traders = RandomTraders(exchange, seed)
    batches = compared = 0
    for step in range(400):
        traders.step()
        if step % 15 == 0:
            traders._count(traders._between_accounts())
        exchange.confirm()
        if len(exchange.settled) > batches and not exchange.state.batch.fills:
            traders.finish_batches()
            batches = len(exchange.settled)
            if not exchange.state.batch.fills:  # the round woke nobody who traded
                exchange.compare()
                compared += 1
        exchange.retry_entry()
    assert traders.seen["trades"] > 40, traders.seen
    assert traders.seen["transfers"] > 0, traders.seen
    assert traders.seen["triggered"] > 0, traders.seen
    assert traders.seen["slices"] > 0, traders.seen
    assert compared > 20


def test_inbox_requests_agree(exchange):
    """Cancels, agents and a withdrawal that waits for a price: the same words in engine and vault."""
    maker, taker, agent = signer("maker"), signer("taker"), signer("agent")
    for owner in (maker, taker):
        exchange.deposit(owner, 50_000 * 10**6)
    exchange.round(PRICES)
    exchange.approve_by_inbox(taker, agent, exchange.now + 500, 7)
    exchange.order(maker, 0, Side.SELL, 1_000, 1_136_500, slot=1)
    exchange.order(maker, 0, Side.SELL, 1_000, 1_136_500, slot=2)
    exchange.order(taker, 0, Side.BUY, 500, 1_137_000, slot=0, by=agent)
    exchange.request_cancel(maker, 1, exchange.clock_ms)
    exchange.order(taker, 0, Side.BUY, 500, 1_137_000, slot=0, by=agent)
    exchange.request_cancel(taker, 0, exchange.clock_ms + 10)
    exchange.round([None, *PRICES[1:]], 70)
    exchange.request_withdrawal(taker, 10**6)
    exchange.deposit(maker, 10**6)
    assert len(exchange.waiting) == 2
    exchange.round(PRICES)
    exchange.retry_entry()
    assert not exchange.waiting
    exchange.revoke_by_inbox(taker, agent)
    exchange.request_cancel(maker, 65_535, exchange.clock_ms)
    exchange.round(PRICES)
    exchange.compare()
    vault, slots = exchange.vault, exchange.state.accounts[exchange.account(maker)].slots
    for slot in (1, 2):
        assert vault.slot(exchange.account(maker), slot).sequence == slots[slot].used_sequence
    assert (
        vault.account(exchange.account(taker)).taker_sequence
        == exchange.state.accounts[exchange.account(taker)].used_taker_sequence
    )
