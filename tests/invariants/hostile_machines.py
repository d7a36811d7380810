"""The attackers, as Hypothesis state machines: a hostile sequencer, an owner who races it, a hostile token.

A trader with many accounts and hostile keepers are in files of their own. Every rule draws a seed for what it does, so that a
failing run shrinks to few steps. `machines` of `hunting.py` lists them all.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import boa
from builders import SELECTOR, USDC, Refused, send
from hostile_attacks import ATTACKS
from hostile_bytes import BYTE_ATTACKS
from hostile_deals import DEALS
from hostile_world import World, anchored, deployed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from evermark.protocol.batch import FILL_FORCED, encode_batch

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


class ExchangeMachine(RuleBasedStateMachine):
    """What every attacker's exchange has in common: honest work, time, deposits, payouts."""

    world: World
    anchor: Any = None
    tally: ClassVar[Counter[str]] = Counter()  # of all games: games, steps, batches settled and refused

    def deploy(self) -> Any:
        return deployed()

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        # Deployed outside of the anchor, once for all runs.
        exchange = self.deploy()
        self.anchor = anchored()
        self.anchor.__enter__()
        self.world = World(exchange, seed)

    def teardown(self) -> None:
        if self.anchor is not None:
            self.anchor.__exit__(None, None, None)
            self.tally["games"] += 1
            for what, count in self.world.counts.items():
                self.tally["refused" if "refused" in what else "settled"] += count

    def seeded(self, seed: int) -> World:
        self.tally["steps"] += 1
        self.world.random.seed(seed)
        return self.world

    @rule(seed=SEEDS)
    def prices_move(self, seed: int) -> None:
        self.seeded(seed).move_prices()

    @rule(seed=SEEDS)
    def somebody_deposits(self, seed: int) -> None:
        world = self.seeded(seed)
        world.deposit(world.random.choice(world.parties), world.random.choice((1, 50, 500)) * USDC)

    @rule(seed=SEEDS)
    def somebody_wants_out(self, seed: int) -> None:
        world = self.seeded(seed)
        world.request_withdrawal(
            world.random.choice(world.parties), world.random.choice((1, 30 * USDC, 2**80))
        )

    @rule(seed=SEEDS)
    def somebody_wants_to_close(self, seed: int) -> None:
        world = self.seeded(seed)
        world.request_close(world.random.choice(world.parties))

    @rule(seed=SEEDS)
    def a_claim_is_paid(self, seed: int) -> None:
        self.seeded(seed).pay()

    @rule(seed=SEEDS)
    def an_honest_batch(self, seed: int) -> None:
        world = self.seeded(seed)
        world.try_settle(world.honest_batch().data(), "honest")


class HostileSequencer(ExchangeMachine):
    """Holds the sequencer's key, every signature ever sent to it, and the keys of three traders."""

    @rule(seed=SEEDS)
    def funding_is_applied(self, seed: int) -> None:
        self.seeded(seed).apply_funding()

    @rule(seed=SEEDS, names=st.lists(st.sampled_from(sorted(ATTACKS)), min_size=1, max_size=3))
    def tampers_with_a_batch(self, seed: int, names: list[str]) -> None:
        """A lawful batch with one to three changes; if it is refused, the lawful one may still settle."""
        world = self.seeded(seed)
        lawful = batch = world.honest_batch().build()
        for name in names:
            batch = ATTACKS[name](world, batch)
        try:
            data = SELECTOR + encode_batch(batch)
        except OverflowError:
            return  # the layout cannot even say it
        if world.try_settle(data, "+".join(names)) is None:
            world.try_settle(SELECTOR + encode_batch(lawful), "lawful")

    @rule(seed=SEEDS, name=st.sampled_from(sorted(BYTE_ATTACKS)))
    def tampers_with_bytes(self, seed: int, name: str) -> None:
        world = self.seeded(seed)
        world.try_settle(BYTE_ATTACKS[name](world, world.honest_batch().data()), name)

    @rule(seed=SEEDS, name=st.sampled_from(sorted(DEALS)))
    def makes_a_deal(self, seed: int, name: str) -> None:
        world = self.seeded(seed)
        batch = world.exchange.batch()
        DEALS[name](world, batch)
        world.try_settle(batch.data(), name)

    @rule(seed=SEEDS)
    def somebody_else_settles(self, seed: int) -> None:
        """The right batch from the wrong sender: only overdue work of inbox and funding may pass."""
        world = self.seeded(seed)
        data = world.honest_batch().data()
        batch = world.try_settle(data, "stranger", sender=world.exchange.token.address)
        if batch is not None:
            assert not any((batch.orders, batch.actions, batch.withdrawals)), "anybody could settle"
            assert {fill.kind for fill in batch.fills} <= {FILL_FORCED}, "anybody could settle fills"


