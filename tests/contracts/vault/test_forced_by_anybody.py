"""Batches of anybody for entries that ask for fills: overdue closes, and overdue liquidations of accounts that a keeper names."""

from typing import Any

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Builder, Exchange, Party, Refused, events, refused
from test_forced_close import ENTRY, SIZE, ask, trade, wallet
from test_overdue import ANYBODY, HOUR_S, by_anybody, settle_by_anybody

from evermark.protocol.orders import Side

ABOVE_TWO_THIRDS, DEPOSIT_WAITS = 7, 8
BELOW_TWO_THIRDS = 574_500
KEEPER = "0x" + "43" * 20


@pytest.fixture
def long(exchange: Exchange, maker: Party, taker: Party) -> Party:
    """The taker, long 1,000 lots of BTC against the maker."""
    trade(exchange, maker, taker)
    return taker


@pytest.fixture
def target(exchange: Exchange, maker: Party) -> Party:
    """A trader with 1,000 USDC, long about 19,800 USDC of BTC against the maker."""
    party = exchange.deposit(20, 1_000 * USDC)
    trade(exchange, maker, party, Side.BUY, 33_000)
    return party


def part(exchange: Exchange, closer: Party, other: Party, size: int) -> Builder:
    batch = by_anybody(exchange)
    batch.force(closer.account, 0, other.account, size)
    return batch


@pytest.mark.safety("E11", "contract")
def test_anybody_closes_what_the_sequencer_did_not(exchange: Exchange, long: Party, maker: Party) -> None:
    """After the hour, in parts, and then the entry itself; before it nothing. Then the owner withdraws, and the
    sequencer goes on."""
    ask(exchange, long)
    exchange.round(seconds=HOUR_S)
    with refused("vault: entry is not overdue"):
        settle_by_anybody(exchange, part(exchange, long, maker, 400))
    exchange.round()
    settle_by_anybody(exchange, part(exchange, long, maker, 400))
    with refused("vault: not closed yet"):
        settle_by_anybody(exchange, by_anybody(exchange, long.account))
    settle_by_anybody(exchange, part(exchange, long, maker, SIZE - 400))
    settle_by_anybody(exchange, by_anybody(exchange, long.account))
    assert exchange.vault.account(long.account).open_positions == 0
    exchange.inbox.request_withdrawal(0, 10**6 * USDC, sender=wallet(long))
    exchange.round(seconds=HOUR_S + 10)
    collateral = exchange.vault.account(long.account).collateral
    settle_by_anybody(exchange, by_anybody(exchange, long.account))
    assert exchange.vault.account(long.account).collateral == 0
    exchange.vault.pay(exchange.vault.totals().claims)
    assert exchange.token.balanceOf(wallet(long)) == collateral
    exchange.deposit(60, 50 * USDC)


def test_an_entry_before_the_close_goes_along(exchange: Exchange, long: Party, maker: Party) -> None:
    """Entries up to the close, and fills for it: one batch. Both must be overdue."""
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(maker))
    exchange.round(seconds=300)
    ask(exchange, long)
    exchange.round(seconds=HOUR_S - 100)
    batch = by_anybody(exchange, maker.account)
    batch.force(long.account, 0, maker.account, 10)
    with refused("vault: entry is not overdue"):
        settle_by_anybody(exchange, batch)
    exchange.round(seconds=200)
    batch = by_anybody(exchange, maker.account)
    batch.force(long.account, 0, maker.account, 10)
    computation = settle_by_anybody(exchange, batch)
    assert len(events(exchange, computation, "ClaimCreated")) == 1
    assert len(events(exchange, computation, "ForcedClose")) == 1


@pytest.mark.safety("F02", "contract")
def test_a_strangers_fills_are_those_that_the_entry_asks_for(
    exchange: Exchange, long: Party, maker: Party, keeper: Party, target: Party
) -> None:
    """No fill without an entry; no order, book, fund or liquidation fill beside a close; nobody else's position, and no more
    than was asked."""
    empty = by_anybody(exchange)
    empty.force(long.account, 0, maker.account, 10)
    with pytest.raises(Refused):
        settle_by_anybody(exchange, empty)
    ask(exchange, long, 50)
    exchange.round(seconds=HOUR_S + 10)

    def liquidation(batch: Builder) -> None:
        batch.liquidate(long.account, 0, batch.order(keeper, Side.BUY, 10, ENTRY, slot=2), 10)

    def on_book(batch: Builder) -> None:
        batch.force_on_book(long.account, 0, batch.order(keeper, Side.BUY, 10, ENTRY, slot=2), 10)

    for wrong in (
        liquidation,
        on_book,
        lambda batch: batch.take_over(long.account, 0, 10),
        lambda batch: batch.deleverage(long.account, 0, maker.account, 10),
        lambda batch: batch.take_over(target.account, 0, 10),
        lambda batch: batch.settle_in_cash(long.account, 0, maker.account, 10),
    ):
        batch = part(exchange, long, maker, 10)
        wrong(batch)
        with refused("vault: not only overdue work"):
            settle_by_anybody(exchange, batch)
    for closer, size, why in (
        (target, 10, "vault: head asks for no close"),
        (long, 51, "vault: more than asked for"),
    ):
        with refused(why):
            settle_by_anybody(exchange, part(exchange, closer, maker, size))
    with refused("vault: speaks for a journal"):
        batch = by_anybody(exchange, journal_sequence=1)
        batch.force(long.account, 0, maker.account, 10)
        settle_by_anybody(exchange, batch)
    data = part(exchange, long, maker, 10).data()
    for other in (data + b"\0", data[:-1], data[:-1] + b"\1"):
        with pytest.raises(Refused):
            send_by_anybody(exchange, other)
    settle_by_anybody(exchange, part(exchange, long, maker, 50))


