"""Judges one settled batch by what was signed, not by what the vault says: invariants 3, 4, 9 and 10 of the protocol.

`judge` takes the exchange before and after, the calldata that settled, and everything that anybody ever signed. It fails when an
order filled that nobody signed, beyond its size, or after it was voided; when collateral left an account by any way that the
protocol does not list; or when an owner lost more than the signed limits and fees, funding within its cap, and liquidation allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from builders import Exchange
from hostile_forced import check_forced, forced_loss
from hostile_ledger import (
    FEE_ACCOUNT,
    FIRST_USER,
    INSURANCE_FUND,
    SCALE,
    Moment,
    ceil_div,
    check_moment,
    check_nothing_falls,
    equity,
    maintenance,
    wealth,
)

from evermark.protocol import batch as codec
from evermark.protocol import signing
from evermark.protocol.orders import Order, Trigger

PPM = 10**6
CLOSING_OUT = (codec.FILL_LIQUIDATION, codec.FILL_TAKEOVER, codec.FILL_DELEVERAGE)
INBOX_CANCEL, INBOX_APPROVE = 5, 6
VOIDED = 2**62 - 1  # what a voided slot counts as filled
OrderKey = tuple[int, int, int]  # account, slot, sequence


@dataclass
class Signatures:
    """Everything that anybody signed, and what has filled of it."""

    orders: dict[OrderKey, list[Order]] = field(default_factory=dict)
    filled: dict[OrderKey, int] = field(default_factory=dict)
    withdrawn: set[tuple[int, int]] = field(default_factory=set)  # account, action sequence

    def add(self, account: int, order: Order) -> None:
        self.orders.setdefault((account, order.slot, order.sequence), []).append(order)

    def copy(self) -> Signatures:
        return Signatures(
            {key: list(orders) for key, orders in self.orders.items()},
            dict(self.filled),
            set(self.withdrawn),
        )


@dataclass
class Use:
    """A row of a batch and the lots that its fills took."""

    row: Any
    account: int
    market: int
    size: int = 0


def decode(exchange: Exchange, moment: Moment, data: bytes) -> codec.Batch:
    """The batch that calldata holds, read by the shared codec with the owners that the vault knows."""
    owners = {
        number: codec.AccountOwner(moment.owner_of(number), moment.accounts[number].sub_account)
        for number in moment.accounts
    }
    return codec.decode_batch(data[4:], owners, [market.symbol for market in exchange.markets])


def judge(exchange: Exchange, signed: Signatures, before: Moment, after: Moment, data: bytes) -> codec.Batch:
    """Fails unless the batch did only what signatures and rules allow. Returns it decoded."""
    check_moment(exchange, after)
    check_nothing_falls(before, after)
    batch = decode(exchange, after, data)
    uses = used_rows(batch)
    check_orders(exchange, signed, before, after, batch, uses)
    check_transfers(exchange, before, after, batch)
    check_withdrawals(exchange, signed, after, batch)
    check_funding(exchange, before, after, batch)
    check_losses(exchange, before, after, batch, uses)
    check_forced(exchange, before, after, batch)
    check_reserved_accounts(exchange, before, after, batch)
    return batch


def used_rows(batch: codec.Batch) -> list[Use]:
    """Rows in the order of their first use, with what was filled of each."""
    uses: dict[int, Use] = {}
    for fill in batch.fills:
        indexes = {
            codec.FILL_ORDERS: (fill.first, fill.second),
            codec.FILL_LIQUIDATION: (fill.second,),
            codec.FILL_FUND: (fill.first,),
            codec.FILL_FORCED_ON_BOOK: (fill.second,),
        }.get(fill.kind, ())
        for index in indexes:
            row = batch.orders[index]
            account_index, market = batch.pairs[row.pair]
            use = uses.setdefault(index, Use(row, batch.accounts[account_index], market))
            use.size += fill.size
    return list(uses.values())


def check_orders(
    exchange: Exchange,
    signed: Signatures,
    before: Moment,
    after: Moment,
    batch: codec.Batch,
    uses: list[Use],
) -> None:
    """Invariant 3: every order that filled was signed by its owner or a live agent, unexpired, not voided, within its size."""
    running = after_cancels(exchange, before, batch)
    apply_triggers(exchange, signed, batch, running)
    for use in uses:
        order, key = use.row.order, (use.account, use.row.order.slot, use.row.order.sequence)
        assert order in signed.orders.get(key, []), "invariant 3: filled an order that nobody signed"
        signer = signing.recover(signing.digest(exchange.separator, order), use.row.signature)
        if signer != after.owner_of(use.account):
            agent = exchange.vault.agent(use.account, "0x" + signer.hex())
            assert agent.expiry >= exchange.clock, "invariant 3: signed by neither owner nor live agent"
        assert order.expiry >= exchange.clock, "invariant 3: filled an expired order"
        assert order.sequence > after.accounts[use.account].min_sequence, "invariant 3: filled a voided order"
        if order.slot:
            sequence, filled = running.get((use.account, order.slot), (0, 0))
            assert order.sequence >= sequence, "invariant 3: filled a replaced order"
            continued = order.sequence == sequence or order.amend
            filled = (filled if continued else 0) + use.size
            running[use.account, order.slot] = (order.sequence, filled)
            assert after.slots[use.account, order.slot][0] >= order.sequence, "a used slot is written"
        else:
            assert order.sequence > before.accounts[use.account].taker_sequence, "invariant 3: replayed"
            filled = signed.filled.get(key, 0) + use.size
        assert filled <= order.size, "invariant 3: filled beyond the signed size"
        check_builder(after, batch, use.row)
        signed.filled[key] = filled
    for key, state in running.items():
        assert after.slots[key] == state, "a slot holds its last order and what filled of it"


def check_builder(after: Moment, batch: codec.Batch, row: codec.OrderRow) -> None:
    """Invariant 4: a builder's fee goes to the account, without a sub-account, of whom the order names."""
    if row.order.max_builder_fee_ppm:
        account = batch.accounts[row.builder_index]
        paid = after.owner_of(account), after.accounts[account].sub_account
        assert paid == (row.order.builder, 0), "invariant 4: a fee for another builder than the signed one"


