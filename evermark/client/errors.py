"""What can go wrong for a client: the exchange refused, the amount does not fit, or nobody answered."""

from typing import Any

from evermark.protocol.ranges import Beyond


class EvermarkError(Exception):
    """Base of every error that this package raises on purpose."""


class Refused(EvermarkError):
    """The exchange said no. `code` and `name` are stable (see the reject codes); `details` has the deciding
    numbers.
    """

    def __init__(self, error: dict[str, Any], http_status: int = 0, order_hash: str = "") -> None:
        self.code = int(error.get("code", 0))
        self.name = str(error.get("name", "UNKNOWN"))
        self.message = str(error.get("message", ""))
        self.field = str(error.get("field", ""))
        self.details: dict[str, int | str] = dict(error.get("details") or {})
        self.http_status = http_status
        self.order_hash = order_hash
        super().__init__(f"{self.name} ({self.code}): {self.message}{self._numbers()}")

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait when the refusal was a rate limit or an overload, else None."""
        value = self.details.get("retry_after_ms")
        return None if value is None else int(value) / 1000

    @property
    def outcome_unknown(self) -> bool:
        """The exchange stopped before it knew what became of the request."""
        return self.details.get("outcome") == "unknown"

    def _numbers(self) -> str:
        return (
            " [" + ", ".join(f"{key}={value}" for key, value in self.details.items()) + "]"
            if self.details
            else ""
        )


class NotRepresentable(EvermarkError, ValueError):
    """An amount is no whole number of ticks, lots or quote units; `name` is OFF_TICK, OFF_LOT or OFF_UNIT."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(f"{name}: {message}")


class OutOfRange(EvermarkError, ValueError):
    """A raw integer does not fit the field that would be signed; nothing was signed or sent. `field` is its EIP-712 name, and it
    holds from `least` to `most`.
    """

    def __init__(self, found: Beyond) -> None:
        self.field, self.value, self.least, self.most = found.field, found.value, found.least, found.most
        super().__init__(f"OUT_OF_RANGE: {found}")


class Unreachable(EvermarkError):
    """Nobody answered at the exchange's address; nothing is known to have happened."""


class OutcomeUnknown(EvermarkError):
    """The connection broke after a request had been sent. Ask for the order's status, or look at the
    account.
    """


class NotFound(EvermarkError, LookupError):
    """The client was asked about an order or a market that the exchange does not know."""


class ChainRefused(EvermarkError):
    """The chain did not do what was asked: a contract reverted, or the node refused or did not answer."""
