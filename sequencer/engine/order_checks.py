"""Why an order is refused before it meets the book. Pure: nothing here changes the state."""

from typing import Final

from mypy_extensions import mypyc_attr

from evermark.protocol.markets import MAX_OPEN_MARKETS
from evermark.protocol.orders import NO_ADDRESS, TimeInForce, Trigger
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import MarketMode, PlaceOrder
from sequencer.engine.context import no
from sequencer.engine.format_checks import check_format
from sequencer.engine.halting import check_halted
from sequencer.engine.market_state import MarketState
from sequencer.engine.matching import Plan, agent_is_live
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.risk import loss_at, order_fee, order_loss, prices_fresh, refresh, worst_initial
from sequencer.engine.sealing import round_is_old
from sequencer.engine.state import (
    MAX_UNSETTLED_AGE_S,
    MAX_UNSETTLED_BATCHES,
    MAX_UNSETTLED_NOTIONAL,
    STOP_UNSETTLED_AGE_S,
    Account,
    EngineState,
    Position,
)
from sequencer.engine.trigger_checks import check_trigger
from sequencer.engine.twap import check_twap

MAX_OPEN_ORDERS: Final = 200  # of one account; bounds the work of a price round and of a liquidation
MAX_PATH: Final = 6  # siblings of an order in a batch of 64
SEQUENCE_AHEAD_MS: Final = 86_400_000  # clients use milliseconds; at most a day ahead of the round
NO_POSITION: Final = Position(-1)
NOTHING_PLANNED: Final = Plan()  # of an order that meets nobody

# Looking a name up in a module or an enumeration costs compiled code more than the comparison that wants it.
_NOBODY: Final = NO_ADDRESS
_GTC: Final = TimeInForce.GTC
_GTD: Final = TimeInForce.GTD
_NO_TRIGGER: Final = Trigger.NONE
_POST_ONLY: Final = MarketMode.POST_ONLY
_REDUCE_ONLY: Final = MarketMode.REDUCE_ONLY
_NORMAL: Final = MarketMode.NORMAL


@mypyc_attr(acyclic=True)
class Draft:
    """An order with everything that deciding about it needs."""

    __slots__ = (
        "account",
        "at",
        "fee_ppm",
        "may_rest",
        "meets",
        "mode",
        "must_seal",
        "only_reduces",
        "order",
        "plan",
        "position",
        "reduces",
        "replaced",
        "resting",
    )

    def __init__(
        self, account: Account, at: MarketState, order: RestingOrder, replaced: RestingOrder | None
    ) -> None:
        self.account = account
        self.at = at
        self.order = order
        self.replaced = replaced
        # What it replaces in the book; an untriggered order is in no sum of waiting orders.
        self.resting = replaced if replaced is not None and not replaced.is_untriggered else None
        self.may_rest = order.time_in_force is _GTC or order.time_in_force is _GTD
        self.fee_ppm = at.taker_fee_ppm  # the highest rate that it may pay the exchange
        if self.may_rest:
            self.fee_ppm = at.maker_fee_ppm if order.post_only else at.higher_fee_ppm
        if order.position is None:
            order.position = account.positions.get(order.market_id)
        self.position = order.position if order.position is not None else NO_POSITION
        self.reduces = order.reduce_only or self._shrinks()
        self.mode = at.effective_mode
        self.only_reduces = order.reduce_only or (self.mode is _REDUCE_ONLY and self.reduces)
        # What comes of it at the book, once that is planned: whether it meets anybody, and whether the batch ends before.
        self.meets = False
        self.must_seal = False
        self.plan = NOTHING_PLANNED

    def _shrinks(self) -> bool:
        """With everything else that waits on its side, the order could at most close the position."""
        order, position = self.order, self.position
        size, waiting = position.size, position.buy_lots
        if order.sign < 0:
            size, waiting = -size, position.sell_lots
        if size >= 0:
            return False
        if self.resting is not None and not self.resting.reduce_only:
            waiting -= self.resting.remaining
        return waiting + order.remaining <= -size


def draft_order(state: EngineState, command: PlaceOrder) -> Draft | Reject:
    """Find what the order refers to, or say what is wrong with it as it is written."""
    order = command.order
    market_id = state.market_ids.get(order.market)
    if market_id is None:
        return no(RejectCode.UNKNOWN_MARKET, f"no market {order.market[:32]}", "market")
    signer, path = command.signer, command.path
    made = RestingOrder(
        market_id, order, command.order_hash, command.signature, signer, command.client_id, path
    )
    refusal = check_format(made)
    if refusal is not None:
        return refusal
    account_id = command.account
    account, owner = state.account(account_id), order.owner
    if account is None or account.owner != owner or account.sub_account != order.sub_account:
        return no(RejectCode.UNKNOWN_ACCOUNT, "the account is not the order's", "owner", account=account_id)
    made.belong_to(account)
    refusal = check_halted(state, account_id)
    if refusal is not None:
        return refusal
    if owner == _NOBODY or not (made.by_owner or agent_is_live(state, account, signer)):
        return no(RejectCode.NOT_AUTHORISED, "the signer is neither the owner nor a live agent", "signature")
    if path is not None and (made.by_owner or len(path) > MAX_PATH):
        message = "an order batch is signed by an agent, never by an owner, and holds at most 64 orders"
        return no(RejectCode.NOT_AUTHORISED, message, "signature")
    if order.builder != _NOBODY:
        made.builder = state.account_ids.get((order.builder, 0), 0)
        if not made.builder:
            return no(RejectCode.UNKNOWN_ACCOUNT, "the builder has no account", "builder")
    nonce = account.slots.get(made.slot) if made.slot else None
    if nonce is None:
        return Draft(account, state.markets[market_id], made, None)
    made.nonce = nonce
    if made.amend:
        made.remaining -= nonce.filled
    return Draft(account, state.markets[market_id], made, nonce.live)