def after_cancels(
    exchange: Exchange, before: Moment, batch: codec.Batch
) -> dict[tuple[int, int], tuple[int, int]]:
    """The slots as sections 1 and 2 leave them."""
    slots = dict(before.slots)
    voided = []
    for entry_id in range(before.totals.inbox_head, before.totals.inbox_head + len(batch.inbox)):
        entry = exchange.inbox.entry(entry_id)
        if entry.kind == INBOX_CANCEL:
            account = exchange.vault.account_of(entry.owner, entry.sub_account)
            voided.append((account, entry.data & 0xFFFF, entry.data >> 16))
    for action in batch.actions:
        cancel = getattr(action, "cancel", None)
        if cancel is not None and not cancel.all_slots:
            voided.append((batch.accounts[action.account_index], cancel.slot, cancel.sequence))
    for account, slot, sequence in voided:
        key = (account, slot)
        if key in slots and sequence >= slots[key][0]:
            slots[key] = (sequence, VOIDED)
    return slots


def apply_triggers(
    exchange: Exchange,
    signed: Signatures,
    batch: codec.Batch,
    slots: dict[tuple[int, int], tuple[int, int]],
) -> None:
    """Section 3: only signed orders are triggered, only when the pinned mark meets their condition; their slots follow."""
    for entry in batch.triggers:
        row = batch.orders[entry.row]
        index, market = batch.pairs[row.pair]
        order, account = row.order, batch.accounts[index]
        known = signed.orders.get((account, order.slot, order.sequence), [])
        assert order in known, "invariant 3: triggered an order that nobody signed"
        mark = exchange.last[market].mark_ticks
        above = order.trigger is Trigger.MARK_ABOVE and mark >= order.trigger_price
        below = order.trigger is Trigger.MARK_BELOW and mark <= order.trigger_price
        assert above or below, "triggered without its condition"
        sequence, filled = slots[account, order.slot]
        assert order.sequence >= sequence, "invariant 3: triggered a replaced order"
        carried = order.sequence == sequence or order.amend
        slots[account, order.slot] = (order.sequence, filled if carried else 0)


def check_transfers(exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch) -> None:
    """Invariant 4: collateral moves between sub-accounts of one owner, by its signature or by an agent within its cap."""
    spent: dict[tuple[int, bytes], int] = {}
    for action in batch.actions:
        message = getattr(action, "transfer", None)
        if message is None:
            continue
        account, target = batch.accounts[action.account_index], batch.accounts[action.target_index]
        assert after.owner_of(account) == after.owner_of(target), "invariant 4: transferred to somebody else"
        signer = signing.recover(signing.digest(exchange.separator, message), action.signature)
        if signer != after.owner_of(account):
            key = (account, signer)
            spent[key] = spent.get(key, 0) + message.amount
            cap = largest_cap(exchange, before, batch, account)
            assert spent[key] <= cap, "invariant 4: an agent moved more than its cap"
            assert exchange.vault.agent(account, "0x" + signer.hex()).expiry >= exchange.clock


