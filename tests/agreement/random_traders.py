"""Seeded traders who do everything that an exchange takes, for streams on which engine, vault and naive model must agree."""

import random
from collections import Counter

from evermark.protocol.orders import Side, TimeInForce, Trigger
from sequencer.engine.events import (
    CommandRejected,
    Deleveraged,
    EntryApplied,
    ForcedClose,
    Liquidated,
    OrderTriggered,
    Trade,
    Transferred,
    TwapSliced,
    WrittenOff,
)
from sequencer.engine.risk import free_equity, margin_of
from tests.agreement.exchange import Exchange, signer

START = 1_760_129_400  # 10 October 2025, 20:50 UTC
PRICES = [(1_136_000, 1_136_200), (383_000, 383_100), (19_500, 19_510), (22_100, 22_120)]
ALL = 2**62 - 1  # lots of a close that asks for the whole position


def fallen(share_ppm):
    """BTC's prices after a fall of `share_ppm`; the others unchanged."""
    return [tuple(price * (10**6 - share_ppm) // 10**6 for price in PRICES[0]), *PRICES[1:]]


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


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
            slot = self.random.choice((0, 1, 2, 3, 4, 65_535))
            sequence = self.exchange.clock_ms - self.random.choice((0, 0, 5, 3_000))
            traded = self.exchange.traded_in(trader)
            if traded and self.random.random() < 0.6:
                slot, sequence = self.random.choice(traded)
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
            if not self.exchange.account(bidder):
                break  # whoever deposits behind an entry that waits has no account yet
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


class Leavers(RandomTraders):
    """Random traders who also close by the inbox, and keepers who liquidate by it."""

    def leave(self) -> None:
        """A close of a random part of a random position, or a liquidation of anybody."""
        trader, market = self.random.choice(self.traders), self.random.randrange(len(PRICES))
        lots = self.random.choice([ALL, self.random.randrange(1, 20_000)])
        if self.random.random() < 0.8:
            events = self.exchange.request_close(trader, market, lots)
        else:
            events = self.exchange.request_liquidation(trader, self.exchange.account(trader))
        for event in events:
            if isinstance(event, ForcedClose):
                by_book = event.counterparty not in {told.account for told in of_type(events, Deleveraged)}
                self.seen["by book or fund" if by_book else "by the queue"] += 1
        self.seen["left"] += len(of_type(events, EntryApplied))
        self._count(events)
