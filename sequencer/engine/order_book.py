"""The order book of one market: price levels with sorted keys, a linked queue of orders at each, O(1) cancel.

It knows prices, sizes and arrival, and nothing of margin or money.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from mypy_extensions import i64

from evermark.protocol.merkle import Path
from evermark.protocol.orders import Order, Side, Signature
from evermark.protocol.units import check

if TYPE_CHECKING:
    from sequencer.engine.batch_builder import Row
    from sequencer.engine.state import Account, Position, SlotState

CHUNK_KEYS: Final = 512  # prices of a chunk, at most: moving half of them costs less than looking one up


class BookOrder:
    """An order as a book knows it; also a node of its level's queue."""

    __slots__ = ("hidden", "level", "next", "previous", "price", "remaining", "sign", "size")

    def __init__(self, sign: int, price: int, size: int) -> None:
        self.sign = sign  # +1 buys; positions move this way
        self.price = price
        self.size = size
        self.remaining = size  # lots not yet traded
        self.hidden = 0  # lots of an iceberg that the level does not show yet
        self.level: Level | None = None
        self.previous: BookOrder | None = None
        self.next: BookOrder | None = None

    @property
    def filled(self) -> int:
        """Lots that have traded."""
        return self.size - self.remaining

    def reaches(self, price: int) -> bool:
        """The limit allows to trade at `price`."""
        return self.price >= price if self.sign > 0 else self.price <= price

    @property
    def shown(self) -> int:
        """Lots that trade at this place in the queue."""
        return self.remaining - self.hidden


class RestingOrder(BookOrder):
    """An order that the engine has accepted, while it matches or waits.

    It refers to what nearly every step asks for: its account, its slot, its position and its row in the open batch.
    """

    __slots__ = (
        "account",
        "amend",
        "arrival",
        "basket_place",
        "bracket_link",
        "builder",
        "builder_fee_ppm",
        "by_owner",
        "client_id",
        "display_size",
        "expiry",
        "fee_reserve",
        "market_id",
        "max_fee_ppm",
        "nonce",
        "order",
        "order_hash",
        "path",
        "position",
        "post_only",
        "reduce_only",
        "row",
        "sequence",
        "side",
        "signature",
        "signer",
        "slot",
        "time_in_force",
        "trader",
        "trailing_offset",
        "trigger",
        "trigger_price",
        "twap_interval",
        "twap_sent",
        "twap_start",
    )

    def __init__(
        self,
        market_id: int,
        order: Order,
        order_hash: bytes,
        signature: Signature,
        signer: bytes,
        client_id: str,
        path: Path | None = None,
    ) -> None:
        """`trader` and `account` follow with `belong_to`."""
        super().__init__(-1 if order.side else 1, order.limit_price, order.size)
        self.path = path  # to the root of the order batch that it came in
        self.nonce: SlotState | None = None  # of its slot; none in slot 0, or before the slot's first order
        self.position: Position | None = None  # once somebody looked for it
        self.row: Row | None = None  # of the batch in which it traded last
        self.market_id = market_id
        self.order = order
        self.order_hash = order_hash
        self.signature = signature
        self.signer = signer
        self.client_id = client_id
        # What was signed stands here too: reading a message costs compiled code far more than reading an attribute.
        self.side = order.side
        self.slot = order.slot
        self.sequence = order.sequence
        self.expiry = order.expiry
        self.time_in_force = order.time_in_force
        self.post_only = order.post_only
        self.reduce_only = order.reduce_only
        self.amend = order.amend
        self.max_fee_ppm = order.max_fee_ppm
        self.display_size = order.display_size
        self.twap_interval = order.twap_interval
        self.bracket_link = order.bracket_link
        self.trigger = order.trigger
        self.trailing_offset = order.trailing_offset
        self.trigger_price = order.trigger_price  # a trailing order moves it while it waits for its trigger
        self.arrival = 0  # journal sequence of its command, once it waits for its trigger
        self.twap_start = 0  # engine time at which a TWAP began, and its slices that were sent
        self.twap_sent = 0
        self.builder = 0  # account of the order's builder, 0: none
        self.builder_fee_ppm = order.max_builder_fee_ppm  # charged as signed
        self.basket_place = 0  # among the orders that expire in the same minute, while it waits
        self.fee_reserve = 0  # quote units held back for fees while it rests

    def belong_to(self, trader: "Account") -> None:
        """Name the account whose order it is."""
        self.trader = trader
        self.account = trader.account_id
        self.by_owner = self.signer == trader.owner  # otherwise an agent signed it, whose time may end

    @property
    def behind(self) -> "RestingOrder | None":
        """The next order of its level, in the engine's books."""
        return cast("RestingOrder | None", self.next)

    @property
    def is_untriggered(self) -> bool:
        """It waits for its trigger, outside the book."""
        return self.arrival != 0


