"""Stable reject codes, banded by stage: format 1xx, auth 2xx, risk 3xx, book 4xx, venue 5xx."""

import enum
from typing import Any

import msgspec


class RejectCode(enum.IntEnum):
    """Why something was refused. Numbers never change meaning; add, do not renumber."""

    MALFORMED = 100
    UNKNOWN_FIELD = 101
    WRONG_TYPE = 102
    OUT_OF_RANGE = 103
    BODY_TOO_LARGE = 104
    UNKNOWN_MARKET = 110
    OFF_TICK = 111
    OFF_LOT = 112
    BELOW_MIN_NOTIONAL = 113
    ABOVE_MAX_SIZE = 114
    BAD_COMBINATION = 115
    UNSUPPORTED = 116
    BELOW_FIRST_DEPOSIT = 117

    BAD_SIGNATURE = 200
    WRONG_CHAIN = 201
    NOT_AUTHORISED = 202
    UNKNOWN_ACCOUNT = 203
    EXPIRED = 204
    STALE_SEQUENCE = 205
    SEQUENCE_TOO_FAR = 206
    ABOVE_TRANSFER_CAP = 207
    RATE_LIMITED = 210

    INSUFFICIENT_MARGIN = 300
    INSUFFICIENT_WITHDRAWABLE = 301
    OPEN_INTEREST_CAP = 302
    TOO_MANY_MARKETS = 303
    REDUCE_ONLY_WOULD_INCREASE = 304
    OUTSIDE_PRICE_BAND = 305
    FEE_ABOVE_MAXIMUM = 306
    HEALTHY_ACCOUNT = 307
    NOT_LIQUIDATABLE = 308
    TOO_MANY_ORDERS = 309

    POST_ONLY_WOULD_CROSS = 400
    NO_LIQUIDITY = 401
    FOK_NOT_FILLABLE = 402
    SLOT_OCCUPIED = 403
    SELF_TRADE = 404
    UNKNOWN_ORDER = 405
    ALREADY_FILLED = 406
    NOTHING_TO_AMEND = 407
    WOULD_TRIGGER_AT_ONCE = 408

    MARKET_HALTED = 500
    MARKET_REDUCE_ONLY = 501
    MARKET_POST_ONLY = 502
    MARKET_CANCEL_ONLY = 503
    STALE_PRICE = 504
    NOT_READY = 505
    OVERLOADED = 506
    UNSETTLED_LIMIT = 507
    CHAIN_RESTARTED = 508
    ACCOUNT_HALTED = 509
    STORAGE_LOW = 510
    WITHDRAWALS_HELD = 511


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal as a value: stable code, sentence, offending field and the numbers that decided it."""

    code: RejectCode
    message: str
    field: str = ""
    details: dict[str, int | str] = {}

    def to_json(self) -> dict[str, Any]:
        """The wire form: {"code", "name", "message", "field", "details"}; integers above 2^53 as strings."""
        details = {
            key: str(value) if isinstance(value, int) and abs(value) > 2**53 else value
            for key, value in self.details.items()
        }
        return {
            "code": int(self.code),
            "name": self.code.name,
            "message": self.message,
            "field": self.field,
            "details": details,
        }