class RacingOwner(ExchangeMachine):
    """Posts to the inbox, pays claims and posts public rounds between the sealing of a batch and its settlement."""

    sealed: tuple[bytes, bool] | None = None

    @precondition(lambda self: self.sealed is None)
    @rule(seed=SEEDS)
    def a_batch_is_sealed(self, seed: int) -> None:
        """Built, and simulated as the sequencer does."""
        world = self.seeded(seed)
        data = world.honest_batch().data()
        with boa.env.anchor():
            try:
                send(world.exchange, data)
                settles = True
            except Refused:
                settles = False
        self.sealed = (data, settles)

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def the_sealed_batch_is_sent(self) -> None:
        """No entry, payment or public round in between makes a difference to it."""
        assert self.sealed is not None
        data, settles = self.sealed
        self.sealed = None
        settled = self.world.try_settle(data, "sealed") is not None
        assert settled == settles, "an owner decided whether a sealed batch settles"

    @precondition(lambda self: self.sealed is None)
    @rule(seed=SEEDS)
    def prices_move(self, seed: int) -> None:
        self.seeded(seed).move_prices()

    @precondition(lambda self: self.sealed is None)
    @rule(seed=SEEDS)
    def an_honest_batch(self, seed: int) -> None:
        world = self.seeded(seed)
        world.try_settle(world.honest_batch().data(), "honest")

    @rule(seed=SEEDS)
    def an_owner_donates(self, seed: int) -> None:
        world = self.seeded(seed)
        party = world.random.choice(world.parties)
        world.exchange.inbox.donate(USDC, sender=world.exchange.fund_wallet(party.signer, USDC))
        world.pending.append((2, None))
        world.observe()

    @rule(seed=SEEDS)
    def an_owner_voids_or_revokes(self, seed: int) -> None:
        """Cancels through the inbox, of a slot or of everything, and agents that come and go there."""
        world = self.seeded(seed)
        pick, inbox, party = world.random, world.exchange.inbox, world.random.choice(world.parties)
        owner, agent = "0x" + party.signer.address.hex(), "0x" + world.hostile[0].signer.address.hex()
        kind = pick.choice((5, 6, 7))
        if inbox.open_entry(owner, party.sub_account, kind) or agent == owner:
            return
        if kind == 5:
            slot, sequence = pick.choice((0, 1, 2, 3, 65_535)), world.exchange.sequence()
            if pick.random() < 0.5:  # no more than the order's own, whatever of it has filled
                sequence = world.exchange.vault.slot(party.account, slot).sequence or sequence
            inbox.request_cancel(party.sub_account, slot, sequence, sender=owner)
        elif kind == 6:
            inbox.approve_agent(party.sub_account, agent, world.exchange.clock + 900, USDC, sender=owner)
        else:
            inbox.revoke_agent(party.sub_account, agent, sender=owner)
        world.pending.append((kind, party))
        world.observe()

    @rule()
    def a_plain_transfer_arrives(self) -> None:
        """Tokens sent to the vault without a call change nothing of what it owes."""
        self.world.exchange.token.mint(self.world.exchange.vault.address, 1)
        before = self.world.now
        self.world.observe()
        assert self.world.now.totals == before.totals


class HostileToken(ExchangeMachine):
    """The token refuses, answers false, keeps a fee, or calls back into vault and inbox while it pays."""

    def deploy(self) -> Any:
        return deployed(token="HostileToken")

    @rule(
        refuses=st.booleans(),
        lies=st.booleans(),
        fee_ppm=st.sampled_from((0, 0, 1, 10_000, 999_999, 1_000_000)),
        reenters=st.booleans(),
    )
    def the_token_changes(self, refuses: bool, lies: bool, fee_ppm: int, reenters: bool) -> None:
        exchange = self.world.exchange
        exchange.token.behave(refuses, lies, fee_ppm, reenters)
        exchange.token.aim(exchange.vault.address, exchange.inbox.address, self.world.now.totals.claims)

    @rule(seed=SEEDS)
    def somebody_deposits(self, seed: int) -> None:
        """What arrived is credited, or nothing at all happens."""
        world = self.seeded(seed)
        party = world.random.choice(world.parties)
        tail = world.exchange.inbox.tail()
        try:
            world.deposit(party, world.random.choice((1, 50 * USDC)))
        except boa.BoaError:
            world.count("deposit refused")
            assert world.exchange.inbox.tail() == tail
            world.observe()

    @rule(seed=SEEDS)
    def a_claim_is_paid(self, seed: int) -> None:
        """A payout that the token refuses stays a claim."""
        world = self.seeded(seed)
        before = world.now.claims
        try:
            world.pay()
        except boa.BoaError:
            world.count("payout refused")
            world.observe()
            assert world.now.claims == before

    @rule()
    def nothing_was_reentered(self) -> None:
        assert not self.world.exchange.token.succeeded(), "a call back from the token went through"
