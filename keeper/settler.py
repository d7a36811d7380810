"""The settler's decisions: rounds for the public lane while a delisted market's last hour passes, and its settlement in cash
once the oracle has the price. Pure.

The settlement price is the mean of the indices of that hour, as rounds were posted. The sequencer chooses which rounds it posts,
and might choose the ones it likes; so the settler posts one a minute itself, from the keepers' signed reports. Everything is
looked up on the chain: several settlers need not know of each other, and a new start changes nothing.
"""

from collections.abc import Mapping, Sequence

import msgspec

from evermark.protocol.oracle import SignedPriceReport
from keeper.actions import Outcome

MEAN_S = 3_600  # the hour whose mean index a delisted market settles at
FUTURE_S = 5  # how far a report may be ahead of the block that it is posted in
FIRST_PAUSE_S, LAST_PAUSE_S = 5, 300  # wall seconds after a refusal, doubled with each further one


class Ending(msgspec.Struct, frozen=True):
    """A delisted market as the oracle knows it: PriceOracle.ending(market)."""

    market_id: int
    ends_at: int
    price: int  # 0 while its last hour is not over
    settled: bool


class SettlerView(msgspec.Struct, frozen=True):
    """One look at the chain. `reports` are of registered keepers, by round; it is empty while no round is wanted."""

    now_s: int
    wall_s: float
    quorum: int
    markets: int  # that the oracle knows: a report with more is refused
    public_round: int  # the newest of the public lane, and its time
    public_s: int
    change_waits: bool  # an entry of the governor's is open, perhaps this settlement
    endings: tuple[Ending, ...]
    reports: Mapping[int, Mapping[bytes, SignedPriceReport]]


class PostPublicRound(msgspec.Struct, frozen=True):
    """Post these reports of one round, signers ascending, in the public lane."""

    reports: tuple[SignedPriceReport, ...]


class SettleMarket(msgspec.Struct, frozen=True):
    """Have the governor's contract queue the settlement of a market."""

    market_id: int


SettlerAction = PostPublicRound | SettleMarket


def wants_rounds(endings: Sequence[Ending], now_s: int) -> bool:
    """Whether a market is in its last hour, or past it without a price."""
    return any(not one.price and one.ends_at - MEAN_S <= now_s for one in endings)


class SettlerStrategy:
    """Remembers when to try a refused action again; everything else follows from the view."""

    def __init__(self, public_round_s: int) -> None:
        self._public_round_s = public_round_s
        self._wall_s = 0.0
        self._refusals: dict[str, int] = {}
        self._next_try: dict[str, float] = {}

    def decide(self, view: SettlerView) -> tuple[SettlerAction, ...]:
        """At most one round and one settlement: only one change of the governor's is open at a time."""
        self._wall_s = view.wall_s
        actions: list[SettlerAction] = []
        reports = self._round(view)
        if reports and self._may("round"):
            actions.append(PostPublicRound(reports))
        ripe = [one.market_id for one in view.endings if one.price and not one.settled]
        if ripe and not view.change_waits and self._may("settlement"):
            actions.append(SettleMarket(min(ripe)))
        return tuple(actions)

    def learn(self, action: SettlerAction, outcome: Outcome) -> None:
        """A refused action waits longer each time; one that somebody else did first is looked at again at once."""
        key = "round" if isinstance(action, PostPublicRound) else "settlement"
        if outcome.accepted or outcome.name == "LATE":
            self._refusals.pop(key, None)
            self._next_try.pop(key, None)
            return
        times = self._refusals.get(key, 0)
        self._refusals[key] = times + 1
        self._next_try[key] = self._wall_s + min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(times, 10))

    def _may(self, key: str) -> bool:
        return self._wall_s >= self._next_try.get(key, 0.0)

    def _round(self, view: SettlerView) -> tuple[SignedPriceReport, ...]:
        """The newest round with a quorum, when one is due: a minute after the lane's last one, at once when the hour is over."""
        if not wants_rounds(view.endings, view.now_s):
            return ()
        open_ = [one.ends_at for one in view.endings if not one.price and one.ends_at - MEAN_S <= view.now_s]
        due_s = min([view.public_s + self._public_round_s, *(end for end in open_ if end > view.public_s)])
        for number in sorted(view.reports, reverse=True):
            if number <= view.public_round:
                return ()
            fit = [one for one in view.reports[number].values() if _fits(one, view)]
            if len(fit) >= view.quorum:
                ready = min(one.report.timestamp for one in fit) >= due_s
                return tuple(sorted(fit, key=lambda one: one.signer)) if ready else ()
        return ()


def _fits(signed: SignedPriceReport, view: SettlerView) -> bool:
    """The oracle takes it."""
    report = signed.report
    return report.timestamp <= view.now_s + FUTURE_S and len(report.prices) <= view.markets
