"""Batches of anybody: overdue inbox entries and funding hours, at the newest round of both lanes, and nothing else."""

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Builder, Exchange, Party, events, refused, send, signer

from evermark.protocol import oracle
from evermark.protocol.orders import Side

PRICE = 600_000
HOUR_S = 3_600
ANYBODY = "0x" + "42" * 20


def wallet(party: Party) -> Address:
    return Address(party.signer.address)


def by_anybody(exchange: Exchange, *accounts: int, **header) -> Builder:
    """A batch that consumes an entry of each of these accounts and speaks for no journal."""
    batch = exchange.batch(**{"journal_sequence": 0, "journal_hash": bytes(32)} | header)
    for account in accounts:
        batch.inbox(account)
    return batch


def settle_by_anybody(exchange: Exchange, batch: Builder):
    return send(exchange, batch.data(), ANYBODY)


def overdue_withdrawal(exchange: Exchange, party: Party, amount: int = 5 * USDC) -> None:
    """A withdrawal an hour and a second ago, and a fresh round."""
    exchange.inbox.request_withdrawal(0, amount, sender=wallet(party))
    exchange.round(seconds=HOUR_S + 10)


@pytest.mark.safety("E11", "contract")
def test_anybody_executes_an_overdue_entry(exchange: Exchange, maker: Party) -> None:
    """When the sequencer did not for an hour, the owner or a stranger does, and earns the bond; then the sequencer goes on."""
    overdue_withdrawal(exchange, maker)
    computation = settle_by_anybody(exchange, by_anybody(exchange, maker.account))
    (claim,) = events(exchange, computation, "ClaimCreated")
    assert (claim.account, claim.amount) == (maker.account, 5 * USDC)
    (settled,) = events(exchange, computation, "BatchSettled")
    assert (settled.journal_sequence, settled.journal_hash) == (0, bytes(32))
    exchange.vault.pay(claim.claim)
    assert exchange.token.balanceOf(wallet(maker)) == 5 * USDC
    exchange.deposit(60, 50 * USDC)


def test_an_entry_is_not_overdue_before_its_hour(exchange: Exchange, maker: Party) -> None:
    """To the second; and an overdue head does not carry a later entry with it."""
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(maker))
    exchange.round(seconds=HOUR_S)
    with refused("vault: entry is not overdue"):
        settle_by_anybody(exchange, by_anybody(exchange, maker.account))
    boa.env.timestamp += 1
    exchange.inbox.request_cancel(0, 1, 7, sender=wallet(maker))
    with refused("vault: entry is not overdue"):
        settle_by_anybody(exchange, by_anybody(exchange, maker.account, maker.account))
    settle_by_anybody(exchange, by_anybody(exchange, maker.account))


@pytest.mark.safety("F02", "contract")
def test_anybody_settles_nothing_else(exchange: Exchange, maker: Party, taker: Party) -> None:
    """No orders, signed actions or withdrawals ride along, with or without an overdue entry."""
    with refused("vault: not the sequencer"):
        settle_by_anybody(exchange, by_anybody(exchange))
    overdue_withdrawal(exchange, maker)

    def with_trade(batch: Builder) -> None:
        batch.trade(maker, taker, Side.BUY, 1, PRICE)

    for extra in (
        with_trade,
        lambda batch: batch.order(taker, Side.BUY, 1, PRICE),
        lambda batch: batch.cancel(maker, sequence=exchange.sequence()),
        lambda batch: batch.withdraw(taker, USDC),
    ):
        batch = by_anybody(exchange, maker.account)
        extra(batch)
        with refused("vault: not only overdue work"):
            settle_by_anybody(exchange, batch)
    alone = by_anybody(exchange)
    with_trade(alone)
    with refused("vault: not only overdue work"):
        settle_by_anybody(exchange, alone)
    data = by_anybody(exchange, maker.account).data()
    for longer in (data + b"\0", data[:-1] + b"\1"):
        with refused("vault: not only overdue work"):
            send(exchange, longer, ANYBODY)
    settle_by_anybody(exchange, by_anybody(exchange, maker.account))


def test_anybody_speaks_for_no_journal(exchange: Exchange, maker: Party) -> None:
    """The event's journal head would be a lie; the id must be the next one, as ever."""
    overdue_withdrawal(exchange, maker)
    for header in ({"journal_sequence": 1}, {"journal_hash": b"\1" * 32}):
        with refused("vault: speaks for a journal"):
            settle_by_anybody(exchange, by_anybody(exchange, maker.account, **header))
    next_id = exchange.vault.totals().batch_id + 1
    for batch_id in (next_id - 1, next_id + 1):
        with refused("vault: batch id not next"):
            settle_by_anybody(exchange, by_anybody(exchange, maker.account, batch_id=batch_id))


@pytest.mark.safety("A11", "contract")
def test_anybody_pins_the_newest_round_of_both_lanes(exchange: Exchange, maker: Party) -> None:
    """Not an older one that suits, whichever lane it is in; the sequencer goes on to pin its own lane."""
    overdue_withdrawal(exchange, maker)
    older = exchange.pinned
    exchange.round()
    stale = by_anybody(exchange, maker.account, round=older.round, prices_hash=oracle.prices_hash(older))
    with refused("vault: not the newest round"):
        settle_by_anybody(exchange, stale)
    in_sequencer_lane = by_anybody(exchange, maker.account)
    data = in_sequencer_lane.data()
    public = exchange.post_public({0: PRICE + 1})
    with refused("vault: not the newest round"):
        send(exchange, data, ANYBODY)
    pinned = by_anybody(exchange, maker.account, round=public.round, prices_hash=oracle.prices_hash(public))
    settle_by_anybody(exchange, pinned)
    with refused("oracle: no such round"):
        exchange.batch(round=public.round, prices_hash=oracle.prices_hash(public)).settle()
    exchange.deposit(60, 50 * USDC)


