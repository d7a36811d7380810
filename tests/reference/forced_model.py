"""The rules of what the inbox forces, written again from docs/settlement.md; part of `vault_model.py`."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

from backstop_model import FEES, FUND
from vault_actions import need
from vault_state import Position


class Forced:
    """Closes that the entry at the head asks for, and when such an entry leaves."""

    vault: Any
    batch: Any

    def done_for(self, entry: Any) -> int:
        number, lots = self.vault.closing
        return lots if number == entry.id else 0

    def room(self, number: int) -> int:
        """Lots that closes may still take in this hour."""
        hour, lots, cap = self.vault.forced.get(number, (0, 0, 0))
        if hour != self.now // 3_600:
            market = self.vault.markets[number]
            lot = self.prices[number].mark * market.lot_tick_value
            lots, cap = 0, max(1, 25_000_000_000 // lot, market.open_interest // 10)
            if self.interest:
                cap = max(1, 25_000_000_000 // lot, self.interest[number] // 10)
            self.vault.forced[number] = (self.now // 3_600, lots, cap)
        return cap - lots

    def leave_close(self, entry: Any) -> None:
        held = self.vault.accounts[entry.account].positions.get(entry.market, Position()).size
        same_side = held > 0 if entry.long else held < 0
        if not same_side or self.done_for(entry) >= entry.lots:
            return
        margin = self.margin(entry.account)
        need(margin.fresh, "stale")
        if margin.equity >= margin.maintenance:
            hours = dict(self.vault.forced)
            need(self.done_for(entry) > 0 and self.room(entry.market) <= 0, "stays")
            self.vault.forced = hours

    def part(self, fill: Any) -> tuple[int, int, int, int]:
        """Account, market, direction and penalty of the closer."""
        account, number = self.pairs[fill.first]
        head = self.vault.head
        need(head is not None and (head.account, head.market) == (account, number), "head")
        held = self.vault.accounts[account].positions.get(number, Position()).size
        sign = 1 if head.long else -1
        need(sign * held >= fill.size, "position")
        need(self.done_for(head) + fill.size <= head.lots, "asked")
        margin = self.margin(account)
        need(margin.fresh and margin.equity >= margin.maintenance, "closer")
        need(account not in self.traders, "closer trades")
        need(fill.size <= self.room(number), "cap")
        hour, lots, cap = self.vault.forced[number]
        self.vault.forced[number] = (hour, lots + fill.size, cap)
        self.vault.closing = (head.id, self.done_for(head) + fill.size)
        self.targets.add(account)
        market = self.vault.markets[number]
        rate = min(market.liquidation_fee_ppm, market.tiers[0].fraction_ppm // 2)
        value = fill.size * self.prices[number].mark * market.lot_tick_value
        return account, number, sign, ceil(Fraction(value * rate, 10**6))

    def close_on_book(self, fill: Any) -> None:
        account, number, sign, penalty = self.part(fill)
        maker = self.batch.orders[fill.second]
        owner, other = self.pairs[maker.pair]
        need(number == other and (maker.order.side == 1) == (sign < 0), "maker")
        price, value = maker.order.limit_price, self.vault.markets[number].lot_tick_value
        self.makes(maker)
        self.checked_price(number, price)
        need(sign * (self.prices[number].mark - price) * fill.size * value <= penalty, "penalty")
        rate, notional = self.rates(maker)[0], fill.size * price * value
        need(rate >= 0, "rebate")
        self.use(fill.second, fill.size, notional, rate)
        self.move(account, number, -sign * fill.size, sign * notional)
        self.move(owner, number, sign * fill.size, -sign * notional)

    def close_against(self, fill: Any) -> None:
        account, number, sign, penalty = self.part(fill)
        other, same = self.pairs[fill.second]
        need(same == number and other != FEES and other not in self.traders, "counterparty")
        self.reduces(other, number, sign, fill.size)
        mark, value = self.prices[number].mark, self.vault.markets[number].lot_tick_value
        moved = max(0, sign * (mark - self.vault.head.mark) * fill.size * value)
        loss = min(penalty, ceil(Fraction(penalty, 2)) + moved)
        notional = fill.size * mark * value
        if other != FUND:
            need(self.margin(other).fresh, "stale")
            self.targets.add(other)
        self.move(account, number, -sign * fill.size, sign * notional - loss)
        self.move(other, number, sign * fill.size, loss - sign * notional)
        if other != FUND:
            after = self.margin(other)
            need(after.equity >= after.maintenance, "counterparty")