def largest_cap(exchange: Exchange, before: Moment, batch: codec.Batch, account: int) -> int:
    """The most that the account's agent may move in this batch: what is left, or what the batch approves."""
    caps = [before.caps.get(account, 0)]
    for action in batch.actions:
        approval = getattr(action, "approval", None)
        if approval is not None and batch.accounts[action.account_index] == account:
            caps.append(approval.transfer_cap)
    for entry_id in range(before.totals.inbox_head, before.totals.inbox_head + len(batch.inbox)):
        entry = exchange.inbox.entry(entry_id)
        if (
            entry.kind == INBOX_APPROVE
            and exchange.vault.account_of(entry.owner, entry.sub_account) == account
        ):
            caps.append(entry.amount)
    return max(caps)


def check_withdrawals(exchange: Exchange, signed: Signatures, after: Moment, batch: codec.Batch) -> None:
    """Invariant 4: a withdrawal carries its owner's signature, happens once, and costs at most the signed fee."""
    for entry in batch.withdrawals:
        account = batch.accounts[entry.account_index]
        message = entry.withdraw
        signer = signing.recover(signing.digest(exchange.separator, message), entry.signature)
        assert signer == after.owner_of(account), "invariant 4: withdrawn without the owner"
        assert (account, message.action_sequence) not in signed.withdrawn, "invariant 4: withdrawn twice"
        signed.withdrawn.add((account, message.action_sequence))
        assert entry.fee <= message.max_fee, "invariant 4: withdrawal fee above the signed maximum"
        assert message.deadline >= exchange.clock, "invariant 4: withdrawn after the deadline"


def check_funding(exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch) -> None:
    """Invariant 4: funding indexes move only with an hour that a batch applies, and within the market's cap."""
    for market in exchange.markets:
        moved = (
            after.markets[market.market_id].cumulative_funding
            - before.markets[market.market_id].cumulative_funding
        )
        cap_ppb = min(40_000_000, market.tiers[0].initial_fraction_ppm * 250)
        step = exchange.last[market.market_id].index_ticks * market.lot_tick_value * cap_ppb * 1000
        hours = len(batch.funding_hours) if market.market_id in batch.markets else 0
        assert abs(moved) <= hours * step, "invariant 4: funding beyond its cap"


def check_losses(
    exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch, uses: list[Use]
) -> None:
    """Invariants 4 and 10: at the pinned marks no owner loses more than its signatures, funding and liquidation allow."""
    owners = {before.owner_of(account) for account in before.accounts if account >= FIRST_USER}
    for owner in owners:
        accounts = before.accounts_of(owner)
        allowed = sum(signed_loss(exchange, use) for use in uses if use.account in accounts)
        allowed += sum(
            entry.fee for entry in batch.withdrawals if batch.accounts[entry.account_index] in accounts
        )
        allowed += sum(funding_loss(exchange, before, after, account) for account in accounts)
        allowed += sum(liquidation_loss(exchange, before, after, batch, account) for account in accounts)
        allowed += sum(forced_loss(exchange, batch, account) for account in accounts)
        allowed += sum(deleveraging_loss(exchange, before, after, batch, account) for account in accounts)
        lost = wealth(exchange, before, owner) - wealth(exchange, after, owner)
        assert lost <= allowed, f"invariant 10: an owner lost {lost}, its signatures allow {allowed}"


def signed_loss(exchange: Exchange, use: Use) -> int:
    """The most that filling a row may cost against the mark: to its limit price, and the signed fee at the limit."""
    order, market = use.row.order, exchange.markets[use.market]
    mark = exchange.last[use.market].mark_ticks
    at_limit = use.size * order.limit_price * market.lot_tick_value
    against_mark = order.side.sign * (order.limit_price - mark) * use.size * market.lot_tick_value
    fees = ceil_div(at_limit * order.max_fee_ppm, PPM) + ceil_div(at_limit * order.max_builder_fee_ppm, PPM)
    return against_mark + fees


