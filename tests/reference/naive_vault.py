"""The rules of a batch as plainly as they can be written: what `docs/settlement.md` says, over dictionaries.

It shares no arithmetic with the engine: margins, fees and funding are computed here from whole sums, so that
it disagrees where the engine is wrong. Signatures are not its business. Anything that the vault reverts
raises `Reverted`.
"""

from collections import defaultdict

from naive_actions import OUTFLOW, Actions, ceil, count_claim, require
from naive_backstop import FEES, FUND, NO_INDEX, PPM, Backstop
from naive_forced import Forced
from naive_governance import Governance
from naive_oracle import words_hash

MARK_TRIGGERS = (1, 2)  # above, below
SCALE = 10**12
GTC, GTD, IOC, FOK = range(4)


class NaiveVault:
    """State between batches, in the vault's own terms."""

    def __init__(self, markets):
        self.markets = {market.market_id: market for market in markets}
        self.collaterals = defaultdict(int)
        self.ids = {}
        self.positions = defaultdict(
            lambda: (0, 0, 0)
        )  # (account, market) -> size, entry cumulative, entry mark
        self.slots = defaultdict(lambda: (0, 0))  # (account, slot) -> sequence, filled
        self.triggered = {}  # (account, slot) -> sequence whose mark trigger was met
        self.taker_sequences = defaultdict(int)
        self.min_sequences = defaultdict(int)
        self.action_sequences = defaultdict(int)
        self.agents = {}  # (account, agent) -> expiry, transfer cap
        self.cumulative = defaultdict(int)
        self.open_interest = defaultdict(int)
        self.hours = defaultdict(int)
        self.pauses = {}  # market -> the guardian's mode and its end
        self.endings = {}  # market -> the mode that a delisting leaves
        self.settlement_prices = {}
        self.pool = self.dust = self.claimed = self.credited = 0
        self.batch_id = self.entries = 0
        self.restarted = False  # the chain was down within the last hour
        self.levels = dict.fromkeys(OUTFLOW, 0)  # by period
        self.last_claim = 0
        self.dues = []  # of each claim: when it is payable, 0 for at once
        self.closing = (0, 0)  # inbox entry, lots closed for it
        self.forced_hours = defaultdict(lambda: (-1, 0, 0))  # market -> hour, lots closed in it, cap

    def collateral(self, account):
        return self.collaterals[account]

    def position(self, account, market):
        return self.positions[account, market]

    def settle(self, batch, round_, entries, funding_rates, newest=None):
        """Apply one batch; `entries` is the whole inbox, `funding_rates` the posted hours, `newest` the last round where the
        batch is late."""
        settlement = Settlement(self, batch, round_, entries, funding_rates)
        settlement.run()
        if newest is not None:
            settlement.again_at(newest)

    def margin(self, collateral, positions, prices):
        """Equity, initial, maintenance, notional of {market: (size, entry cumulative, entry mark)}."""
        equity, initial, maintenance, whole = collateral, 0, 0, 0
        for market_id, (size, entry, _) in positions.items():
            market = self.markets[market_id]
            value = size * prices[market_id].mark_ticks * market.lot_tick_value
            owed = ceil(size * (self.cumulative[market_id] - entry), SCALE)
            required = self.initial(market, abs(value))
            equity += value - owed
            initial += required
            maintenance += ceil(required, 2)
            whole += abs(value)
        return equity, initial, maintenance, whole

    @staticmethod
    def initial(market, notional):
        reached = [tier for tier in market.tiers if tier.lower_notional <= notional]
        return ceil(notional * reached[-1].initial_fraction_ppm, PPM) - reached[-1].deduction


