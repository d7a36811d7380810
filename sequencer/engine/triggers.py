"""Orders that wait for a price outside the book. Each market keeps them by what wakes them, nearest price first, so that a
round or a trade costs only what it wakes. Untriggered orders reserve no margin; they are checked when they wake."""

from bisect import bisect_left, insort
from typing import Final

from evermark.protocol.orders import Trigger
from evermark.protocol.units import check
from sequencer.engine.order_book import RestingOrder

BY_MARK: Final = (Trigger.MARK_ABOVE, Trigger.MARK_BELOW)
BY_LAST: Final = (Trigger.LAST_ABOVE, Trigger.LAST_BELOW)
UPWARD: Final = (Trigger.MARK_ABOVE, Trigger.LAST_ABOVE)

Entry = tuple[int, int, int, int]  # key (the price, negated for "below"), arrival, account, slot


def is_met(trigger: Trigger, trigger_price: int, price: int) -> bool:
    """The condition holds at `price`; 0 is no price."""
    if price == 0:
        return False
    return price >= trigger_price if trigger in UPWARD else price <= trigger_price


class TriggerIndex:
    """The untriggered orders of one market."""

    __slots__ = ("entries", "trailing", "waiting")

    def __init__(self) -> None:
        self.entries: dict[Trigger, list[Entry]] = {kind: [] for kind in (*BY_MARK, *BY_LAST)}
        self.trailing: dict[tuple[int, int], RestingOrder] = {}  # by (account, slot)
        self.waiting = 0  # how many there are

    def add(self, order: RestingOrder) -> None:
        """Let an order wait; of equal prices the earlier one wakes first."""
        insort(self.entries[order.trigger], _entry(order))
        self.waiting += 1
        if order.trailing_offset:
            self.trailing[order.account, order.slot] = order

    def remove(self, order: RestingOrder) -> None:
        """Forget an order that waits here."""
        entries, entry = self.entries[order.trigger], _entry(order)
        at = bisect_left(entries, entry)
        check(at < len(entries) and entries[at] == entry, "triggers: an order that waits nowhere")
        del entries[at]
        self.waiting -= 1
        self.trailing.pop((order.account, order.slot), None)

    def due(self, kinds: tuple[Trigger, ...], price: int, most: int) -> list[Entry]:
        """Up to `most` entries of these kinds whose condition holds at `price`, nearest price first."""
        found: list[Entry] = []
        for kind in kinds:
            for entry in self.entries[kind]:
                if len(found) == most or not is_met(kind, abs(entry[0]), price):
                    break
                found.append(entry)
        return found

    def trail(self, last_price: int) -> None:
        """Let trailing orders follow the last price."""
        for order in list(self.trailing.values()):
            moved = _followed(order, last_price)
            if moved != order.trigger_price:
                self.remove(order)
                order.trigger_price = moved
                self.add(order)


def _entry(order: RestingOrder) -> Entry:
    sign = 1 if order.trigger in UPWARD else -1
    return (sign * order.trigger_price, order.arrival, order.account, order.slot)


def _followed(order: RestingOrder, last_price: int) -> int:
    """A trigger below the price rises behind it, one above falls after it; neither ever moves back."""
    offset = order.trailing_offset
    if order.trigger in UPWARD:
        return min(order.trigger_price, last_price + offset)
    return max(order.trigger_price, last_price - offset)
