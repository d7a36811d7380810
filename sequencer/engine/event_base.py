"""What events have in common, and why orders end without being filled; `events.py` has the rest and tells both on."""

import enum

import msgspec


class CancelReason(enum.StrEnum):
    """Why an order ended without being filled."""

    USER = "user"
    REPLACED = "replaced"
    EXPIRED = "expired"
    IOC_REMAINDER = "ioc_remainder"
    FILL_CAP = "fill_cap"
    SELF_TRADE = "self_trade"
    MARGIN = "margin"
    REDUCE_ONLY = "reduce_only"
    PRICE_BAND = "price_band"
    LIQUIDATION = "liquidation"
    FORCED_CLOSE = "forced_close"
    MARKET_HALTED = "market_halted"
    MARKET_SETTLED = "market_settled"
    OPEN_INTEREST_CAP = "open_interest_cap"
    AGENT_REVOKED = "agent_revoked"
    BRACKET = "bracket"
    TRIGGER_REFUSED = "trigger_refused"
    TWAP_ENDED = "twap_ended"
    REVERSED = "reversed"
    ACCOUNT_HALTED = "account_halted"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind", gc=False):
    """Base of all events; the tag is the class name."""