class Level:
    """All orders at one price of one side, oldest first; `total` is their remaining size."""

    __slots__ = ("count", "head", "price", "tail", "total")

    def __init__(self, price: int) -> None:
        self.price = price
        self.total = 0
        self.count = 0
        self.head: BookOrder | None = None
        self.tail: BookOrder | None = None

    @property
    def first(self) -> RestingOrder | None:
        """The oldest order, in the engine's books."""
        return cast(RestingOrder | None, self.head)

    def orders(self) -> Iterator[RestingOrder]:
        """Oldest first, in the engine's books. The level must not change meanwhile."""
        order = self.head
        while order is not None:
            yield cast(RestingOrder, order)
            order = order.next


class BookSide:
    """One side; keys ascend with the best price last (an ask's key is its negated price).

    The keys lie in chunks, so that a new price moves a few hundred of them at most, however deep the side is.
    """

    __slots__ = ("chunks", "highest", "levels", "sign", "top")

    def __init__(self, side: Side) -> None:
        self.sign = side.sign
        self.chunks: list[list[int]] = [[]]  # ascending; none of them empty but the only one
        self.highest: list[int] = []  # the last key of each chunk but the last one
        self.levels: dict[int, Level] = {}
        self.top: Level | None = None  # the best level

    def best(self) -> Level | None:
        """The best level, None on an empty side."""
        return self.top

    def best_first(self) -> Iterator[Level]:
        """Levels from the best price on. The side must not change meanwhile."""
        for chunk in reversed(self.chunks):
            for key in reversed(chunk):
                yield self.levels[key * self.sign]

    def next_best(self, level: Level) -> Level | None:
        """The level that is best after this one, None behind the last."""
        key = level.price if self.sign > 0 else -level.price
        highest = self.highest
        at = _place(highest, key) if highest else 0
        chunk = self.chunks[at]
        place = _place(chunk, key)
        if place > 0:
            return self.levels[chunk[place - 1] * self.sign]
        return self.levels[self.chunks[at - 1][-1] * self.sign] if at > 0 else None

    def keys(self) -> list[int]:
        """All keys, ascending."""
        return [key for chunk in self.chunks for key in chunk]

    def level_at(self, price: int) -> Level:
        """The level at `price`, made when absent."""
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = Level(price)
            top = self.top
            if top is None or (price > top.price) == (self.sign > 0):
                self.top = level
                self._add_best(price if self.sign > 0 else -price)
            else:
                self._add_key(price if self.sign > 0 else -price)
        return level

    def drop(self, level: Level) -> None:
        """Forget an empty level."""
        price = level.price
        del self.levels[price]
        key = price if self.sign > 0 else -price
        highest = self.highest
        at = _place(highest, key) if highest else 0
        chunk = self.chunks[at]
        if level is self.top:
            chunk.pop()
        else:
            del chunk[_place(chunk, key)]
        if not chunk:
            self._drop_chunk(at)
        elif at < len(highest) and highest[at] == key:
            highest[at] = chunk[-1]
        if level is self.top:
            self.top = self.levels[self.chunks[-1][-1] * self.sign] if self.levels else None

    def _add_best(self, key: int) -> None:
        chunk = self.chunks[-1]
        chunk.append(key)
        if len(chunk) > CHUNK_KEYS:
            self._split(len(self.chunks) - 1)

    def _add_key(self, key: int) -> None:
        highest = self.highest
        at = _place(highest, key) if highest else 0
        chunk = self.chunks[at]
        chunk.insert(_place(chunk, key), key)
        if len(chunk) > CHUNK_KEYS:
            self._split(at)

    def _split(self, at: int) -> None:
        chunk = self.chunks[at]
        half = len(chunk) // 2
        self.chunks[at : at + 1] = [chunk[:half], chunk[half:]]
        self.highest.insert(at, chunk[half - 1])

    def _drop_chunk(self, at: int) -> None:
        if len(self.chunks) == 1:
            return
        del self.chunks[at]
        del self.highest[min(at, len(self.highest) - 1)]


def _place(keys: list[int], key: int) -> int:
    """`bisect_left`, which compiled code would pay more to call than to run."""
    low: i64 = 0
    high: i64 = len(keys)
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


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

    def facing(self, order: BookOrder) -> BookSide:
        """The side that the order trades with."""
        return self.asks if order.sign > 0 else self.bids

    def add(self, order: BookOrder) -> None:
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
        level.total += order.remaining - order.hidden
        level.count += 1

    def remove(self, order: BookOrder) -> None:
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
        level.total -= order.remaining - order.hidden
        level.count -= 1
        if level.count == 0:
            (self.bids if order.sign > 0 else self.asks).drop(level)

    def fill(self, order: BookOrder, lots: int) -> None:
        """Count `lots` of a waiting order as traded; a finished order leaves."""
        level = order.level
        if level is None or not 0 < lots <= order.remaining - order.hidden:
            check(False, "book: a fill beyond what rests")
            return
        order.remaining -= lots
        level.total -= lots
        if not order.remaining:
            self.remove(order)

    def refresh(self, order: BookOrder, shown: int) -> None:
        """Show `shown` more lots of an iceberg whose part has traded, behind all orders of the same price."""
        self.remove(order)
        order.hidden = order.remaining - shown
        self.add(order)

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
