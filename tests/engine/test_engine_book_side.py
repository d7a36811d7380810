"""One side of a book against a plain sorted list: prices come and go anywhere, over many chunks."""

import random

import pytest

from evermark.protocol.orders import Side
from sequencer.engine.order_book import CHUNK_KEYS, BookSide

STEPS = 12_000


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize("place", ["anywhere", "better", "worse"])
def test_a_side_orders_its_prices_however_they_come(side, place):
    """Best first, whatever order the levels came and went in; the last one leaves nothing behind."""
    chooser = random.Random(f"{side.name} {place}")
    book, prices, chunks = BookSide(side), set(), 0
    for step in range(STEPS):
        grows = chooser.random() < (0.7 if step < STEPS // 2 else 0.3)
        if grows or not prices:
            far = {
                "anywhere": chooser.randrange(1, 10**6),
                "better": 10**6 + side.sign * step,
                "worse": 10**6 - side.sign * step,
            }
            price = far[place]
            assert book.level_at(price) is book.level_at(price)
            prices.add(price)
        else:
            price = chooser.choice(tuple(prices)) if step % 100 == 0 else _best(book)
            book.drop(book.levels[price])
            prices.remove(price)
        chunks = max(chunks, len(book.chunks))
        assert (
            _best(book) == (max(prices) if side is Side.BUY else min(prices))
            if prices
            else book.best() is None
        )
        if step % 1_000 == 0:
            _compare(book, prices)
    assert chunks > 2
    for price in sorted(prices):
        book.drop(book.levels[price])
    assert book.best() is None
    assert book.chunks == [[]]
    assert not book.highest


def _best(book):
    best = book.best()
    return None if best is None else best.price


def _compare(book, prices):
    assert [level.price for level in book.best_first()] == sorted(prices, reverse=book.sign > 0)
    assert [chunk[-1] for chunk in book.chunks[:-1]] == book.highest
    assert all(len(chunk) <= CHUNK_KEYS for chunk in book.chunks)
