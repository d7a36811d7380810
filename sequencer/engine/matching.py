"""Price-time matching of one order: first a plan that changes nothing, then its execution.

The plan tries every fill against the rules that the vault applies, so that what is executed cannot fail
there.
"""

from typing import Final

from mypy_extensions import mypyc_attr

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.margin import fee_delta
from sequencer.engine.batch_builder import FILL_CAP, MAX_ACCOUNTS, MAX_PAIRS, OpenBatch, Row, pair_key
from sequencer.engine.commands import MarketMode
from sequencer.engine.events import CancelReason
from sequencer.engine.market_state import MarketState
from sequencer.engine.open_orders import next_part
from sequencer.engine.order_book import Level, RestingOrder
from sequencer.engine.parties import Party
from sequencer.engine.risk import prices_fresh
from sequencer.engine.state import Account, EngineState

# Looking a member up in its enumeration costs compiled code more than the comparison that wants it.
_REDUCE_ONLY_MODE: Final = MarketMode.REDUCE_ONLY
_MARGIN: Final = CancelReason.MARGIN
_REDUCE_ONLY: Final = CancelReason.REDUCE_ONLY


@mypyc_attr(acyclic=True)
class Step:
    """One planned step: cancel `maker` for `reason`, or trade `lots` with it (with the fund when it is
    None)."""

    __slots__ = ("lots", "maker", "reason")

    def __init__(self, maker: RestingOrder | None, lots: int, reason: CancelReason | None) -> None:
        self.maker = maker
        self.lots = lots
        self.reason = reason


@mypyc_attr(acyclic=True)
class Plan:
    """What an order will do on arrival. `stop` says why matching ended early, None when it ran out of
    prices."""

    __slots__ = ("filled", "steps", "stop")

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.filled = 0
        self.stop: CancelReason | None = None


def outside_band(at: MarketState, price: int) -> bool:
    """Further from the mark than fills may be."""
    return price - at.mark > at.reach or at.mark - price > at.reach


def agent_is_live(state: EngineState, account: Account, signer: bytes) -> bool:
    """The signer may trade for the account at engine time: its owner, or an agent that has not expired."""
    if signer == account.owner:
        return True
    return state.agents.get((account.account_id, signer), (0, 0))[0] >= max(state.now, 1)


def fund_meets(state: EngineState, at: MarketState, order: RestingOrder) -> int:
    """Lots of the insurance fund's position that the order would take over at the mark, 0 when none."""
    if not order.reaches(at.mark) or at.stale or order.post_only:
        return 0
    position = state.accounts[INSURANCE_FUND].positions.get(at.market_id)
    if position is None or (position.size > 0) != (order.sign > 0):
        return 0
    return abs(position.size)


def maker_refusal(
    state: EngineState, at: MarketState, maker: RestingOrder, taker: int
) -> CancelReason | None:
    """Why a waiting order must leave instead of trading with `taker`, whatever the size; None when it may
    trade."""
    if maker.account == taker:
        return CancelReason.SELF_TRADE
    if maker.expiry <= state.now:
        return CancelReason.EXPIRED
    if outside_band(at, maker.price):
        return CancelReason.PRICE_BAND
    if not maker.by_owner and not agent_is_live(state, maker.trader, maker.signer):
        return CancelReason.AGENT_REVOKED
    return None


def maker_lots(state: EngineState, party: Party, maker: RestingOrder, lots: int) -> tuple[int, CancelReason]:
    """Lots that a waiting order may trade, at most `lots`; with 0 the reason to cancel it."""
    if maker.reduce_only or party.at.effective_mode is _REDUCE_ONLY_MODE:
        return min(lots, party.opposes(maker.sign)), _REDUCE_ONLY
    if not prices_fresh(state, party.account) and lots > party.opposes(maker.sign):
        return 0, _MARGIN
    return lots, _MARGIN


def row_in(batch: OpenBatch, order: RestingOrder) -> Row | None:
    """The order's row in this batch, None before its first fill there."""
    row = order.row
    return row if row is not None and row.number == batch.number else None


def builder_share(row: Row | None, notional: int, rate_ppm: int) -> int:
    """What a fill of a waiting order adds to its builder's fee."""
    return (
        fee_delta(row.builder_numerator if row is not None else 0, notional, rate_ppm)[1] if rate_ppm else 0
    )


class Drawn:
    """What a plan has taken of an iceberg so far: lots, and its row's fees as numerators."""

    __slots__ = ("builder_numerator", "lots", "numerator")

    def __init__(self, numerator: int, builder_numerator: int) -> None:
        self.lots = 0
        self.numerator = numerator
        self.builder_numerator = builder_numerator


