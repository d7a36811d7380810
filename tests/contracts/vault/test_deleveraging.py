"""Deleveraging on chain: only what the fund cannot take, at mark or bankruptcy amount, against accounts that can bear it."""

import boa
import pytest
from builders import MARKETS, USDC, Exchange, Party, Refused, events, refused
from msgspec.structs import replace

from evermark.protocol.liquidation import deleveraging_loss
from evermark.protocol.margin import maintenance_margin
from evermark.protocol.orders import Side

ENTRY = 600_000
SIZE = 33_000
BELOW_MAINTENANCE = 576_500
BELOW_TWO_THIRDS = 574_500
BELOW_ZERO = 569_000


@pytest.fixture
def poor(exchange: Exchange) -> Exchange:
    """The exchange with an insurance fund of nothing."""
    keep_only(exchange, 1, 0)
    return exchange


def keep_only(exchange: Exchange, account: int, collateral: int) -> None:
    """Sets an account's collateral through the backstop's door; the difference goes to the fee account."""
    vault = exchange.vault
    change = collateral - vault.account(account).collateral
    for number, amount in ((account, change), (2, -change)):
        kept = vault.word(number) >> 96 << 96
        moved = vault.account(number).collateral + amount & 2**96 - 1
        vault.write(number, kept | moved, sender=exchange.backstop.address)


@pytest.fixture
def target(poor: Exchange, maker: Party) -> Party:
    """A trader with 1,000 USDC, long about 19,800 USDC of BTC against the maker."""
    party = poor.deposit(20, 1_000 * USDC)
    batch = poor.batch()
    batch.trade(maker, party, Side.BUY, SIZE, ENTRY)
    batch.settle()
    return party


@pytest.fixture
def short_target(poor: Exchange, taker: Party) -> Party:
    """The same, short against the taker."""
    party = poor.deposit(21, 1_000 * USDC)
    batch = poor.batch()
    batch.trade(taker, party, Side.SELL, SIZE, ENTRY)
    batch.settle()
    return party


def deleverage(exchange: Exchange, target: Party, other: int, size: int, market: int = 0):
    batch = exchange.batch()
    batch.deleverage(target.account, market, other, size)
    return batch


def loss_of(exchange: Exchange, target: Party, closed: int) -> int:
    margin, mark = exchange.margin(target.account), exchange.last[0].mark_ticks
    size = abs(exchange.vault.position(target.account, 0).size)
    own = maintenance_margin(exchange.markets[0], exchange.markets[0].notional(size, mark))
    return deleveraging_loss(margin.equity, margin.maintenance, own, closed, size)


@pytest.mark.safety("B20", "contract")
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("distance", [25_500, 31_000])
def test_lots_and_money_move_exactly(
    poor: Exchange,
    target: Party,
    short_target: Party,
    maker: Party,
    taker: Party,
    direction: int,
    distance: int,
) -> None:
    """With equity at the mark; below zero the counterparty also pays the target's share of its deficit, rounded up."""
    party, other = (target, maker) if direction > 0 else (short_target, taker)
    mark = ENTRY - direction * distance
    poor.round({0: mark})
    size = 10_000
    loss = loss_of(poor, party, size)
    assert (loss < 0) == (distance == 31_000)
    before = {account: poor.vault.account(account).collateral for account in (party.account, other.account)}
    computation = deleverage(poor, party, other.account, size).settle()
    (closed,) = events(poor, computation, "Liquidated")
    (told,) = events(poor, computation, "Deleveraged")
    assert (closed.account, closed.size, closed.loss, closed.fee, closed.kind) == (
        party.account,
        size,
        loss,
        0,
        3,
    )
    assert (told.account, told.market, told.size, told.paid) == (other.account, 0, size, -loss)
    after = {account: poor.vault.account(account).collateral - was for account, was in before.items()}
    notional = direction * size * mark
    assert after == {party.account: notional - loss, other.account: loss - notional}
    assert poor.vault.position(party.account, 0).size == direction * (SIZE - size)
    assert poor.vault.position(other.account, 0).size == -direction * (SIZE - size)
    poor.check_invariants()


