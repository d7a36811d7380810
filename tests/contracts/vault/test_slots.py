"""Slot and sequence: replay protection, replacement, amendment and cancellation are one mechanism."""

import pytest
from builders import Exchange, Party, refused, send

from evermark.protocol.orders import Side, Trigger

PRICE = 600_000


def sell(batch, maker: Party, sequence: int, size: int = 10, **more):
    return batch.order(maker, Side.SELL, size, PRICE, slot=more.pop("slot", 1), sequence=sequence, **more)


def fill(exchange: Exchange, taker: Party, size: int, *orders, again: tuple = ()) -> None:
    """One batch that fills each of the maker orders with `size`; orders are callables on the batch."""
    batch = exchange.batch()
    rows = [make(batch) for make in orders] + [batch.again(row) for row in again]
    for row in rows:
        batch.fill(row, batch.order(taker, Side.BUY, size, PRICE), size)
    batch.settle()


@pytest.mark.safety("D05", "contract")
def test_a_taker_order_fills_in_one_batch_only(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Slot 0 keeps only its sequence: the rest of a taker order cannot settle later, an older order never."""
    first = exchange.batch()
    resting = first.order(maker, Side.SELL, 100, PRICE, slot=1)
    older = exchange.sequence()
    taking = first.order(taker, Side.BUY, 10, PRICE)
    first.fill(resting, taking, 4)
    first.fill(resting, taking, 5)
    first.settle()
    assert exchange.vault.account(taker.account).taker_sequence == taking.order.sequence
    second = exchange.batch()
    second.fill(second.again(resting), second.again(taking), 1)
    with refused("vault: taker sequence too low"):
        second.settle()
    third = exchange.batch()
    third.fill(third.again(resting), third.order(taker, Side.BUY, 1, PRICE, sequence=older), 1)
    with refused("vault: taker sequence too low"):
        third.settle()


def test_a_newer_taker_order_ends_the_older_one(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Within a batch, once a later slot-0 order was used, the earlier one fills no more."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 100, PRICE, slot=1)
    first, second = (batch.order(taker, Side.BUY, 10, PRICE) for _ in range(2))
    batch.fill(resting, first, 1)
    batch.fill(resting, second, 1)
    batch.fill(resting, first, 1)
    with refused("vault: order replaced"):
        batch.settle()


@pytest.mark.safety("D07", "contract")
def test_a_higher_sequence_replaces_for_good(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Using a slot's newer order voids the older signature, in this batch and in all later ones."""
    old = exchange.sequence()
    new = exchange.sequence()
    batch = exchange.batch()
    older = sell(batch, maker, old)
    batch.fill(older, batch.order(taker, Side.BUY, 4, PRICE), 4)
    batch.settle()
    fill(exchange, taker, 6, lambda batch: sell(batch, maker, new))
    state = exchange.vault.slot(maker.account, 1)
    assert (state.sequence, state.filled) == (new, 6)
    with refused("vault: slot sequence too low"):
        fill(exchange, taker, 1, again=(older,))
    batch = exchange.batch()
    first = sell(batch, maker, exchange.sequence(), slot=2)
    second = sell(batch, maker, exchange.sequence(), slot=2)
    batch.fill(second, batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.fill(first, batch.order(taker, Side.BUY, 1, PRICE), 1)
    with refused("vault: slot sequence too low"):
        batch.settle()


def test_amend_carries_what_was_filled(exchange: Exchange, maker: Party, taker: Party) -> None:
    """An amended order's size is the total: 7 filled of 10, amended to 12, leaves 5."""
    fill(exchange, taker, 7, lambda batch: sell(batch, maker, exchange.sequence()))
    amended = exchange.sequence()
    with refused("vault: order overfilled"):
        fill(exchange, taker, 6, lambda batch: sell(batch, maker, amended, size=12, amend=True))
    fill(exchange, taker, 5, lambda batch: sell(batch, maker, amended, size=12, amend=True))
    assert exchange.vault.slot(maker.account, 1).filled == 12


def test_two_slots_share_a_word(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Slots 2 and 3 live in one storage word and do not disturb each other."""
    two, three = exchange.sequence(), exchange.sequence()
    fill(
        exchange,
        taker,
        3,
        lambda batch: sell(batch, maker, two, slot=2),
        lambda batch: sell(batch, maker, three, slot=3),
    )
    fill(exchange, taker, 4, lambda batch: sell(batch, maker, three, slot=3))
    assert exchange.vault.slot(maker.account, 2) == (two, 3, False)
    assert exchange.vault.slot(maker.account, 3) == (three, 7, False)
    assert exchange.vault.slot(maker.account, 65_535) == (0, 0, False)


def test_the_last_slot_works(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Slot 65535 is a slot like others."""
    sequence = exchange.sequence()
    fill(exchange, taker, 3, lambda batch: sell(batch, maker, sequence, slot=65_535))
    assert exchange.vault.slot(maker.account, 65_535) == (sequence, 3, False)


def test_sequences_reach_at_most_a_day_ahead(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A sequence is milliseconds; one beyond the round's time plus a day would block the slot, so it is refused."""
    latest = (exchange.clock + 86_400) * 1000
    with refused("vault: sequence too far ahead"):
        fill(exchange, taker, 1, lambda batch: sell(batch, maker, latest + 1))
    fill(exchange, taker, 1, lambda batch: sell(batch, maker, latest))


def test_an_order_expires(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Expiry is inclusive, by the round's time."""
    with refused("vault: order expired"):
        fill(
            exchange,
            taker,
            1,
            lambda batch: sell(batch, maker, exchange.sequence(), expiry=exchange.clock - 1),
        )
    fill(exchange, taker, 1, lambda batch: sell(batch, maker, exchange.sequence(), expiry=exchange.clock))


def test_a_mark_trigger_waits_for_its_operation(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Until an operation sets the slot's triggered bit, an order with a mark trigger cannot fill; a last-price one can."""
    for trigger in (Trigger.MARK_ABOVE, Trigger.MARK_BELOW):
        with refused("vault: order not triggered"):
            fill(
                exchange,
                taker,
                1,
                lambda batch, trigger=trigger: sell(
                    batch, maker, exchange.sequence(), trigger=trigger, trigger_price=PRICE
                ),
            )
    for trigger in (Trigger.LAST_ABOVE, Trigger.LAST_BELOW):
        fill(
            exchange,
            taker,
            1,
            lambda batch, trigger=trigger: sell(
                batch, maker, exchange.sequence(), trigger=trigger, trigger_price=5
            ),
        )


def test_a_zero_sequence_is_void(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Sequence 0 is at or below every account's minimum."""
    batch = exchange.batch()
    row = sell(batch, maker, 1)
    batch.fill(row, batch.order(taker, Side.BUY, 1, PRICE), 1)
    price = PRICE.to_bytes(4, "big")
    data = batch.data().replace((1).to_bytes(6, "big") + price, bytes(6) + price)
    with refused("vault: order voided"):
        send(exchange, data)
