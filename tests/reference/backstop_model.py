"""The rules of closing out an account, written again from docs/settlement.md; part of `vault_model.py`."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

from vault_actions import need
from vault_state import Margin, Position

FUND, FEES = 1, 2
NO_INDEX = 65_535


class Backstop:
    """What a run does with a target: on the book, by the fund, against a counterparty."""

    vault: Any
    batch: Any

    def write_off(self, number: int) -> None:
        account, fund = self.vault.accounts[number], self.vault.accounts[FUND]
        need(number > FEES and not account.open() and account.collateral < 0, "nothing to write off")
        need(FUND in self.batch.accounts, "named")
        margin = self.margin(FUND)
        need(margin.fresh, "stale")
        amount = min(-account.collateral, margin.equity - margin.initial)
        need(amount > 0, "the fund cannot pay")
        fund.collateral -= amount
        account.collateral += amount

    def target(self, fill: Any) -> tuple[int, int, int, Margin, Fraction]:
        """Account, market, position, margin, and the share of equity that the closed lots may lose."""
        account, number = self.pairs[fill.first]
        need(account > FEES and account not in self.traders and not self.vault.restarted, "target")
        waits = self.vault.waiting.get(account)
        need(waits is None or waits + 600 >= self.prices[number].updated_at, "a deposit waits")
        margin = self.margin(account)
        position = self.vault.accounts[account].positions.get(number, Position()).size
        need(margin.fresh and abs(position) >= fill.size, "target")
        market = self.vault.markets[number]
        own = market.maintenance(abs(position) * self.prices[number].mark * market.lot_tick_value)
        part = Fraction(own * fill.size, abs(position))
        self.targets.add(account)
        return account, number, position, margin, part

    def pay_keeper(self, fill: Any, fee: int) -> int:
        if fill.keeper == NO_INDEX:
            return 0
        keeper = self.batch.accounts[fill.keeper]
        need(keeper > FEES and keeper in self.vault.accounts, "keeper")
        self.vault.accounts[keeper].collateral += fee // 2
        return fee // 2

    def liquidation(self, fill: Any) -> None:
        account, number, position, margin, part = self.target(fill)
        need(0 <= margin.equity < margin.maintenance, "healthy")
        maker = self.batch.orders[fill.second]
        owner, other = self.pairs[maker.pair]
        sign = 1 if position > 0 else -1
        need(number == other and (maker.order.side == 1) == (sign < 0), "maker")
        price, market = maker.order.limit_price, self.vault.markets[number]
        self.makes(maker)
        self.checked_price(number, price)
        notional = fill.size * price * market.lot_tick_value
        loss = sign * (self.prices[number].mark - price) * fill.size * market.lot_tick_value
        bound = floor(margin.equity * part / margin.maintenance)
        need(loss <= min(bound, floor(part / 3)), "loss")
        fee = max(0, min(notional * market.liquidation_fee_ppm // 10**6, bound - max(loss, 0)))
        rate = self.rates(maker)[0]
        need(rate >= 0, "rebate")
        self.use(fill.second, fill.size, notional, rate)
        share = self.pay_keeper(fill, fee)
        self.vault.accounts[FUND].collateral += fee - share
        self.move(account, number, -sign * fill.size, sign * notional - fee)
        self.move(owner, number, sign * fill.size, -sign * notional)

    def take_over(self, fill: Any) -> None:
        account, number, position, margin, part = self.target(fill)
        need(3 * margin.equity < 2 * margin.maintenance, "two thirds")
        need(self.pairs[fill.second] == (FUND, number), "fund")
        market, sign = self.vault.markets[number], 1 if position > 0 else -1
        notional = fill.size * self.prices[number].mark * market.lot_tick_value
        bound = floor(margin.equity * part / margin.maintenance)
        fee = max(0, min(notional * market.liquidation_fee_ppm // 10**6, bound))
        share = self.pay_keeper(fill, fee)
        self.move(account, number, -sign * fill.size, sign * notional - bound)
        self.move(FUND, number, sign * fill.size, bound - share - sign * notional)
        need(abs(self.vault.accounts[FUND].positions[number].size) <= market.fund_cap, "cap")

    def deleverage(self, fill: Any) -> None:
        account, number, position, margin, part = self.target(fill)
        need(3 * margin.equity < 2 * margin.maintenance, "two thirds")
        need(not self.fund_takes(number, position, margin, part / fill.size), "fund could take it")
        (other, same), market = self.pairs[fill.second], self.vault.markets[number]
        need(other > FEES and same == number and other not in self.traders, "counterparty")
        sign = 1 if position > 0 else -1
        self.reduces(other, number, sign, fill.size)
        need(self.margin(other).fresh, "stale")
        self.targets.add(other)
        notional = fill.size * self.prices[number].mark * market.lot_tick_value
        loss = min(0, floor(margin.equity * part / margin.maintenance))
        self.move(account, number, -sign * fill.size, sign * notional - loss)
        self.move(other, number, sign * fill.size, loss - sign * notional)
        after = self.margin(other)
        need(after.equity >= after.maintenance, "counterparty")

    def cash(self, fill: Any) -> None:
        """Two opposite positions of a settled market end against each other, whatever their accounts are worth."""
        (account, number), (other, same) = self.pairs[fill.first], self.pairs[fill.second]
        price = self.vault.settled.get(number)
        need(number == same and price is not None and self.prices[number].mark == price, "settlement price")
        need(account not in self.traders and other not in self.traders, "target trades")
        size = self.vault.accounts[account].positions.get(number, Position()).size
        sign = 1 if size > 0 else -1
        need(abs(size) >= fill.size, "position")
        self.reduces(other, number, sign, fill.size)
        self.targets |= {account, other} - {FUND}
        notional = fill.size * price * self.vault.markets[number].lot_tick_value
        self.move(account, number, -sign * fill.size, sign * notional)
        self.move(other, number, sign * fill.size, -sign * notional)

    def fund_takes(self, number: int, position: int, margin: Margin, part: Fraction) -> bool:
        """Whether the fund could take one lot, of which `part` is the target's maintenance."""
        need(FUND in self.batch.accounts, "named")
        fund, market = self.vault.accounts[FUND], self.vault.markets[number]
        now, price = self.margin(FUND), self.prices[number].mark * market.lot_tick_value
        held = fund.positions.get(number, Position()).size
        after = held + (1 if position > 0 else -1)
        if abs(after) > market.fund_cap or (held == 0 and len(fund.open()) >= 16):
            return False
        gain = floor(margin.equity * part / margin.maintenance)
        gain -= max(0, min(price * market.liquidation_fee_ppm // 10**6, gain)) // 2
        if abs(after) < abs(held) and gain >= 0:
            return True
        initial = now.initial - market.initial(abs(held) * price) + market.initial(abs(after) * price)
        return now.fresh and now.equity + gain >= initial
