"""Rate limits: token buckets per address and per account, cancels with a larger budget of their own.

Times are the machine's monotonic seconds; the limits protect this process and take no part in the exchange's
state.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable

import msgspec

from evermark.protocol.reject import RejectCode
from sequencer.gateway.refusal import refuse


class Rate(msgspec.Struct, frozen=True):
    """`per_second` on average, at most `burst` at once."""

    per_second: float
    burst: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one sender may do; generous enough for a market maker on one machine."""

    requests_per_ip: Rate = Rate(500.0, 1_000)
    orders_per_account: Rate = Rate(100.0, 200)
    cancels_per_account: Rate = Rate(400.0, 800)
    keeper_messages: Rate = Rate(20.0, 60)
    sockets_per_ip: int = 128
    sockets: int = 2_000
    tracked: int = 100_000  # buckets kept; the longest unused one is forgotten first


class Buckets:
    """Token buckets by key, bounded in number. A forgotten bucket starts full again, which an attacker with
    that many addresses could have anyway."""

    def __init__(self, rate: Rate, tracked: int) -> None:
        self._burst, self._per_second, self._tracked = float(rate.burst), rate.per_second, tracked
        self._levels: OrderedDict[Hashable, list[float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, key: Hashable, now: float | None = None, count: int = 1) -> float:
        """0.0 when `count` tokens were taken, else the seconds until they are there."""
        if now is None:
            now = time.monotonic()
        bucket = self._levels.get(key)
        if bucket is None:
            bucket = self._levels[key] = [self._burst, now]
            if len(self._levels) > self._tracked:
                self._levels.popitem(last=False)
        else:
            self._levels.move_to_end(key)
        level, bucket[1] = bucket[0] + (now - bucket[1]) * self._per_second, now
        if level > self._burst:
            level = self._burst
        taken = level >= count
        bucket[0] = level - count if taken else level
        return 0.0 if taken else (count - level) / self._per_second


class Limiter:
    """The gate's budgets; each verb raises a Refusal (RATE_LIMITED with `retry_after_ms`) when one is
    spent.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests = Buckets(limits.requests_per_ip, limits.tracked)
        self._orders = Buckets(limits.orders_per_account, limits.tracked)
        self._cancels = Buckets(limits.cancels_per_account, limits.tracked)
        self._keepers = Buckets(limits.keeper_messages, limits.tracked)

    def request(self, ip: str) -> None:
        """Any request or WebSocket message from an address."""
        _spend(self._requests, ip, "requests of this address")

    def order(self, account: int, count: int = 1) -> None:
        """Orders, a withdrawal or an approval of an account."""
        _spend(self._orders, account, "orders of this account", count)

    def cancel(self, account: int) -> None:
        """A cancel of an account; its budget is separate, so that a busy account can always leave."""
        _spend(self._cancels, account, "cancels of this account")

    def keeper(self, signer: bytes) -> None:
        """A report or trigger of a keeper."""
        _spend(self._keepers, signer, "messages of this keeper")


def _spend(buckets: Buckets, key: Hashable, what: str, count: int = 1) -> None:
    wait = buckets.take(key, count=count)
    if wait:
        raise refuse(RejectCode.RATE_LIMITED, f"too many {what}", retry_after_ms=int(wait * 1000) + 1)
