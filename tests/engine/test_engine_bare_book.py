"""The book alone, as benchmarks run it, against the naive model: the same trades and the same orders left."""

import random

from naive_book import NaiveBook

from sequencer.engine.bare_book import BareBook

STEPS = 3_000


def test_a_bare_book_trades_as_the_naive_model():
    """Price-time priority, partial fills and cancels, without anything of an exchange around them."""
    chooser, book, model = random.Random(11), BareBook(), NaiveBook()
    for number in range(1, STEPS):
        pick, sign = chooser.random(), chooser.choice((1, -1))
        size, price = chooser.randint(1, 40), 10_000 + chooser.randint(-12, 12)
        if pick < 0.2 and model.orders:
            gone = chooser.choice(model.orders)["number"]
            assert book.cancel(gone)
            assert model.cancel(gone)
        elif pick < 0.4:
            book.immediate(number, sign, size, price)
            model.place(number, number, sign, size, price, "IOC", False, False, None)
        else:
            book.limit(number, sign, size, price)
            model.place(number, number, sign, size, price, "GTC", False, False, None)
    assert len(book.trades) > STEPS // 4
    assert book.trades == model.fills
    assert {number: order.remaining for number, order in book.waiting.items()} == {
        order["number"]: order["size"] - order["filled"] for order in model.orders
    }
    assert not book.cancel(STEPS + 1)