def check_order(state: EngineState, draft: Draft, stamp_ms: int) -> Reject | None:
    """The first rule that the order breaks, None when it may meet the book."""
    refusal = _check_slot(state, draft) or _check_limits(draft)
    return check_arrival(state, draft, stamp_ms) if refusal is None else refusal


def check_arrival(state: EngineState, draft: Draft, stamp_ms: int) -> Reject | None:
    """The rules that depend on the moment at which an order meets the book: on arrival, or when it wakes."""
    return (
        _check_venue(state, draft, stamp_ms)
        or _check_position(draft)
        or _check_price(draft)
        or _check_margin(state, draft)
    )


def check_untriggered(state: EngineState, draft: Draft, stamp_ms: int) -> Reject | None:
    """The first rule that an order breaks that is going to wait for its trigger, or for the times of its slices."""
    refusal = _check_slot(state, draft) or _check_limits(draft)
    if refusal is not None:
        return refusal
    if draft.order.twap_interval:
        return check_twap(state, draft.account, draft.at, draft.order, stamp_ms)
    return check_trigger(state, draft.account, draft.at, draft.order, draft.replaced, stamp_ms)


def _check_slot(state: EngineState, draft: Draft) -> Reject | None:
    order, account, now = draft.order, draft.account, state.now
    if order.expiry <= now:
        return no(RejectCode.EXPIRED, "the order has expired", "expiry", expiry=order.expiry, now=now)
    most = state.now_ms + SEQUENCE_AHEAD_MS
    if order.sequence > most:
        return no(
            RejectCode.SEQUENCE_TOO_FAR,
            "sequence is too far ahead",
            "sequence",
            sequence=order.sequence,
            most=most,
        )
    nonce = order.nonce
    seen = account.taker_sequence if order.slot == 0 else nonce.sequence if nonce is not None else 0
    seen = max(seen, account.min_sequence)
    if order.sequence <= seen:
        return no(
            RejectCode.STALE_SEQUENCE,
            "sequence does not grow",
            "sequence",
            sequence=order.sequence,
            seen=seen,
        )
    return _check_amend(draft)


def _check_amend(draft: Draft) -> Reject | None:
    order, replaced = draft.order, draft.replaced
    if replaced is not None and not order.amend:
        return no(RejectCode.SLOT_OCCUPIED, "the slot holds a live order", "slot", slot=order.slot)
    if order.amend and replaced is None:
        return no(RejectCode.NOTHING_TO_AMEND, "the slot holds no live order", "slot", slot=order.slot)
    if replaced is not None and (replaced.market_id != order.market_id or replaced.sign != order.sign):
        return no(RejectCode.BAD_COMBINATION, "an amend keeps market and side", "amend")
    if order.remaining <= 0:
        return no(
            RejectCode.ALREADY_FILLED,
            "the slot has traded this size",
            "size",
            filled=order.filled,
            size=order.size,
        )
    return None


def _check_limits(draft: Draft) -> Reject | None:
    order, at = draft.order, draft.at
    part = order.display_size or order.size
    notional = at.notional(min(part, order.size), order.price)
    if notional < at.min_notional and not order.reduce_only:
        return no(
            RejectCode.BELOW_MIN_NOTIONAL,
            "the order is too small",
            "size",
            notional=notional,
            min_notional=at.min_notional,
        )
    if order.size > at.max_order_lots:
        return no(
            RejectCode.ABOVE_MAX_SIZE,
            "the order is too large",
            "size",
            size=order.size,
            most=at.max_order_lots,
        )
    rate = draft.fee_ppm
    if order.max_fee_ppm < rate:
        return no(
            RejectCode.FEE_ABOVE_MAXIMUM,
            "the fee rate is above the signed maximum",
            "max_fee_ppm",
            fee_ppm=rate,
            max_fee_ppm=order.max_fee_ppm,
        )
    waits = draft.may_rest or order.trigger is not _NO_TRIGGER or order.twap_interval != 0
    if waits and draft.replaced is None:
        waiting = len(draft.account.orders) + len(draft.account.untriggered)
        if waiting >= MAX_OPEN_ORDERS:
            return no(RejectCode.TOO_MANY_ORDERS, "too many open orders", open=waiting)
    return None


