"""A hostile governor, a hostile guardian, or both in one hand: everything their keys can say, at any time and out of any bound.

What may happen is written out here once more from docs/governance.md: delays, windows, pauses. Beside it no call of theirs, and
no batch that consumes one, may change an account, a position, an order or a claim; inbox and exit work at every moment.
"""

from __future__ import annotations

from typing import Any

import boa
from boa.util.abi import Address
from builders import ORACLE_KEEPER, USDC, Refused
from hostile_ledger import Moment, look
from hostile_machines import SEEDS, ExchangeMachine
from hostile_proposals import (
    CANCELLED,
    CHANGE,
    EXECUTED,
    KEEPERS,
    LARGEST,
    OWN_KEEPER,
    PAUSE,
    PROPOSED,
    GovernedWorld,
    Proposal,
    check_step,
    is_slow,
    some_proposal,
)
from hostile_world import anchored
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from msgspec.structs import replace

from evermark.chain.governor import Action
from evermark.protocol.governance import broken_bounds, broken_thin_bounds
from evermark.protocol.markets import Market
from evermark.protocol.orders import Side

HOUR_S, DAY_S = 3_600, 86_400
CLOSED = ("vault: market closed to trades", "vault: fill does not reduce")


class HostileGovernor(ExchangeMachine):
    """Holds the governor's key, the guardian's, or both; the other one's holder is honest."""

    world: GovernedWorld
    somebody_wants_to_close = None  # a halt holds a close up for as long as it lasts, which is its purpose

    @initialize(seed=SEEDS, holds=st.sampled_from(["governor", "guardian", "governor guardian"]))
    def begin(self, seed: int, holds: str) -> None:
        exchange = self.deploy()
        self.anchor = anchored()
        self.anchor.__enter__()
        self.world = GovernedWorld(exchange, seed)
        self.own = [boa.env.generate_address(f"attacker {number}") for number in range(3)]
        self.governor, self.guardian = exchange.proposer, exchange.guardian
        self.holds = holds
        self.proposals: dict[int, Proposal] = {}
        self.queued: list[int] = []  # proposals whose entries wait
        self.first_pause: dict[int, int] = {}
        self.ended: set[int] = set()  # delisted markets

    @property
    def contract(self) -> Any:
        return self.world.exchange.governance

    def others(self, holder: Any) -> list[Any]:
        """Who may not do what a role's holder may; the roles are handed on, to anybody."""
        return [one for one in (self.governor, self.guardian, self.own[2]) if one != holder]

    def has(self, role: str) -> bool:
        return role in self.holds.split()

    def unmoved(self, before: Moment, what: str) -> None:
        """Nobody's account, position, order, claim or waiting token is another than before."""
        after = self.world.now = look(self.world.exchange)
        for name in (
            "accounts",
            "positions",
            "slots",
            "caps",
            "claims",
            "waiting",
            "unconsumed",
            "balance",
            "wallets",
        ):
            assert getattr(after, name) == getattr(before, name), f"{what} changed {name}"
        assert (after.totals.credited, after.totals.funding_pool) == (
            before.totals.credited,
            before.totals.funding_pool,
        ), f"{what} changed what is credited"
        for old, new in zip(before.markets, after.markets, strict=False):
            assert new.open_interest == old.open_interest, f"{what} changed open interest"
            assert new.cumulative_funding == old.cumulative_funding, f"{what} changed a funding index"

    def reach(self, time: int) -> None:
        """Moves on to a time, with a round just before it."""
        exchange = self.world.exchange
        if time - time % 10 > exchange.clock:
            exchange.round(seconds=time - time % 10 - exchange.clock)
        boa.env.timestamp = max(time, exchange.clock)

    def refused(self, call: Any, *arguments: Any, sender: Any) -> bool:
        """Whether the call reverted."""
        try:
            self.result = call(*arguments, sender=sender)
        except (boa.BoaError, OverflowError, ValueError):
            self.tally["refused"] += 1
            return True
        except Exception as error:  # what the ABI cannot even encode
            if "EncodingError" not in [kind.__name__ for kind in type(error).__mro__]:
                raise
            return True
        self.tally["settled"] += 1
        return False

    # ------------------------------------------------------------------------------------------------------------ proposing

    @rule(seed=SEEDS)
    def proposes(self, seed: int) -> None:
        """Four proposals of any kind, in and out of bounds. Who has not the governor's key proposes nothing."""
        self.seeded(seed)
        self.make_proposals(4)

    def make_proposals(self, count: int) -> list[int]:
        """Those that the contract took."""
        world, taken = self.world, []
        before = world.now
        for _ in range(count):
            boa.env.timestamp = max(boa.env.timestamp, world.exchange.clock)
            call, arguments, proposal = some_proposal(world, self.own, (self.governor, self.guardian))
            ready = boa.env.timestamp + (14 * DAY_S if is_slow(proposal, arguments) else 2 * DAY_S)
            window = (
                ready,
                ready + DAY_S,
                ready + DAY_S,
                *[ready + HOUR_S] * 8,
                ready - 1,
                ready + DAY_S + 1,
                0,
                LARGEST,
            )
            proposal.ready_at, proposal.deadline = ready, world.random.choice(window)
            send = getattr(self.contract, f"propose_{call}")
            for stranger in self.others(self.governor):
                assert self.refused(send, *arguments, proposal.deadline, sender=stranger), "anybody proposed"
            if self.refused(send, *arguments, proposal.deadline, sender=self.governor):
                continue
            assert ready <= proposal.deadline <= ready + DAY_S, "a deadline beyond its window"
            assert self.contract.proposal(self.result).ready_at == ready, (
                "ready at another time than its delay says"
            )
            if proposal.market is not None:
                assert not broken_bounds(proposal.market), "parameters beyond a hard bound"
            if proposal.action == Action.LIST:
                assert not broken_thin_bounds(proposal.market, arguments[-1]), "a new market that is not thin"
            self.proposals[self.result] = proposal
            taken.append(self.result)
        self.unmoved(before, "a proposal")
        return taken

    @rule(seed=SEEDS)
    def carries_out(self, seed: int) -> None:
        """Proposals from their making to the batch that consumes them; each is tried a second too early, and twice."""
        self.seeded(seed)
        taken = self.make_proposals(8)
        execute, anybody = self.contract.execute, self.own[2]
        for number in sorted(taken, key=lambda number: self.proposals[number].ready_at):
            ready = self.proposals[number].ready_at
            if boa.env.timestamp < ready:
                self.reach(ready - 1)
                assert self.refused(execute, number, sender=anybody), "executed a second too early"
                self.reach(ready)
            self.world.observe()
            before = self.world.now
            if not self.refused(execute, number, sender=anybody):
                self.executed(number)
                assert self.refused(execute, number, sender=anybody), "executed twice"
            self.unmoved(before, "an execution")
            self.work_off()

    # ------------------------------------------------------------------------------------------- executing and cancelling

    @precondition(lambda self: self.proposals)
    @rule(seed=SEEDS)
    def executes(self, seed: int) -> None:
        """Any proposal, or none, early, at its time, at its last second, late, or again."""
        world = self.seeded(seed)
        pick = world.random
        for _ in range(pick.randint(1, 3)):
            number = pick.choice((*self.proposals, *list(self.proposals)[-3:]))
            made = self.proposals[number]
            moments = (
                boa.env.timestamp,
                made.ready_at - 1,
                made.ready_at,
                made.ready_at,
                made.deadline,
                made.deadline + 1,
            )
            self.reach(max(boa.env.timestamp, pick.choice(moments)))
            world.observe()
            before = world.now
            number = pick.choice((number,) * 8 + (0, max(self.proposals) + 1, LARGEST))
            if not self.refused(self.contract.execute, number, sender=pick.choice(self.own)):
                self.executed(number)
            self.unmoved(before, "an execution")

    def executed(self, number: int) -> None:
        made = self.proposals[number]
        assert made.state == PROPOSED, "executed what was cancelled or executed before"
        assert made.ready_at <= boa.env.timestamp <= made.deadline, "executed outside of its window"
        made.state = EXECUTED
        if made.action in (Action.GUARDIAN, Action.GOVERNOR):
            role = made.action.name.lower()
            setattr(self, role, made.subject)
            self.holds += f" {role}" if made.subject in self.own and not self.has(role) else ""
            assert (self.contract.governor(), self.contract.guardian()) == (self.governor, self.guardian)
            assert self.governor != self.guardian, "one for two roles"
        elif made.action != Action.REFERENCE:
            self.world.pending.append((CHANGE, None))
            self.queued.append(number)

    @precondition(lambda self: self.proposals)
    @rule(seed=SEEDS)
    def cancels(self, seed: int) -> None:
        """Anything, as anybody; only what waits is cancelled, by one of the two, and a guardian not its own end."""
        world = self.seeded(seed)
        pick, before = world.random, world.now
        number = pick.choice((*self.proposals, 0, LARGEST))
        sender = pick.choice((self.governor, self.guardian, self.own[2], world.exchange.sequencer))
        if not self.refused(self.contract.cancel, number, sender=sender):
            assert self.proposals[number].state == PROPOSED, "cancelled what was over"
            assert sender in (self.governor, self.guardian), "anybody cancelled"
            assert sender != self.guardian or self.proposals[number].action != Action.GUARDIAN, "its own end"
            self.proposals[number].state = CANCELLED
        self.unmoved(before, "a cancellation")

    @precondition(lambda self: not self.has("guardian"))
    @rule()
    def an_honest_guardian_defends(self) -> None:
        """Every proposal of a stolen governor's key can be cancelled, but for the guardian's own replacement."""
        for number, made in self.proposals.items():
            if made.state != PROPOSED or made.action == Action.GUARDIAN:
                continue
            assert not self.refused(self.contract.cancel, number, sender=self.guardian), (
                "a proposal that nobody can stop"
            )
            made.state = CANCELLED

    # --------------------------------------------------------------------------------------------------------------- pauses

    @rule(seed=SEEDS)
    def pauses(self, seed: int) -> None:
        """Back to back, for too long, unknown markets, twice the same, as somebody else."""
        world = self.seeded(seed)
        pick, before = world.random, world.now
        for _ in range(3):
            boa.env.timestamp = max(boa.env.timestamp, world.exchange.clock)
            known = list(range(len(world.exchange.markets)))
            markets = pick.choice((known, [pick.choice(known)], [pick.choice(known)], [0, 0], [], [63], [64]))
            mode = pick.choice((0, 1, 2, 3, 4, 4, 5, LARGEST))
            duration = pick.choice((0, 1, 60, HOUR_S, DAY_S, 3 * DAY_S, 3 * DAY_S, 3 * DAY_S + 1, LARGEST))
            for stranger in self.others(self.guardian):
                refused = self.refused(self.contract.pause, markets, mode, duration, sender=stranger)
                assert refused, "anybody paused"
            if not self.refused(self.contract.pause, markets, mode, duration, sender=self.guardian):
                self.paused(markets, mode, duration)
        self.unmoved(before, "a pause")

    def paused(self, markets: list[int], mode: int, duration: int) -> None:
        now = int(boa.env.timestamp)
        assert len(set(markets)) == len(markets) > 0
        assert 0 <= mode <= 4
        for market in markets:
            self.world.pending.append((PAUSE, None))
            if not mode:
                continue
            first = self.first_pause.get(market)
            if first is None or now >= first + 10 * DAY_S:
                first = self.first_pause[market] = now
            assert 0 < duration <= first + 3 * DAY_S - now, "paused for more than three of ten days"

    @precondition(lambda self: self.first_pause)
    @rule(market=st.integers(min_value=0, max_value=2))
    def pauses_end_by_themselves(self, market: int) -> None:
        """72 hours after the first pause a market trades, whatever the guardian does not do."""
        world = self.world
        end = self.first_pause.get(market, 0) + 3 * DAY_S
        self.reach(max(end, world.exchange.clock) + 10)
        self.steady()
        self.work_off()
        if market in self.ended:
            return
        batch = world.exchange.batch()
        mark = world.exchange.last[market].mark_ticks
        resting = world.order(batch, world.honest[0], Side.SELL, 1, mark, market, slot=3)
        batch.fill(resting, world.order(batch, world.honest[1], Side.BUY, 1, mark, market), 1)
        with anchored():
            try:
                batch.settle()
                refusal = ""
            except Refused as refused:
                refusal = str(refused)
        assert refusal not in CLOSED, "a pause outlasted its time"

    # ---------------------------------------------------------------------------------------------------- inbox and exit

    @rule(seed=SEEDS)
    def time_passes(self, seed: int) -> None:
        world = self.seeded(seed)
        self.reach(
            world.exchange.clock + world.random.choice((60, 600, HOUR_S, DAY_S, 2 * DAY_S, 14 * DAY_S))
        )
        world.observe()

    def steady(self) -> None:
        """Rounds with the same prices, until none is held back."""
        for _ in range(4):
            self.world.exchange.round()
        self.world.observe()

    def work_off(self, sender: Any = None) -> None:
        """Batches with entries of the inbox alone, until none waits: each of them settles."""
        world = self.world
        header = {"journal_sequence": 0, "journal_hash": bytes(32)} if sender else {}
        while world.pending:
            kind, party = world.pending[0]
            before = world.now
            batch = world.exchange.batch(**header)
            batch.inbox(party.account if party else None)
            if party:
                batch.name(party.account)
            assert world.try_settle(batch.data(), "inbox", sender) is not None, (
                f"the inbox is stuck: {world.counts}"
            )
            if kind in (CHANGE, PAUSE):
                if kind == CHANGE:
                    self.learn(self.queued.pop(0))
                self.unmoved(before, "a change")

    def learn(self, number: int) -> None:
        """What the exchange is after a change took effect."""
        exchange, made = self.world.exchange, self.proposals[number]
        state = self.contract.proposal(number).state
        assert state in (4, 5), "consumed, and neither in force nor without effect"
        if state == 5:
            return
        if made.action == Action.LIST:
            exchange.list_market(replace(made.market, market_id=len(exchange.markets)))
        elif made.action == Action.TUNE:
            self.tuned(exchange.markets[made.subject], made.market)
        elif made.action == Action.DELIST:
            self.ended.add(made.subject)
        exchange.sequencer = exchange.oracle.sequencer()
        honest = exchange.oracle.is_oracle_keeper(KEEPERS[1])
        exchange.oracle_keeper = ORACLE_KEEPER if honest else OWN_KEEPER

    def tuned(self, old: Market, new: Market) -> None:
        check_step(old, new)
        exchange, market = self.world.exchange, old.market_id
        exchange.markets = (*exchange.markets[:market], new, *exchange.markets[market + 1 :])
        exchange.jumps = [*exchange.jumps[:market], new.jump_ppm_per_s, *exchange.jumps[market + 1 :]]

    @rule(seed=SEEDS, overdue=st.booleans())
    def the_inbox_stays_open(self, seed: int, overdue: bool) -> None:
        """A deposit is taken and everything that waits is executed: by the sequencer, or by anybody once it is overdue."""
        world = self.seeded(seed)
        world.deposit(world.random.choice(world.honest), 20 * USDC)
        self.reach(world.exchange.clock + (HOUR_S + 20 if overdue else 20))
        self.steady()
        self.work_off(self.own[2] if overdue else None)

    @rule(party=st.integers(min_value=0, max_value=3))
    def the_exit_stays_open(self, party: int) -> None:
        """A withdrawal that nobody executes for a day freezes the exchange, and everybody takes what is left of their equity."""
        exchange, clock = self.world.exchange, boa.env.timestamp
        with anchored():
            address = Address(self.world.honest[party].signer.address)
            if not exchange.inbox.open_entry(address, 0, 3):
                exchange.inbox.request_withdrawal(0, USDC, sender=address)
            boa.env.timestamp = max(clock, exchange.clock) + DAY_S + HOUR_S + 1
            exchange.exit.freeze(sender=address)
            while not exchange.exit.complete():
                exchange.exit.push(100, sender=address)
            for each in self.world.parties:
                due = exchange.exit.payout(each.account)
                assert (due > 0) == (exchange.exit.equity(each.account) > 0), (
                    "equity that the exit does not pay"
                )
                if due:
                    wallet = Address(each.signer.address)
                    held = exchange.token.balanceOf(wallet)
                    exchange.vault.pay(exchange.exit.take(each.account))
                    assert exchange.token.balanceOf(wallet) == held + due
        boa.env.timestamp = clock