@pytest.mark.safety("B09", "contract")
def test_only_below_two_thirds_of_maintenance(poor: Exchange, target: Party, maker: Party) -> None:
    """Healthy, or between two thirds and maintenance: refused; below: settles."""
    for mark in (ENTRY, BELOW_MAINTENANCE):
        poor.round({0: mark})
        with refused("vault: not below two thirds"):
            deleverage(poor, target, maker.account, 100).settle()
    poor.round({0: BELOW_TWO_THIRDS})
    deleverage(poor, target, maker.account, 100).settle()


@pytest.mark.safety("B06", "contract")
@pytest.mark.safety("B20", "contract")
def test_only_while_the_fund_cannot_take_one_more_lot(poor: Exchange, target: Party, maker: Party) -> None:
    """As long as the fund's margin and cap allow a lot beside what it holds, nobody is deleveraged; the fund comes first."""
    poor.round({0: BELOW_TWO_THIRDS})
    poor.donate(100 * USDC)
    with refused("vault: the fund could take it"):
        deleverage(poor, target, maker.account, 100).settle()
    low, high = 0, SIZE
    while high - low > 1:
        middle = (low + high) // 2
        batch = poor.batch()
        batch.take_over(target.account, 0, middle)
        try:
            with boa.env.anchor():
                batch.settle()
            low = middle
        except Refused:
            high = middle
    assert 0 < low < SIZE
    batch = poor.batch()
    batch.take_over(target.account, 0, low)
    batch.settle()
    deleverage(poor, target, maker.account, 100).settle()
    poor.donate(10 * USDC)
    with refused("vault: the fund could take it"):
        deleverage(poor, target, maker.account, 100).settle()


@pytest.mark.safety("B06", "contract")
def test_the_markets_cap_forbids_the_fund(exchange: Exchange, maker: Party) -> None:
    """A rich fund that holds all that the market's cap allows: the rest of the position is deleveraged, to its last lot."""
    whale = exchange.deposit(22, 120_000 * USDC)
    cap = MARKETS[0].fund_position_cap_lots
    exchange.deposit(1, 3_000_000 * USDC)
    exchange.donate(9_000_000 * USDC)
    exchange.round({0: 200_000})
    batch = exchange.batch()
    batch.trade(maker, whale, Side.BUY, cap + 1_000, 200_000)
    batch.settle()
    exchange.round({0: 195_600})
    batch = exchange.batch()
    batch.take_over(whale.account, 0, cap - 1)
    batch.settle()
    with refused("vault: the fund could take it"):
        deleverage(exchange, whale, maker.account, 100).settle()
    batch = exchange.batch()
    batch.take_over(whale.account, 0, 1)
    batch.settle()
    deleverage(exchange, whale, maker.account, 100).settle()
    exchange.round({0: 180_000})
    for size in (899, 1):
        deleverage(exchange, whale, maker.account, size).settle()
    exchange.check_invariants()


