"""What the inbox notes of a close that an owner asks for, when one that nobody needs leaves, and what bounds size and price."""

import boa
import pytest
from builders import USDC, Exchange, Party, events, refused
from governing import THIN_INDEX, Governing
from msgspec.structs import replace
from test_deleveraging import BELOW_TWO_THIRDS, keep_only
from test_forced_close import ALL, BELOW_MAINTENANCE, ENTRY, ask, leave, on_book, part, trade

from evermark.protocol.forced import close_penalty, hour_cap
from evermark.protocol.markets import Tier
from evermark.protocol.orders import Side

MARKET_T0 = (1 << 39) + 64
A_DEPOSIT_WAITS = 8


def test_who_asks_has_a_position(exchange: Exchange, maker: Party, taker: Party) -> None:
    """None: refused; a single lot of either side is one. The entry leaves for its own account alone."""
    with boa.reverts("inbox: no position"):
        ask(exchange, taker)
    trade(exchange, maker, taker, size=1)
    for party, other in ((taker, maker), (maker, taker)):
        entry = exchange.inbox.entry(ask(exchange, party, ALL))
        assert (entry.kind, entry.amount) == (4, 0)
        assert entry.data >> 8 == (party is taker) | 1 << 8 | exchange.last[0].mark_ticks << 72
        with refused("vault: entry of another account"):
            leave(exchange, other.account)
        with boa.env.anchor():
            part(exchange, party, other.account, 1).settle()
            leave(exchange, party.account)
        if party is taker:
            part(exchange, party, other.account, 1).settle()
            leave(exchange, party.account)
            trade(exchange, maker, taker, size=1)


@pytest.mark.safety("A06", "contract")
def test_the_mark_of_an_entry_is_the_newer_lanes(
    exchange: Exchange, governing: Governing, maker: Party, taker: Party
) -> None:
    """Whichever lane that is, the sequencer's where both are as new; a lane whose last round is from before the market was listed
    has no say."""
    trade(exchange, maker, taker)
    exchange.post_public({0: ENTRY + 100})
    with boa.env.anchor():
        assert exchange.inbox.entry(ask(exchange, taker)).data >> 80 == ENTRY + 100
    exchange.round({0: ENTRY + 50})
    with boa.env.anchor():
        exchange.post_public({0: ENTRY + 70}, seconds=0)
        assert exchange.inbox.entry(ask(exchange, taker)).data >> 80 == ENTRY + 50
    governing.list_thin()
    batch = exchange.batch()
    batch.trade(maker, exchange.parties[5], Side.BUY, 1_000_000, THIN_INDEX, market=4)
    batch.settle()
    assert exchange.inbox.entry(ask(exchange, exchange.parties[5], market=4)).data >> 80 == THIN_INDEX


@pytest.mark.safety("B09", "contract")
def test_a_close_is_skipped_below_maintenance_alone(exchange: Exchange, maker: Party, taker: Party) -> None:
    """With exactly its maintenance an account is healthy, and its entry stays; with a unit less it leaves."""
    trade(exchange, maker, taker)
    ask(exchange, taker)
    margin = exchange.margin(taker.account)
    exact = exchange.vault.account(taker.account).collateral - margin.equity + margin.maintenance
    for less in (0, 1):
        with boa.env.anchor():
            keep_only(exchange, taker.account, exact - less)
            margin = exchange.margin(taker.account)
            assert margin.equity == margin.maintenance - less
            if not less:
                with refused("vault: not closed yet"):
                    leave(exchange, taker.account)
                part(exchange, taker, maker.account, 10).settle()
                continue
            with refused("vault: below maintenance"):
                part(exchange, taker, maker.account, 10).settle()
            (skipped,) = events(exchange, leave(exchange, taker.account), "EntrySkipped")
            assert skipped.reason == BELOW_MAINTENANCE


@pytest.mark.safety("B08", "contract")
@pytest.mark.parametrize("fraction_ppm", [8_001, 9_999, 10_000, 20_000])
def test_a_penalty_is_at_most_the_first_maintenance_fraction(
    exchange: Exchange, maker: Party, taker: Party, fraction_ppm: int
) -> None:
    """Where that is less than the liquidation fee; to the tick, at an order's price."""
    trade(exchange, maker, taker)
    exchange.vault.write(MARKET_T0, fraction_ppm << 48, sender=exchange.clerk.address)
    market = replace(exchange.markets[0], tiers=(Tier(0, fraction_ppm, 0),))
    away = close_penalty(market, market.notional(10, ENTRY)) // 10
    assert away == ENTRY * min(market.liquidation_fee_ppm, fraction_ppm // 2) // 10**6
    ask(exchange, taker)
    with refused("vault: loss above bound"):
        on_book(exchange, taker, exchange.parties[5], 10, ENTRY - away - 1).settle()
    on_book(exchange, taker, exchange.parties[5], 10, ENTRY - away).settle()


def test_an_hour_takes_a_tenth_of_a_large_market(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Where that is more than what a small one may always take."""
    trade(exchange, maker, taker, size=600_000)
    exchange.round(seconds=3_600)
    ask(exchange, taker)
    cap = hour_cap(exchange.markets[0], 600_000, ENTRY)
    assert cap == 60_000
    with refused("vault: cap of the hour"):
        part(exchange, taker, maker.account, cap + 1).settle()
    part(exchange, taker, maker.account, cap).settle()


@pytest.mark.safety("B09", "contract")
@pytest.mark.parametrize("number", [20, 21])
def test_a_liquidation_waits_for_its_own_accounts_fills_and_deposits(
    exchange: Exchange, maker: Party, number: int
) -> None:
    """Of an account with an even id or an odd one, whatever positions its neighbours hold."""
    parties = [exchange.deposit(each, 1_000 * USDC) for each in (20, 21)]
    for party in parties:
        trade(exchange, maker, party, size=33_000)
    target = parties[number - 20]
    assert target.account == number - 14
    exchange.round({0: BELOW_TWO_THIRDS})
    exchange.inbox.request_liquidation(target.account)
    with refused("vault: not liquidated yet"):
        leave(exchange, target.account)
    exchange.inbox.deposit(USDC, 0, sender=exchange.fund_wallet(target.signer, USDC))
    exchange.round(seconds=600)
    with refused("vault: not liquidated yet"):
        leave(exchange, target.account)
    exchange.round()
    (skipped,) = events(exchange, leave(exchange, target.account), "EntrySkipped")
    assert skipped.reason == A_DEPOSIT_WAITS
