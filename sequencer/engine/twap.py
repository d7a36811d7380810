"""TWAP orders: a size spread over time. Each slice is an IOC suborder of the signed order, at its interval of engine time.

A slice that found nothing, or was refused, is caught up with by later ones, at most three slices' worth at once; none trades
further from the mark than a bound, nor beyond the signed limit. All of it is a promise: the vault sees fills of one order.
"""

from typing import Final

from evermark.protocol.orders import TimeInForce, Trigger
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_PRICE_TICKS, PPM, ceil_div
from sequencer.engine.commands import MarketMode
from sequencer.engine.context import no
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.sealing import round_is_old
from sequencer.engine.state import Account, EngineState

MIN_INTERVAL_S: Final = 10  # a slice may cost a storage write on the chain
MAX_INTERVAL_S: Final = 3_600
MAX_SLICES: Final = 2_880  # a day of them at 30 seconds
MAX_TWAPS: Final = 10  # of one account
CATCH_UP: Final = 3  # slices' worth that one suborder may ask for
SLIPPAGE_PPM: Final = 30_000  # from the mark of the slice's moment


def check_twap_fields(order: RestingOrder) -> Reject | None:
    """The interval and what it goes together with."""
    if not MIN_INTERVAL_S <= order.twap_interval <= MAX_INTERVAL_S:
        return no(
            RejectCode.OUT_OF_RANGE,
            "the interval of a TWAP is out of range",
            "twap_interval",
            value=order.twap_interval,
            least=MIN_INTERVAL_S,
            most=MAX_INTERVAL_S,
        )
    if order.slot == 0 or order.time_in_force is not TimeInForce.IOC:
        message = "a TWAP is an IOC order in a slot of its own: its slices never rest"
        return no(RejectCode.BAD_COMBINATION, message, "time_in_force")
    if order.trigger is not Trigger.NONE or order.display_size:
        return no(RejectCode.BAD_COMBINATION, "a TWAP neither waits for a price nor rests", "twap_interval")
    return None


def check_twap(
    state: EngineState, account: Account, at: MarketState, order: RestingOrder, stamp_ms: int
) -> Reject | None:
    """What bounds a TWAP that comes now: its slices are neither too many nor too small, and prices are known."""
    if round_is_old(state, stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round", stamp_ms=stamp_ms, round_s=state.now)
    if at.effective_mode >= MarketMode.CANCEL_ONLY:
        mode = int(at.effective_mode)
        return no(RejectCode.MARKET_CANCEL_ONLY, "the market takes no orders", "market", mode=mode)
    running = sum(
        1 for other in account.untriggered.values() if other.twap_interval and other.slot != order.slot
    )
    if running >= MAX_TWAPS:
        return no(RejectCode.TOO_MANY_ORDERS, "too many TWAP orders", "twap_interval", open=running)
    count = slice_count(order, state.now)
    if not 2 <= count <= MAX_SLICES:
        message = "the order's expiry makes too few slices, or too many"
        return no(RejectCode.OUT_OF_RANGE, message, "expiry", slices=count, least=2, most=MAX_SLICES)
    least = at.market.min_notional
    part = at.notional(order.size // count, order.price)
    if order.size < count or (part < least and not order.reduce_only):
        message = "the slices of the TWAP are too small"
        return no(RejectCode.BELOW_MIN_NOTIONAL, message, "size", notional=part, min_notional=least)
    return None


def slice_count(order: RestingOrder, start_s: int) -> int:
    """Slices from `start_s` to before the order expires."""
    return max(0, order.expiry - start_s) // order.twap_interval


def due_slice(order: RestingOrder, now_s: int) -> int:
    """Number of the slice whose time has come, from 1; slices between two rounds are left to it."""
    passed = (now_s - order.twap_start) // order.twap_interval + 1
    return min(passed, slice_count(order, order.twap_start))


def next_due_s(order: RestingOrder) -> int:
    """When the slice after the last one is due."""
    return order.twap_start + order.twap_sent * order.twap_interval


def slice_lots(order: RestingOrder, number: int) -> int:
    """Lots that slice `number` asks for: what is missing of its share of the size, at most CATCH_UP slices' worth."""
    count = slice_count(order, order.twap_start)
    missing = order.size * number // count - order.filled
    return max(0, min(missing, CATCH_UP * ceil_div(order.size, count)))


def slice_price(at: MarketState, order: RestingOrder) -> int:
    """The slice's limit: as signed, and within SLIPPAGE_PPM and the market's band of the mark."""
    reach = at.mark * min(SLIPPAGE_PPM, at.market.price_band_ppm) // PPM
    if order.sign > 0:
        return min(order.price, at.mark + reach, MAX_PRICE_TICKS)
    return max(order.price, at.mark - reach, 1)
