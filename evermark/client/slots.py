"""Nonces without anybody seeing one: which slot an order lies in, and the sequence that must grow per slot.

Slot 0 is for orders that never rest. A slot that was used before is the cheapest to use again on-chain, so
the lowest free one is chosen.
"""

import time
from collections.abc import Iterable

from evermark.protocol.units import MAX_SEQUENCE

LAST_SLOT = 2**16 - 1


class SlotAllocator:
    """Slots of one account: `take` the lowest free one, `refresh` from the exchange's list, `release` what
    ended.
    """

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._pending: set[int] = set()  # taken for an order whose first answer has not come
        self._lowest = 1
        self._refresh_at = 0  # slots in use from which the list of open orders is worth reading again

    @property
    def wants_refresh(self) -> bool:
        """True at first, and when so many slots are taken that most of them have probably ended."""
        return len(self._used) >= self._refresh_at

    def refresh(self, open_slots: Iterable[int]) -> None:
        """The exchange's list of slots with live orders replaces what was believed, except for orders under
        way.
        """
        self._used = {slot for slot in open_slots if slot} | self._pending
        self._lowest = 1
        self._refresh_at = 2 * len(self._used) + 64

    def take(self) -> int:
        """The lowest free slot >= 1, now in use. Raises LookupError when all 65,535 are."""
        slot = self._lowest
        while slot in self._used:
            slot += 1
        if slot > LAST_SLOT:
            raise LookupError("every slot of this account holds a live order")
        self._used.add(slot)
        self._pending.add(slot)
        self._lowest = slot + 1
        return slot

    def answered(self, slot: int, is_open: bool) -> None:
        """The exchange has answered the order of `slot`: it holds the slot, or has already left it."""
        self._pending.discard(slot)
        if not is_open:
            self.release(slot)

    def release(self, slot: int) -> None:
        """The order of `slot` has ended."""
        self._used.discard(slot)
        if 0 < slot < self._lowest:
            self._lowest = slot


class ChainClock:
    """Chain time as this client estimates it: the last time heard, carried on at the pace between the last
    two.

    Recorded tapes run at another time and pace than the machine, so the machine's clock only measures
    distances.
    """

    def __init__(self) -> None:
        self._heard_ms = 0
        self._heard_at = 0.0
        self._pace = 1.0
        self._last_sequence = 0

    @property
    def age_s(self) -> float:
        """Machine seconds since the exchange's time was last heard; infinite when never."""
        return time.monotonic() - self._heard_at if self._heard_ms else float("inf")

    @property
    def pace(self) -> float:
        """Chain seconds per machine second."""
        return self._pace

    def heard(self, chain_ms: int) -> None:
        """The exchange said what time it is."""
        now = time.monotonic()
        if chain_ms <= self._heard_ms:
            return
        if self._heard_ms and now - self._heard_at >= 1.0:
            self._pace = min(10_000.0, max(0.0, (chain_ms - self._heard_ms) / 1000 / (now - self._heard_at)))
        elif self._heard_ms:
            return  # too close together to measure a pace
        self._heard_ms, self._heard_at = chain_ms, now

    def now_ms(self) -> int:
        """Estimated chain time in milliseconds."""
        return self._heard_ms + int((time.monotonic() - self._heard_at) * self._pace * 1000)

    def now_s(self) -> int:
        """Estimated chain time in whole seconds."""
        return self.now_ms() // 1000

    def next_sequence(self, above: int = 0) -> int:
        """A sequence that grows with every call and follows chain milliseconds; greater than `above`."""
        self._last_sequence = min(MAX_SEQUENCE, max(self.now_ms(), self._last_sequence + 1, above + 1))
        return self._last_sequence
