"""Order fills: money and positions move by the formulas, and nothing beyond what both signed."""

import boa
import pytest
from builders import USDC, Exchange, Party, refused, send

from evermark.protocol.orders import Side, TimeInForce
from evermark.protocol.units import ceil_div

PRICE = 600_000
LTV = 1  # quote units per lot and tick of BTC-PERP


def collateral(exchange: Exchange, account: int) -> int:
    return exchange.vault.account(account).collateral


def test_a_fill_moves_price_and_fees_exactly(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Buyer pays size x price, seller receives it, each pays its rate rounded up, the fee account gets both."""
    size, price = 1_234, PRICE - 777
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, size, price)
    batch.settle()
    notional = size * price * LTV
    maker_fee, taker_fee = ceil_div(notional * 100, 10**6), ceil_div(notional * 400, 10**6)
    assert collateral(exchange, maker.account) == 100_000 * USDC + notional - maker_fee
    assert collateral(exchange, taker.account) == 100_000 * USDC - notional - taker_fee
    assert collateral(exchange, 2) == maker_fee + taker_fee
    assert exchange.vault.position(taker.account, 0) == (size, 0, PRICE)
    assert exchange.vault.position(maker.account, 0) == (-size, 0, PRICE)
    assert exchange.vault.market_state(0).open_interest == size


def test_fees_round_once_per_row(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Three fills of one order cost the fee of their sum, rounded up once."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 30, PRICE, slot=1)
    taking = batch.order(taker, Side.BUY, 30, PRICE)
    for size in (7, 11, 12):
        batch.fill(resting, taking, size)
    batch.settle()
    notional = 30 * PRICE
    assert collateral(exchange, taker.account) == 100_000 * USDC - notional - ceil_div(notional * 400, 10**6)


def test_a_rebate_comes_out_of_the_takers_fee(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A negative maker rate pays the maker, up to the taker's rate."""
    batch = exchange.batch()
    batch.fee_classes = ((-400, 400),)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    batch.settle()
    assert collateral(exchange, maker.account) == 100_000 * USDC + 1_000 * PRICE + 240_000
    assert collateral(exchange, 2) == 0
    batch = exchange.batch()
    batch.fee_classes = ((-401, 400),)
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    with refused("vault: rebate above taker fee"):
        batch.settle()


def test_maker_and_taker_have_their_own_fee_classes(
    exchange: Exchange, maker: Party, taker: Party, keeper: Party
) -> None:
    """Each row pays by the class that it names, whichever rows stand before it in the batch."""
    batch = exchange.batch()
    batch.fee_classes = ((100, 400), (-30, 250), (7, 90))
    first = batch.order(maker, Side.SELL, 1_000, PRICE, slot=1, fee_class=1)
    second = batch.order(keeper, Side.SELL, 1_000, PRICE, slot=1, fee_class=2)
    buying = batch.order(taker, Side.BUY, 2_000, PRICE, fee_class=0)
    again = batch.order(keeper, Side.BUY, 300, PRICE, fee_class=1)
    third = batch.order(maker, Side.SELL, 300, PRICE, slot=2, fee_class=0)
    for resting, taking, size in ((first, buying, 1_000), (second, buying, 1_000), (third, again, 300)):
        batch.fill(resting, taking, size)
    batch.settle()
    paid = {
        maker.account: -30 * 1_000 * PRICE // 10**6 + 100 * 300 * PRICE // 10**6,
        keeper.account: 7 * 1_000 * PRICE // 10**6 + 250 * 300 * PRICE // 10**6,
        taker.account: 400 * 2_000 * PRICE // 10**6,
    }
    for account, fee in paid.items():
        size = exchange.vault.position(account, 0).size
        assert collateral(exchange, account) == 100_000 * USDC - size * PRICE - fee
    assert collateral(exchange, 2) == sum(paid.values())


@pytest.mark.parametrize("side", Side)
@pytest.mark.safety("D05", "contract")
def test_the_takers_limit_binds(exchange: Exchange, maker: Party, taker: Party, side: Side) -> None:
    """A price one tick beyond the taker's limit is refused, the limit itself settles."""
    for beyond in (1, 0):
        batch = exchange.batch()
        resting = batch.order(maker, side.opposite, 10, PRICE, slot=1)
        batch.fill(resting, batch.order(taker, side, 10, PRICE - beyond * side.sign), 10)
        if beyond:
            with refused("vault: price beyond limit"):
                batch.settle()
        else:
            batch.settle()


def test_both_sides_must_differ(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Two buys do not make a trade."""
    batch = exchange.batch()
    batch.fill(batch.order(maker, Side.BUY, 10, PRICE, slot=1), batch.order(taker, Side.BUY, 10, PRICE), 10)
    with refused("vault: same side"):
        batch.settle()


def test_both_orders_are_of_one_market(exchange: Exchange, maker: Party, taker: Party) -> None:
    """An ETH order cannot fill a BTC order."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, 250_000, market=1, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    with refused("vault: markets differ"):
        batch.settle()


@pytest.mark.parametrize(
    "price, inside", [(630_000, True), (630_001, False), (570_000, True), (569_999, False)]
)
@pytest.mark.safety("A03", "contract")
def test_the_price_stays_in_the_markets_band(
    exchange: Exchange, maker: Party, taker: Party, price: int, inside: bool
) -> None:
    """BTC fills within 5 % of the mark on either side, not a tick beyond."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.SELL, 10, price)
    if inside:
        batch.settle()
    else:
        with refused("vault: price outside band"):
            batch.settle()


@pytest.mark.safety("D05", "contract")
def test_an_order_never_fills_beyond_its_size(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Over any split and over batches, the sum of fills is at most the signed size."""
    first = exchange.batch()
    resting = first.order(maker, Side.SELL, 10, PRICE, slot=1)
    first.fill(resting, first.order(taker, Side.BUY, 6, PRICE), 6)
    first.settle()
    second = exchange.batch()
    second.fill(second.again(resting), second.order(taker, Side.BUY, 5, PRICE), 5)
    with refused("vault: order overfilled"):
        second.settle()
    third = exchange.batch()
    third.fill(third.again(resting), third.order(taker, Side.BUY, 4, PRICE), 4)
    third.settle()
    assert exchange.vault.slot(maker.account, 1).filled == 10
    fourth = exchange.batch()
    taking = fourth.order(taker, Side.BUY, 9, PRICE)
    other = fourth.order(maker, Side.SELL, 10, PRICE, slot=2)
    fourth.fill(other, taking, 5)
    fourth.fill(other, taking, 5)
    with refused("vault: order overfilled"):
        fourth.settle()


@pytest.mark.safety("D13", "contract")
def test_no_fee_above_the_signed_maximum(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The taker's rate binds the taker, the maker's the maker; equality passes."""
    for maker_max, taker_max, reason in ((99, 400, True), (100, 399, True), (100, 400, False)):
        batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1, max_fee_ppm=maker_max)
        batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE, max_fee_ppm=taker_max), 10)
        if reason:
            with refused("vault: fee above signed maximum"):
                batch.settle()
        else:
            batch.settle()


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_ioc_and_fok_never_make(
    exchange: Exchange, maker: Party, taker: Party, time_in_force: TimeInForce
) -> None:
    """What must not rest cannot be the maker, in a slot of its own or not."""
    for slot in (0, 1):
        batch = exchange.batch()
        resting = batch.order(maker, Side.SELL, 10, PRICE, slot=slot, time_in_force=time_in_force)
        batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
        with refused("vault: order never makes"):
            batch.settle()


def test_slot_0_is_for_orders_that_never_rest(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A GTC order signed for slot 0 is no valid row."""
    batch = exchange.batch()
    batch.order(maker, Side.SELL, 10, PRICE, slot=0, time_in_force=TimeInForce.GTC)
    with refused("vault: slot 0 never rests"):
        batch.settle()


def test_post_only_makes_but_never_takes(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A post-only order fills as maker; as taker it is refused."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1, post_only=True)
    crossing = batch.order(taker, Side.BUY, 10, PRICE, slot=1, post_only=True)
    batch.fill(resting, crossing, 10)
    with refused("vault: post-only would take"):
        batch.settle()
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1, post_only=True)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), 10)
    batch.settle()


def test_reduce_only_needs_an_opposite_position_as_large(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Reduce-only fills up to the position at that moment, and not a lot more."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    for size, passes in ((11, False), (10, True)):
        batch = exchange.batch()
        resting = batch.order(maker, Side.BUY, 20, PRICE, slot=2)
        batch.fill(resting, batch.order(taker, Side.SELL, size, PRICE, reduce_only=True), size)
        if passes:
            batch.settle()
        else:
            with refused("vault: fill does not reduce"):
                batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 0
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 5, PRICE, slot=3, reduce_only=True)
    batch.fill(resting, batch.order(taker, Side.BUY, 5, PRICE), 5)
    with refused("vault: fill does not reduce"):
        batch.settle()


@pytest.mark.safety("B25", "contract")
def test_a_self_trade_costs_fees_and_moves_nothing(exchange: Exchange, maker: Party) -> None:
    """Maker and taker of one account: no position, no open interest, both fees."""
    batch = exchange.batch()
    batch.trade(maker, maker, Side.BUY, 1_000, PRICE)
    batch.settle()
    assert collateral(exchange, maker.account) == 100_000 * USDC - 60_000 - 240_000
    assert exchange.vault.position(maker.account, 0).size == 0
    assert exchange.vault.market_state(0).open_interest == 0


def test_a_self_trade_may_not_ruin_the_account(exchange: Exchange, maker: Party) -> None:
    """Fees on a huge self-trade would leave a deficit: the closing check refuses it."""
    batch = exchange.batch()
    batch.fee_classes = ((1_000, 1_000),)
    batch.trade(maker, maker, Side.BUY, 100_000_000, PRICE)
    with refused("vault: margin ratio fell"):
        batch.settle()


@pytest.mark.safety("A01", "contract")
def test_a_stale_price_lets_both_parties_only_reduce(exchange: Exchange, maker: Party, taker: Party) -> None:
    """With BTC stale, a fill that closes both positions settles, one that opens either is refused."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    exchange.round(seconds=70, abstain=[0])
    batch = exchange.batch()
    batch.trade(maker, taker, Side.SELL, 11, PRICE)
    with refused("vault: fill does not reduce"):
        batch.settle()
    batch = exchange.batch()
    resting = batch.order(maker, Side.BUY, 10, PRICE, slot=2)
    batch.fill(resting, batch.order(taker, Side.SELL, 10, PRICE), 10)
    batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 0


def test_no_growth_anywhere_on_a_stale_price(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A fresh market does not help an account whose other open market is stale: it may not grow."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    exchange.round(seconds=70, abstain=[0])
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, 250_000, market=1)
    with refused("vault: grew on a stale price"):
        batch.settle()


@pytest.mark.parametrize("size", [0, 2**62])
@pytest.mark.safety("C10", "contract")
def test_sizes_have_bounds(exchange: Exchange, maker: Party, taker: Party, size: int) -> None:
    """An empty fill and one of 2^62 lots are refused before anything changes."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 10, PRICE), size)
    with refused("vault: fill size out of range"):
        batch.settle()


@pytest.mark.safety("C10", "contract")
def test_a_size_has_eight_bytes_at_most(exchange: Exchange, maker: Party, taker: Party) -> None:
    """One that spells its number with more of them is refused, though the number itself would do."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    data = batch.data()
    fill = data[-8:-2]
    assert fill == bytes([0, 0, 0, 0, 1, 10])
    for extra in range(1, 16):
        longer = bytes([extra << 4]) + fill[1:5] + bytes(extra) + fill[5:]
        changed = data[:-8] + longer + data[-2:]
        if extra > 7:
            with refused("vault: fill size out of range"):
                send(exchange, changed)
            continue
        with boa.env.anchor():
            send(exchange, changed)
            assert exchange.vault.position(taker.account, 0).size == 10


@pytest.mark.safety("C10", "contract")
def test_notional_has_a_bound(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Lots whose notional leaves 90 bits are refused cleanly."""
    size = 2**62 - 1
    exchange.round({3: 2**32 - 1}, seconds=1_500_000)  # within the band of so long a time
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, size, 2**32 - 1, market=3)
    with refused("vault: notional too large"):
        batch.settle()


