"""What is wrong with an order as it is written, whoever sends it and whatever the book holds. Pure."""

from typing import Final

from evermark.protocol.orders import MAX_EXPIRY_S, MAX_FEE_LIMIT_PPM, NO_ADDRESS, TimeInForce
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_PRICE_TICKS, MAX_SEQUENCE, MAX_SIZE_LOTS, ceil_div
from sequencer.engine.context import no
from sequencer.engine.order_book import RestingOrder
from sequencer.engine.trigger_checks import MAX_SLOT, check_conditions
from sequencer.engine.twap import check_twap_fields

MAX_PARTS: Final = 10  # of an iceberg: each of them is a fill of whoever meets it, and a command has few

# Looking a name up in a module or an enumeration costs compiled code more than the comparison that wants it.
_GTC: Final = TimeInForce.GTC
_GTD: Final = TimeInForce.GTD
_IOC: Final = TimeInForce.IOC
_FOK: Final = TimeInForce.FOK


def check_format(order: RestingOrder) -> Reject | None:
    """Every field is in its range, and they make sense together."""
    slot, builder_fee_ppm = order.slot, order.builder_fee_ppm
    if not (
        1 <= order.size <= MAX_SIZE_LOTS
        and 1 <= order.price <= MAX_PRICE_TICKS
        and 0 <= order.max_fee_ppm <= MAX_FEE_LIMIT_PPM
        and 0 <= builder_fee_ppm <= MAX_FEE_LIMIT_PPM
        and 0 <= slot <= MAX_SLOT
        and 1 <= order.sequence <= MAX_SEQUENCE
        and 0 <= order.expiry <= MAX_EXPIRY_S
    ):
        return _out_of_range(order)
    time_in_force = order.time_in_force
    immediate = time_in_force is _IOC or time_in_force is _FOK
    if slot == 0 and not immediate:
        return no(RejectCode.BAD_COMBINATION, "slot 0 takes only IOC and FOK", "time_in_force")
    if builder_fee_ppm and order.order.builder == NO_ADDRESS:
        return no(RejectCode.BAD_COMBINATION, "a builder's fee needs a builder", "builder")
    if slot == 0 and order.amend:
        return no(RejectCode.BAD_COMBINATION, "slot 0 holds nothing to amend", "amend")
    if immediate and order.post_only:
        return no(RejectCode.BAD_COMBINATION, "a post-only order has to rest", "post_only")
    refusal = check_conditions(order)
    if refusal is None and order.display_size:
        refusal = _check_display(order)
    if refusal is None and order.twap_interval:
        refusal = check_twap_fields(order)
    return refusal


def _out_of_range(order: RestingOrder) -> Reject:
    """Which field it is."""
    ranges = (
        ("size", order.size, 1, MAX_SIZE_LOTS),
        ("limit_price", order.price, 1, MAX_PRICE_TICKS),
        ("max_fee_ppm", order.max_fee_ppm, 0, MAX_FEE_LIMIT_PPM),
        ("max_builder_fee_ppm", order.builder_fee_ppm, 0, MAX_FEE_LIMIT_PPM),
        ("slot", order.slot, 0, MAX_SLOT),
        ("sequence", order.sequence, 1, MAX_SEQUENCE),
        ("expiry", order.expiry, 0, MAX_EXPIRY_S),
    )
    field, value, least, most = next(each for each in ranges if not each[2] <= each[1] <= each[3])
    message = f"{field} is out of range"
    return no(RejectCode.OUT_OF_RANGE, message, field, value=value, least=least, most=most)


def _check_display(order: RestingOrder) -> Reject | None:
    """An iceberg rests, and its parts are not so many that meeting it costs much."""
    if order.time_in_force is not _GTC and order.time_in_force is not _GTD:
        return no(RejectCode.BAD_COMBINATION, "an iceberg has to rest", "display_size")
    least = ceil_div(order.size, MAX_PARTS)
    if order.display_size < least:
        return no(
            RejectCode.OUT_OF_RANGE,
            f"an iceberg has at most {MAX_PARTS} parts",
            "display_size",
            value=order.display_size,
            least=least,
        )
    return None