def _check_venue(state: EngineState, draft: Draft, stamp_ms: int) -> Reject | None:
    at, order = draft.at, draft.order
    if round_is_old(state, stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round", stamp_ms=stamp_ms, round_s=state.now)
    mode = draft.mode
    if mode is not _NORMAL:
        refusal = _check_mode(mode, order)
        if refusal is not None:
            return refusal
    age_s = state.unsettled_age_s
    if age_s > STOP_UNSETTLED_AGE_S:
        return _unsettled(state, "settlement is too far behind: nothing trades")
    if draft.reduces:
        return None
    if at.stale or not prices_fresh(state, draft.account):
        updated_at = at.price.updated_at
        return no(RejectCode.STALE_PRICE, "a price is stale: reducing only", "market", updated_at=updated_at)
    if mode is _REDUCE_ONLY:
        return no(RejectCode.MARKET_REDUCE_ONLY, "the market takes reducing orders", "market", mode=int(mode))
    if (
        len(state.unsettled) >= MAX_UNSETTLED_BATCHES
        or state.unsettled_notional >= MAX_UNSETTLED_NOTIONAL
        or age_s > MAX_UNSETTLED_AGE_S
    ):
        return _unsettled(state, "too much is waiting for settlement: reducing only")
    return None


def _check_mode(mode: MarketMode, order: RestingOrder) -> Reject | None:
    if mode >= MarketMode.CANCEL_ONLY:
        halted = mode >= MarketMode.HALTED
        code = RejectCode.MARKET_HALTED if halted else RejectCode.MARKET_CANCEL_ONLY
        return no(code, "the market takes no orders", "market", mode=int(mode))
    if mode is _POST_ONLY and not order.post_only:
        return no(RejectCode.MARKET_POST_ONLY, "the market takes post-only orders", "market", mode=int(mode))
    return None


def _unsettled(state: EngineState, message: str) -> Reject:
    return no(
        RejectCode.UNSETTLED_LIMIT,
        message,
        batches=len(state.unsettled),
        notional=state.unsettled_notional,
        age_s=state.unsettled_age_s,
    )


def _check_position(draft: Draft) -> Reject | None:
    order, account, position = draft.order, draft.account, draft.position
    if order.reduce_only and not position.opposes(order.sign):
        return no(
            RejectCode.REDUCE_ONLY_WOULD_INCREASE,
            "there is nothing to reduce",
            "reduce_only",
            size=position.size,
        )
    cap, open_interest = draft.at.open_interest_cap_lots, draft.at.open_interest
    if not draft.reduces and open_interest >= cap:
        return no(
            RejectCode.OPEN_INTEREST_CAP, "open interest is at its cap", open_interest=open_interest, cap=cap
        )
    if len(account.positions) >= MAX_OPEN_MARKETS and not position.in_use:
        taken = _markets_taken(account)
        if taken >= MAX_OPEN_MARKETS:
            return no(RejectCode.TOO_MANY_MARKETS, "too many open markets", "market", open=taken)
    return None


def _markets_taken(account: Account) -> int:
    return sum(1 for held in account.positions.values() if held.in_use)


def _check_price(draft: Draft) -> Reject | None:
    order, mark, reach = draft.order, draft.at.mark, draft.at.reach
    worse = order.price - mark if order.sign > 0 else mark - order.price
    if worse > reach:
        return no(
            RejectCode.OUTSIDE_PRICE_BAND,
            "the limit is too far beyond the mark",
            "limit_price",
            mark=mark,
            lowest=mark - reach,
            highest=mark + reach,
        )
    return None


def _check_margin(state: EngineState, draft: Draft) -> Reject | None:
    """Initial margin of the worst case, fees and losses at the limit included; reducing and shrinking need
    none."""
    if draft.reduces:
        return None
    at, order, account, position = draft.at, draft.order, draft.account, draft.position
    refresh(state, account)
    more, lots = order.remaining, order.remaining
    loss, fees = account.order_loss, account.order_fees
    old = draft.resting
    if old is not None and not old.reduce_only:
        more -= old.remaining  # an amend keeps the side
        loss -= order_loss(at, old)
        fees -= old.fee_reserve
    buys, sells = position.buy_lots, position.sell_lots
    if order.sign > 0:
        buys += more
    else:
        sells += more
    worst = account.worst - position.worst + worst_initial(at, position.size, buys, sells)
    if draft.may_rest:
        loss += loss_at(at, order.sign, order.price, lots)
    price = order.price if draft.may_rest else at.mark
    fees += order_fee(at, price, lots, max(draft.fee_ppm, 0) + order.builder_fee_ppm)
    available = account.collateral + account.value - loss - fees
    no_more = worst + loss + fees <= account.worst + account.order_loss + account.order_fees
    if available >= worst or no_more:
        return None
    return no(
        RejectCode.INSUFFICIENT_MARGIN,
        "not enough equity for the initial margin",
        "size",
        required=worst,
        available=available,
    )
