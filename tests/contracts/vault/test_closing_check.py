"""Margin after a batch: initial margin to grow, a ratio that does not fall to shrink, and no deficit that widens."""

import boa
import pytest
from builders import MARKETS, USDC, Exchange, Party, refused
from msgspec.structs import replace
from test_deleveraging import keep_only

from evermark.protocol.margin import initial_margin
from evermark.protocol.orders import Side

PRICE = 600_000


@pytest.fixture
def leveraged(exchange: Exchange, maker: Party) -> Party:
    """A trader with 1,000 USDC, long about 36,000 USDC of BTC: just above initial margin."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, 60_000, PRICE)
    batch.settle()
    return party


def test_growing_needs_initial_margin(exchange: Exchange, maker: Party) -> None:
    """Equity equal to initial margin is enough, a unit less is not."""
    size = 40_000  # 24,000 USDC, initial 600 USDC, taker fee 9.6 USDC
    needed = 600 * USDC + 9_600_000
    poor = exchange.deposit(20, needed - 1)
    batch = exchange.batch()
    batch.trade(maker, poor, Side.BUY, size, PRICE)
    with refused("vault: below initial margin"):
        batch.settle()
    rich = exchange.deposit(21, needed)
    batch = exchange.batch()
    batch.trade(maker, rich, Side.BUY, size, PRICE)
    batch.settle()
    margin = exchange.margin(rich.account)
    assert margin.equity == margin.initial


@pytest.mark.safety("B15", "contract")
def test_shrinking_below_initial_margin_keeps_the_ratio(
    exchange: Exchange, leveraged: Party, maker: Party
) -> None:
    """Between maintenance and initial margin: closing at the mark passes, closing at a price that lowers the ratio does not,
    growing does not, flipping does not."""
    exchange.round({0: 595_000})
    margin = exchange.margin(leveraged.account)
    assert margin.maintenance < margin.equity < margin.initial
    attempts = (
        (Side.BUY, 10, 595_000, "vault: below initial margin"),
        (Side.SELL, 1_000, 580_000, "vault: margin ratio fell"),
        (Side.SELL, 120_000, 595_000, "vault: below initial margin"),
    )
    for side, size, price, reason in attempts:
        batch = exchange.batch()
        batch.trade(maker, leveraged, side, size, price)
        with refused(reason):
            batch.settle()
    batch = exchange.batch()
    batch.trade(maker, leveraged, Side.SELL, 1_000, 595_000)
    batch.settle()


def test_a_deficit_may_not_widen(exchange: Exchange, leveraged: Party, maker: Party) -> None:
    """Below zero equity: closing above the mark passes, closing at it costs the fee and does not."""
    exchange.round({0: 580_000})
    assert exchange.margin(leveraged.account).equity < 0
    batch = exchange.batch()
    batch.trade(maker, leveraged, Side.SELL, 1_000, 580_000)
    with refused("vault: deficit grew"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(maker, leveraged, Side.SELL, 1_000, 581_000)
    batch.settle()


def test_who_has_nothing_may_not_fall_below_it(exchange: Exchange, leveraged: Party, maker: Party) -> None:
    """With an equity of exactly zero closing at the mark costs the fee, and is refused as a falling ratio; above it, not."""
    exchange.round({0: 595_000})
    nothing = exchange.vault.account(leveraged.account).collateral - exchange.margin(leveraged.account).equity
    keep_only(exchange, leveraged.account, nothing)
    for price in (595_000, 596_000):
        batch = exchange.batch()
        batch.trade(maker, leveraged, Side.SELL, 1_000, price)
        if price == 595_000:
            with refused("vault: margin ratio fell"):
                batch.settle()
        else:
            batch.settle()


def test_orders_of_one_account_against_each_other_cost_fees_alone(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Its position is not touched: neither its entry nor the funding that it owes."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 100, PRICE)
    batch.settle()
    hour = exchange.clock // 3_600
    exchange.round({0: PRICE + 900}, seconds=3_600)
    exchange.post_funding(hour, {0: 77_777})
    batch = exchange.batch()
    batch.hours, batch.markets = [hour], {0}
    batch.settle()
    before = exchange.vault.position(taker.account, 0), exchange.vault.account(taker.account).collateral
    batch = exchange.batch()
    batch.trade(taker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.position(taker.account, 0) == before[0]
    assert before[0].entry_cumulative != exchange.vault.market_state(0).cumulative_funding
    fees = 10 * PRICE * (100 + 400) // 10**6
    assert exchange.vault.account(taker.account).collateral == before[1] - fees


@pytest.mark.safety("F02", "contract")
@pytest.mark.safety("B10", "contract")
def test_a_round_trip_within_a_batch_leaves_no_deficit(exchange: Exchange, maker: Party) -> None:
    """A hostile sequencer lets a poor account buy high from its friend and sell low to it: flat afterwards, with a loss far
    above its equity. Without maintenance on either side the ratio says nothing, so the sign is checked."""
    poor = exchange.deposit(20, 10 * USDC)
    batch = exchange.batch()
    batch.trade(maker, poor, Side.BUY, 10_000, 630_000)
    resting = batch.order(maker, Side.BUY, 10_000, 570_000, slot=2)
    batch.fill(resting, batch.order(poor, Side.SELL, 10_000, 570_000), 10_000)
    with refused("vault: margin ratio fell"):
        batch.settle()


def test_a_round_trip_within_ones_means_settles(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Buying and selling in one batch leaves no position and the difference."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, 601_000)
    resting = batch.order(maker, Side.BUY, 1_000, 600_000, slot=2)
    batch.fill(resting, batch.order(taker, Side.SELL, 1_000, 600_000), 1_000)
    batch.settle()
    assert exchange.vault.account(taker.account).open_positions == 0
    fees = -(-601_000_000 * 400 // 10**6) + 600_000_000 * 400 // 10**6
    assert exchange.vault.account(taker.account).collateral == 100_000 * USDC - 1_000_000 - fees


@pytest.mark.safety("C10", "contract")
def test_what_a_fill_earns_has_a_bound(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A sale that would bring its seller's collateral to 2^95 is refused, one unit below it settles."""
    earned = 10 * PRICE - 10 * PRICE * 400 // 10**6
    amount = 2**95 - earned - exchange.vault.account(taker.account).collateral
    exchange.inbox.deposit(amount, 0, sender=exchange.fund_wallet(taker.signer, amount))
    for change, reason in ((0, "vault: collateral out of range"), (1, None)):
        batch = exchange.batch()
        if change == 0:
            batch.inbox(taker.account)
        else:
            batch.withdraw(taker, change)
        if reason is None:
            batch.settle()
            batch = exchange.batch()
        batch.trade(maker, taker, Side.SELL, 10, PRICE)
        if reason is None:
            batch.settle()
            continue
        with refused(reason):
            batch.settle()
        batch = exchange.batch()
        batch.inbox(taker.account)
        batch.settle()
    assert exchange.vault.account(taker.account).collateral == 2**95 - 1


