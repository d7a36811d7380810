"""What vault and inbox hold at one moment, read through their views, and the invariants that every moment must satisfy.

Formulas are written out here once more, from the protocol's sections 2 and 7, so that an error in the shared package is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builders import DEPOSITS_WORD, Exchange, signed_128, signer

INSURANCE_FUND, FEE_ACCOUNT, FIRST_USER = 1, 2, 3
SLOTS = range(1, 7)  # the slots that the traders of these tests use
SCALE = 10**12
AGENT = "0x" + signer(11).address.hex()  # the one agent of these tests, whose key the attacker has


@dataclass(frozen=True)
class Moment:
    """The whole exchange at one time. Addresses are 20 bytes, amounts quote units, sizes lots."""

    totals: Any
    accounts: dict[int, Any]
    positions: dict[tuple[int, int], Any]  # (account, market), those with a size
    slots: dict[tuple[int, int], tuple[int, int]]  # (account, slot) -> sequence, filled
    caps: dict[int, int]  # what the agent of these tests may move of an account
    markets: tuple[Any, ...]
    claims: dict[int, tuple[bytes, int]]
    waiting: dict[bytes, int]  # deposits that no batch has consumed, by owner
    unconsumed: int
    balance: int  # tokens that the vault holds
    wallets: dict[bytes, int]

    def owner_of(self, account: int) -> bytes:
        return address_bytes(self.accounts[account].owner)

    def accounts_of(self, owner: bytes) -> list[int]:
        return [number for number in self.accounts if number >= FIRST_USER and self.owner_of(number) == owner]

    def held(self, account: int, market: int) -> int:
        """Position size in lots, signed."""
        position = self.positions.get((account, market))
        return position.size if position else 0


def address_bytes(address: Any) -> bytes:
    return bytes.fromhex(str(address)[2:])


def look(exchange: Exchange) -> Moment:
    """Reads everything; slots only of users."""
    vault, inbox = exchange.vault, exchange.inbox
    totals = vault.totals()
    accounts = {number: vault.account(number) for number in range(1, totals.accounts + 1)}
    held = {
        (number, market.market_id): vault.position(number, market.market_id)
        for number in accounts
        for market in exchange.markets
    }
    slots = {
        (number, slot): tuple(vault.slot(number, slot))[:2]
        for number in accounts
        if number >= FIRST_USER
        for slot in SLOTS
    }
    claims = {claim: vault.claim(claim) for claim in range(1, totals.claims + 1)}
    waiting: dict[bytes, int] = {}
    for entry_id in range(inbox.head(), inbox.tail()):
        entry = inbox.entry(entry_id)
        if entry.kind == 1:
            owner = address_bytes(entry.owner)
            waiting[owner] = waiting.get(owner, 0) + entry.amount
    owners = {party.signer.address for party in exchange.parties.values()}
    return Moment(
        totals=totals,
        accounts=accounts,
        positions={key: position for key, position in held.items() if position.size},
        slots=slots,
        caps={number: vault.agent(number, AGENT).transfer_cap for number in accounts if number >= FIRST_USER},
        markets=tuple(vault.market_state(market.market_id) for market in exchange.markets),
        claims={claim: (address_bytes(at.owner), at.amount) for claim, at in claims.items()},
        waiting=waiting,
        unconsumed=inbox.unconsumed(),
        balance=exchange.token.balanceOf(vault.address),
        wallets={owner: exchange.token.balanceOf("0x" + owner.hex()) for owner in owners},
    )


def ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def equity(
    exchange: Exchange, moment: Moment, account: int, cumulative: tuple[int, ...] | None = None
) -> int:
    """Collateral + sizes at the pinned marks - funding owed; `cumulative` replaces the funding indexes of the moment."""
    indexes = cumulative or tuple(market.cumulative_funding for market in moment.markets)
    total = moment.accounts[account].collateral
    for market in exchange.markets:
        position = moment.positions.get((account, market.market_id))
        if position is None:
            continue
        mark = exchange.last[market.market_id].mark_ticks
        total += position.size * mark * market.lot_tick_value
        owed = position.size * (indexes[market.market_id] - position.entry_cumulative)
        total -= ceil_div(owed, SCALE)
    return total


def maintenance(exchange: Exchange, moment: Moment, account: int) -> int:
    """Half of the tiered initial margin of every position at the pinned marks, each rounded up."""
    total = 0
    for market in exchange.markets:
        size = abs(moment.held(account, market.market_id))
        notional = size * exchange.last[market.market_id].mark_ticks * market.lot_tick_value
        tier = [tier for tier in market.tiers if tier.lower_notional <= notional][-1]
        initial = ceil_div(notional * tier.initial_fraction_ppm, 10**6) - tier.deduction
        total += ceil_div(initial, 2)
    return total


def wealth(exchange: Exchange, moment: Moment, owner: bytes) -> int:
    """All that is an owner's: equity of its accounts, claims, deposits on their way, tokens in the wallet."""
    total = sum(equity(exchange, moment, account) for account in moment.accounts_of(owner))
    total += sum(amount for claimant, amount in moment.claims.values() if claimant == owner)
    return total + moment.waiting.get(owner, 0) + moment.wallets.get(owner, 0)


