"""A refusal on its way out of the gate: a Reject, the order it belongs to, and the HTTP status it travels
under.
"""

from typing import Any

from evermark.protocol.reject import Reject, RejectCode

GATE_STATUS = {
    RejectCode.BODY_TOO_LARGE: 413,
    RejectCode.UNKNOWN_MARKET: 404,
    RejectCode.UNKNOWN_ACCOUNT: 404,
    RejectCode.BAD_SIGNATURE: 401,
    RejectCode.WRONG_CHAIN: 401,
    RejectCode.NOT_AUTHORISED: 403,
    RejectCode.RATE_LIMITED: 429,
    RejectCode.NOT_READY: 503,
    RejectCode.OVERLOADED: 503,
    RejectCode.STORAGE_LOW: 503,
    RejectCode.CHAIN_RESTARTED: 503,
    RejectCode.WITHDRAWALS_HELD: 503,
    RejectCode.HEALTHY_ACCOUNT: 422,
}
ENGINE_STATUS = 422


class Refusal(Exception):
    """Carries a Reject from where it was found to where it is answered. Raised for expected refusals only."""

    def __init__(self, reject: Reject, http_status: int | None = None, order_hash: bytes = b"") -> None:
        super().__init__(reject.message)
        self.reject = reject
        self.order_hash = order_hash
        self.http_status = http_status or GATE_STATUS.get(reject.code, 400)

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds for the Retry-After header, when waiting helps."""
        wait = self.reject.details.get("retry_after_ms")
        return None if wait is None else -(-int(wait) // 1000)

    def to_json(self) -> dict[str, Any]:
        """{"error": {...}, "order_hash"?}."""
        body: dict[str, Any] = {"error": self.reject.to_json()}
        if self.order_hash:
            body["order_hash"] = "0x" + self.order_hash.hex()
        return body


def refuse(code: RejectCode, message: str, field: str = "", **details: int | str) -> Refusal:
    """A Refusal from its parts."""
    return Refusal(Reject(code=code, message=message, field=field, details=details))


def engine_refusal(reject: Reject, order_hash: bytes = b"") -> Refusal:
    """The engine's or the pipeline's refusal: 422, except where waiting helps."""
    waits = GATE_STATUS.get(reject.code) in (429, 503)
    return Refusal(reject, None if waits else ENGINE_STATUS, order_hash)


def internal_error() -> Refusal:
    """What a bug is answered with. Whether the request took effect is not known here."""
    message = "internal error; ask for the order's status"
    reject = Reject(code=RejectCode.NOT_READY, message=message, details={"outcome": "unknown"})
    return Refusal(reject, 500)