def funding_loss(exchange: Exchange, before: Moment, after: Moment, account: int) -> int:
    """What the hours of this batch may have cost the positions that were open before it."""
    total = 0
    for market in exchange.markets:
        number = market.market_id
        moved = after.markets[number].cumulative_funding - before.markets[number].cumulative_funding
        if moved and before.held(account, number):
            total += ceil_div(abs(before.held(account, number) * moved), SCALE) + 1
    return total


def targets(batch: codec.Batch) -> dict[int, int]:
    """Accounts that were closed out, in whatever way -> number of such fills."""
    found: dict[int, int] = {}
    for fill in batch.fills:
        if fill.kind in CLOSING_OUT:
            account = batch.accounts[batch.pairs[fill.first][0]]
            found[account] = found.get(account, 0) + 1
    return found


def liquidation_loss(
    exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch, account: int
) -> int:
    """Only an account below maintenance may be closed out, and its margin ratio may not fall by it."""
    fills = targets(batch).get(account, 0)
    if not fills:
        return 0
    indexes = tuple(market.cumulative_funding for market in after.markets)
    start = equity(exchange, before, account, indexes) + consumed(batch, before, after, account)
    required = maintenance(exchange, before, account)
    assert start < required, "invariant 4: a healthy account was liquidated"
    for market in exchange.markets:
        held, left = before.held(account, market.market_id), after.held(account, market.market_id)
        assert abs(left) <= abs(held), "invariant 4: a liquidation grew a position"
        assert held * left >= 0, "invariant 4: a liquidation turned a position"
    if start < 0:
        return 0
    # Rounding: each fill rounds the bound down, and the requirement of what is left up.
    return start - start * maintenance(exchange, after, account) // required + 2 * fills


def deleveraging_loss(
    exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch, account: int
) -> int:
    """A counterparty pays at most deficits of the targets that it closes; it shrinks, and ends at or above maintenance."""
    indexes = tuple(market.cumulative_funding for market in after.markets)
    allowed = 0
    for fill in batch.fills:
        if fill.kind != codec.FILL_DELEVERAGE or batch.accounts[batch.pairs[fill.second][0]] != account:
            continue
        index, market = batch.pairs[fill.first]
        target = batch.accounts[index]
        start = equity(exchange, before, target, indexes)
        # Two thirds of maintenance, all fills of the batch before it included.
        assert 3 * start < 2 * maintenance(exchange, before, target), "invariant 4: deleveraged too early"
        held, left = before.held(account, market), after.held(account, market)
        assert held * before.held(target, market) < 0, "invariant 4: deleveraged against its own side"
        assert abs(left) < abs(held), "invariant 4: a deleveraging did not shrink the counterparty"
        assert held * left >= 0, "invariant 4: a deleveraging turned a position"
        assert equity(exchange, after, account) >= maintenance(exchange, after, account), (
            "counterparty unhealthy"
        )
        allowed += max(0, -start) + 1
    return allowed


def consumed(batch: codec.Batch, before: Moment, after: Moment, account: int) -> int:
    """Deposits of this batch, of all sub-accounts of the owner: an upper bound of what came in before a liquidation."""
    if not batch.inbox:
        return 0
    owner = before.owner_of(account)
    return before.waiting.get(owner, 0) - after.waiting.get(owner, 0)


def debt(before: Moment, account: int) -> int:
    """What may be written off of an account: its negative collateral, once it has no positions."""
    assert account >= FIRST_USER, "only users' debts are written off"
    assert not any(at == account for at, _ in before.positions), (
        "invariant 4: written off with open positions"
    )
    return max(0, -before.accounts[account].collateral)


def check_reserved_accounts(exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch) -> None:
    """The fee account never pays. The fund pays only deficits of accounts below zero, and funding of its own positions."""
    assert after.accounts[FEE_ACCOUNT].collateral >= before.accounts[FEE_ACCOUNT].collateral, (
        "fees were paid out"
    )
    indexes = tuple(market.cumulative_funding for market in after.markets)
    deficits = sum(
        max(0, -equity(exchange, before, account, indexes)) + 2 * fills
        for account, fills in targets(batch).items()
        if account in before.accounts
    )
    for action in batch.actions:
        if isinstance(action, codec.WriteOff):
            deficits += debt(before, batch.accounts[action.account_index])
    allowed = deficits + funding_loss(exchange, before, after, INSURANCE_FUND)
    lost = equity(exchange, before, INSURANCE_FUND) - equity(exchange, after, INSURANCE_FUND)
    assert lost <= allowed, f"the fund lost {lost}, deficits allow {allowed}"
