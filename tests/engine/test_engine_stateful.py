"""Random streams of every command: invariants after each, every sealed batch settled on the reference
vault."""

import pytest
from engine_world import BUY, FOK, GTC, IOC, SELL, START_S, USDC, World, market, owner_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evermark.protocol.orders import Trigger
from sequencer.engine.commands import InboxEntryKind, MarketMode
from sequencer.engine.events import CommandRejected
from sequencer.engine.open_orders import live_orders
from sequencer.engine.snapshot import restore, snapshot

TRADERS = st.integers(0, 6)
MARKETS = st.integers(0, 1)
SIDES = st.sampled_from((BUY, SELL))
OFFSETS = st.integers(-300, 300)
SIZES = st.one_of(st.integers(1, 60_000), st.sampled_from((1_000, 5_000, 200_000, 1_500_000)))


class Exchange(RuleBasedStateMachine):
    """A few poor and rich traders, two markets that move fast, funding at its cap."""

    @initialize(fund=st.sampled_from((0, 50, 20_000)), confirms=st.booleans())
    def begin(self, fund, confirms):
        second = market(
            1, maker_fee_ppm=-50, open_interest_cap_lots=3_000_000, fund_position_cap_lots=400_000
        )
        self.world = World(market(0, open_interest_cap_lots=5_000_000), second)
        self.world.confirms = confirms
        self.forced = None  # an entry that asks for fills, while it is the next one
        self.accounts = [
            self.world.trader(10 + number, usdc)
            for number, usdc in enumerate((20, 200, 2_000, 20_000, 90_000))
        ]
        self.accounts += [self.world.trader(20 + number, 10**6) for number in range(2)]
        if fund:
            self.world.donate(fund)
        for who, at, side, size in ((1, 0, BUY, 3_000), (3, 0, SELL, 90_000), (4, 1, BUY, 300_000)):
            self.place(5, side.opposite, size, 0, at, GTC)
            self.place(who, side, size, 0, at, IOC)

    @rule(
        who=TRADERS,
        side=SIDES,
        size=SIZES,
        offset=OFFSETS,
        at=MARKETS,
        post=st.booleans(),
        reduce=st.booleans(),
    )
    def limit(self, who, side, size, offset, at, post, reduce):
        self.place(who, side, size, offset, at, GTC, post_only=post, reduce_only=reduce and size % 2 == 0)

    @rule(
        who=TRADERS, side=SIDES, size=SIZES, tif=st.sampled_from((IOC, FOK)), at=MARKETS, reduce=st.booleans()
    )
    def take(self, who, side, size, tif, at, reduce):
        self.place(who, side, size, side.sign * 400, at, tif, reduce_only=reduce)

    @rule(who=TRADERS, size=SIZES, offset=OFFSETS, pick=st.integers(0, 50))
    def amend(self, who, size, offset, pick):
        orders = self.world.state.accounts[self.accounts[who]].orders
        if orders:
            old = orders[sorted(orders)[pick % len(orders)]]
            self.place(
                who,
                old.side,
                size,
                offset,
                old.market_id,
                GTC,
                slot=old.slot,
                amend=True,
                reduce_only=old.reduce_only,
            )

    @rule(
        who=TRADERS,
        side=SIDES,
        size=SIZES,
        away=st.integers(1, 400),
        kind=st.sampled_from(list(Trigger)[1:]),
        at=MARKETS,
        tif=st.sampled_from((GTC, IOC)),
        reduce=st.booleans(),
        link=st.integers(0, 4),
        trailing=st.sampled_from((0, 0, 50)),
    )
    def wait(self, who, side, size, away, kind, at, tif, reduce, link, trailing):
        """A stop or take-profit beyond the mark or the last price, which later rounds and trades wake."""
        at_state = self.world.state.markets[at]
        upward = kind in (Trigger.MARK_ABOVE, Trigger.LAST_ABOVE)
        base = at_state.mark if kind in (Trigger.MARK_ABOVE, Trigger.MARK_BELOW) else at_state.last_price
        price = max(1, (base or at_state.mark) + (away if upward else -away))
        fields = {"trigger": kind, "trigger_price": price, "reduce_only": reduce, "bracket_link": link}
        if kind in (Trigger.LAST_ABOVE, Trigger.LAST_BELOW):
            fields["trailing_offset"] = trailing
        held = live_orders(self.world.state.accounts[self.accounts[who]])
        if held and size % 3 == 0:
            old = held[size % len(held)]
            fields |= {"slot": old.slot, "amend": True}
            side, at = old.side, old.market_id
        self.place(who, side, size, price - at_state.mark, at, tif, **{"slot": 5 + size % 5} | fields)

    def place(self, who, side, size, offset, at, tif, **fields):
        mark = self.world.state.markets[at].mark
        self.world.order(self.accounts[who], side, size, max(1, mark + offset), tif, at, **fields)

    @rule(who=TRADERS, slot=st.integers(0, 4), everything=st.integers(0, 5))
    def cancel(self, who, slot, everything):
        self.world.cancel(self.accounts[who], slot, all_slots=everything == 0)

    @rule(moves=st.tuples(st.integers(-300, 300), st.integers(-900, 900)), skip=st.integers(0, 12))
    def move(self, moves, skip):
        marks = [at.mark for at in self.world.state.markets]
        prices = [max(2_000, mark + move) for mark, move in zip(marks, moves, strict=True)]
        if skip == 0:
            prices[1] = 0
        self.world.round(prices, after_s=5 if skip else 70)

    @rule(rates=st.tuples(st.integers(-(10**8), 10**8), st.integers(-(10**7), 10**7)))
    def fund_hour(self, rates):
        self.world.now_s += 3_600 - self.world.now_s % 3_600
        self.world.next_round()
        self.world.funding(list(rates))

    @rule(who=TRADERS, amount=st.integers(1, 10**11))
    def withdraw(self, who, amount):
        self.world.withdraw(self.accounts[who], amount, fee=min(1_000, amount // 2))

    @rule(
        number=st.sampled_from((10, 11, 12, 20, 99)),
        amount=st.integers(0, 10**10),
        kind=st.sampled_from((1, 2, 3)),
    )
    def entry(self, number, amount, kind):
        if self.goes_on():
            return
        if number != 99 or kind == 3:
            self.world.entry(InboxEntryKind(kind), number, amount)

    @rule(
        who=st.integers(0, 7),
        kind=st.sampled_from((5, 5, 6, 7)),
        slot=st.sampled_from((0, 1, 2, 3, 65_535)),
        ahead=st.integers(-60, 3),
    )
    def request(self, who, kind, slot, ahead):
        """Cancels around the sequences in use, agents that come and go, also of an unknown owner."""
        if self.goes_on():
            return
        self.world.entry(
            InboxEntryKind(kind),
            99 if who == 7 else 10 + who,
            slot=slot,
            order_sequence=max(1, START_S * 1000 + next(self.world.sequences) + ahead),
            agent=owner_of(500 + who),
            agent_expiry=self.world.now_s + 50,
        )

    @rule(pick=st.integers(0, 20), share=st.integers(1, 3), moved=OFFSETS)
    def close(self, pick, share, moved):
        """An owner's close of a part of a position, asked for at another mark; it goes on until it leaves or has to wait."""
        state = self.world.state
        held = [
            (who, at, position.size)
            for who, account in enumerate(self.accounts)
            for at, position in sorted(state.accounts[account].positions.items())
            if abs(position.size) >= share
        ]
        if self.goes_on() or not held:
            return
        who, at, size = held[pick % len(held)]
        size = abs(size) // share * (1 if size > 0 else -1)
        number = 10 + who if who < 5 else 15 + who
        self.forced = (
            (InboxEntryKind.CLOSE, number),
            {
                "market_id": at,
                "size": size,
                "mark": max(1, state.markets[at].mark + moved),
            },
        )
        self.goes_on()

    @rule(who=TRADERS)
    def liquidate_by_the_inbox(self, who):
        if not self.goes_on():
            self.forced = (InboxEntryKind.LIQUIDATE, 99), {"target": self.accounts[who]}
            self.goes_on()

    def goes_on(self):
        """Whether a forced entry still waits, after it was offered as often as something happened."""
        while self.forced is not None:
            next_id, (named, fields) = self.world.state.next_entry_id, self.forced
            events = self.world.entry(*named, **fields)
            if self.world.state.next_entry_id != next_id:
                self.forced = None
            elif any(isinstance(event, CommandRejected) for event in events):
                return True
        return False

    @rule(keeper=st.integers(0, 6), at=MARKETS)
    def liquidate(self, keeper, at):
        state = self.world.state
        for account in self.accounts:
            position = state.accounts[account].positions.get(at)
            if position is not None and position.size:
                other = self.accounts[keeper]
                self.world.liquidate(account, at, other if other != account else 0)

    @rule(who=TRADERS, life_s=st.sampled_from((0, 30, 10_000)), cap=st.integers(0, 10**10))
    def agent(self, who, life_s, cap):
        self.world.approve(self.accounts[who], owner_of(500 + who), life_s, transfer_cap=cap)

    @rule(
        who=TRADERS,
        to=st.integers(0, 2),
        back=st.booleans(),
        amount=st.integers(1, 10**11),
        by_agent=st.booleans(),
    )
    def transfer(self, who, to, back, amount, by_agent):
        account = self.accounts[who]
        owner = self.world.state.accounts[account].owner
        if back:
            account = self.world.state.account_ids.get((owner, to), account)
        signer = owner_of(500 + who) if by_agent else owner
        self.world.transfer(account, 0 if back else to, amount, signer=signer)

    @rule(who=TRADERS, side=SIDES, size=SIZES, offset=OFFSETS, siblings=st.integers(-1, 6))
    def by_agent(self, who, side, size, offset, siblings):
        path = None if siblings < 0 else tuple((at % 2 == 0, bytes(32)) for at in range(siblings))
        self.place(who, side, size, offset, 0, GTC, signer=owner_of(500 + who), path=path)

    @rule(mode=st.sampled_from((*MarketMode, MarketMode.NORMAL, MarketMode.NORMAL)), at=MARKETS)
    def mode(self, mode, at):
        self.world.mode(mode, at)

    @precondition(lambda self: self.world.state.sealed_batch > self.world.state.confirmed_batch)
    @rule()
    def confirm(self):
        self.world.confirm(self.world.state.sealed_batch)

    @rule()
    def restart(self):
        state = restore(snapshot(self.world.state))
        assert snapshot(state) == snapshot(self.world.state)
        self.world.state = state

    @invariant()
    def sums_hold(self):
        """`World.apply` checks the invariants on every command; here that time has not gone back."""
        if hasattr(self, "world"):
            assert self.world.state.now >= START_S
            assert self.world.collateral(2) <= 10**9 * USDC

    def teardown(self):
        if hasattr(self, "world"):
            self.world.next_round()
            while not self.world.state.batch.is_empty:  # a round may begin a batch with write-offs
                self.world.next_round()
            self.world.assert_settled()


TestExchange = Exchange.TestCase
TestExchange = pytest.mark.safety("G18", "sequencer")(TestExchange)
TestExchange = pytest.mark.safety("C02", "sequencer")(TestExchange)
TestExchange = pytest.mark.safety("B26", "sequencer")(TestExchange)
