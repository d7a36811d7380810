"""Section 3, trigger bits: a slot wakes when the pinned mark meets what its order's owner signed, and not before."""

import pytest
from builders import Exchange, Party, Row, events, refused, signer
from msgspec.structs import replace

from evermark.protocol.orders import Side, TimeInForce, Trigger

PRICE = 600_000


def stop(batch, party: Party, trigger: Trigger, price: int, slot: int = 4, **more) -> Row:
    """A selling order that waits for its trigger, at any limit."""
    return batch.order(
        party, Side.SELL, 1_000, PRICE - 6_000, slot=slot, trigger=trigger, trigger_price=price, **more
    )


def bit(exchange: Exchange, row: Row) -> bool:
    return exchange.vault.slot(row.account, row.order.slot).triggered


@pytest.mark.safety("F02", "contract")
@pytest.mark.parametrize(
    "trigger, price, met",
    [
        (Trigger.MARK_ABOVE, PRICE, True),
        (Trigger.MARK_ABOVE, PRICE + 1, False),
        (Trigger.MARK_BELOW, PRICE, True),
        (Trigger.MARK_BELOW, PRICE - 1, False),
    ],
)
def test_the_pinned_mark_decides(
    exchange: Exchange, maker: Party, taker: Party, trigger: Trigger, price: int, met: bool
) -> None:
    """At the signed price the bit is set and the order fills; one tick short both are refused, whoever settles."""
    batch = exchange.batch()
    row = stop(batch, taker, trigger, price)
    batch.fill(batch.order(maker, Side.BUY, 1_000, PRICE, slot=1), row, 1_000)
    with refused("vault: order not triggered"):
        batch.settle()
    batch.bits.append(row)
    if not met:
        with refused("vault: trigger not met"):
            batch.settle()
        return
    (event,) = events(exchange, batch.settle(), "OrderTriggered")
    assert (event.account, event.slot, event.mark) == (taker.account, 4, PRICE)
    assert bit(exchange, row)
    assert exchange.vault.position(taker.account, 0).size == -1_000


