"""What the inbox forces, as plainly as it can be written: closes of positions, and liquidations that a keeper names.

Part of `naive_vault.py`, which has the state and the rest of a batch.
"""

from naive_actions import ceil, require
from naive_backstop import BUY, FEES, FUND, PPM, SELL

USDC = 10**6


class Forced:
    """Fills for the entry at the head of the inbox, and when it may be consumed."""

    def closed_so_far(self, entry):
        return self.vault.closing[1] if self.vault.closing[0] == entry.entry_id else 0

    def hour(self, market_id):
        """(hour, lots closed in it, its cap) as of now."""
        kept = self.vault.forced_hours[market_id]
        if kept[0] == self.now // 3600:
            return kept
        market, mark = self.vault.markets[market_id], self.prices[market_id].mark_ticks
        interest = self.base_interest.get(market_id, 0)
        cap = max(interest // 10, 25_000 * USDC // (mark * market.lot_tick_value), 1)
        return self.now // 3600, 0, cap

    def leave_close(self, account, entry):
        """The entry is consumed: what it asks for is done, or there is nothing to do."""
        size = self.vault.positions[account, entry.market_id][0]
        closed = self.closed_so_far(entry)
        if size * entry.size <= 0 or closed >= abs(entry.size):
            return
        require(self.all_fresh(account), "stale price")
        equity, _, maintenance, _ = self.margin(account)
        if equity < maintenance:
            return
        self.base_interest = dict(self.vault.open_interest)
        _, used, cap = self.hour(entry.market_id)
        require(closed and used >= cap, "not closed yet")

    def leave_liquidation(self, account):
        held = {key: word for key, word in self.positions_of(account).items() if word[0]}
        require(self.all_fresh(account), "stale price")
        equity, _, maintenance, _ = self.margin(account)
        if not held or 3 * equity >= 2 * maintenance:
            return
        require(any(self.deposit_waits(account, key) for key in held), "not liquidated yet")

    def deposit_waits(self, account, market_id):
        return any(
            entry.entry_kind == 1
            and self.vault.ids.get((entry.owner, entry.sub_account)) == account
            and entry.created + 600 < self.prices[market_id].updated_at
            for entry in self.entries[self.vault.entries :]
        )

    def forced_part(self, fill):
        """The closer's account, market, side and penalty; counts the lots."""
        account, market_id = self.pair(fill.first)
        entry = self.entries[self.vault.entries]
        require(entry.entry_kind == 4 and entry.market_id == market_id, "no close at the head")
        require(self.vault.ids.get((entry.owner, entry.sub_account)) == account, "somebody else's close")
        size = self.vault.positions[account, market_id][0]
        closed = self.closed_so_far(entry) + fill.size
        require(size * entry.size > 0 and fill.size <= abs(size), "larger than the position")
        require(closed <= abs(entry.size), "more than asked for")
        require(self.all_fresh(account), "stale price")
        equity, _, maintenance, _ = self.margin(account)
        require(equity >= maintenance, "below maintenance")
        hour, used, cap = self.hour(market_id)
        require(used + fill.size <= cap, "cap of the hour")
        self.vault.forced_hours[market_id] = (hour, used + fill.size, cap)
        self.vault.closing = (entry.entry_id, closed)
        self.targets.add(account)
        market, mark = self.vault.markets[market_id], self.prices[market_id].mark_ticks
        rate = min(market.liquidation_fee_ppm, market.tiers[0].initial_fraction_ppm // 2)
        penalty = ceil(fill.size * mark * market.lot_tick_value * rate, PPM)
        return account, market_id, entry, (1 if size > 0 else -1), penalty

    def forced_on_book(self, fill):
        account, market_id, _, sign, penalty = self.forced_part(fill)
        maker = self.batch.orders[fill.second].order
        price, mark = maker.limit_price, self.prices[market_id].mark_ticks
        require(maker.side == (BUY if sign > 0 else SELL), "same side")
        self.check_band(market_id, price)
        loss = sign * (mark - price) * fill.size * self.vault.markets[market_id].lot_tick_value
        require(loss <= penalty, "loss above the penalty")
        maker_account, _ = self.use_row(fill.second, fill.size, price, True)
        self.trade(account, market_id, -sign * fill.size, price)
        self.trade(maker_account, market_id, sign * fill.size, price)

    def forced(self, fill):
        account, market_id, entry, sign, penalty = self.forced_part(fill)
        mark, value = self.prices[market_id].mark_ticks, self.vault.markets[market_id].lot_tick_value
        gained = max(0, sign * (mark - entry.mark) * fill.size * value)
        loss = min(penalty, ceil(penalty, 2) + gained)
        other, other_market = self.pair(fill.second)
        held = self.vault.positions[other, other_market][0]
        require(other_market == market_id and other != FEES, "counterparty")
        require(held * sign < 0 and abs(held) >= fill.size, "counterparty does not shrink")
        if other != FUND:
            require(self.all_fresh(other), "stale price")
            self.targets.add(other)
        self.trade(account, market_id, -sign * fill.size, mark)
        self.trade(other, market_id, sign * fill.size, mark)
        self.vault.collaterals[account] -= loss
        self.vault.collaterals[other] += loss
        if other != FUND:
            equity, _, maintenance, _ = self.margin(other)
            require(equity >= maintenance, "counterparty below maintenance")