@pytest.mark.safety("B06", "contract")
@pytest.mark.safety("A01", "contract")
def test_a_fund_without_a_price_of_its_own_markets_takes_nothing(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Nobody knows what it is worth then: the position is deleveraged; with a price again the fund comes first."""
    other = exchange.deposit(28, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, other, Side.BUY, 80_000, 250_000, market=1)
    batch.settle()
    exchange.round({1: 240_600})
    batch = exchange.batch()
    batch.take_over(other.account, 1, 100)
    batch.settle()
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(taker, party, Side.BUY, SIZE, ENTRY)
    batch.settle()
    exchange.round({0: BELOW_TWO_THIRDS})
    with refused("vault: the fund could take it"):
        deleverage(exchange, party, taker.account, 100).settle()
    exchange.round(seconds=70, abstain=[1])
    deleverage(exchange, party, taker.account, 100).settle()
    assert exchange.vault.position(1, 1).size == 100


@pytest.mark.safety("B06", "contract")
def test_a_fund_in_sixteen_markets_takes_no_seventeenth() -> None:
    """However rich it is; in a market that it is in already it comes first."""
    with boa.env.anchor():
        template = Exchange().markets[0]
        markets = tuple(replace(template, market_id=number, symbol=f"M{number}-PERP") for number in range(17))
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(17), ENTRY))
        exchange.donate(10**6 * USDC)
        maker, other = (exchange.deposit(number, 10**6 * USDC) for number in (1, 4))
        target, spread = (exchange.deposit(number, 1_000 * USDC) for number in (2, 3))
        for party, against, ids, size in (
            (target, other, (16,), 33_000),
            (spread, maker, range(16), 2_060),
        ):
            batch = exchange.batch()
            for market in ids:
                resting = batch.order(against, Side.SELL, size, ENTRY, market=market, slot=1 + market)
                batch.fill(resting, batch.order(party, Side.BUY, size, ENTRY, market=market), size)
            batch.settle()
        exchange.round(dict.fromkeys(range(17), BELOW_TWO_THIRDS))
        with refused("vault: the fund could take it"):
            reduce(exchange, target, other, 16)
        for market in range(16):
            batch = exchange.batch()
            batch.take_over(spread.account, market, 10)
            batch.settle()
        assert exchange.vault.account(1).open_positions == 16
        with refused("vault: the fund could take it"):
            reduce(exchange, spread, maker, 3)
        reduce(exchange, target, other, 16)
        exchange.check_invariants()


def reduce(exchange: Exchange, party: Party, other: Party, market: int) -> None:
    deleverage(exchange, party, other.account, 100, market).settle()


@pytest.mark.safety("B11", "contract")
def test_counterparties_are_opposite_and_shrink(
    poor: Exchange, target: Party, short_target: Party, maker: Party, taker: Party
) -> None:
    """Same side, no position, more lots than either holds, another market, a reserved account: refused."""
    poor.round({0: BELOW_TWO_THIRDS})
    small = poor.deposit(24, 100_000 * USDC)
    batch = poor.batch()
    batch.trade(taker, small, Side.SELL, 50, BELOW_TWO_THIRDS)
    batch.settle()
    with refused("vault: same side"):
        deleverage(poor, target, taker.account, 100).settle()
    nobody = poor.deposit(25, 100 * USDC)
    with refused("vault: same side"):
        deleverage(poor, target, nobody.account, 100).settle()
    with refused("vault: larger than the position"):
        deleverage(poor, target, small.account, 51).settle()
    with refused("vault: larger than the position"):
        deleverage(poor, target, maker.account, SIZE + 1).settle()
    with refused("vault: reserved account"):
        deleverage(poor, target, 2, 10).settle()
    batch = deleverage(poor, target, maker.account, 100)
    batch.named.add((maker.account, 1))
    kind, first, _, size, keeper = batch.fills[0]
    batch.fills[0] = (kind, first, (maker.account, 1), size, keeper)
    with refused("vault: markets differ"):
        batch.settle()
    deleverage(poor, target, small.account, 50).settle()
    assert poor.vault.position(small.account, 0).size == 0


@pytest.mark.safety("B20", "contract")
def test_a_counterparty_ends_at_or_above_maintenance(poor: Exchange, target: Party, taker: Party) -> None:
    """To the unit: with one unit less than maintenance afterwards it is refused, with exactly that it settles."""
    weak = poor.deposit(26, 1_000 * USDC)
    batch = poor.batch()
    batch.trade(taker, weak, Side.SELL, SIZE, ENTRY)
    batch.settle()
    poor.round({0: BELOW_ZERO})
    size = 10_000
    loss = loss_of(poor, target, size)
    market, margin = poor.markets[0], poor.margin(weak.account)
    left = maintenance_margin(market, market.notional(SIZE - size, BELOW_ZERO))
    spare = margin.equity + loss - left
    assert spare > 0
    for missing in (1, 0):
        with boa.env.anchor():
            keep_only(poor, weak.account, poor.vault.account(weak.account).collateral - spare - missing)
            batch = deleverage(poor, target, weak.account, size)
            if missing:
                with refused("vault: counterparty unhealthy"):
                    batch.settle()
            else:
                batch.settle()
                after = poor.margin(weak.account)
                assert after.equity == after.maintenance


def test_the_fund_and_all_positions_are_named(poor: Exchange, target: Party, maker: Party) -> None:
    """Without the fund in the table nobody can say that it cannot take the position."""
    poor.round({0: BELOW_TWO_THIRDS})
    batch = deleverage(poor, target, maker.account, 100)
    batch.accounts.discard(1)
    with refused("vault: positions not named"):
        batch.settle()


@pytest.mark.safety("B20", "contract")
def test_neither_side_trades_by_order_in_the_batch(
    poor: Exchange, target: Party, maker: Party, taker: Party
) -> None:
    """Both are exempt from the closing check, so an order of either beside it is refused, before or after."""
    poor.round({0: BELOW_TWO_THIRDS})
    for party in (target, maker):
        for first in (True, False):
            batch = deleverage(poor, target, maker.account, 100)
            resting = batch.order(party, Side.SELL, 10, BELOW_TWO_THIRDS, slot=3)
            batch.fill(resting, batch.order(taker, Side.BUY, 10, BELOW_TWO_THIRDS), 10)
            if first:
                batch.fills.reverse()
            with refused("vault: target also trades"):
                batch.settle()


@pytest.mark.safety("A01", "contract")
def test_no_deleveraging_on_a_stale_price(poor: Exchange, target: Party, maker: Party, taker: Party) -> None:
    """Any stale market among the open ones of target or counterparty stops it."""
    batch = poor.batch()
    batch.trade(taker, maker, Side.BUY, 10, 250_000, market=1)
    batch.settle()
    poor.round({0: BELOW_TWO_THIRDS}, seconds=70, abstain=[1])
    with refused("vault: stale price"):
        deleverage(poor, target, maker.account, 100).settle()
    poor.round({0: BELOW_TWO_THIRDS}, seconds=70, abstain=[0])
    with refused("vault: stale price"):
        deleverage(poor, target, maker.account, 100).settle()
    poor.round({0: BELOW_TWO_THIRDS, 1: 250_000})
    deleverage(poor, target, maker.account, 100).settle()


@pytest.mark.safety("B10", "contract")
def test_a_fund_that_shrinks_for_free_comes_before_the_queue(
    poor: Exchange, target: Party, maker: Party, taker: Party
) -> None:
    """A fund below its own margin still takes what shrinks its position at no cost to it, though it gains nothing."""
    short = poor.deposit(27, 1_000 * USDC)
    batch = poor.batch()
    batch.trade(taker, short, Side.SELL, 5_000, ENTRY)
    batch.settle()
    poor.donate(400 * USDC)
    poor.round({0: 794_000})
    batch = poor.batch()
    batch.take_over(short.account, 0, 2_000)
    batch.settle()
    poor.round({0: BELOW_TWO_THIRDS})
    assert poor.vault.position(1, 0).size == -2_000
    keep_only(poor, 1, poor.vault.account(1).collateral - poor.margin(1).equity + 1)
    assert poor.margin(1).equity == 1
    with refused("vault: the fund could take it"):
        deleverage(poor, target, maker.account, 100).settle()
    with boa.env.anchor(), refused("vault: the fund could take it"):
        nothing = poor.vault.account(target.account).collateral - poor.margin(target.account).equity
        keep_only(poor, target.account, nothing)
        deleverage(poor, target, maker.account, 100).settle()
    batch = poor.batch()
    batch.take_over(target.account, 0, 2_000)
    batch.settle()
    assert poor.vault.position(1, 0).size == 0
    keep_only(poor, 1, 0)
    deleverage(poor, target, maker.account, 100).settle()