def test_a_bit_lasts_and_needs_no_fill(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Set alone in one batch, used in later ones at any mark; a second setting changes nothing."""
    batch = exchange.batch()
    row = stop(batch, taker, Trigger.MARK_BELOW, PRICE)
    batch.bits.append(row)
    batch.settle()
    assert bit(exchange, row)
    exchange.round({0: PRICE + 3_000})
    for size in (400, 600):
        batch = exchange.batch()
        again = batch.again(row)
        batch.fill(batch.order(maker, Side.BUY, size, PRICE + 3_000, slot=1), again, size)
        batch.settle()
    assert exchange.vault.slot(taker.account, 4).filled == 1_000
    exchange.round({0: PRICE})
    batch = exchange.batch()
    batch.bits.append(batch.again(row))
    batch.settle()
    assert tuple(exchange.vault.slot(taker.account, 4)) == (row.order.sequence, 1_000, True)


def test_a_newer_order_begins_without_the_bit(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A higher sequence takes the slot over: the bit is the older order's, which is void from then on."""
    batch = exchange.batch()
    old = stop(batch, taker, Trigger.MARK_BELOW, PRICE)
    batch.bits.append(old)
    batch.fill(batch.order(maker, Side.BUY, 300, PRICE, slot=1), old, 300)
    batch.settle()
    batch = exchange.batch()
    new = stop(batch, taker, Trigger.MARK_BELOW, PRICE - 10, amend=True)
    batch.fill(batch.order(maker, Side.BUY, 100, PRICE, slot=1), new, 100)
    with refused("vault: order not triggered"):
        batch.settle()
    exchange.round({0: PRICE - 10})
    batch = exchange.batch()
    batch.bits.append(batch.again(new))
    batch.settle()
    assert tuple(exchange.vault.slot(taker.account, 4)) == (new.order.sequence, 300, True)
    batch = exchange.batch()
    batch.bits.append(batch.again(old))
    with refused("vault: slot sequence too low"):
        batch.settle()
    batch = exchange.batch()
    fresh = stop(batch, taker, Trigger.MARK_BELOW, PRICE)
    batch.bits.append(fresh)
    batch.settle()
    assert tuple(exchange.vault.slot(taker.account, 4)) == (fresh.order.sequence, 0, True)


def test_both_halves_of_a_word_are_apart(exchange: Exchange, taker: Party) -> None:
    """Slots 4 and 5 share a storage word; a bit touches its own half only."""
    batch = exchange.batch()
    even = stop(batch, taker, Trigger.MARK_BELOW, PRICE, slot=4)
    batch.bits.append(even)
    batch.settle()
    batch = exchange.batch()
    odd = stop(batch, taker, Trigger.MARK_BELOW, PRICE, slot=5)
    batch.bits.append(odd)
    batch.settle()
    for row in (even, odd):
        assert tuple(exchange.vault.slot(taker.account, row.order.slot)) == (row.order.sequence, 0, True)


@pytest.mark.parametrize("trigger", [Trigger.NONE, Trigger.LAST_ABOVE, Trigger.LAST_BELOW])
def test_only_mark_triggers_have_a_bit(exchange: Exchange, taker: Party, trigger: Trigger) -> None:
    """Last prices are not seen here, and a plain order has no trigger at all."""
    for price in (PRICE, 0) if trigger is Trigger.NONE else (PRICE,):
        batch = exchange.batch()
        batch.bits.append(stop(batch, taker, trigger, price))
        with refused("vault: no mark trigger"):
            batch.settle()


def test_the_row_of_a_bit_names_a_pair_of_the_table(exchange: Exchange, taker: Party) -> None:
    """Beyond it there is no account whose slot could wake; at its last pair there is."""
    batch = exchange.batch()
    row = stop(batch, taker, Trigger.MARK_BELOW, PRICE)
    batch.bits.append(row)
    built = batch.build()
    for pair in (len(built.pairs), 65_535):
        batch.header["orders"] = (replace(built.orders[0], pair=pair),)
        with refused("vault: no such pair"):
            batch.settle()
    batch.header["orders"] = built.orders
    batch.settle()
    assert bit(exchange, row)


@pytest.mark.safety("F02", "contract")
def test_slot_0_has_no_bit_and_no_mark_trigger(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A mark trigger signed for slot 0 can never fill: there is nowhere to say that it was met."""
    batch = exchange.batch()
    row = batch.order(taker, Side.SELL, 10, PRICE, trigger=Trigger.MARK_BELOW, trigger_price=PRICE)
    batch.bits.append(row)
    with refused("vault: no mark trigger"):
        batch.settle()
    batch.bits.clear()
    batch.fill(batch.order(maker, Side.BUY, 10, PRICE, slot=1), row, 10)
    with refused("vault: order not triggered"):
        batch.settle()


@pytest.mark.safety("A01", "contract")
def test_a_stale_mark_wakes_nobody(exchange: Exchange, taker: Party) -> None:
    """Older than the market allows, it meets no condition; exactly as old it does."""
    batch = exchange.batch()
    row = stop(batch, taker, Trigger.MARK_BELOW, PRICE)
    oldest = exchange.markets[0].max_price_age_s
    for seconds, fresh in ((oldest, True), (10, False)):
        exchange.round(seconds=seconds, abstain=(0,))
        batch = exchange.batch()
        batch.bits.append(batch.again(row))
        if fresh:
            batch.settle()
            continue
        with refused("vault: stale price"):
            batch.settle()


@pytest.mark.safety("F02", "contract")
def test_a_forged_order_wakes_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The row's signature is verified though it has no fill; an expired one and a voided one are refused as well."""
    batch = exchange.batch()
    batch.bits.append(stop(batch, taker, Trigger.MARK_BELOW, PRICE, by=maker.signer))
    with refused("vault: not owner nor live agent"):
        batch.settle()
    batch = exchange.batch()
    batch.bits.append(stop(batch, taker, Trigger.MARK_BELOW, PRICE, expiry=exchange.clock - 1))
    with refused("vault: order expired"):
        batch.settle()
    batch = exchange.batch()
    batch.cancel(taker, all_slots=True, sequence=exchange.sequence())
    batch.settle()
    batch = exchange.batch()
    batch.bits.append(stop(batch, taker, Trigger.MARK_BELOW, PRICE, sequence=1))
    with refused("vault: order voided"):
        batch.settle()


def test_rows_ascend_and_exist(exchange: Exchange, taker: Party) -> None:
    """Each row at most once, in order; one beyond the table is refused. Rows of every length lie between."""
    batch = exchange.batch()
    rows = [
        stop(batch, taker, Trigger.MARK_BELOW, PRICE, slot=2),
        batch.order(taker, Side.SELL, 2**40, PRICE, slot=3, time_in_force=TimeInForce.GTC),
        stop(batch, taker, Trigger.MARK_BELOW, PRICE, slot=5),
        stop(batch, taker, Trigger.MARK_BELOW, PRICE, slot=7),
    ]
    for order in ((2, 0), (0, 0)):
        batch.bits = [rows[index] for index in order]
        with refused("vault: trigger rows out of order"):
            batch.settle()
    batch.bits = [rows[3]]
    batch.build()
    rows[3].index = 4
    batch.bits = [Row(signer(1), rows[3].order, 0, 0, 0, rows[3].signature, 4)]
    with refused("vault: trigger rows out of order"):
        batch.settle()
    batch.bits = [rows[0], rows[2], rows[3]]
    batch.settle()
    assert [bit(exchange, row) for row in rows] == [True, False, True, True]
