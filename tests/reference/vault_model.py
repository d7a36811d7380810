"""What the vault does with a batch, written again from docs/settlement.md in plain Python; imports nothing of the project.

It takes batches as any object with the codec's attribute names and trusts signatures. It exists to disagree: whoever
changes a rule or a rounding in the contract alone, or in the formulas alone, finds a difference here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Any

from backstop_model import FEES, FUND, NO_INDEX, Backstop
from forced_model import Forced
from vault_actions import Actions, Refused, need
from vault_state import Account, Margin, Market, Position, Price

__all__ = ["Refused", "Vault"]

WHOLE = 10**12


@dataclass
class Vault:
    """The whole state; `settle` returns nothing and changes it, or raises Refused and does not."""

    markets: list[Market]
    accounts: dict[int, Account] = field(default_factory=lambda: {FUND: Account(), FEES: Account()})
    pool: int = 0
    dust: int = 0
    batch_id: int = 0
    claims: list[tuple[int, int]] = field(default_factory=list)  # account, amount
    dues: list[int] = field(default_factory=list)  # of each claim: when it is payable, 0 for at once
    restarted: bool = False  # the chain was down within the last hour
    levels: tuple[int, int, int] = (0, 0, 0)  # of an hour, of a day, time of the newest claim
    owners: dict[tuple[bytes, int], int] = field(default_factory=dict)  # (owner, sub-account) -> id
    agents: dict[tuple[int, bytes], tuple[int, int]] = field(default_factory=dict)  # -> expiry, transfer cap
    credited: int = 0
    # account -> when its oldest waiting deposit was made
    waiting: dict[int, int] = field(default_factory=dict)
    head: Any = None  # the inbox entry behind those that a batch consumes, where it is a close
    closing: tuple[int, int] = (0, 0)  # entry, lots closed for it
    forced: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # market -> hour, lots, cap
    settled: dict[int, int] = field(default_factory=dict)  # market -> its settlement price

    def settle(
        self,
        batch: Any,
        now: int,
        prices: list[Price],
        entries: list[Any],
        rates: dict[int, list[int]],
        signers: dict[bytes, bytes] | None = None,
        newest: tuple[int, list[Price]] | None = None,
    ) -> None:
        """`entries`: the inbox entries it consumes, with `kind`, `amount`, `owner` and `account` (None when unknown).

        `signers`: who made a signature, by its bytes; owners need not be named. `newest`: of a late batch, the time and
        prices of the newest round.
        """
        trial = copy.deepcopy(self)
        run = Run(trial, batch, now, prices, signers or {})
        run.everything(entries, rates)
        if newest is not None:
            run.again_at(*newest)
        self.__dict__.update(trial.__dict__)

    def check_conservation(self) -> None:
        """Invariants 1 and 2."""
        collateral = sum(account.collateral for account in self.accounts.values())
        assert collateral + self.pool + sum(amount for _, amount in self.claims) == self.credited
        for number, market in enumerate(self.markets):
            sizes = [
                account.positions[number].size
                for account in self.accounts.values()
                if number in account.positions
            ]
            assert sum(sizes) == 0
            assert sum(size for size in sizes if size > 0) == market.open_interest


class Run(Actions, Backstop, Forced):
    """One batch being applied."""

    def __init__(
        self, vault: Vault, batch: Any, now: int, prices: list[Price], signers: dict[bytes, bytes]
    ) -> None:
        self.vault, self.batch, self.now, self.prices, self.signers = vault, batch, now, prices, signers
        self.pairs = [(batch.accounts[index], market) for index, market in batch.pairs]
        self.used: dict[int, int] = {}  # row of slot 0 -> filled
        self.numerators: dict[int, int] = {}
        self.built: dict[int, int] = {}  # the same of builders' fees
        self.traders: set[int] = set()
        self.targets: set[int] = set()
        self.changed: set[int] = set()
        self.interest: list[int] = []

    def everything(self, entries: list[Any], rates: dict[int, list[int]]) -> None:
        batch, vault = self.batch, self.vault
        need(batch.batch_id == vault.batch_id + 1, "id")
        vault.batch_id += 1
        for use, entry in zip(batch.inbox, entries, strict=True):
            self.inbox(use, entry)
        for action in batch.actions:
            self.action(action)
        for hour in batch.funding_hours:
            self.funding(hour, rates[hour])
        last = -1
        for bit in batch.triggers:
            need(last < bit.row < len(batch.orders), "rows")
            last = bit.row
            self.trigger(batch.orders[bit.row])
        for row in batch.orders:
            self.row(row)
        self.before = copy.deepcopy(vault.accounts)
        interest = self.interest = [market.open_interest for market in vault.markets]
        for fill in batch.fills:
            kind = {
                0: self.orders,
                1: self.liquidation,
                2: self.take_over,
                3: self.deleverage,
                4: self.against_fund,
                5: self.close_on_book,
                6: self.close_against,
                7: self.cash,
            }.get(fill.kind)
            need(kind is not None, "kind")
            need(0 < fill.size < 2**62, "size")
            kind(fill)
        whole, vault.dust = divmod(vault.dust, WHOLE)
        vault.pool -= whole
        vault.accounts[FUND].collateral += whole
        for state in vault.accounts.values():
            need(len(state.open()) <= 16, "markets")
        for withdrawal in batch.withdrawals:
            self.withdrawal(withdrawal)
        for account in sorted(self.changed):
            self.closing(account)
        for number in batch.markets:
            market = vault.markets[number]
            need(market.open_interest <= max(market.open_interest_cap, interest[number]), "open interest")

    def again_at(self, now: int, prices: list[Price]) -> None:
        """A late batch: nothing but order fills, and everybody who traded passes at the newest round too."""
        batch = self.batch
        need(not (batch.inbox or batch.actions or batch.funding_hours or batch.triggers), "late")
        need(not batch.withdrawals and all(fill.kind == 0 for fill in batch.fills), "late")
        self.now, self.prices = now, prices
        for account in sorted(self.changed):
            self.closing(account)

    # sections 1 to 3

    def inbox(self, use: Any, entry: Any) -> None:
        if entry.kind == 2:
            self.vault.accounts[FUND].collateral += entry.amount
            self.vault.credited += entry.amount
            return
        if entry.account is None:
            return
        need(
            use.account_index != NO_INDEX and self.batch.accounts[use.account_index] == entry.account, "entry"
        )
        account = self.vault.accounts.setdefault(entry.account, Account())
        if entry.kind == 1:
            self.vault.owners.setdefault((entry.owner, entry.sub_account), entry.account)
            account.collateral += entry.amount
            self.vault.credited += entry.amount
            return
        if entry.kind == 3:
            margin = self.margin(entry.account)
            need(margin.fresh and not (self.vault.restarted and margin.notional), "stale")
            amount = min(entry.amount, self.withdrawable(margin))
            if amount:
                account.collateral -= amount
                self.claim(entry.account, amount)
        elif entry.kind == 4:
            self.leave_close(entry)
        elif entry.kind == 5:
            self.void(account, entry.slot == 65_535, entry.slot, entry.sequence)
            if entry.slot == 65_535:
                account.action_sequence = max(account.action_sequence, entry.sequence)
        elif entry.kind == 6:
            self.vault.agents[entry.account, entry.agent] = (entry.expiry, entry.amount)
        elif entry.kind == 7:
            self.vault.agents[entry.account, entry.agent] = (0, 0)
            account.action_sequence = max(account.action_sequence, entry.created * 1000)

    def void(self, account: Account, all_slots: bool, slot: int, sequence: int) -> None:
        if all_slots:
            account.min_sequence = max(account.min_sequence, sequence)
        elif slot == 0:
            account.taker_sequence = max(account.taker_sequence, sequence)
        elif sequence >= account.slots.get(slot, (0, 0))[0]:
            account.slots[slot] = (sequence, 2**62 - 1)
            account.triggered.pop(slot, None)

    def funding(self, hour: int, rates: list[int]) -> None:
        for number in self.batch.markets:
            market = self.vault.markets[number]
            need(hour > market.last_hour and self.fresh(number), "funding")
            rate = max(-market.funding_cap, min(market.funding_cap, rates[number]))
            market.cumulative += self.prices[number].index * market.lot_tick_value * rate * 1000
            market.last_hour = hour

    def row(self, row: Any) -> None:
        order, (account, _) = row.order, self.pairs[row.pair]
        need(order.expiry >= self.now, "expiry")
        need(
            self.vault.accounts[account].min_sequence < order.sequence <= (self.now + 86_400) * 1000,
            "sequence",
        )
        need(order.slot > 0 or order.time_in_force >= 2, "slot 0")

    # section 4

    def use(self, index: int, size: int, notional: int, rate: int) -> int:
        """Fills a row, charges its fee, returns its account."""
        row = self.batch.orders[index]
        order, (number, market) = row.order, self.pairs[row.pair]
        account = self.vault.accounts[number]
        need(rate <= order.max_fee_ppm, "fee")
        sign = -1 if order.side else 1
        if order.reduce_only:
            self.reduces(number, market, sign, size)
        if order.slot == 0:
            if index not in self.used:
                need(order.sequence > account.taker_sequence and order.trigger not in (1, 2), "sequence")
                account.taker_sequence = order.sequence
            need(order.sequence == account.taker_sequence, "replaced")
            filled = self.used[index] = self.used.get(index, 0) + size
        else:
            stored, filled = account.slots.get(order.slot, (0, 0))
            need(order.sequence >= stored, "sequence")
            need(
                order.trigger not in (1, 2) or account.triggered.get(order.slot) == order.sequence, "trigger"
            )
            filled = size + (filled if order.sequence == stored or order.amend else 0)
            account.slots[order.slot] = (order.sequence, filled)
        need(filled <= order.size, "overfilled")
        before = self.numerators.get(index, 0)
        after = self.numerators[index] = before + notional * rate
        fee = ceil(Fraction(after, 10**6)) - ceil(Fraction(before, 10**6))
        account.collateral -= fee
        self.vault.accounts[FEES].collateral += fee
        self.builder_fee(index, number, notional)
        need(number not in self.targets, "target trades")
        self.traders.add(number)
        self.changed.add(number)
        return number

    def reduces(self, account: int, market: int, sign: int, size: int) -> None:
        held = self.vault.accounts[account].positions.get(market, Position()).size
        need(-sign * held >= size, "reduce")

    def fresh(self, number: int) -> bool:
        price = self.prices[number]
        return not price.clamped and self.now - price.updated_at <= self.vault.markets[number].max_price_age_s

    def checked_price(self, number: int, price: int) -> None:
        mark = self.prices[number].mark
        need(abs(price - mark) * 10**6 <= mark * self.vault.markets[number].price_band_ppm, "band")

    def rates(self, row: Any) -> tuple[int, int]:
        return self.batch.fee_classes[row.fee_class]

    def orders(self, fill: Any) -> None:
        maker, taker = self.batch.orders[fill.first], self.batch.orders[fill.second]
        (maker_account, number), (taker_account, other) = self.pairs[maker.pair], self.pairs[taker.pair]
        need(number == other and maker.order.side != taker.order.side, "sides")
        need(number not in self.vault.settled, "closed")
        price, sign = maker.order.limit_price, -1 if taker.order.side else 1
        self.makes(maker)
        self.checked_price(number, price)
        need(not taker.order.post_only and sign * price <= sign * taker.order.limit_price, "taker")
        if not self.fresh(number):
            self.reduces(maker_account, number, -sign, fill.size)
            self.reduces(taker_account, number, sign, fill.size)
        maker_rate, taker_rate = self.rates(maker)[0], self.rates(taker)[1]
        need(maker_rate >= -taker_rate, "rebate")
        notional = fill.size * price * self.vault.markets[number].lot_tick_value
        need(notional < 2**90, "notional")
        self.use(fill.second, fill.size, notional, taker_rate)
        self.use(fill.first, fill.size, notional, maker_rate)
        if maker_account != taker_account:
            self.move(taker_account, number, sign * fill.size, -sign * notional)
            self.move(maker_account, number, -sign * fill.size, sign * notional)

    def makes(self, maker: Any) -> None:
        need(maker.order.time_in_force < 2 and maker.order.slot > 0, "maker")

    def move(self, account: int, number: int, lots: int, money: int) -> None:
        """Settles funding, then changes position and collateral."""
        vault, market = self.vault, self.vault.markets[number]
        state = vault.accounts[account]
        position = state.positions.setdefault(number, Position())
        exact = position.size * (market.cumulative - position.entry_cumulative)
        owed = ceil(Fraction(exact, WHOLE))
        state.collateral += money - owed
        vault.pool += owed
        vault.dust += owed * WHOLE - exact
        old, new, mark = position.size, position.size + lots, self.prices[number].mark
        first = self.before.get(account, Account()).positions.get(number, Position())
        position.entry_mark = first.entry_mark
        if new and (first.size == 0 or first.size * new < 0):
            position.entry_mark = mark
        elif abs(new) > abs(first.size):
            weighted = abs(first.size) * first.entry_mark + (abs(new) - abs(first.size)) * mark
            position.entry_mark = floor(Fraction(weighted, abs(new)))
        market.open_interest += max(new, 0) - max(old, 0)
        position.size, position.entry_cumulative = new, market.cumulative
        self.changed.add(account)

    def margin(self, number: int, accounts: dict[int, Account] | None = None) -> Margin:
        account = (accounts or self.vault.accounts)[number]
        if accounts is None:
            named = {market for owner, market in self.pairs if owner == number}
            need(set(account.open()) <= named, "named")
        margin = Margin(account.collateral)
        for key, position in account.open().items():
            market = self.vault.markets[key]
            value = position.size * self.prices[key].mark * market.lot_tick_value
            owed = ceil(Fraction(position.size * (market.cumulative - position.entry_cumulative), WHOLE))
            margin.equity += value - owed
            margin.initial += market.initial(abs(value))
            margin.maintenance += market.maintenance(abs(value))
            margin.notional += abs(value)
            margin.fresh &= self.fresh(key)
        return margin

    def against_fund(self, fill: Any) -> None:
        taker = self.batch.orders[fill.first]
        account, number = self.pairs[taker.pair]
        need(self.pairs[fill.second] == (FUND, number) and self.fresh(number), "fund")
        price, sign = self.prices[number].mark, -1 if taker.order.side else 1
        need(not taker.order.post_only and sign * price <= sign * taker.order.limit_price, "taker")
        self.reduces(FUND, number, -sign, fill.size)
        notional = fill.size * price * self.vault.markets[number].lot_tick_value
        self.use(fill.first, fill.size, notional, self.rates(taker)[1])
        self.move(account, number, sign * fill.size, -sign * notional)
        self.move(FUND, number, -sign * fill.size, sign * notional)

    # section 5 and the end

    def withdrawable(self, margin: Margin) -> int:
        return max(0, margin.equity - max(margin.initial, ceil(Fraction(margin.notional, 5))))

    def withdrawal(self, entry: Any) -> None:
        number = self.batch.accounts[entry.account_index]
        account, signed = self.vault.accounts[number], entry.withdraw
        need(signed.deadline >= self.now and signed.action_sequence > account.action_sequence, "action")
        need(entry.fee <= min(signed.max_fee, signed.amount), "fee")
        account.action_sequence = signed.action_sequence
        margin = self.margin(number)
        need(margin.fresh and signed.amount <= self.withdrawable(margin), "withdrawable")
        need(not (self.vault.restarted and margin.notional), "outage")
        account.collateral -= signed.amount
        self.vault.accounts[FEES].collateral += entry.fee
        self.claim(number, signed.amount - entry.fee)

    def closing(self, number: int) -> None:
        if number in self.targets:
            return
        after = self.margin(number)
        if after.fresh and after.equity >= after.initial:
            return
        before = self.before[number]
        for market, position in self.vault.accounts[number].positions.items():
            old = before.positions.get(market, Position()).size
            need(abs(position.size) <= abs(old) and position.size * old >= 0, "grew")
        if after.equity >= after.initial:
            return
        then = self.margin(number, self.before)
        if then.equity < 0:
            need(after.equity >= then.equity, "deficit")
        else:
            need(
                after.equity >= 0 and after.equity * then.maintenance >= then.equity * after.maintenance,
                "ratio",
            )