class Settlement(Actions, Backstop, Forced, Governance):
    """One batch being applied."""

    def __init__(self, vault, batch, round_, entries, funding_rates):
        self.vault, self.batch, self.round = vault, batch, round_
        self.entries, self.funding_rates = entries, funding_rates
        self.prices, self.now = round_.prices, round_.timestamp
        self.used = {}  # row index -> filled
        self.slot_rows = {}  # (account, slot) -> row index in use
        self.numerators = defaultdict(int)
        self.charged = defaultdict(int)
        self.built = defaultdict(int)
        self.targets, self.traded = set(), set()

    def run(self):
        vault, batch = self.vault, self.batch
        require(batch.batch_id == vault.batch_id + 1, "batch id")
        vault.batch_id = batch.batch_id
        require(batch.prices_hash == words_hash(self.round) and batch.round == self.round.round, "round")
        self.check_tables()
        for use in batch.inbox:
            self.inbox(use)
        for action in batch.actions:
            if hasattr(action, "transfer"):
                self.transfer(action)
            elif not hasattr(action, "approval"):
                self.write_off(batch.accounts[action.account_index])
            else:
                self.approve(batch.accounts[action.account_index], action.approval)
        for hour in batch.funding_hours:
            self.fund_hour(hour)
        for bit in batch.triggers:
            self.trigger(bit.row)
        self.check_rows()
        self.base_collateral = dict(vault.collaterals)
        self.base_positions = dict(vault.positions)
        self.base_interest = dict(vault.open_interest)
        for fill in batch.fills:
            (
                self.orders,
                self.liquidation,
                self.takeover,
                self.deleverage,
                self.with_fund,
                self.forced_on_book,
                self.forced,
                self.cash,
            )[fill.kind](fill)
        require(not self.targets & self.traded, "a target also trades")
        whole, vault.dust = divmod(vault.dust, SCALE)
        vault.pool -= whole
        vault.collaterals[FUND] += whole
        for entry in batch.withdrawals:
            self.withdrawal(entry)
        self.close()

    def check_tables(self):
        batch = self.batch
        for table in (batch.markets, batch.accounts, batch.pairs):
            require(list(table) == sorted(set(table)), "tables ascend")
        require({market for _, market in batch.pairs} <= set(batch.markets), "a pair's market is listed")
        self.named = defaultdict(set)
        for index, market in batch.pairs:
            self.named[batch.accounts[index]].add(market)

    def check_rows(self):
        batch = self.batch
        keys = [(*self.pair(row.pair)[:1], row.order.slot, row.order.sequence) for row in batch.orders]
        require(keys == sorted(set(keys)), "rows ascend")
        for row in batch.orders:
            order, market = row.order, self.vault.markets[self.pair(row.pair)[1]]
            require(order.market == market.symbol, "market of a row")
            require(order.expiry >= self.now, "order expired")
            require(order.sequence <= (self.now + 86_400) * 1000, "sequence too far ahead")
            least = self.vault.min_sequences[self.pair(row.pair)[0]]
            require(order.sequence > least, "order voided")
            immediate = order.time_in_force in (IOC, FOK)
            require(order.slot > 0 or immediate, "slot 0 never rests")

    def pair(self, index):
        account_index, market = self.batch.pairs[index]
        return self.batch.accounts[account_index], market

    def is_fresh(self, market_id):
        market = self.vault.markets[market_id]
        price = self.prices[market_id]
        return not price.clamped and self.now - price.updated_at <= market.max_price_age_s

    def positions_of(self, account, source=None):
        source = self.vault.positions if source is None else source
        return {
            market: source[account, market] for market in self.vault.markets if (account, market) in source
        }

    def margin(self, account):
        """The running margin; the batch must name every open position."""
        held = {market: word for market, word in self.positions_of(account).items() if word[0]}
        require(set(held) <= self.named[account], f"positions of {account} not named")
        return self.vault.margin(self.vault.collaterals[account], held, self.prices)

    def after_outage(self, account):
        held = any(word[0] for word in self.positions_of(account).values())
        require(not (held and self.vault.restarted), "the chain was down")

    def all_fresh(self, account):
        return all(self.is_fresh(market) for market, word in self.positions_of(account).items() if word[0])

    def inbox(self, use):
        vault = self.vault
        entry = self.entries[vault.entries]
        vault.entries += 1
        key = (entry.owner, entry.sub_account)
        if entry.entry_kind in (9, 10):
            require(use.account_index == NO_INDEX, "nobody's entry")
            self.change(entry.change)
            return
        if entry.entry_kind == 2:
            account = FUND
        elif entry.entry_kind == 1:
            account = vault.ids.setdefault(key, len(vault.ids) + 3)
        else:
            self.request(use, entry, entry.target if entry.entry_kind == 8 else vault.ids.get(key))
            return
        require(self.batch.accounts[use.account_index] == account, "entry of another account")
        vault.collaterals[account] += entry.amount
        vault.credited += entry.amount

    def request(self, use, entry, account):
        if account is None:
            require(use.account_index == NO_INDEX, "nobody's entry")
            return
        require(self.batch.accounts[use.account_index] == account, "entry of another account")
        vault, agent = self.vault, (account, entry.agent)
        if entry.entry_kind == 3:
            equity, initial, _, notional = self.margin(account)
            if not self.all_fresh(account) and entry.due and self.now > entry.due + 3_600:
                return
            require(self.all_fresh(account), "stale price")
            self.after_outage(account)
            amount = min(entry.amount, max(0, equity - max(initial, ceil(notional, 5))))
            vault.collaterals[account] -= amount
            if amount:
                count_claim(vault, amount, self.now)
        elif entry.entry_kind == 4:
            self.leave_close(account, entry)
        elif entry.entry_kind == 8:
            self.leave_liquidation(account)
        elif entry.entry_kind == 5:
            self.void(account, entry.slot, entry.order_sequence)
        elif entry.entry_kind == 6:
            vault.agents[agent] = (entry.agent_expiry, entry.amount)
        else:
            vault.agents[agent] = (0, 0)
            self.void_actions(account, entry.created * 1000)

    def void(self, account, slot, sequence):
        vault = self.vault
        if slot == 0xFFFF:
            vault.min_sequences[account] = max(vault.min_sequences[account], sequence)
            self.void_actions(account, sequence)
        elif slot == 0:
            vault.taker_sequences[account] = max(vault.taker_sequences[account], sequence)
        elif sequence >= vault.slots[account, slot][0]:
            vault.slots[account, slot] = (sequence, 2**62 - 1)
            vault.triggered.pop((account, slot), None)

    def void_actions(self, account, sequence):
        self.vault.action_sequences[account] = max(self.vault.action_sequences[account], sequence)

    def use_row(self, index, lots, price, makes):
        """Fill bookkeeping and the fee of one more fill of a row, from the whole sum each time."""
        row = self.batch.orders[index]
        account, market_id = self.pair(row.pair)
        order, key = row.order, (account, row.order.slot)
        sequence, filled = self.vault.slots[key]
        if index in self.used:
            require(self.slot_rows[key] == index, "order replaced")
            filled = self.used[index]
        elif order.slot == 0:
            require(order.sequence > self.vault.taker_sequences[account], "taker sequence too low")
            self.vault.taker_sequences[account] = order.sequence
            filled = 0
        else:
            require(order.sequence >= sequence, "slot sequence too low")
            filled = filled if order.sequence == sequence or order.amend else 0
        if order.trigger in MARK_TRIGGERS:
            require(self.vault.triggered.get(key) == order.sequence, "order not triggered")
        self.slot_rows[key] = index
        self.used[index] = filled + lots
        require(self.used[index] <= order.size, "overfilled")
        if order.slot:
            self.vault.slots[key] = (order.sequence, self.used[index])
        size = self.vault.positions[account, market_id][0]
        shrinks = size * order.side.sign < 0 and abs(size) >= lots
        require(shrinks or not order.reduce_only, "reduce-only grows")
        require(shrinks or self.is_fresh(market_id), "grows on a stale price")
        maker_ppm, taker_ppm = self.batch.fee_classes[row.fee_class]
        rate = maker_ppm if makes else taker_ppm
        require(rate <= order.max_fee_ppm, "fee above maximum")
        self.numerators[index] += lots * price * self.vault.markets[market_id].lot_tick_value * rate
        fee = ceil(self.numerators[index], PPM) - self.charged[index]
        self.charged[index] += fee
        self.vault.collaterals[account] -= fee
        self.vault.collaterals[FEES] += fee
        self.pay_builder(index, lots * price * self.vault.markets[market_id].lot_tick_value)
        self.traded.add(account)
        return account, order

    def trade(self, account, market_id, lots, price):
        """Change a position for cash, after its funding."""
        vault = self.vault
        require(market_id in self.named[account], "pair not named")
        market, mark = vault.markets[market_id], self.prices[market_id].mark_ticks
        size, entry, _ = vault.positions[account, market_id]
        exact = size * (vault.cumulative[market_id] - entry)
        owed = ceil(exact, SCALE)
        vault.pool += owed
        vault.dust += owed * SCALE - exact
        vault.collaterals[account] -= owed + lots * price * market.lot_tick_value
        after = size + lots
        base, _, entry_mark = self.base_positions.get((account, market_id), (0, 0, 0))
        if after and (base == 0 or base * after < 0):
            entry_mark = mark
        elif abs(after) > abs(base):
            entry_mark = (abs(base) * entry_mark + (abs(after) - abs(base)) * mark) // abs(after)
        vault.positions[account, market_id] = (after, vault.cumulative[market_id], entry_mark)
        vault.open_interest[market_id] += max(after, 0) - max(size, 0)

    def check_band(self, market_id, price):
        mark = self.prices[market_id].mark_ticks
        band = self.vault.markets[market_id].price_band_ppm
        require(abs(price - mark) * PPM <= mark * band, "outside the band")

    def orders(self, fill):
        maker, taker = self.batch.orders[fill.first].order, self.batch.orders[fill.second].order
        price, sign = maker.limit_price, taker.side.sign
        require(maker.market == taker.market and maker.side != taker.side, "sides or markets")
        require(maker.slot > 0 and maker.time_in_force in (GTC, GTD), "never makes")
        require(sign * (taker.limit_price - price) >= 0 and not taker.post_only, "taker's limit")
        _, market_id = self.pair(self.batch.orders[fill.first].pair)
        self.check_band(market_id, price)
        self.check_mode(market_id, self.pair(self.batch.orders[fill.first].pair)[0], -sign * fill.size)
        self.check_mode(market_id, self.pair(self.batch.orders[fill.second].pair)[0], sign * fill.size)
        maker_account, _ = self.use_row(fill.first, fill.size, price, True)
        taker_account, _ = self.use_row(fill.second, fill.size, price, False)
        require(maker_account != taker_account, "self-trade")
        self.trade(maker_account, market_id, -sign * fill.size, price)
        self.trade(taker_account, market_id, sign * fill.size, price)

    def with_fund(self, fill):
        taker, (fund, market_id) = self.batch.orders[fill.first].order, self.pair(fill.second)
        mark, sign = self.prices[market_id].mark_ticks, taker.side.sign
        size = self.vault.positions[FUND, market_id][0]
        require(fund == FUND and size * sign >= fill.size, "fund does not shrink")
        require(sign * (taker.limit_price - mark) >= 0 and self.is_fresh(market_id), "taker's limit")
        self.check_mode(market_id, self.pair(self.batch.orders[fill.first].pair)[0], sign * fill.size)
        account, _ = self.use_row(fill.first, fill.size, mark, False)
        self.trade(account, market_id, sign * fill.size, mark)
        self.trade(FUND, market_id, -sign * fill.size, mark)

    def withdrawal(self, entry):
        account, signed = self.batch.accounts[entry.account_index], entry.withdraw
        require(signed.deadline >= self.now, "action expired")
        require(signed.action_sequence > self.vault.action_sequences[account], "action sequence")
        require(entry.fee <= signed.max_fee and entry.fee <= signed.amount, "withdrawal fee")
        self.vault.action_sequences[account] = signed.action_sequence
        equity, initial, _, notional = self.margin(account)
        require(self.all_fresh(account), "stale price")
        self.after_outage(account)
        require(signed.amount <= equity - max(initial, ceil(notional, 5)), "not withdrawable")
        self.vault.collaterals[account] -= signed.amount
        self.vault.collaterals[FEES] += entry.fee
        count_claim(self.vault, signed.amount - entry.fee, self.now)

    def close(self):
        vault = self.vault
        words = set(vault.positions) | set(self.base_positions)
        changed = {key[0] for key in words if vault.positions[key] != self.base_positions.get(key, (0, 0, 0))}
        for account in changed - self.targets:
            self.closing_check(account)
        for market_id, market in vault.markets.items():
            now, before = vault.open_interest[market_id], self.base_interest.get(market_id, 0)
            require(now <= max(market.open_interest_cap_lots, before), "open interest above cap")
        used = set(self.used) | {bit.row for bit in self.batch.triggers}
        require(used == set(range(len(self.batch.orders))), "a row without a use")
        total = sum(vault.collaterals.values()) + vault.pool + vault.claimed
        require(total == vault.credited, "conservation")

    def closing_check(self, account):
        equity, initial, maintenance, _ = self.margin(account)
        grew = False
        for key in [key for key in self.vault.positions if key[0] == account]:
            before = self.base_positions.get(key, (0, 0, 0))[0]
            after = self.vault.positions[key][0]
            grew = grew or abs(after) > abs(before) or after * before < 0
        fresh = self.all_fresh(account)
        if fresh and equity >= initial:
            return
        require(not grew, f"account {account} grew below its initial margin or on a stale price")
        if equity >= initial:
            return
        held = self.positions_of(account, self.base_positions)
        base = self.base_collateral.get(account, 0)
        was, _, was_maintenance, _ = self.vault.margin(base, held, self.prices)
        if was < 0:
            require(equity >= was, "deficit grew")
        else:
            require(equity * was_maintenance >= was * maintenance, "margin ratio fell")
