"""A party of planned fills: one account in one market, with the vault's closing check on what it would
become."""

from mypy_extensions import mypyc_attr

from evermark.protocol.margin import AccountMargin, closing_check
from evermark.protocol.markets import MAX_OPEN_MARKETS
from evermark.protocol.units import ceil_div
from sequencer.engine.batch_builder import Baseline, OpenBatch
from sequencer.engine.risk import refresh
from sequencer.engine.sealing import noted_in
from sequencer.engine.state import Account, EngineState, MarketState


@mypyc_attr(acyclic=True)
class Party:
    """The account as it would stand after the fills planned so far. Nothing here changes the state."""

    __slots__ = (
        "account",
        "at",
        "base_size",
        "cash",
        "equity",
        "grew_elsewhere",
        "initial",
        "maintenance",
        "noted",
        "size",
    )

    def __init__(self, state: EngineState, account: Account, at: MarketState, batch: OpenBatch) -> None:
        refresh(state, account)
        market_id = at.market_id
        self.account = account
        self.at = at
        self.cash = 0  # collateral change of the planned fills
        self.equity = account.collateral + account.value  # of everything but this position's value
        self.initial = account.initial
        self.maintenance = account.maintenance
        position = account.positions.get(market_id)
        self.size = position.size if position is not None else 0
        if position is not None:
            self.equity -= at.notional(position.size, at.mark)
            self.initial -= position.initial
            self.maintenance -= position.maintenance
        noted = noted_in(batch, account)
        self.noted = noted
        before = noted.positions.get(market_id) if noted is not None else None
        self.base_size = before.size if before is not None else self.size
        self.grew_elsewhere = noted is not None and _grew_elsewhere(account, noted, market_id)

    def opposes(self, sign: int) -> int:
        """Lots that a buy (`sign` +1) or sell may trade while only reducing the position."""
        return abs(self.size) if self.size * sign < 0 else 0

    def allows(self, state: EngineState, delta: int, cash: int) -> bool:
        """Whether the vault accepts the account after `delta` more lots and `cash` more collateral."""
        at, after_size = self.at, self.size + delta
        if after_size and not self.size and self.account.open_positions >= MAX_OPEN_MARKETS:
            return False
        value = at.notional(after_size, at.mark)
        after = AccountMargin(self.equity + self.cash + cash + value)
        initial = at.margin.initial(abs(value))
        after.initial = self.initial + initial
        if after.equity >= after.initial:
            return True
        if self.grew_elsewhere or grew(self.base_size, after_size):
            return False
        after.maintenance = self.maintenance + ceil_div(initial, 2)
        return closing_check(self._before(state), after, False)

    def take(self, delta: int, cash: int) -> None:
        """Plan a fill."""
        self.size += delta
        self.cash += cash

    def _before(self, state: EngineState) -> AccountMargin:
        if self.noted is not None:
            return self.noted.margin()
        refresh(state, self.account)
        before = AccountMargin(self.account.collateral + self.account.value)
        before.maintenance = self.account.maintenance
        return before


def grew(before: int, after: int) -> bool:
    """A position of `before` lots grew or flipped."""
    return abs(after) > abs(before) or before * after < 0


def grew_in_batch(account: Account, noted: Baseline | None) -> bool:
    """Some position of the account is larger than, or opposite to, what it was before the open batch's
    fills."""
    return noted is not None and _grew_elsewhere(account, noted, -1)


def _grew_elsewhere(account: Account, noted: Baseline, market_id: int) -> bool:
    for other, before in noted.positions.items():
        if other != market_id and grew(before.size, account.positions[other].size):
            return True
    return False
