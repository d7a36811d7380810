"""Why a trigger order is refused: what its fields say together, and what bounds how many may wait. Pure."""

from typing import Final

from evermark.protocol.orders import Trigger
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_PRICE_TICKS
from sequencer.engine.commands import MarketMode
from sequencer.engine.context import no
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.sealing import round_is_old
from sequencer.engine.state import Account, EngineState
from sequencer.engine.triggers import BY_LAST, BY_MARK, is_met

MAX_SLOT: Final = 2**16 - 1
MAX_UNTRIGGERED: Final = 32  # of one account
MAX_MARK_TRIGGERS_HOUR: Final = 200  # placed by one account; each may cost a storage write in a batch
MAX_TRAILING: Final = 1_000  # of one market: all of them follow in every round

# Looking a name up in a module or an enumeration costs compiled code more than the comparison that wants it.
_NO_TRIGGER: Final = Trigger.NONE


def check_conditions(order: RestingOrder) -> Reject | None:
    """Trigger, trailing offset and bracket link make sense together."""
    trigger_price, offset, link = order.trigger_price, order.trailing_offset, order.bracket_link
    if not 0 <= trigger_price <= MAX_PRICE_TICKS or not 0 <= offset <= MAX_PRICE_TICKS:
        return no(RejectCode.OUT_OF_RANGE, "trigger price or offset is out of range", "trigger_price")
    if not 0 <= link <= MAX_SLOT:
        return no(RejectCode.OUT_OF_RANGE, "bracket_link is out of range", "bracket_link")
    if link and link == order.slot:
        return no(RejectCode.BAD_COMBINATION, "an order is linked to another slot", "bracket_link")
    if order.trigger is _NO_TRIGGER:
        if trigger_price or offset:
            return no(RejectCode.BAD_COMBINATION, "a trigger price needs a trigger", "trigger")
        return None
    if order.slot == 0:
        return no(RejectCode.BAD_COMBINATION, "slot 0 never waits for a trigger", "slot")
    if trigger_price == 0:
        return no(RejectCode.OUT_OF_RANGE, "a trigger needs a price", "trigger_price")
    if offset and order.trigger not in BY_LAST:
        message = "a trailing order follows the last price, not the mark"
        return no(RejectCode.BAD_COMBINATION, message, "trailing_offset")
    return None


def check_trigger(
    state: EngineState,
    account: Account,
    at: MarketState,
    order: RestingOrder,
    replaced: RestingOrder | None,
    stamp_ms: int,
) -> Reject | None:
    """What keeps waiting orders few: a trailing one costs work in every round, a mark trigger a write on the chain."""
    if round_is_old(state, stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round", stamp_ms=stamp_ms, round_s=state.now)
    if at.effective_mode >= MarketMode.CANCEL_ONLY:
        mode = int(at.effective_mode)
        return no(RejectCode.MARKET_CANCEL_ONLY, "the market takes no orders", "market", mode=mode)
    untriggered = len(account.untriggered) - (replaced is not None and replaced.is_untriggered)
    if untriggered >= MAX_UNTRIGGERED:
        return no(RejectCode.TOO_MANY_ORDERS, "too many untriggered orders", "trigger", open=untriggered)
    kind, price = order.trigger, order.trigger_price
    if kind in BY_MARK and trigger_orders_placed(state, account) >= MAX_MARK_TRIGGERS_HOUR:
        message = "too many mark-trigger orders in this hour"
        return no(RejectCode.TOO_MANY_ORDERS, message, "trigger", most=MAX_MARK_TRIGGERS_HOUR)
    if len(at.triggers.trailing) >= MAX_TRAILING and order.trailing_offset:
        return no(RejectCode.TOO_MANY_ORDERS, "too many trailing orders in this market", "trailing_offset")
    reference = at.mark if kind in BY_MARK else at.last_price
    if is_met(kind, price, reference):
        message = "the trigger is met already"
        return no(RejectCode.WOULD_TRIGGER_AT_ONCE, message, "trigger_price", price=reference, trigger=price)
    return None


def trigger_orders_placed(state: EngineState, account: Account) -> int:
    """Mark-trigger orders that the account has placed in this hour of engine time."""
    return account.trigger_placed if account.trigger_hour == state.now // 3600 else 0
