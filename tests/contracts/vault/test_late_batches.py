"""Batches up to an hour late: order fills alone, judged at the pinned round and at the newest one."""

import boa
import pytest
from builders import USDC, Exchange, Party, refused, send
from test_market_modes import clamp

from evermark.protocol import oracle
from evermark.protocol.orders import Side

PRICE = 600_000
HOUR_S = 3_600


def pinning(pinned: oracle.Round) -> dict:
    """The header of a batch that pins a round other than the newest."""
    return {"round": pinned.round, "prices_hash": oracle.prices_hash(pinned)}


def withheld(exchange: Exchange, pinned: oracle.Round):
    """A batch of the pinned round, built when it may be an old one."""
    return exchange.batch(**pinning(pinned))


def move_on(exchange: Exchange, seconds: int, mark: int = PRICE) -> None:
    """Lets time pass; a round says the price then."""
    exchange.round({0: mark}, seconds=seconds)


def test_a_late_batch_of_fills_settles(exchange: Exchange, maker: Party, taker: Party) -> None:
    """121 seconds and 59 minutes after its round, with a recent round beside it."""
    for seconds in (130, 3_500):
        batch = withheld(exchange, exchange.pinned)
        move_on(exchange, seconds)
        batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
        batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 2_000


def test_an_hour_is_the_end(exchange: Exchange, maker: Party, taker: Party) -> None:
    """3,600 seconds after its round a batch settles, 3,601 seconds after it does not."""
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    pinned_at = exchange.clock
    move_on(exchange, HOUR_S)
    data = batch.data()
    boa.env.timestamp = pinned_at + HOUR_S + 1
    with refused("vault: round too old"):
        send(exchange, data)
    boa.env.timestamp = pinned_at + HOUR_S
    send(exchange, data)


