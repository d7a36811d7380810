"""What a naive settlement does with signed actions, and the few words that all its rules are written in."""


class Reverted(AssertionError):
    """The vault would revert."""


def require(condition, why):
    if not condition:
        raise Reverted(why)


def ceil(numerator, denominator):
    return -((-numerator) // denominator)


# Of each period: which part of all deposits may leave in it, and how much in any case.
OUTFLOW = {3_600: (100, 100_000_000_000), 86_400: (10, 1_000_000_000_000)}
WEEK = 604_800


def count_claim(vault, amount, now):
    """A claim was just taken out of collateral. What is above a limit is payable when the level is back at it."""
    inside = sum(vault.collaterals.values()) + vault.pool + amount
    inside = min(max(inside, 0), 2**95 - 1)
    passed = max(0, now - vault.last_claim)
    waits = []
    for period, (part, floor) in OUTFLOW.items():
        limit = max(floor, inside // part)
        left = max(0, vault.levels[period] - passed * limit // period)
        level = min(left + amount, limit * (period + WEEK) // period)
        vault.levels[period] = level
        waits.append(max(0, ceil((level - limit) * period, limit)))
    vault.last_claim = max(vault.last_claim, now)
    vault.dues.append(now + max(waits) if any(waits) else 0)
    vault.claimed += amount


class Actions:
    """Sections 2 and 3 of a settlement: approvals, transfers, funding, trigger bits."""

    def pay_builder(self, index, notional):
        """The signed rate of the row's whole notional, rounded up, to sub-account 0 of the signed builder."""
        row = self.batch.orders[index]
        rate = row.order.max_builder_fee_ppm
        if rate == 0:
            return
        builder = self.batch.accounts[row.builder_index]
        require(self.vault.ids.get((row.order.builder, 0)) == builder, "not the builder's account")
        self.built[index] += notional
        fee = ceil(self.built[index] * rate, 10**6) - ceil((self.built[index] - notional) * rate, 10**6)
        self.vault.collaterals[self.pair(row.pair)[0]] -= fee
        self.vault.collaterals[builder] += fee

    def again_at(self, newest):
        """A late batch: order fills alone, and everybody whose position changed passes at the newest round too."""
        batch = self.batch
        others = batch.inbox or batch.actions or batch.funding_hours or batch.triggers or batch.withdrawals
        require(not others and all(fill.kind == 0 for fill in batch.fills), "late, so only order fills")
        self.prices, self.now = newest.prices, newest.timestamp
        after, base = self.vault.positions, self.base_positions
        for account in {key[0] for key in after if after[key] != base.get(key, (0, 0, 0))}:
            self.closing_check(account)

    def action(self, account, signed):
        require(signed.deadline >= self.now, "action expired")
        require(signed.action_sequence > self.vault.action_sequences[account], "action sequence")
        self.vault.action_sequences[account] = signed.action_sequence

    def approve(self, account, approval):
        self.action(account, approval)
        self.vault.agents[account, approval.agent] = (approval.agent_expiry, approval.transfer_cap)

    def transfer(self, entry):
        """Who signed stands in the signature's r here, since signatures are not this model's business."""
        vault, signed = self.vault, entry.transfer
        account = self.batch.accounts[entry.account_index]
        require(vault.ids.get((signed.owner, signed.sub_account)) == account, "transfer of another account")
        before = vault.action_sequences[account]
        self.action(account, signed)
        signer = entry.signature.r.to_bytes(20, "big")
        if signer != signed.owner:
            expiry, cap = vault.agents.get((account, signer), (0, 0))
            require(expiry >= self.now and cap >= signed.amount, "agent's cap")
            require(signed.action_sequence == before + 1, "agent's sequence")
            vault.agents[account, signer] = (expiry, cap - signed.amount)
        key = (signed.owner, signed.to_sub_account)
        require(signed.amount > 0 and signed.to_sub_account != signed.sub_account, "nothing to transfer")
        require(key in vault.ids or signed.amount >= 10_000_000, "too small to register")
        target = vault.ids.setdefault(key, len(vault.ids) + 3)
        require(self.batch.accounts[entry.target_index] == target, "transfer elsewhere")
        equity, initial, _, notional = self.margin(account)
        require(self.all_fresh(account), "stale price")
        self.after_outage(account)
        require(signed.amount <= equity - max(initial, ceil(notional, 5)), "not withdrawable")
        vault.collaterals[account] -= signed.amount
        vault.collaterals[target] += signed.amount

    def trigger(self, index):
        """The order of a row wakes at the pinned mark; its slot is its own from then on."""
        row = self.batch.orders[index]
        account, market_id = self.pair(row.pair)
        order, key, mark = row.order, (account, row.order.slot), self.prices[market_id].mark_ticks
        met = {1: mark >= order.trigger_price, 2: mark <= order.trigger_price}
        require(order.slot > 0 and met.get(int(order.trigger), False), "trigger not met")
        require(self.is_fresh(market_id), "stale price")
        sequence, filled = self.vault.slots[key]
        require(order.sequence >= sequence, "slot sequence too low")
        kept = filled if order.sequence == sequence or order.amend else 0
        self.vault.slots[key] = (order.sequence, kept)
        self.vault.triggered[key] = order.sequence

    def fund_hour(self, hour):
        for market_id in self.batch.markets:
            market, vault = self.vault.markets[market_id], self.vault
            require(hour > vault.hours[market_id], "funding hour not next")
            require(self.is_fresh(market_id), "stale price")
            vault.hours[market_id] = hour
            cap = min(40_000_000, market.tiers[0].initial_fraction_ppm * 250)
            posted = dict(enumerate(self.funding_rates[hour])).get(market_id, 0)
            rate = max(-cap, min(cap, posted))
            vault.cumulative[market_id] += (
                self.prices[market_id].index_ticks * market.lot_tick_value * rate * 1000
            )