def check_moment(exchange: Exchange, moment: Moment) -> None:
    """Invariants 1 and 2 of the protocol's section 13, and the counts that the vault keeps beside its words."""
    totals = moment.totals
    collateral = sum(account.collateral for account in moment.accounts.values())
    claims = sum(amount for _, amount in moment.claims.values())
    assert collateral + totals.funding_pool + claims == totals.credited, "invariant 1: tokens are conserved"
    deposits = signed_128(exchange.vault.word(DEPOSITS_WORD))
    assert deposits == collateral + totals.funding_pool, "what the outflow limits are shares of"
    assert totals.credited + moment.unconsumed <= moment.balance, "invariant 1: more credited than held"
    assert 0 <= totals.dust < SCALE, "dust of funding is below one unit"
    for market in exchange.markets:
        sizes = [size for (_, at), size in sizes_of(moment) if at == market.market_id]
        assert sum(sizes) == 0, f"invariant 2: sizes of {market.symbol} sum to zero"
        longs = sum(size for size in sizes if size > 0)
        assert moment.markets[market.market_id].open_interest == longs, "invariant 2: open interest"
    for number, account in moment.accounts.items():
        assert account.open_positions == sum(at == number for at, _ in moment.positions), "count of positions"


def sizes_of(moment: Moment) -> list[tuple[tuple[int, int], int]]:
    return [(key, position.size) for key, position in moment.positions.items()]


def check_nothing_falls(before: Moment, after: Moment) -> None:
    """Invariant 3: sequences, batch ids, claims and the inbox's head never fall, whatever happened in between."""
    for number, account in before.accounts.items():
        later = after.accounts[number]
        assert later.owner == account.owner, "an account's owner is for good"
        assert later.sub_account == account.sub_account
        for name in ("taker_sequence", "min_sequence", "action_sequence"):
            assert getattr(later, name) >= getattr(account, name), f"invariant 3: {name} fell"
    for key, (sequence, filled) in before.slots.items():
        later_sequence, later_filled = after.slots[key]
        assert later_sequence >= sequence, "invariant 3: a slot's sequence fell"
        assert later_sequence > sequence or later_filled >= filled, "invariant 3: what was filled fell"
    for name in ("batch_id", "inbox_head", "accounts", "claims"):
        assert getattr(after.totals, name) >= getattr(before.totals, name), f"{name} fell"
    for claim, (owner, amount) in before.claims.items():
        assert after.claims[claim] in ((owner, amount), (owner, 0)), (
            "a claim changed other than by its payment"
        )
