"""What a naive settlement does with entries of governor and guardian: docs/settlement.md, section 1, over dictionaries.

A change is any object whose class has one of the names below.
"""

from types import SimpleNamespace

from naive_actions import require

NORMAL, POST_ONLY, REDUCE_ONLY, CANCEL_ONLY, HALTED, SETTLED = range(6)
FIELDS = (
    "symbol",
    "lot_tick_value",
    "tiers",
    "open_interest_cap_lots",
    "fund_position_cap_lots",
    "price_band_ppm",
    "max_price_age_s",
    "liquidation_fee_ppm",
    "maker_fee_ppm",
    "taker_fee_ppm",
)


class Governance:
    """Section 1, kinds 9 and 10, and the mode that is in force."""

    def change(self, change):
        """True where it had an effect."""
        return getattr(self, "on_" + type(change).__name__)(change)

    def on_ListMarket(self, change):
        markets = self.vault.markets
        if len(markets) == 64 or change.market.symbol in [market.symbol for market in markets.values()]:
            return False
        markets[len(markets)] = parameters(change.market, len(markets))
        return True

    def on_TuneMarket(self, change):
        market_id, new = change.market.market_id, change.market
        old = self.vault.markets[market_id]
        first, was = new.tiers[0].initial_fraction_ppm, old.tiers[0].initial_fraction_ppm
        too_far = first > 2 * was or was > 2 * first
        too_far = too_far or new.open_interest_cap_lots > 2 * old.open_interest_cap_lots
        if self.vault.endings.get(market_id) or too_far or new.lot_tick_value != old.lot_tick_value:
            return False
        self.vault.markets[market_id] = parameters(new, market_id)
        return True

    def on_PauseMarket(self, change):
        self.vault.pauses[change.market_id] = (change.mode, change.until)
        return True

    def on_DelistMarket(self, change):
        if self.vault.endings.get(change.market_id):
            return False
        self.vault.endings[change.market_id] = REDUCE_ONLY
        return True

    def on_SettleMarket(self, change):
        require(self.vault.endings.get(change.market_id) == REDUCE_ONLY, "settled without a delisting")
        self.vault.endings[change.market_id] = SETTLED
        self.vault.settlement_prices[change.market_id] = change.price
        return True

    def cash(self, fill):
        """Two opposite positions of a settled market end against each other."""
        (account, market_id), (other, other_market) = self.pair(fill.first), self.pair(fill.second)
        price = self.vault.settlement_prices.get(market_id)
        require(market_id == other_market and SETTLED in self.allowed(market_id), "market not settled")
        require(self.prices[market_id].mark_ticks == price, "not the settlement price")
        size, held = (self.vault.positions[key, market_id][0] for key in (account, other))
        require(size * held < 0 and 0 < fill.size <= min(abs(size), abs(held)), "positions do not meet")
        sign = 1 if size > 0 else -1
        self.targets |= {account} | ({other} - {1})
        self.trade(account, market_id, -sign * fill.size, price)
        self.trade(other, market_id, sign * fill.size, price)

    def on_SetKeeper(self, change):
        return True

    on_SetQuorums = on_SetSequencer = on_SetKeeper

    def allowed(self, market_id):
        """The set of modes that bind a market now."""
        mode, until = self.vault.pauses.get(market_id, (NORMAL, 0))
        return {self.vault.endings.get(market_id, NORMAL), mode if self.now < until else NORMAL} - {NORMAL}

    def check_mode(self, market_id, account, lots):
        """An order fill of `lots`, signed, by an account."""
        modes = self.allowed(market_id)
        require(modes <= {REDUCE_ONLY}, "market closed to trades")
        size = self.vault.positions[account, market_id][0]
        require(not modes or (size * lots < 0 and abs(size) >= abs(lots)), "fill does not reduce")


def parameters(market, market_id):
    """What the vault knows of a market, with deductions of its own arithmetic."""
    tiers, deduction, last = [], 0, None
    for tier in market.tiers:
        if last is not None:
            deduction += (
                tier.lower_notional * (tier.initial_fraction_ppm - last.initial_fraction_ppm) // 10**6
            )
        last = SimpleNamespace(
            lower_notional=tier.lower_notional,
            initial_fraction_ppm=tier.initial_fraction_ppm,
            deduction=deduction,
        )
        tiers.append(last)
    values = {name: getattr(market, name) for name in FIELDS} | {
        "tiers": tuple(tiers),
        "market_id": market_id,
    }
    fraction = tiers[0].initial_fraction_ppm
    return SimpleNamespace(**values, funding_cap_ppb=min(40_000_000, fraction * 250))
