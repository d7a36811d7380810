"""A book alone: price-time matching of orders without owners, margin or money, on the same books as the engine's.

The engine never uses it. It is what the benchmark sets beside other books, and what tests compare with the naive one.
"""

from sequencer.engine.order_book import BookOrder, OrderBook

BareTrade = tuple[object, object, int, int]  # maker's id, taker's id, price, size


class BareOrder(BookOrder):
    """An order that has nothing but an id."""

    __slots__ = ("order_id",)

    def __init__(self, order_id: object, sign: int, price: int, size: int) -> None:
        super().__init__(sign, price, size)
        self.order_id = order_id


class BareBook:
    """One market. Ids are anything hashable of the caller's; one belongs to one waiting order at a time."""

    __slots__ = ("book", "trades", "waiting")

    def __init__(self) -> None:
        self.book = OrderBook()
        self.waiting: dict[object, BareOrder] = {}
        self.trades: list[BareTrade] = []

    def limit(self, order_id: object, sign: int, size: int, price: int) -> None:
        """Trade a buy (`sign` +1) or sell as far as its price allows; the rest waits."""
        left = self._cross(order_id, sign, size, price)
        if left:
            order = BareOrder(order_id, sign, price, size)
            order.remaining = left
            self.book.add(order)
            self.waiting[order_id] = order

    def immediate(self, order_id: object, sign: int, size: int, price: int) -> None:
        """Trade as far as the price allows; the rest is gone."""
        self._cross(order_id, sign, size, price)

    def cancel(self, order_id: object) -> bool:
        """Take a waiting order out; False when none has the id."""
        order = self.waiting.get(order_id)
        if order is None:
            return False
        del self.waiting[order_id]
        self.book.remove(order)
        return True

    def _cross(self, order_id: object, sign: int, size: int, price: int) -> int:
        """Trade with the other side, best price and oldest order first; returns what is left."""
        book = self.book
        opposite = book.asks if sign > 0 else book.bids
        left = size
        while left:
            best = opposite.top
            if best is None or (best.price > price if sign > 0 else best.price < price):
                break
            maker = best.head
            if not isinstance(maker, BareOrder):
                break
            rest = maker.remaining
            lots = rest if rest < left else left
            left -= lots
            self.trades.append((maker.order_id, order_id, maker.price, lots))
            book.fill(maker, lots)
            if lots == rest:
                del self.waiting[maker.order_id]
        return left