@mypyc_attr(acyclic=True)
class Planner:
    """Builds one order's plan against the book as it stands."""

    __slots__ = (
        "accounts",
        "at",
        "batch",
        "builder_numerator",
        "drawn",
        "fills",
        "most_pairs",
        "numerator",
        "only_reduces",
        "open_interest",
        "order",
        "parties",
        "plan",
        "state",
        "taker",
    )

    def __init__(
        self, state: EngineState, at: MarketState, order: RestingOrder, batch: OpenBatch, only_reduces: bool
    ) -> None:
        """`batch` is the open one, or an empty one when it is going to be sealed first."""
        self.state = state
        self.at = at
        self.order = order
        self.batch = batch
        self.only_reduces = only_reduces
        self.plan = Plan()
        self.fills = 0
        self.numerator = 0
        self.builder_numerator = 0
        self.open_interest = at.open_interest
        self.accounts = len(batch.accounts)
        self.most_pairs = len(batch.pairs)  # an upper bound of what the batch will name
        self.parties: list[Party] = []
        self.drawn: dict[RestingOrder, Drawn] = {}  # icebergs, of which more than one part may trade
        self.taker = self._party(order.trader)

    def make(self) -> Plan:
        """Walk the opposite side from its best price; the fund comes first where the mark is as good."""
        plan, order = self.plan, self.order
        fund_lots = fund_meets(self.state, self.at, order)
        facing = self.at.book.facing(order)
        level = facing.best()
        while level is not None and order.reaches(level.price):
            if fund_lots and (level.price >= self.at.mark if order.sign > 0 else level.price <= self.at.mark):
                self._with_fund(fund_lots)
                fund_lots = 0
            if not self._with_level(level):
                return plan
            level = facing.next_best(level)
        if fund_lots and plan.filled < order.remaining:
            self._with_fund(fund_lots)
        return plan

    def _with_level(self, level: Level) -> bool:
        """Trade with a level's orders; False when matching is over."""
        refreshed: list[RestingOrder] = []
        maker = level.first
        while maker is not None:
            if self.plan.stop is not None or self.plan.filled == self.order.remaining:
                return False
            if self._with_maker(maker, maker.shown):
                refreshed.append(maker)
            maker = maker.behind
        # The next parts of icebergs stand behind all others of this price, in the order in which they came there.
        while refreshed:
            if self.plan.stop is not None or self.plan.filled == self.order.remaining:
                return False
            again = refreshed.pop(0)
            if self._with_maker(again, next_part(again, again.remaining - self.drawn[again].lots)):
                refreshed.append(again)
        return self.plan.stop is None and self.plan.filled < self.order.remaining

    def _with_maker(self, maker: RestingOrder, shown: int) -> bool:
        """Trade with the part that a waiting order shows. True when it trades to its end and another part follows."""
        state, plan = self.state, self.plan
        refusal = maker_refusal(state, self.at, maker, self.order.account)
        if refusal is not None:
            plan.steps.append(Step(maker, 0, refusal))
            return False
        wanted = self._taker_lots()
        if wanted == 0:
            return False
        party = self._party(maker.trader)
        if plan.stop is not None:
            return False
        lots, why_not = maker_lots(state, party, maker, min(wanted, shown))
        if lots == 0:
            plan.steps.append(Step(maker, 0, why_not))
            return False
        if not self._trade(maker, party, lots, shown):
            return False
        return lots == shown and maker.hidden != 0 and self.drawn[maker].lots < maker.remaining

    def _trade(self, maker: RestingOrder, party: Party, lots: int, shown: int) -> bool:
        plan, at, buys = self.plan, self.at, self.order.sign > 0
        notional = at.notional(lots, maker.price)
        numerator, taker_fee = fee_delta(self.numerator, notional, at.taker_fee_ppm)
        row = row_in(self.batch, maker)
        before, built_before = (row.numerator, row.builder_numerator) if row is not None else (0, 0)
        drawn = None
        if maker.hidden:
            drawn = self.drawn.setdefault(maker, Drawn(before, built_before))
            before, built_before = drawn.numerator, drawn.builder_numerator
        maker_numerator, maker_fee = fee_delta(before, notional, at.maker_fee_ppm)
        built = self.builder_numerator
        if self.order.builder_fee_ppm:
            built, share = fee_delta(built, notional, self.order.builder_fee_ppm)
            taker_fee += share
        if maker.builder_fee_ppm:
            built_before, share = fee_delta(built_before, notional, maker.builder_fee_ppm)
            maker_fee += share
        bought, paid = (lots, notional) if buys else (-lots, -notional)
        if not self.taker.allows(self.state, bought, -paid - taker_fee):
            plan.stop = CancelReason.MARGIN
            return False
        change = self._open_interest_change(party, bought)
        if change > 0 and self.open_interest + change > at.open_interest_cap_lots:
            plan.stop = CancelReason.OPEN_INTEREST_CAP
            return False
        if not party.allows(self.state, -bought, paid - maker_fee):
            plan.steps.append(Step(maker, 0, CancelReason.MARGIN))
            return False
        if drawn is not None:
            drawn.lots += lots
            drawn.numerator, drawn.builder_numerator = maker_numerator, built_before
        self.numerator = numerator
        self.builder_numerator = built
        self.open_interest += change
        self.taker.take(bought, -paid - taker_fee)
        party.take(-bought, paid - maker_fee)
        self._done(maker, lots)
        if lots < shown and plan.filled < self.order.remaining and self._taker_lots():
            plan.steps.append(Step(maker, 0, CancelReason.REDUCE_ONLY))
        return True

    def _with_fund(self, fund_lots: int) -> None:
        plan, at = self.plan, self.at
        lots = min(self._taker_lots(), fund_lots)
        party = self._party(self.state.accounts[INSURANCE_FUND])
        if lots == 0 or plan.stop is not None:
            return
        notional = at.notional(lots, at.mark)
        numerator, fee = fee_delta(self.numerator, notional, at.taker_fee_ppm)
        built, share = fee_delta(self.builder_numerator, notional, self.order.builder_fee_ppm)
        fee += share
        bought, paid = (lots, notional) if self.order.sign > 0 else (-lots, -notional)
        if not self.taker.allows(self.state, bought, -paid - fee):
            plan.stop = CancelReason.MARGIN
            return
        # The fund shrinks, so open interest cannot grow.
        if not party.allows(self.state, -bought, paid):
            return
        self.open_interest += self._open_interest_change(party, bought)
        self.numerator = numerator
        self.builder_numerator = built
        self.taker.take(bought, -paid - fee)
        party.take(-bought, paid)
        self._done(None, lots)

    def _done(self, maker: RestingOrder | None, lots: int) -> None:
        self.plan.steps.append(Step(maker, lots, None))
        self.plan.filled += lots
        self.fills += 1

    def _taker_lots(self) -> int:
        """Lots that the taker still wants and may trade; with 0 the plan is stopped."""
        wanted = self.order.remaining - self.plan.filled
        if self.only_reduces:
            wanted = min(wanted, self.taker.opposes(self.order.sign))
            if wanted == 0:
                self.plan.stop = CancelReason.REDUCE_ONLY
        if wanted and self.fills >= FILL_CAP:
            self.plan.stop = CancelReason.FILL_CAP
            return 0
        return wanted

    def _open_interest_change(self, party: Party, bought: int) -> int:
        """What `bought` lots of the taker, sold below zero, add to the longs."""
        taker_size, maker_size = self.taker.size, party.size
        change = max(taker_size + bought, 0) - max(taker_size, 0)
        return change + max(maker_size - bought, 0) - max(maker_size, 0)

    def _party(self, account: Account) -> Party:
        """The account's party; a full pair table stops the plan, so that the batch stays within its
        bounds."""
        for known in self.parties:
            if known.account is account:
                return known
        party = Party(self.state, account, self.at, self.batch)
        self.parties.append(party)
        if party.noted is None:
            self.accounts += account.account_id not in self.batch.accounts
        self.most_pairs += account.open_positions + 1
        if self.accounts + 3 > MAX_ACCOUNTS or (
            self.most_pairs > MAX_PAIRS and self._named_pairs() > MAX_PAIRS
        ):
            self.plan.stop = CancelReason.FILL_CAP
        return party

    def _named_pairs(self) -> int:
        """Pairs that the batch will name, at most: this market's of each party, and its other open positions."""
        named = self.batch.pairs
        count = len(named)
        for party in self.parties:
            count += 1
            if party.noted is None or not party.noted.changed:
                account = party.account
                for market_id, position in account.positions.items():
                    count += position.size != 0 and pair_key(account.account_id, market_id) not in named
        return count


def may_trade(state: EngineState, at: MarketState, order: RestingOrder) -> bool:
    """Whether the order meets anything on arrival."""
    best = at.book.facing(order).top
    return (best is not None and order.reaches(best.price)) or fund_meets(state, at, order) > 0


def crosses_book(at: MarketState, order: RestingOrder) -> bool:
    """Whether the best waiting order meets the limit."""
    best = at.book.facing(order).top
    return best is not None and order.reaches(best.price)
