"""The liquidation keeper's decisions: which accounts to point at, computed from their own numbers. Pure.

The gateway's list is only where to look; equity and maintenance are computed here, at the keeper's marks. A
trigger too many is harmless (the engine refuses a healthy account), so two keepers need not know of each
other.
"""

from collections.abc import Mapping, Sequence

import msgspec

from evermark.protocol.margin import AccountMargin, maintenance_margin
from evermark.protocol.markets import Market
from evermark.protocol.signing import Liquidate
from evermark.protocol.units import PPM
from keeper.actions import Outcome

DEADLINE_S = 60  # a trigger older than this in chain time is for another situation
FIRST_BACKOFF_S = 1  # wall seconds after a refusal, doubled with each further one
LAST_BACKOFF_S = 60


class OpenPosition(msgspec.Struct, frozen=True):
    """One position as the public account query shows it: signed lots and unsettled funding."""

    market_id: int
    size: int
    funding_owed: int


class AccountView(msgspec.Struct, frozen=True):
    """What the decision needs of an account."""

    account: int
    collateral: int
    positions: tuple[OpenPosition, ...]


class LiquidatorView(msgspec.Struct, frozen=True):
    """One look at the exchange. `marks` has only markets whose price is fresh, by market id."""

    round: int
    now_s: int
    wall_s: float
    marks: Mapping[int, int]
    accounts: tuple[AccountView, ...]


class LiquidatorStrategy:
    """Remembers per account when to try again; everything else follows from the view."""

    def __init__(self, markets: Sequence[Market], most_per_look: int = 20) -> None:
        self._markets = {market.market_id: market for market in markets}
        self._most = most_per_look
        self._refusals: dict[int, int] = {}
        self._next_try: dict[int, float] = {}
        self._wall_s = 0.0

    def decide(self, view: LiquidatorView) -> tuple[Liquidate, ...]:
        """Triggers to send now, the account with the lowest equity to maintenance ratio first."""
        self._wall_s = view.wall_s
        found = []
        for account in view.accounts:
            if view.wall_s < self._next_try.get(account.account, 0.0):
                continue
            judged = judge(account, self._markets, view.marks)
            if judged is not None:
                found.append((judged[1], account.account, judged[0]))
        found.sort()
        self._forget({account.account for account in view.accounts}, view.wall_s)
        return tuple(
            Liquidate(
                account=account,
                market=self._markets[market_id].symbol,
                round=view.round,
                deadline=view.now_s + DEADLINE_S,
            )
            for _, account, market_id in found[: self._most]
        )

    def learn(self, action: Liquidate, outcome: Outcome) -> None:
        """A refused account waits longer each time, up to a minute; an accepted one is looked at again."""
        if outcome.accepted:
            self._refusals.pop(action.account, None)
            self._next_try.pop(action.account, None)
            return
        times = self._refusals.get(action.account, 0)
        self._refusals[action.account] = times + 1
        pause = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(times, 10))
        self._next_try[action.account] = self._wall_s + pause

    @property
    def waiting(self) -> int:
        """Accounts that a refusal keeps waiting."""
        return len(self._next_try)

    def _forget(self, listed: set[int], wall_s: float) -> None:
        """Accounts that left the list start afresh once their wait is over, so that memory stays bounded."""
        for account, until in list(self._next_try.items()):
            if account not in listed and until <= wall_s:
                del self._next_try[account]
                self._refusals.pop(account, None)


def judge(
    account: AccountView, markets: Mapping[int, Market], marks: Mapping[int, int]
) -> tuple[int, int] | None:
    """(market to close first, equity / maintenance in ppm) of a liquidatable account; None for any other.

    None too when a position's mark is missing: without all prices nobody may be liquidated. The market is the
    one with the largest maintenance, the lower id of equals.
    """
    margin = AccountMargin(account.collateral)
    requirements = []
    for position in account.positions:
        market, mark = markets.get(position.market_id), marks.get(position.market_id)
        if market is None or mark is None or position.size == 0:
            return None
        margin.add_position(market, position.size, mark, position.funding_owed)
        requirement = maintenance_margin(market, abs(market.notional(position.size, mark)))
        requirements.append((-requirement, position.market_id))
    if not requirements or not margin.liquidatable:
        return None
    return min(requirements)[1], margin.equity * PPM // margin.maintenance
