"""Builders: an order's signed fee for the front end that brought it, paid to its account and to nobody else's."""

import pytest
from builders import USDC, Exchange, Party, Row, refused, signer

from evermark.protocol.orders import NO_ADDRESS, Side
from evermark.protocol.units import ceil_div

PRICE = 600_000
RATE = 333


def collateral(exchange: Exchange, account: int) -> int:
    return exchange.vault.account(account).collateral


def built(exchange: Exchange, party: Party, side: Side, size: int, builder: Party, **more) -> Row:
    """An order of which `builder` gets RATE."""
    values = {"builder": builder.signer.address, "max_builder_fee_ppm": RATE} | more
    return exchange_order(exchange.open_batch, party, side, size, values)


def exchange_order(batch, party: Party, side: Side, size: int, values: dict) -> Row:
    return batch.order(party, side, size, values.pop("price", PRICE), **values)


@pytest.fixture
def batch(exchange: Exchange):
    exchange.open_batch = exchange.batch()
    return exchange.open_batch


def test_a_builder_gets_its_fee(exchange: Exchange, batch, maker: Party, taker: Party, keeper: Party) -> None:
    """Of both sides, beside the exchange's own fees, which stay what they are."""
    resting = built(exchange, maker, Side.SELL, 1_003, keeper, slot=1)
    taking = built(exchange, taker, Side.BUY, 1_003, keeper)
    batch.fill(resting, taking, 1_003)
    before = {
        account: collateral(exchange, account)
        for account in (2, maker.account, taker.account, keeper.account)
    }
    batch.settle()
    notional = 1_003 * PRICE
    fee, fees = ceil_div(notional * RATE, 10**6), [ceil_div(notional * rate, 10**6) for rate in (100, 400)]
    changes = {account: collateral(exchange, account) - was for account, was in before.items()}
    assert changes == {
        2: sum(fees),
        maker.account: notional - fees[0] - fee,
        taker.account: -notional - fees[1] - fee,
        keeper.account: 2 * fee,
    }


@pytest.mark.safety("C01", "contract")
def test_a_rows_builder_fee_rounds_up_once(
    exchange: Exchange, batch, maker: Party, taker: Party, keeper: Party
) -> None:
    """Three fills of one row cost the ceiling of their sum, not the sum of ceilings."""
    resting = batch.order(maker, Side.SELL, 3_000, PRICE, slot=1)
    taking = built(exchange, taker, Side.BUY, 3_000, keeper, max_builder_fee_ppm=1)
    for size in (1, 2, 4):
        batch.fill(resting, taking, size)
    before = collateral(exchange, keeper.account)
    batch.settle()
    assert collateral(exchange, keeper.account) - before == ceil_div(7 * PRICE, 10**6) == 5
    assert sum(ceil_div(size * PRICE, 10**6) for size in (1, 2, 4)) == 6


def test_a_builder_that_trades_is_judged_without_its_income(
    exchange: Exchange, maker: Party, keeper: Party
) -> None:
    """A trader who builds its own order pays itself and ends where it would without a builder."""
    poor = exchange.deposit(20, 1_000 * USDC)
    exchange.open_batch = batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10_000, PRICE, slot=1)
    batch.fill(resting, built(exchange, poor, Side.BUY, 10_000, poor), 10_000)
    batch.settle()
    notional = 10_000 * PRICE
    assert collateral(exchange, poor.account) == 1_000 * USDC - notional - ceil_div(notional * 400, 10**6)


def test_a_fee_below_the_margin_is_refused(exchange: Exchange, maker: Party, keeper: Party) -> None:
    """What the builder takes counts in the closing check: an account just above it without the fee is below it with it."""
    size = 40_000  # 24,000 USDC, initial 600 USDC, taker fee 9.6 USDC
    poor = exchange.deposit(20, 609_600_000)
    for rate in (1, 0):
        exchange.open_batch = batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, size, PRICE, slot=1)
        batch.fill(resting, built(exchange, poor, Side.BUY, size, keeper, max_builder_fee_ppm=rate), size)
        if rate:
            with refused("vault: below initial margin"):
                batch.settle()
        else:
            batch.settle()


def test_nobody_but_the_signed_builder_is_paid(
    exchange: Exchange, maker: Party, taker: Party, keeper: Party
) -> None:
    """Another trader, a sub-account of the builder, the insurance fund and the fee account are refused in its place."""
    sub_account = exchange.deposit(3, 100 * USDC, sub_account=1)
    assert sub_account.signer.address == exchange.parties[5].signer.address == keeper.signer.address
    for paid in (maker.account, sub_account.account, 1, 2):
        exchange.open_batch = batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, 1_000, PRICE, slot=1)
        taking = built(exchange, taker, Side.BUY, 1_000, keeper)
        taking.builder = paid
        batch.accounts.add(paid)
        batch.fill(resting, taking, 1_000)
        with refused("vault: not the builder's account"):
            batch.settle()


def test_a_builder_without_an_account(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Neither an index beyond the table nor the account that has no owner stands for it."""
    for builder, reason in (
        (signer(77).address, "vault: no such account index"),
        (NO_ADDRESS, "vault: not the builder's account"),
    ):
        batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, 1_000, PRICE, slot=1)
        taking = batch.order(taker, Side.BUY, 1_000, PRICE, builder=builder, max_builder_fee_ppm=1)
        taking.builder = 1 if builder == NO_ADDRESS else 0
        batch.accounts.add(1)
        batch.fill(resting, taking, 1_000)
        with refused(reason):
            batch.settle()


def test_a_builder_without_a_fee_needs_no_account(
    exchange: Exchange, batch, maker: Party, taker: Party
) -> None:
    """An order may name who brought it and pay nothing."""
    resting = batch.order(maker, Side.SELL, 1_000, PRICE, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 1_000, PRICE, builder=signer(77).address), 1_000)
    batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 1_000


def test_rows_of_an_order_batch_pay_builders_too(
    exchange: Exchange, batch, maker: Party, taker: Party, keeper: Party
) -> None:
    """Behind evidence of another length the builder is found as well."""
    agent = signer(55)
    approving = exchange.batch()
    approving.approve(taker, agent.address, exchange.clock + 3_600)
    approving.settle()
    batch = exchange.open_batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 2_000, PRICE, slot=1)
    rows = [built(exchange, taker, Side.BUY, 1_000, keeper, time_in_force=2) for _ in range(2)]
    batch.sign_together(rows, agent)
    batch.fill(resting, rows[0], 700)
    batch.rows.remove(rows[1])
    before = collateral(exchange, keeper.account)
    batch.settle()
    assert collateral(exchange, keeper.account) - before == ceil_div(700 * PRICE * RATE, 10**6)
