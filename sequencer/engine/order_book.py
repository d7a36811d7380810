"""The order book of one market: price levels with sorted keys, a linked queue of orders at each, O(1) cancel.

It knows prices, sizes and arrival, and nothing of margin or money.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

from evermark.protocol.merkle import Path
from evermark.protocol.orders import Order, Side, Signature
from evermark.protocol.units import check

CHUNK_KEYS: Final = 512  # prices of a chunk, at most: moving half of them costs less than looking one up


class RestingOrder:
    """An order that the engine has accepted, while it matches or waits; also a node of its level's queue."""

    __slots__ = (
        "account",
        "arrival",
        "client_id",
        "expiry",
        "fee_reserve",
        "filled",
        "level",
        "market_id",
        "next",
        "order",
        "order_hash",
        "path",
        "previous",
        "price",
        "reduce_only",
        "sequence",
        "side",
        "sign",
        "signature",
        "signer",
        "size",
        "slot",
        "trigger_price",
    )

    def __init__(
        self,
        account: int,
        market_id: int,
        order: Order,
        order_hash: bytes,
        signature: Signature,
        signer: bytes,
        client_id: str,
        filled: int,
        path: Path | None = None,
    ) -> None:
        self.path = path  # to the root of the order batch that it came in
        self.account = account
        self.market_id = market_id
        self.order = order
        self.order_hash = order_hash
        self.signature = signature
        self.signer = signer
        self.client_id = client_id
        self.filled = filled
        self.side = order.side
        self.sign = -1 if order.side else 1  # +1 buys; positions move this way
        self.price = order.limit_price
        self.size = order.size
        self.slot = order.slot
        self.sequence = order.sequence
        self.expiry = order.expiry
        self.reduce_only = order.reduce_only
        self.trigger_price = order.trigger_price  # a trailing order moves it while it waits for its trigger
        self.arrival = 0  # journal sequence of its command, once it waits for its trigger
        self.fee_reserve = 0  # quote units held back for fees while it rests
        self.level: Level | None = None
        self.previous: RestingOrder | None = None
        self.next: RestingOrder | None = None

    @property
    def is_untriggered(self) -> bool:
        """It waits for its trigger, outside the book."""
        return self.arrival != 0

    @property
    def remaining(self) -> int:
        """Lots not yet traded."""
        return self.size - self.filled


class Level:
    """All orders at one price of one side, oldest first; `total` is their remaining size."""

    __slots__ = ("count", "head", "price", "tail", "total")

    def __init__(self, price: int) -> None:
        self.price = price
        self.total = 0
        self.count = 0
        self.head: RestingOrder | None = None
        self.tail: RestingOrder | None = None

    def orders(self) -> Iterator[RestingOrder]:
        """Oldest first. The level must not change meanwhile."""
        order = self.head
        while order is not None:
            yield order
            order = order.next


class BookSide:
    """One side; keys ascend with the best price last (an ask's key is its negated price).

    The keys lie in chunks, so that a new price moves a few hundred of them at most, however deep the side is.
    """

    __slots__ = ("chunks", "highest", "levels", "sign")

    def __init__(self, side: Side) -> None:
        self.sign = side.sign
        self.chunks: list[list[int]] = []  # ascending, none of them empty
        self.highest: list[int] = []  # the last key of each chunk
        self.levels: dict[int, Level] = {}

    def best(self) -> Level | None:
        """The best level, None on an empty side."""
        return self.levels[self.highest[-1] * self.sign] if self.highest else None

    def best_first(self) -> Iterator[Level]:
        """Levels from the best price on. The side must not change meanwhile."""
        for chunk in reversed(self.chunks):
            for key in reversed(chunk):
                yield self.levels[key * self.sign]

    def keys(self) -> list[int]:
        """All keys, ascending."""
        return [key for chunk in self.chunks for key in chunk]

    def level_at(self, price: int) -> Level:
        """The level at `price`, made when absent."""
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = Level(price)
            self._add_key(price * self.sign)
        return level

    def drop(self, level: Level) -> None:
        """Forget an empty level."""
        del self.levels[level.price]
        key = level.price * self.sign
        at = bisect_left(self.highest, key)
        chunk = self.chunks[at]
        if chunk[-1] != key:
            del chunk[bisect_left(chunk, key)]
            return
        chunk.pop()
        if chunk:
            self.highest[at] = chunk[-1]
        else:
            del self.chunks[at], self.highest[at]

    def _add_key(self, key: int) -> None:
        at = bisect_left(self.highest, key)
        if at == len(self.chunks):  # a new best price, or the first one
            if not at:
                self.chunks.append([key])
                self.highest.append(key)
                return
            at -= 1
            self.chunks[at].append(key)
            self.highest[at] = key
        else:
            insort(self.chunks[at], key)
        if len(self.chunks[at]) > CHUNK_KEYS:
            self._split(at)

    def _split(self, at: int) -> None:
        chunk = self.chunks[at]
        half = len(chunk) // 2
        self.chunks[at : at + 1] = [chunk[:half], chunk[half:]]
        self.highest.insert(at, chunk[half - 1])


class OrderBook:
    """Both sides of a market."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide(Side.BUY)
        self.asks = BookSide(Side.SELL)

    def side(self, side: Side) -> BookSide:
        """The side on which orders of `side` wait."""
        return self.asks if side else self.bids

    def opposite(self, side: Side) -> BookSide:
        """The side that an order of `side` trades with."""
        return self.bids if side else self.asks

    def facing(self, order: RestingOrder) -> BookSide:
        """The side that the order trades with."""
        return self.asks if order.sign > 0 else self.bids

    def add(self, order: RestingOrder) -> None:
        """Queue behind all orders of the same price."""
        side = self.bids if order.sign > 0 else self.asks
        level = side.level_at(order.price)
        last = level.tail
        order.level = level
        order.previous = last
        order.next = None
        if last is None:
            level.head = order
        else:
            last.next = order
        level.tail = order
        level.total += order.size - order.filled
        level.count += 1

    def remove(self, order: RestingOrder) -> None:
        """Take an order out of its queue."""
        level = order.level
        if level is None:
            check(False, "book: the order rests nowhere")
            return
        before, after = order.previous, order.next
        if before is None:
            level.head = after
        else:
            before.next = after
        if after is None:
            level.tail = before
        else:
            after.previous = before
        order.level = None
        order.previous = None
        order.next = None
        level.total -= order.size - order.filled
        level.count -= 1
        if level.count == 0:
            (self.bids if order.sign > 0 else self.asks).drop(level)

    def fill(self, order: RestingOrder, lots: int) -> None:
        """Count `lots` of a waiting order as traded; a finished order leaves."""
        level = order.level
        if level is None or not 0 < lots <= order.size - order.filled:
            check(False, "book: a fill beyond what rests")
            return
        order.filled += lots
        level.total -= lots
        if order.filled == order.size:
            self.remove(order)

    def replace(self, old: RestingOrder, new: RestingOrder) -> None:
        """Put `new` in the place of `old` in the queue; same side and price, not larger."""
        level = old.level
        if level is None or new.price != old.price or new.side != old.side or new.remaining > old.remaining:
            check(False, "book: a replacement that may not keep its priority")
            return
        new.level, new.previous, new.next = level, old.previous, old.next
        if new.previous is None:
            level.head = new
        else:
            new.previous.next = new
        if new.next is None:
            level.tail = new
        else:
            new.next.previous = new
        level.total += new.remaining - old.remaining
        old.level = old.previous = old.next = None
