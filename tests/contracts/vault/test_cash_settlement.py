"""A delisted market on chain: the oracle's price for it, and fill kind 7, which ends opposite positions at that price alone."""

from typing import Any

import boa
import pytest
from builders import USDC, Builder, Exchange, Party, events, refused
from governing import CANCEL_ONLY, HOUR_S, Governing
from test_deleveraging import keep_only

from evermark.protocol.governance import NOTICE_S
from evermark.protocol.oracle import SETTLED_BIT
from evermark.protocol.orders import Side

MARKET_P = 1 << 39
SETTLED = 5
INDEX = 590_000
MEAN = INDEX + 5  # three quarters of the hour, and a quarter at 21 ticks more, rounded down


def settle_order(governing: Governing) -> int:
    """Anybody's call."""
    return governing.contract.settle(0, sender=boa.env.generate_address("anybody"))


def end_hour(governing: Governing, exchange: Exchange) -> None:
    """Market 0 is delisted, and its last hour passes."""
    governing.carry_out("delisting", 0)
    ends_at, price, settled = exchange.oracle.ending(0)
    assert (ends_at, price, settled) == (exchange.clock + NOTICE_S, 0, False)
    exchange.round({0: INDEX}, seconds=ends_at - 2_700 - exchange.clock)
    exchange.round({0: INDEX + 21}, seconds=1_800)
    with boa.reverts("governor: no settlement price"):
        settle_order(governing)
    exchange.round({0: INDEX + 50}, seconds=900)
    assert exchange.oracle.ending(0) == (ends_at, MEAN, False)


def close_market(governing: Governing, exchange: Exchange) -> None:
    """The entry, which waits like every change of the governor's, one at a time, is consumed, and a round has the price."""
    settle_order(governing)
    assert exchange.inbox.open_entry(exchange.governor, 0, 9) == exchange.inbox.head()
    governing.consume()
    know_price(exchange)
    exchange.round({0: 1})


def know_price(exchange: Exchange) -> None:
    """From the next round on."""
    exchange.jumps = [exchange.jumps[0] | MEAN << SETTLED_BIT, *exchange.jumps[1:]]


def trade(exchange: Exchange, maker: Party, taker: Party, size: int = 10, market: int = 0) -> None:
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, size, exchange.last[market].mark_ticks, market=market)
    batch.settle()


def in_cash(exchange: Exchange, one: int, other: int, size: int, **header: Any) -> Builder:
    batch = exchange.batch(**header)
    batch.settle_in_cash(one, 0, other, size)
    return batch


@pytest.mark.safety("B27", "contract")
def test_positions_end_at_the_mean_index(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, keeper: Party
) -> None:
    """In parts, from either side, below zero as well and with another market's price stale: only the price decides."""
    trade(exchange, maker, taker)
    trade(exchange, maker, keeper, 5)
    trade(exchange, maker, taker, market=1)
    end_hour(governing, exchange)
    close_market(governing, exchange)
    assert exchange.vault.word(MARKET_P) >> 248 == SETTLED
    exchange.round(seconds=HOUR_S * 2, abstain=(0, 1))
    vault = exchange.vault
    keep_only(exchange, taker.account, -6_000 * USDC)
    assert exchange.margin(taker.account).equity < 0
    before = {party.account: vault.account(party.account).collateral for party in (maker, taker, keeper)}
    computation = in_cash(exchange, taker.account, maker.account, 4).settle()
    (told,) = events(exchange, computation, "CashSettled")
    assert vars(told) == {
        "market": 0,
        "account": taker.account,
        "counterparty": maker.account,
        "size": 4,
        "price": MEAN,
    }
    in_cash(exchange, maker.account, taker.account, 6).settle()
    in_cash(exchange, keeper.account, maker.account, 5).settle()
    after = {account: vault.account(account).collateral - was for account, was in before.items()}
    assert after == {taker.account: 10 * MEAN, keeper.account: 5 * MEAN, maker.account: -15 * MEAN}
    assert vault.market_state(0).open_interest == 0
    assert vault.position(taker.account, 1).size == 10


@pytest.mark.safety("B27", "contract")
def test_nothing_but_the_settlement_price_counts(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, keeper: Party
) -> None:
    """Before the entry is consumed, and at the round before the price, nothing settles; nor at another size, side or market."""
    trade(exchange, maker, taker)
    trade(exchange, maker, keeper, 5)
    trade(exchange, maker, taker, market=1)
    end_hour(governing, exchange)
    with refused("vault: market not settled"):
        in_cash(exchange, taker.account, maker.account, 10).settle()
    settle_order(governing)
    with boa.reverts("inbox: one of this kind is open"):
        settle_order(governing)
    governing.consume()
    assert governing.state(governing.contract.proposal_count()) == 4
    with boa.reverts("governor: settled"):
        settle_order(governing)
    with refused("vault: not settlement price"):
        in_cash(exchange, taker.account, maker.account, 10).settle()
    know_price(exchange)
    exchange.round({0: 1})
    with refused("vault: same side"):
        in_cash(exchange, taker.account, keeper.account, 5).settle()
    for size in (11, 16):
        with refused("vault: larger than the position"):
            in_cash(exchange, taker.account, maker.account, size).settle()
    batch = exchange.batch()
    batch.fills.append((7, (taker.account, 0), (maker.account, 1), 5, None))
    with refused("vault: markets differ"):
        batch.settle()
    batch = in_cash(exchange, taker.account, maker.account, 10)
    batch.trade(maker, keeper, Side.BUY, 1, exchange.last[1].mark_ticks, market=1)
    with refused("vault: target also trades"):
        batch.settle()
    with refused("vault: market closed to trades"):
        trade(exchange, maker, taker)
    in_cash(exchange, taker.account, maker.account, 10).settle()


def test_a_settled_market_stays_settled(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Under a guardian's pause, when it is lifted, and when it ends; a second delisting has no effect."""
    trade(exchange, maker, taker)
    end_hour(governing, exchange)
    settle_order(governing)
    governing.pause(CANCEL_ONLY, HOUR_S)
    governing.consume(2)
    know_price(exchange)
    assert exchange.vault.word(MARKET_P) >> 248 == SETTLED
    governing.pause(0, 0)
    governing.consume()
    assert exchange.vault.word(MARKET_P) >> 248 == SETTLED
    proposal = governing.carry_out("delisting", 0)
    assert governing.state(proposal) == 5
    assert exchange.vault.word(MARKET_P) >> 248 == SETTLED