@pytest.mark.safety("B03", "contract")
def test_open_interest_stays_within_its_cap(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A batch may not raise open interest above the cap; trading that lowers it stays possible above."""
    cap = exchange.markets[3].open_interest_cap_lots
    exchange.round({3: 1})
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, cap, 1, market=3)
    batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1, 1, market=3)
    with refused("vault: open interest above cap"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.SELL, 1, 1, market=3)
    batch.settle()
    assert exchange.vault.market_state(3).open_interest == cap - 1


def test_entry_marks_follow_the_position(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Opening and flipping take the mark, growing averages it rounded down, shrinking keeps it."""
    seen = []
    for mark, side, size in (
        (600_000, 1, 10),
        (600_101, 1, 3),
        (590_000, -1, 5),
        (610_000, -1, 20),
        (600_000, 1, 12),
    ):
        exchange.round({0: mark})
        batch = exchange.batch()
        batch.trade(maker, taker, Side.BUY if side > 0 else Side.SELL, size, mark)
        batch.settle()
        position = exchange.vault.position(taker.account, 0)
        seen.append((position.size, position.entry_mark))
    assert seen == [(10, 600_000), (13, 600_023), (8, 600_023), (-12, 610_000), (0, 610_000)]


@pytest.mark.safety("C10", "contract")
def test_orders_and_positions_stay_below_2_to_the_62(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A row of 2^62 lots, and a position that would reach them, are refused with their reason."""
    exchange.round({3: 1})
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 2**62, 1, market=3)
    with refused("vault: order too large"):
        batch.settle()
    batch = exchange.batch()
    batch.order(taker, Side.BUY, 2**62, 1, market=3)
    with refused("vault: order too large"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 2**62 - 1, 1, market=3)
    resting = batch.order(maker, Side.SELL, 1, 1, market=3, slot=2)
    batch.fill(resting, batch.order(taker, Side.BUY, 1, 1, market=3), 1)
    with refused("vault: position too large"):
        batch.settle()