def send_by_anybody(exchange: Exchange, data: bytes) -> None:
    computation = boa.env.execute_code(to_address=exchange.vault.address, sender=ANYBODY, data=data)
    if computation.is_error:
        raise Refused("")


# ------------------------------------------------------------------------------------------------------------ liquidation


def name(exchange: Exchange, target: Party) -> Any:
    return exchange.inbox.request_liquidation(target.account, sender=KEEPER)


def leave(exchange: Exchange, target: Party) -> Any:
    batch = exchange.batch()
    batch.inbox(target.account)
    return batch.settle()


@pytest.mark.safety("B09", "contract")
@pytest.mark.safety("E11", "contract")
def test_anybody_liquidates_whom_an_overdue_entry_names(
    exchange: Exchange, target: Party, maker: Party, keeper: Party
) -> None:
    """By take-over, paid as a keeper; not the account of another, not before the hour; then the entry leaves."""
    exchange.round({0: BELOW_TWO_THIRDS})
    name(exchange, target)
    exchange.round(seconds=HOUR_S)

    def over(account: int, size: int) -> Builder:
        batch = by_anybody(exchange)
        batch.take_over(account, 0, size, keeper.account)
        return batch

    with refused("vault: entry is not overdue"):
        settle_by_anybody(exchange, over(target.account, 33_000))
    exchange.round()
    with refused("vault: not only overdue work"):
        settle_by_anybody(exchange, over(maker.account, 10))
    for wrong in ("force", "settle_in_cash"):
        batch = by_anybody(exchange)
        getattr(batch, wrong)(target.account, 0, maker.account, 10)
        with refused("vault: not only overdue work"):
            settle_by_anybody(exchange, batch)
    with refused("vault: not liquidated yet"):
        settle_by_anybody(exchange, by_anybody(exchange, target.account))
    before = exchange.vault.account(keeper.account).collateral
    settle_by_anybody(exchange, over(target.account, 33_000))
    assert exchange.vault.account(keeper.account).collateral > before
    (skipped,) = events(
        exchange, settle_by_anybody(exchange, by_anybody(exchange, target.account)), "EntrySkipped"
    )
    assert skipped.reason == ABOVE_TWO_THIRDS


def test_anybody_deleverages_whom_an_overdue_entry_names(
    exchange: Exchange, target: Party, maker: Party
) -> None:
    """Where the fund cannot take it."""
    word = exchange.vault.word(1 << 39) & ~((2**64 - 1) << 152)
    exchange.vault.write(1 << 39, word, sender=exchange.backstop.address)  # a fund that may hold nothing
    exchange.round({0: BELOW_TWO_THIRDS})
    name(exchange, target)
    exchange.round(seconds=HOUR_S + 10)
    batch = by_anybody(exchange)
    batch.deleverage(target.account, 0, maker.account, 33_000)
    (told,) = events(exchange, settle_by_anybody(exchange, batch), "Deleveraged")
    assert told.account == maker.account
    settle_by_anybody(exchange, by_anybody(exchange, target.account))


def test_a_liquidation_leaves_when_there_is_none(exchange: Exchange, target: Party) -> None:
    """Healthy, or between two thirds and maintenance, or without a position: consumed with its reason, whoever named it."""
    for mark in (ENTRY, 576_500):
        exchange.round({0: mark})
        name(exchange, target)
        (skipped,) = events(exchange, leave(exchange, target), "EntrySkipped")
        assert skipped.reason == ABOVE_TWO_THIRDS
    flat = exchange.parties[5]
    name(exchange, flat)
    (skipped,) = events(exchange, leave(exchange, flat), "EntrySkipped")
    assert skipped.reason == ABOVE_TWO_THIRDS


def test_a_deposit_that_waits_behind_lets_the_entry_go(
    exchange: Exchange, target: Party, maker: Party
) -> None:
    """It would protect its owner from liquidation while the entry held it up: neither could move."""
    exchange.round({0: BELOW_TWO_THIRDS})
    name(exchange, target)
    exchange.inbox.deposit(50 * USDC, 0, sender=exchange.fund_wallet(target.signer, 50 * USDC))
    exchange.round(seconds=600)
    with refused("vault: not liquidated yet"):
        leave(exchange, target)
    exchange.round(seconds=10)
    with refused("vault: a deposit waits"):
        batch = exchange.batch()
        batch.take_over(target.account, 0, 10)
        batch.settle()
    (skipped,) = events(exchange, leave(exchange, target), "EntrySkipped")
    assert skipped.reason == DEPOSIT_WAITS
    leave(exchange, target)  # the deposit


def test_a_stale_price_keeps_a_liquidation(exchange: Exchange, target: Party) -> None:
    """It waits at the head for a price."""
    exchange.round({0: BELOW_TWO_THIRDS})
    name(exchange, target)
    exchange.round(seconds=600, abstain=[0])
    with refused("vault: stale price"):
        leave(exchange, target)


def test_whom_a_keeper_may_name(exchange: Exchange, target: Party, maker: Party) -> None:
    """A user's account that exists, one at a time; the keeper needs no account."""
    for account in (0, 1, 2, exchange.vault.totals().accounts + 1, 2**32, 2**200):
        with boa.reverts("inbox: unknown account"):
            exchange.inbox.request_liquidation(account, sender=KEEPER)
    name(exchange, target)
    with boa.reverts("inbox: one of this kind is open"):
        name(exchange, maker)
    assert exchange.inbox.request_liquidation(maker.account, sender=Address(b"\x44" * 20))
    assert exchange.inbox.entry(exchange.inbox.head()).data == target.account
    batch = exchange.batch()
    batch.inbox(maker.account)
    with refused("vault: entry of another account"):
        batch.settle()
