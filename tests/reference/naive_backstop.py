"""The rules of section 4 that are no order fills, as plainly as they can be written: closing out an account.

Part of `naive_vault.py`, which has the state and the rest of a batch.
"""

from naive_actions import ceil, require

FUND, FEES, NO_INDEX = 1, 2, 0xFFFF
PPM = 10**6
BUY, SELL = 0, 1


class Backstop:
    """What a settlement does with a target: on the book, by the fund, against a counterparty."""

    def write_off(self, account):
        """The fund pays what it can spare of the debt of somebody without positions."""
        held = [word for word in self.positions_of(account).values() if word[0]]
        debt = -self.vault.collaterals[account]
        require(account > FEES and not held and debt > 0, "nothing to write off")
        require(FUND in self.batch.accounts and self.all_fresh(FUND), "the fund is not named, or stale")
        equity, initial, _, _ = self.margin(FUND)
        require(equity > initial, "the fund cannot pay")
        self.vault.collaterals[FUND] -= min(debt, equity - initial)
        self.vault.collaterals[account] += min(debt, equity - initial)

    def target(self, fill):
        account, market_id = self.pair(fill.first)
        market, mark = self.vault.markets[market_id], self.prices[market_id].mark_ticks
        require(account > FEES and self.all_fresh(account), "target")
        require(not self.vault.restarted, "the chain was down")
        require(not self.deposit_waits(account, market_id), "a deposit waits")
        size = self.vault.positions[account, market_id][0]
        require(0 < fill.size <= abs(size), "larger than the position")
        self.targets.add(account)
        equity, _, maintenance, _ = self.margin(account)
        own = ceil(self.vault.initial(market, abs(size) * mark * market.lot_tick_value), 2)
        bound = (equity * own * fill.size) // (maintenance * abs(size))
        return account, market, mark, size, equity, maintenance, own, bound

    def pay_reward(self, fill, fee):
        if fill.keeper == NO_INDEX:
            return 0
        self.vault.collaterals[self.batch.accounts[fill.keeper]] += fee // 2
        return fee // 2

    def liquidation(self, fill):
        account, market, mark, size, equity, maintenance, own, bound = self.target(fill)
        require(0 <= equity < maintenance, "not liquidatable on the book")
        maker = self.batch.orders[fill.second].order
        price, sign = maker.limit_price, 1 if size > 0 else -1
        require(maker.side == (BUY if size > 0 else SELL), "same side")
        self.check_band(market.market_id, price)
        loss = sign * (mark - price) * fill.size * market.lot_tick_value
        require(loss <= min(bound, own * fill.size // (3 * abs(size))), "loss above bound")
        notional = fill.size * price * market.lot_tick_value
        fee = max(0, min(notional * market.liquidation_fee_ppm // PPM, bound - max(loss, 0)))
        maker_account, _ = self.use_row(fill.second, fill.size, price, True)
        self.trade(account, market.market_id, -sign * fill.size, price)
        self.trade(maker_account, market.market_id, sign * fill.size, price)
        self.vault.collaterals[account] -= fee
        self.vault.collaterals[FUND] += fee - self.pay_reward(fill, fee)

    def takeover(self, fill):
        account, market, mark, size, equity, maintenance, _, bound = self.target(fill)
        require(3 * equity < 2 * maintenance, "not below two thirds")
        require(self.pair(fill.second) == (FUND, market.market_id), "not the fund's pair")
        sign = 1 if size > 0 else -1
        notional = fill.size * mark * market.lot_tick_value
        fee = max(0, min(notional * market.liquidation_fee_ppm // PPM, bound))
        self.trade(account, market.market_id, -sign * fill.size, mark)
        self.trade(FUND, market.market_id, sign * fill.size, mark)
        self.vault.collaterals[account] -= bound
        self.vault.collaterals[FUND] += bound - self.pay_reward(fill, fee)
        held = abs(self.vault.positions[FUND, market.market_id][0])
        require(held <= market.fund_position_cap_lots, "fund position above cap")

    def deleverage(self, fill):
        account, market, mark, size, equity, maintenance, _, bound = self.target(fill)
        require(3 * equity < 2 * maintenance, "not below two thirds")
        require(not self.fund_could_take(fill), "the fund could take it")
        (other, other_market), sign = self.pair(fill.second), 1 if size > 0 else -1
        require(other > FEES and other_market == market.market_id, "counterparty")
        held = self.vault.positions[other, other_market][0]
        require(held * size < 0 and abs(held) >= fill.size, "counterparty does not shrink")
        require(self.all_fresh(other), "stale price")
        self.targets.add(other)
        self.trade(account, market.market_id, -sign * fill.size, mark)
        self.trade(other, market.market_id, sign * fill.size, mark)
        self.vault.collaterals[account] -= min(0, bound)
        self.vault.collaterals[other] += min(0, bound)
        other_equity, _, other_maintenance, _ = self.margin(other)
        require(other_equity >= other_maintenance, "counterparty below maintenance")

    def fund_could_take(self, fill):
        """One lot of the target, after a keeper's share, by the fund's cap, markets and initial margin."""
        _, market, mark, size, equity, maintenance, own, _ = self.target(fill)
        require(FUND in self.batch.accounts, "the fund is not named")
        one, price = size // abs(size), mark * market.lot_tick_value
        received = (equity * own) // (maintenance * abs(size))
        received -= max(0, min(price * market.liquidation_fee_ppm // PPM, received)) // 2
        held = {key: word for key, word in self.positions_of(FUND).items() if word[0]}
        before = held.get(market.market_id, (0, 0, 0))[0]
        if abs(before + one) > market.fund_position_cap_lots or (not before and len(held) >= 16):
            return False
        if before * one < 0 and received >= 0:
            return True
        after = dict(held)
        after[market.market_id] = (before + one, self.vault.cumulative[market.market_id], 0)
        now_equity, *_ = self.margin(FUND)
        _, initial, _, _ = self.vault.margin(0, after, self.prices)
        return self.all_fresh(FUND) and now_equity + received >= initial