def test_the_tiers_bind(exchange: Exchange, maker: Party) -> None:
    """A position beyond 5 M USDC pays the second tier's fraction, beyond 25 M the third's, with continuous requirements."""
    exchange.deposit(1, 50_000_000 * USDC)
    big = exchange.deposit(20, 50_000_000 * USDC)
    for size in (8_000_000, 40_000_000, 160_000_000):
        with_size = exchange.vault.position(big.account, 0).size
        batch = exchange.batch()
        batch.trade(maker, big, Side.BUY, size - with_size, PRICE)
        batch.settle()
        exchange.round({0: PRICE})
        margin = exchange.margin(big.account)
        batch = exchange.batch()
        batch.withdraw(big, margin.withdrawable + 1)
        with refused("vault: not withdrawable"):
            batch.settle()
        assert margin.initial > 0
    tiers = exchange.vault.market_words(0)
    assert [tiers[1] >> 48 & 0xFFFFFF, tiers[1] >> 176 & 0xFFFFFF] == [25_000, 50_000]
    assert [tiers[2] >> 48 & 0xFFFFFF, tiers[2] >> 176 & 0xFFFFFF] == [100_000, 200_000]


@pytest.mark.safety("B04", "contract")
@pytest.mark.safety("C02", "contract")
def test_initial_margin_binds_to_the_unit_at_every_tier(exchange: Exchange, maker: Party) -> None:
    """At notionals around each tier's bound the vault accepts exactly the Python requirement."""
    exchange.deposit(1, 90_000_000 * USDC)
    for number, notional_usdc in enumerate(
        (4_999_999, 5_000_000, 24_999_999, 25_000_001, 99_999_999, 100_000_001)
    ):
        size = notional_usdc * USDC // PRICE
        margin_needed = exchange_initial(exchange, size)
        fee = -(-size * PRICE * 400 // 10**6)
        party = exchange.deposit(30 + number, margin_needed + fee - 1)
        batch = exchange.batch()
        batch.trade(maker, party, Side.BUY, size, PRICE)
        with refused("vault: below initial margin"):
            batch.settle()
        exchange.inbox.deposit(1, 0, sender=exchange.fund_wallet(party.signer, 1))
        batch = exchange.batch()
        batch.inbox(party.account)
        batch.trade(maker, party, Side.BUY, size, PRICE)
        batch.settle()
        batch = exchange.batch()
        batch.trade(maker, party, Side.SELL, size, PRICE)
        batch.settle()


def exchange_initial(exchange: Exchange, size: int) -> int:
    return initial_margin(exchange.markets[0], size * PRICE)


def test_the_last_of_64_markets_trades_like_any_other() -> None:
    """Its price, its margin and what its positions begin with are its own."""
    with boa.env.anchor():
        template = MARKETS[0]
        markets = tuple(replace(template, market_id=number, symbol=f"M{number}-PERP") for number in range(64))
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(64), PRICE))
        maker, poor = exchange.deposit(1, 1_000 * USDC), exchange.deposit(2, 100 * USDC)
        for size, reason in ((6_700, "vault: below initial margin"), (6_500, None)):
            batch = exchange.batch()
            batch.trade(maker, poor, Side.BUY, size, PRICE, market=63)
            if reason is None:
                batch.settle()
            else:
                with refused(reason):
                    batch.settle()
        assert exchange.vault.position(poor.account, 63).entry_mark == PRICE
        assert exchange.vault.word(1 << 46 | poor.account << 6 | 63) == 6_500 | PRICE << 192
        exchange.check_invariants()


def test_at_most_sixteen_open_markets() -> None:
    """The seventeenth open position of an account is refused."""
    with boa.env.anchor():
        template = Exchange().markets[0]
        markets = tuple(replace(template, market_id=number, symbol=f"M{number}-PERP") for number in range(17))
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(17), 1_000))
        maker, taker = exchange.deposit(1, 1_000 * USDC), exchange.deposit(2, 1_000 * USDC)
        batch = exchange.batch()
        for market in range(16):
            resting = batch.order(maker, Side.SELL, 10, 1_000, market=market, slot=1 + market)
            batch.fill(resting, batch.order(taker, Side.BUY, 10, 1_000, market=market), 10)
        batch.settle()
        batch = exchange.batch()
        batch.trade(maker, taker, Side.BUY, 10, 1_000, market=16)
        with refused("vault: too many open markets"):
            batch.settle()
        exchange.check_invariants()
