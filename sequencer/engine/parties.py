"""A party of planned fills: one account in one market, with the vault's closing check on what it would
become."""

from mypy_extensions import mypyc_attr

from evermark.protocol.margin import AccountMargin, closing_check
from evermark.protocol.markets import MAX_OPEN_MARKETS
from evermark.protocol.units import ceil_div
from sequencer.engine.batch_builder import Baseline, OpenBatch
from sequencer.engine.market_state import MarketState
from sequencer.engine.risk import refresh
from sequencer.engine.sealing import noted_in
from sequencer.engine.state import Account, EngineState


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
        self.account = account
        self.at = at
        self.cash = 0  # collateral change of the planned fills
        self.equity = account.collateral + account.value  # of everything but this position's value
        self.initial = account.initial
        self.maintenance = account.maintenance
        position = account.positions.get(at.market_id)
        self.size = 0
        if position is not None and position.size:
            self.size = position.size
            self.equity -= position.notional if position.size > 0 else -position.notional
            self.initial -= position.initial
            self.maintenance -= position.maintenance
        noted = noted_in(batch, account)
        self.noted = noted
        self.base_size = self.size
        self.grew_elsewhere = False
        if noted is not None:
            elsewhere = noted.changed
            if position is not None and position.noted_in == noted.number:
                self.base_size = position.size_before
                elsewhere -= 1
            self.grew_elsewhere = elsewhere > 0 and _grew_elsewhere(account, noted, at.market_id)

    def opposes(self, sign: int) -> int:
        """Lots that a buy (`sign` +1) or sell may trade while only reducing the position."""
        if sign > 0:
            return -self.size if self.size < 0 else 0
        return self.size if self.size > 0 else 0

    def allows(self, state: EngineState, delta: int, cash: int) -> bool:
        """Whether the vault accepts the account after `delta` more lots and `cash` more collateral."""
        at, size = self.at, self.size + delta
        if size and not self.size and self.account.open_positions >= MAX_OPEN_MARKETS:
            return False
        notional = (size if size > 0 else -size) * at.lot_value
        equity = self.equity + self.cash + cash + (notional if size > 0 else -notional)
        initial = at.margin.initial(notional)
        if equity >= self.initial + initial:
            return True
        if self.grew_elsewhere or grew(self.base_size, size):
            return False
        after = AccountMargin(equity)
        after.initial = self.initial + initial
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
    if before > 0:
        return after > before or after < 0
    if before < 0:
        return after < before or after > 0
    return after != 0


def grew_in_batch(account: Account, noted: Baseline | None) -> bool:
    """Some position of the account is larger than, or opposite to, what it was before the open batch's
    fills."""
    return noted is not None and _grew_elsewhere(account, noted, -1)


def _grew_elsewhere(account: Account, noted: Baseline, market_id: int) -> bool:
    return any(
        position.market_id != market_id and grew(position.size_before, position.size)
        for position in account.positions.values()
        if position.noted_in == noted.number
    )
