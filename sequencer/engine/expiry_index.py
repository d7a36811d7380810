"""When waiting orders expire. Orders lie in baskets by the minute in which they end, so that one comes and goes at the same cost
however many wait, and a round looks at those alone whose minute has come."""

from heapq import heapify, heappop, heappush
from typing import Final

from sequencer.engine.order_book import RestingOrder

MINUTE_S: Final = 60
SPARE_MINUTES: Final = 1_024  # of baskets that are gone, remembered before they are looked for


class ExpiryIndex:
    """The waiting orders, in the book or outside, by their expiry."""

    __slots__ = ("baskets", "minutes")

    def __init__(self) -> None:
        self.baskets: dict[int, list[RestingOrder]] = {}  # none of them empty
        self.minutes: list[int] = []  # a heap of the baskets' keys, and of some that are gone

    def add(self, order: RestingOrder) -> None:
        """Let an order wait."""
        minute = order.expiry // MINUTE_S
        basket = self.baskets.get(minute)
        if basket is None:
            self.baskets[minute] = basket = []
            self._note(minute)
        order.basket_place = len(basket)
        basket.append(order)

    def remove(self, order: RestingOrder) -> None:
        """Forget an order that waits no longer; the last one of its basket takes its place."""
        minute = order.expiry // MINUTE_S
        basket = self.baskets[minute]
        last = basket.pop()
        if last is not order:
            basket[order.basket_place] = last
            last.basket_place = order.basket_place
        elif not basket:
            del self.baskets[minute]

    def ended(self, now_s: int) -> list[RestingOrder]:
        """The orders whose expiry has come, the earliest first; of one second by account and slot."""
        found: list[RestingOrder] = []
        while self.minutes and self.minutes[0] * MINUTE_S <= now_s:
            minute = self.minutes[0]
            basket = self.baskets.get(minute, [])
            ended = [order for order in basket if order.expiry <= now_s]
            found.extend(sorted(ended, key=_end))
            if len(ended) < len(basket):
                break
            while self.minutes and self.minutes[0] == minute:
                heappop(self.minutes)  # all of its orders are about to leave
        return found

    def _note(self, minute: int) -> None:
        if len(self.minutes) > 2 * len(self.baskets) + SPARE_MINUTES:
            self.minutes = list(self.baskets)
            heapify(self.minutes)
        else:
            heappush(self.minutes, minute)


def _end(order: RestingOrder) -> tuple[int, int, int]:
    return order.expiry, order.account, order.slot
