"""What the inbox notes of a close that an owner asks for: its position, and the newest mark of both lanes."""

import boa
import pytest
from builders import Exchange, Party, events, refused
from governing import THIN, THIN_INDEX, Governing
from test_deleveraging import keep_only
from test_forced_close import ALL, BELOW_MAINTENANCE, ENTRY, ask, leave, part, trade

from evermark.protocol.orders import Side


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
    proposal = governing.propose_market()
    governing.wait()
    governing.execute(proposal)
    governing.consume()
    exchange.list_market(THIN)
    exchange.round({4: THIN_INDEX})
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