@pytest.mark.safety("A01", "contract")
def test_a_stale_price_stops_anybody_too(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The entry stays at the head and its clock runs: after a day anyone may freeze."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(taker))
    exchange.round(seconds=HOUR_S + 10, abstain=[0])
    with refused("vault: stale price"):
        settle_by_anybody(exchange, by_anybody(exchange, taker.account))
    boa.env.timestamp += 24 * HOUR_S
    exchange.exit.freeze(sender=ANYBODY)


# -------------------------------------------------------------------------------------------------------- funding hours


def post_next_hour(exchange: Exchange, rate: int) -> int:
    """Moves to just after the running hour and posts its rates."""
    hour = exchange.clock // HOUR_S
    exchange.round(seconds=HOUR_S - exchange.clock % HOUR_S + 10)
    exchange.post_funding(hour, {0: rate})
    return hour


def hours_by_anybody(exchange: Exchange, *hours: int, markets=range(4)):
    batch = by_anybody(exchange)
    batch.hours, batch.markets = list(hours), set(markets)
    return settle_by_anybody(exchange, batch)


@pytest.mark.safety("C04", "contract")
def test_anybody_applies_an_overdue_hour(exchange: Exchange) -> None:
    """Once an hour has passed since its end, to all markets, and no posted hour before it is skipped."""
    first = post_next_hour(exchange, 5)
    with refused("vault: hour is not overdue"):
        hours_by_anybody(exchange, first)
    second = post_next_hour(exchange, 7)
    with refused("vault: hour of some markets only"):
        hours_by_anybody(exchange, first, markets=(0,))
    with refused("vault: hour is not overdue"):
        hours_by_anybody(exchange, first, second)
    exchange.round(seconds=HOUR_S - exchange.clock % HOUR_S)
    with refused("vault: hour is not overdue"):
        hours_by_anybody(exchange, first, second)
    boa.env.timestamp += 1
    with refused("vault: funding hour not next"):
        hours_by_anybody(exchange, second)
    applied = events(exchange, hours_by_anybody(exchange, first, second), "FundingApplied")
    assert [(event.market, event.hour) for event in applied] == [
        (market, hour) for hour in (first, second) for market in range(4)
    ]
    with refused("vault: funding hour not next"):
        hours_by_anybody(exchange, second)


def test_an_hour_posted_too_late_is_missed(exchange: Exchange) -> None:
    """It pays nothing, and it does not hold up the next one; the last second for it is an hour after its end."""
    hour = exchange.clock // HOUR_S
    exchange.round(seconds=2 * HOUR_S - exchange.clock % HOUR_S)
    with boa.env.anchor():
        exchange.post_funding(hour, {0: 5})
        boa.env.timestamp += 1
        hours_by_anybody(exchange, hour)
    boa.env.timestamp += 1
    exchange.post_funding(hour, {0: 5})
    exchange.post_funding(hour + 1, {0: 7})
    exchange.round(seconds=HOUR_S + 10)
    with refused("vault: funding hour was missed"):
        hours_by_anybody(exchange, hour)
    hours_by_anybody(exchange, hour + 1)


@pytest.mark.parametrize("hours_between", [23, 24])
def test_a_day_of_hours_is_looked_back_on(exchange: Exchange, hours_between: int) -> None:
    """An hour that was posted in time is applied before any of the 24 after it; what lies further back holds up nothing."""
    first = post_next_hour(exchange, 5)
    exchange.round(seconds=hours_between * HOUR_S)
    later = post_next_hour(exchange, 7)
    assert later == first + 1 + hours_between
    exchange.round(seconds=HOUR_S)
    if hours_between == 24:
        hours_by_anybody(exchange, later)
        return
    with refused("vault: funding hour not next"):
        hours_by_anybody(exchange, later)
    hours_by_anybody(exchange, first, later)


def test_an_entry_and_an_hour_fit_one_batch(exchange: Exchange, maker: Party) -> None:
    """Whatever is overdue may go together."""
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(maker))
    hour = post_next_hour(exchange, 5)
    exchange.round(seconds=HOUR_S)
    batch = by_anybody(exchange, maker.account)
    batch.hours, batch.markets = [hour], set(range(4))
    computation = settle_by_anybody(exchange, batch)
    assert len(events(exchange, computation, "FundingApplied")) == 4
    assert len(events(exchange, computation, "ClaimCreated")) == 1


@pytest.mark.safety("E13", "contract")
def test_whoever_executes_earns_the_bond() -> None:
    """The stranger's, not the sequencer's."""
    with boa.env.anchor():
        exchange = Exchange(bond_gas_price=1)
        exchange.round({0: PRICE, 1: 250_000, 2: 15_000, 3: 30_000})
        owner = exchange.fund_wallet(signer(1), 50 * USDC)
        boa.env.set_balance(owner, 10**18)
        exchange.inbox.deposit(50 * USDC, 0, sender=owner, value=exchange.inbox.bond(1))
        exchange.round(seconds=610)
        settle_by_anybody(exchange, by_anybody(exchange, 3))
        assert exchange.vault.account(3).collateral == 50 * USDC
        assert exchange.inbox.bonds(ANYBODY) == exchange.inbox.bond(1)
        assert exchange.inbox.bonds(exchange.sequencer) == 0
