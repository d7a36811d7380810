"""Modes of a market, in its word P, and the oracle's mark of a held-back jump: what fills they leave open."""

from typing import Any

import pytest
from builders import USDC, Builder, Exchange, Party, refused

from evermark.protocol.orders import Side
from tests.compiled_contracts import evaluate

PRICE = 600_000
MARKET_P = 1 << 39
POST_ONLY, REDUCE_ONLY, CANCEL_ONLY, HALTED, SETTLED = range(1, 6)


def set_mode(exchange: Exchange, mode: int) -> None:
    """Writes the mode of market 0 through the vault's door, as one of its contracts would."""
    word = exchange.vault.word(MARKET_P) & (1 << 248) - 1
    exchange.vault.write(MARKET_P, word | mode << 248, sender=exchange.clerk.address)


def clamp(exchange: Exchange) -> dict[str, Any]:
    """Sets the bit of a held-back jump on market 0 in the pinned round; returns the header of a batch at it."""
    assert exchange.pinned is not None
    round_ = exchange.pinned.round
    evaluate(exchange.oracle, f"self._ring[0][{round_} % RING][1] |= {1 << 104}")
    return {"prices_hash": bytes(exchange.oracle.prices_hash(0, round_))}


def open_positions(exchange: Exchange, maker: Party, taker: Party) -> None:
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()


def closing(exchange: Exchange, maker: Party, taker: Party, size: int = 10, **header: Any) -> Builder:
    """A batch in which both sell back `size` of their 10 lots."""
    batch = exchange.batch(**header)
    resting = batch.order(maker, Side.BUY, size, PRICE, slot=2)
    batch.fill(resting, batch.order(taker, Side.SELL, size, PRICE), size)
    return batch


@pytest.mark.parametrize("mode", [POST_ONLY, CANCEL_ONLY, HALTED, SETTLED])
def test_a_closed_market_refuses_every_order_fill(
    exchange: Exchange, maker: Party, taker: Party, mode: int
) -> None:
    """Post-only, cancel-only, halted, settled: not even a fill in which both reduce; normal again, it settles."""
    open_positions(exchange, maker, taker)
    set_mode(exchange, mode)
    with refused("vault: market closed to trades"):
        closing(exchange, maker, taker).settle()
    set_mode(exchange, 0)
    closing(exchange, maker, taker).settle()


@pytest.mark.parametrize("after", [0, REDUCE_ONLY, CANCEL_ONLY])
def test_a_mode_ends_in_its_second_and_the_one_after_it_holds(
    exchange: Exchange, maker: Party, taker: Party, after: int
) -> None:
    """A round before its end nothing trades; in the round of that second the market is as word M says for then."""
    open_positions(exchange, maker, taker)
    set_mode(exchange, HALTED)
    exchange.vault.write(MARKET_P + 320, exchange.clock + 10 | after << 40, sender=exchange.clerk.address)
    with refused("vault: market closed to trades"):
        closing(exchange, maker, taker).settle()
    exchange.round()
    if after == CANCEL_ONLY:
        with refused("vault: market closed to trades"):
            closing(exchange, maker, taker).settle()
        return
    if after == REDUCE_ONLY:
        with refused("vault: fill does not reduce"):
            closing(exchange, maker, taker, 11).settle()
    closing(exchange, maker, taker, 10 if after else 11).settle()


@pytest.mark.parametrize("by_the_oracle", [False, True])
def test_a_reduce_only_or_clamped_market_lets_both_parties_only_reduce(
    exchange: Exchange, maker: Party, taker: Party, by_the_oracle: bool
) -> None:
    """As with a stale price: closing settles, a lot more than the position does not, opening does not."""
    open_positions(exchange, maker, taker)
    header = clamp(exchange) if by_the_oracle else {}
    if not by_the_oracle:
        set_mode(exchange, REDUCE_ONLY)
    with refused("vault: fill does not reduce"):
        closing(exchange, maker, taker, 11, **header).settle()
    batch = exchange.batch(**header)
    batch.trade(maker, taker, Side.BUY, 1, PRICE)
    with refused("vault: fill does not reduce"):
        batch.settle()
    closing(exchange, maker, taker, **header).settle()
    assert exchange.vault.position(taker.account, 0).size == 0


def test_other_markets_trade_on(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A halted BTC market does not stop ETH, in the same batch as a funding of BTC or not."""
    set_mode(exchange, HALTED)
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, 250_000, market=1)
    batch.settle()
    assert exchange.vault.position(taker.account, 1).size == 10


def test_a_clamped_market_liquidates_nobody(exchange: Exchange, maker: Party, taker: Party) -> None:
    """On a held-back price neither book liquidation nor take-over nor deleveraging; on a true one the take-over settles."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 60_000, PRICE)
    batch.settle()
    exchange.round({0: 586_000})
    margin = exchange.margin(party.account)
    assert 3 * margin.equity < 2 * margin.maintenance
    batch = exchange.batch()
    batch.take_over(party.account, 0, 1_000)
    batch.settle()
    header = clamp(exchange)
    batch = exchange.batch(**header)
    batch.take_over(party.account, 0, 1_000)
    with refused("vault: stale price"):
        batch.settle()
    batch = exchange.batch(**header)
    resting = batch.order(maker, Side.BUY, 1_000, 586_000, slot=3)
    batch.liquidate(party.account, 0, resting, 1_000)
    with refused("vault: stale price"):
        batch.settle()


@pytest.mark.parametrize("mode", [REDUCE_ONLY, HALTED])
def test_orders_against_the_fund_obey_the_mode(
    exchange: Exchange, maker: Party, taker: Party, mode: int
) -> None:
    """In reduce-only the taker's own position must shrink too; in a halted market nothing fills."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 60_000, PRICE)
    batch.settle()
    exchange.round({0: 586_000})
    batch = exchange.batch()
    batch.take_over(party.account, 0, 1_000)
    batch.settle()

    def buy_from_the_fund(buyer: Party) -> None:
        filling = exchange.batch()
        filling.fill_fund(filling.order(buyer, Side.BUY, 10, 586_000), 10)
        filling.settle()

    set_mode(exchange, mode)
    reason = "vault: fill does not reduce" if mode == REDUCE_ONLY else "vault: market closed to trades"
    with refused(reason):
        buy_from_the_fund(taker)
    if mode == REDUCE_ONLY:
        buy_from_the_fund(maker)  # who is short
    set_mode(exchange, 0)
    buy_from_the_fund(taker)
