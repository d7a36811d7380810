"""The engine's matching against a naive model on random streams: the same fills, in the same order."""

import pytest
from engine_world import BUY, FOK, GTC, IOC, SELL, World, market, of_type
from hypothesis import given
from hypothesis import strategies as st
from naive_book import NaiveBook

from sequencer.engine.events import OrderAccepted, Trade

TIFS = {"GTC": GTC, "IOC": IOC, "FOK": FOK}

STEP = st.tuples(
    st.integers(0, 3),  # account
    st.sampled_from((1, -1)),
    st.integers(10, 60),  # size
    st.integers(-4, 4),  # ticks from the mark
    st.sampled_from(("GTC", "GTC", "GTC", "IOC", "FOK", "amend", "amend", "cancel")),
    st.booleans(),  # post-only
    st.integers(0, 3),  # reduce-only when 0
    st.integers(0, 30),  # which order to amend or cancel
    st.integers(1, 12),  # parts of an iceberg; none above 6
)


class Both:
    """The same stream for the engine and for the model."""

    def __init__(self):
        self.world = World(market(0, min_notional=0), settle=False)
        self.accounts = [self.world.trader(10 + number, 10**7) for number in range(4)]
        self.model = NaiveBook()
        self.numbers = {}  # order hash -> number
        self.slots = {}  # number -> (account index, slot, side, reduce-only)
        self.fills = []

    def step(self, who, side, size, offset, verb, post_only, reduce, pick, parts):
        waiting = sorted(order["number"] for order in self.model.orders)
        if verb in ("amend", "cancel") and not waiting:
            verb = "GTC"
        reduce_only = reduce == 0
        display = -(-size // parts) if parts <= 6 and verb in ("GTC", "amend") else 0
        if verb == "cancel":
            self.cancel(waiting[pick % len(waiting)])
        elif verb == "amend":
            old = waiting[pick % len(waiting)]
            who, slot, side, reduce_only = self.slots[old]
            fields = {"slot": slot, "amend": True, "display_size": display}
            self.place(who, side, size, offset, "GTC", post_only, reduce_only, fields, old)
        else:
            post_only = post_only and verb == "GTC"
            self.place(who, side, size, offset, verb, post_only, reduce_only, {"display_size": display}, None)

    def cancel(self, number):
        who, slot, _, _ = self.slots[number]
        self.world.cancel(self.accounts[who], slot)
        assert self.model.cancel(number)

    def place(self, who, side, size, offset, tif, post_only, reduce_only, fields, old):
        events = self.world.order(
            self.accounts[who],
            BUY if side == 1 else SELL,
            size,
            10_000 + offset,
            TIFS[tif],
            post_only=post_only,
            reduce_only=reduce_only,
            **fields,
        )
        command, _ = self.world.log[-1]
        number = self.world.state.sequence
        self.numbers[command.order_hash] = number
        self.slots[number] = (who, command.order.slot, side, reduce_only)
        display = fields["display_size"]
        taken = self.model.place(
            number, who, side, size, 10_000 + offset, tif, post_only, reduce_only, old, display
        )
        assert bool(of_type(events, OrderAccepted)) == taken, events
        for trade in of_type(events, Trade):
            makers, takers = self.numbers[trade.maker_hash], self.numbers[trade.taker_hash]
            self.fills.append((makers, takers, trade.price, trade.size))
        assert self.fills == self.model.fills
        self.compare_books()

    def compare_books(self):
        book = self.world.state.markets[0].book
        ours = [
            (self.numbers[order.order_hash], order.remaining, order.shown)
            for side in (book.bids, book.asks)
            for level in side.best_first()
            for order in level.orders()
        ]
        theirs = [
            (order["number"], order["size"] - order["filled"], order["shown"])
            for side in (1, -1)
            for order in sorted(
                (order for order in self.model.orders if order["side"] == side),
                key=lambda order: (-order["side"] * order["price"], order["arrival"]),
            )
        ]
        assert ours == theirs


@pytest.mark.safety("G17", "sequencer")
@given(st.lists(STEP, min_size=1, max_size=60))
def test_fills_are_those_of_the_naive_model(steps):
    """Price-time priority, IOC, FOK, post-only, reduce-only, amend and self-trade rules agree fill by
    fill."""
    both = Both()
    for step in steps:
        both.step(*step)
