"""A clamped price is a stale one to the vault: no growth, no liquidation, nothing paid out against it; other markets go on."""

import pytest
from builders import USDC, Exchange, Party, refused

from evermark.protocol.orders import Side

PRICE = 600_000


@pytest.fixture
def narrow(exchange: Exchange, maker: Party, taker: Party) -> Exchange:
    """BTC may move 0.1 % a second, and both traders hold it."""
    exchange.oracle.set_jump(0, 1_000, sender=exchange.governor)
    exchange.jumps = [1_000, *exchange.jumps[1:]]
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 100, PRICE)
    batch.settle()
    return exchange


@pytest.mark.safety("A03", "contract")
def test_a_clamped_market_only_reduces(narrow: Exchange, maker: Party, taker: Party) -> None:
    """Growing there is refused, and so is growing elsewhere for whoever holds it; reducing, and other accounts, go on."""
    narrow.round({0: PRICE * 2})
    mark = narrow.last[0].mark_ticks
    assert narrow.last[0].clamped
    assert mark == PRICE * 101 // 100
    batch = narrow.batch()
    batch.trade(maker, taker, Side.BUY, 1, mark)
    with refused("vault: fill does not reduce"):
        batch.settle()
    batch = narrow.batch()
    batch.trade(maker, taker, Side.BUY, 10, 250_000, market=1)
    with refused("vault: grew on a stale price"):
        batch.settle()
    batch = narrow.batch()
    resting = batch.order(maker, Side.BUY, 40, mark, slot=2)
    batch.fill(resting, batch.order(taker, Side.SELL, 40, mark), 40)
    batch.settle()
    others = [narrow.deposit(number, 10_000 * USDC) for number in (7, 8)]
    narrow.round({0: PRICE * 2})
    batch = narrow.batch()
    batch.trade(*others, Side.BUY, 10, 250_000, market=1)
    batch.settle()


@pytest.mark.safety("A03", "contract")
def test_nobody_is_liquidated_or_paid_on_a_clamped_price(
    narrow: Exchange, maker: Party, taker: Party
) -> None:
    """Until three calm rounds have passed; then a withdrawal is paid again, and a healthy account is told to be healthy."""
    narrow.round({0: PRICE // 2})
    for calm in range(3):
        assert narrow.last[0].clamped
        assert narrow.last[0].calm_rounds == calm
        batch = narrow.batch()
        batch.take_over(taker.account, 0, 100)
        with refused("vault: stale price"):
            batch.settle()
        batch = narrow.batch()
        batch.withdraw(taker, USDC)
        with refused("vault: stale price"):
            batch.settle()
        narrow.round()
    assert not narrow.last[0].clamped
    batch = narrow.batch()
    batch.take_over(taker.account, 0, 100)
    with refused("vault: not below two thirds"):
        batch.settle()
    batch = narrow.batch()
    batch.withdraw(taker, USDC)
    batch.settle()