def test_the_newest_round_is_recent(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A late batch needs a round of the last 120 seconds, in whichever lane."""
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    data = batch.data()
    boa.env.timestamp = exchange.clock + 121
    with refused("vault: no recent round"):
        send(exchange, data)
    exchange.post_public({}, seconds=130)
    boa.env.timestamp = exchange.clock + 120
    send(exchange, data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda batch, maker, taker: batch.cancel(maker, slot=9, sequence=5),
        lambda batch, maker, taker: batch.hours.append(1),
        lambda batch, maker, taker: batch.withdraw(maker, 1_000),
    ],
    ids=["action", "funding hour", "withdrawal"],
)
def test_nothing_but_order_fills(exchange: Exchange, maker: Party, taker: Party, spoil) -> None:
    """Sections 1, 2, 3 and 5 of a late batch are empty."""
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    spoil(batch, maker, taker)
    move_on(exchange, 130)
    with refused("vault: late, so only order fills"):
        batch.settle()


@pytest.mark.safety("B07", "contract")
def test_a_late_batch_closes_nobody_out(exchange: Exchange, maker: Party) -> None:
    """A liquidation at an old round is refused, however well it would stand there."""
    poor = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, poor, Side.BUY, 60_000, PRICE)
    batch.settle()
    crash = exchange.round({0: 590_000})
    batch = withheld(exchange, crash)
    resting = batch.order(maker, Side.BUY, 10_000, 590_000, slot=2)
    batch.liquidate(poor.account, 0, resting, 10_000)
    move_on(exchange, 130, 590_000)
    with refused("vault: late, so only order fills"):
        batch.settle()


def test_a_withheld_batch_cannot_pick_its_price(exchange: Exchange, maker: Party) -> None:
    """A sequencer that holds back a purchase until it knows that the price fell cannot let the buyer open it with margin
    that no longer suffices: the batch passes at its own round and fails at the newest."""
    poor = exchange.deposit(20, 1_000 * USDC)
    exchange.round()
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, poor, Side.BUY, 60_000, PRICE)
    data = batch.data()
    with boa.env.anchor():
        move_on(exchange, 130, 590_000)
        with refused("vault: late, below initial"):
            send(exchange, data)
    exchange.clock = boa.env.timestamp
    send(exchange, data)


@pytest.mark.safety("A04", "contract")
@pytest.mark.parametrize("market", [1, 2, 3])
def test_a_late_batch_is_judged_by_the_price_of_each_market(
    exchange: Exchange, maker: Party, market: int
) -> None:
    """Wherever in a round's words it lies, and whatever a tick of a lot is worth."""
    poor, mark, terms = (
        exchange.deposit(20, 1_000 * USDC),
        exchange.last[market].mark_ticks,
        exchange.markets[market],
    )
    fraction = terms.tiers[0].initial_fraction_ppm
    size = 900 * USDC * 10**6 // fraction // terms.notional(1, mark)
    batch = withheld(exchange, exchange.round())
    batch.trade(maker, poor, Side.BUY, size, mark, market=market)
    data = batch.data()
    with boa.env.anchor():
        exchange.branch().round({market: mark - mark * fraction // 2 // 10**6}, seconds=130)
        with refused("vault: late, below initial"):
            send(exchange, data)
    exchange.clock = boa.env.timestamp
    exchange.round(seconds=130)
    send(exchange, data)


def test_shrinking_late_keeps_the_ratio_at_both_rounds(exchange: Exchange, maker: Party) -> None:
    """An account that meets its initial margin at the pinned round, and not today since another market fell: a late sale at the
    old price passes where that is today's price too, and not where it lowers today's margin ratio."""
    poor = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, poor, Side.BUY, 20_000, PRICE)
    eth = 12_000 * USDC // (250_000 * exchange.markets[1].lot_tick_value)
    resting = batch.order(maker, Side.SELL, eth, 250_000, market=1, slot=2)
    batch.fill(resting, batch.order(poor, Side.BUY, eth, 250_000, market=1), eth)
    batch.settle()
    batch = withheld(exchange, exchange.round())
    batch.trade(maker, poor, Side.SELL, 1_000, PRICE)
    data = batch.data()
    with boa.env.anchor():
        other = exchange.branch()
        other.round({0: 630_000, 1: 230_000}, seconds=130)
        with refused("vault: margin ratio fell"):
            send(other, data)
    exchange.round({0: PRICE, 1: 235_000}, seconds=130)
    margin = exchange.margin(poor.account)
    assert 0 < margin.equity < margin.initial
    send(exchange, data)


@pytest.mark.safety("B15", "contract")
def test_turning_a_position_round_late_is_growing(exchange: Exchange, maker: Party) -> None:
    """However small the other side is: below its initial margin at the newest round it is refused as growth, above it settles."""
    poor = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, poor, Side.BUY, 60_000, PRICE)
    batch.settle()
    batch = withheld(exchange, exchange.round())
    batch.trade(maker, poor, Side.SELL, 119_000, PRICE)
    data = batch.data()
    with boa.env.anchor():
        move_on(exchange, 130, 601_500)
        with refused("vault: late, below initial"):
            send(exchange, data)
    exchange.clock = boa.env.timestamp
    move_on(exchange, 130)
    send(exchange, data)
    assert exchange.vault.position(poor.account, 0).size == -59_000


@pytest.mark.safety("A03", "contract")
def test_growing_on_a_price_that_is_held_back_today(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A jump that the newest round holds back is no price either; who ends without a position needs none."""
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    batch.settle()
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    grows = batch.data()
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.SELL, 1_000, PRICE)
    closes = batch.data()
    move_on(exchange, 130)
    clamp(exchange)
    with refused("vault: late, grew on stale price"):
        send(exchange, grows)
    send(exchange, closes)
    assert exchange.vault.position(taker.account, 0).size == 0


def test_growing_on_a_price_that_is_stale_today(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The newest round must know what the market is worth, or nobody's position may grow."""
    batch = withheld(exchange, exchange.pinned)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    exchange.round({}, seconds=3_000, abstain=range(len(exchange.markets)))
    with refused("vault: late, grew on stale price"):
        batch.settle()
