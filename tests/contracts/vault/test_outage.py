"""After an outage of the chain: for an hour nobody is closed out, positions keep their collateral, and margin may be added."""

from pathlib import Path

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, refused

from evermark.protocol.orders import Side

FEED = Path(__file__).parents[1] / "mocks" / "Feed.vy"
GRACE_S = 3_600
BELOW_MAINTENANCE, BELOW_ZERO = 576_500, 569_000
PRICES = {0: 600_000, 1: 250_000, 2: 15_000, 3: 30_000}


@pytest.fixture(scope="module")
def deployed():
    """In place of the directory's: a chain with an uptime feed; a long with little margin and its rich counterpart."""
    with boa.env.anchor():
        feed = boa.load(str(FEED))
        feed.tell(0, 1, 1)
        exchange = Exchange(uptime_feed=feed.address)
        exchange.feed = feed
        exchange.round(PRICES)
        exchange.donate(50_000 * USDC)
        rich, poor = exchange.deposit(1, 100_000 * USDC), exchange.deposit(2, 1_000 * USDC)
        exchange.deposit(3, 1_000 * USDC)
        batch = exchange.batch()
        batch.trade(rich, poor, Side.BUY, 33_000, 600_000)
        batch.settle()
        yield exchange


@pytest.fixture
def rich(exchange: Exchange) -> Party:
    return exchange.parties[3]


@pytest.fixture
def poor(exchange: Exchange) -> Party:
    return exchange.parties[4]


@pytest.fixture
def flat(exchange: Exchange) -> Party:
    """A trader without positions."""
    return exchange.parties[5]


def withdrawal(exchange: Exchange, party: Party, amount: int = 10 * USDC):
    batch = exchange.batch()
    batch.withdraw(party, amount)
    return batch


def transfer(exchange: Exchange, party: Party, amount: int = 10 * USDC):
    batch = exchange.batch()
    batch.transfer(party, 7, amount)
    return batch


def forced(exchange: Exchange, party: Party):
    batch = exchange.batch()
    batch.inbox(party.account)
    return batch


def on_book(exchange: Exchange, target: Party, buyer: Party):
    batch = exchange.batch()
    resting = batch.order(buyer, Side.BUY, 100, exchange.last[0].mark_ticks, slot=9)
    batch.liquidate(target.account, 0, resting, 100, None)
    return batch


def taken_over(exchange: Exchange, target: Party):
    batch = exchange.batch()
    batch.take_over(target.account, 0, 100)
    return batch


def restart(exchange: Exchange, ago_s: int = 0) -> None:
    """The chain is up again since `ago_s` before the round."""
    exchange.feed.tell(0, exchange.clock - ago_s, exchange.clock)


@pytest.mark.safety("A09", "contract")
@pytest.mark.parametrize("way", [withdrawal, transfer])
def test_nothing_is_signed_out_of_an_account_with_positions(
    exchange: Exchange, rich: Party, flat: Party, way
) -> None:
    """Not while the chain is down, nor until its hour is over to the second; an account without positions is free."""
    exchange.round()
    exchange.feed.tell(1, exchange.clock, exchange.clock)
    with refused("vault: chain was down"):
        way(exchange, rich).settle()
    for ago_s in (0, GRACE_S - 1):
        restart(exchange, ago_s)
        with refused("vault: chain was down"):
            way(exchange, rich).settle()
    way(exchange, flat).settle()
    restart(exchange, GRACE_S)
    way(exchange, rich).settle()


@pytest.mark.safety("A09", "contract")
def test_a_forced_withdrawal_waits_at_the_head(exchange: Exchange, rich: Party, flat: Party) -> None:
    """It is not consumable within the hour and keeps its place; one of an account without positions is."""
    exchange.round()
    restart(exchange)
    exchange.inbox.request_withdrawal(0, 100 * USDC, sender=Address(flat.signer.address))
    forced(exchange, flat).settle()
    exchange.inbox.request_withdrawal(0, 100 * USDC, sender=Address(rich.signer.address))
    with refused("vault: chain was down"):
        forced(exchange, rich).settle()
    exchange.round(seconds=GRACE_S)
    forced(exchange, rich).settle()
    assert exchange.vault.totals().claims == 2


@pytest.mark.safety("A09", "contract")
def test_nobody_is_closed_out_before_they_could_add_margin(
    exchange: Exchange, rich: Party, poor: Party
) -> None:
    """Neither on the book nor by the fund; a deposit within the hour is consumed and saves the account."""
    exchange.round({0: BELOW_MAINTENANCE})
    restart(exchange)
    with refused("vault: chain was down"):
        on_book(exchange, poor, rich).settle()
    with boa.env.anchor():
        exchange.feed.tell(0, exchange.clock - GRACE_S, exchange.clock)
        on_book(exchange, poor, rich).settle()
    exchange.round({0: BELOW_ZERO})
    with refused("vault: chain was down"):
        taken_over(exchange, poor).settle()
    exchange.inbox.deposit(2_000 * USDC, 0, sender=exchange.fund_wallet(poor.signer, 2_000 * USDC))
    forced(exchange, poor).settle()
    exchange.round(seconds=GRACE_S)
    assert not exchange.margin(poor.account).liquidatable
    with refused("vault: not below two thirds"):
        taken_over(exchange, poor).settle()


@pytest.mark.safety("A09", "contract")
def test_nobody_is_deleveraged_either(exchange: Exchange, rich: Party, poor: Party) -> None:
    """Trading goes on: what the owners sign for is theirs to decide."""
    exchange.round({0: BELOW_ZERO})
    restart(exchange)
    batch = exchange.batch()
    batch.deleverage(poor.account, 0, rich.account, 100)
    batch.name(1)
    with refused("vault: chain was down"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(exchange.parties[5], rich, Side.BUY, 10, BELOW_ZERO)
    batch.settle()
