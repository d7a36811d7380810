"""Fills that name what is not there, or reach beyond a bound, beside orders against orders; and what passes."""

import boa
import pytest
from builders import USDC, Builder, Exchange, Party, events, refused
from msgspec.structs import replace as changed
from test_deleveraging import keep_only

from evermark.protocol import liquidation as rules
from evermark.protocol.margin import initial_margin, maintenance_margin
from evermark.protocol.markets import Tier
from evermark.protocol.orders import Side, TimeInForce

ENTRY = 600_000
SIZE = 33_000
BELOW_MAINTENANCE = 576_500
BELOW_TWO_THIRDS = 574_500
MOST_LOTS = 2**62 - 1


@pytest.fixture
def target(exchange: Exchange, maker: Party) -> Party:
    """A trader with 1,000 USDC, long about 19,800 USDC of BTC."""
    return leveraged(exchange, maker, 20, Side.BUY)


def leveraged(exchange: Exchange, maker: Party, number: int, side: Side) -> Party:
    party = exchange.deposit(number, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, side, SIZE, ENTRY)
    batch.settle()
    return party


def on_book(
    exchange: Exchange, target: Party, buyer: Party, size: int, price: int, market: int = 0
) -> Builder:
    batch = exchange.batch()
    batch.liquidate(target.account, 0, batch.order(buyer, Side.BUY, size, price, market=market, slot=9), size)
    return batch


def renumbered(batch: Builder, **numbers: int) -> Builder:
    """The batch with another number in its first fill: `first` and `second` are indexes of rows or pairs."""
    fill = changed(batch.build().fills[0], **numbers)
    batch.header["fills"] = (fill,)
    return batch


@pytest.mark.safety("F02", "contract")
def test_the_maker_of_a_liquidation_is_a_row_of_the_market_in_its_band(
    exchange: Exchange, target: Party, keeper: Party
) -> None:
    """Another market's order, one outside the band, one that never rests, and no order at all are refused; at the band's edge it
    settles."""
    exchange.round({0: BELOW_MAINTENANCE})
    for more in ({"slot": 0}, {"slot": 9, "time_in_force": TimeInForce.FOK}):
        batch = exchange.batch()
        batch.liquidate(target.account, 0, batch.order(keeper, Side.BUY, 100, BELOW_MAINTENANCE, **more), 100)
        with refused("vault: order never makes"):
            batch.settle()
    with refused("vault: markets differ"):
        on_book(exchange, target, keeper, 100, 250_000, market=1).settle()
    band = BELOW_MAINTENANCE * exchange.markets[0].price_band_ppm // 10**6
    for price in (BELOW_MAINTENANCE - band - 1, BELOW_MAINTENANCE + band + 1):
        with refused("vault: price outside band"):
            on_book(exchange, target, keeper, 100, price).settle()
    for row in (1, 2, 65_535):
        with refused("vault: no such order row"):
            renumbered(on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE), second=row).settle()
    on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE + band).settle()


@pytest.mark.safety("F02", "contract")
def test_a_pair_beyond_the_table_is_refused(exchange: Exchange, target: Party, keeper: Party) -> None:
    """As the target and as the fund's; the last pair of the table is one."""
    exchange.round({0: BELOW_TWO_THIRDS})

    def over(**numbers: int) -> Builder:
        batch = exchange.batch()
        batch.take_over(target.account, 0, 100)
        return renumbered(batch, **numbers)

    pairs = len(over().build().pairs)
    for numbers in ({"first": pairs}, {"second": pairs}, {"first": 65_535}):
        with refused("vault: no such pair"):
            over(**numbers).settle()
    over(first=pairs - 1).settle()


def test_an_order_fills_against_the_funds_pair_of_its_market_alone(
    exchange: Exchange, target: Party, maker: Party, taker: Party
) -> None:
    """Neither another account's pair nor the fund's of another market, though both are in the table."""
    exchange.round({0: BELOW_TWO_THIRDS})
    batch = exchange.batch()
    batch.take_over(target.account, 0, SIZE)
    batch.settle()
    for account, market in ((maker.account, 0), (1, 1), (1, 0)):
        batch = exchange.batch()
        row = batch.order(taker, Side.BUY, 100, BELOW_TWO_THIRDS)
        batch.fill_fund(row, 100)
        batch.named |= {(maker.account, 0), (1, 1)}
        built = batch.build()
        renumbered(batch, second=built.pairs.index((built.accounts.index(account), market)))
        if (account, market) == (1, 0):
            batch.settle()
        else:
            with refused("vault: not the fund's pair"):
                batch.settle()
    assert exchange.vault.position(1, 0).size == SIZE - 100


@pytest.mark.safety("C10", "contract")
def test_the_notional_of_every_kind_of_fill_has_a_bound(exchange: Exchange, target: Party) -> None:
    """Of one against the fund too, where no order limits the lots: refused before anything is asked about the position."""
    exchange.round({3: 2**32 - 1}, seconds=1_500_000)
    for size, reason in (
        (2**90 // (2**32 - 1) // exchange.markets[3].lot_tick_value + 1, "vault: notional too large"),
        (2**90 // (2**32 - 1) // exchange.markets[3].lot_tick_value, "vault: larger than the position"),
    ):
        batch = exchange.batch()
        batch.take_over(target.account, 3, size)
        with refused(reason):
            batch.settle()


@pytest.mark.safety("C10", "contract")
def test_a_position_stays_below_2_to_the_62_in_every_kind_of_fill() -> None:
    """A maker that holds the most lots there can be takes none of a liquidation's; with one less open interest binds."""
    with boa.env.anchor():
        exchange, held = tiny(), 9_900_000
        maker, seller, keeper = (exchange.deposit(number, 2**93) for number in (1, 2, 3))
        poor = exchange.deposit(4, 10 * USDC)
        batch = exchange.batch()
        batch.trade(maker, poor, Side.BUY, held, 10)
        batch.settle()
        exchange.round({0: 9})
        assert 0 < exchange.margin(poor.account).equity < exchange.margin(poor.account).maintenance
        for lots, reason in (
            (MOST_LOTS, "vault: position too large"),
            (MOST_LOTS - 1, "vault: open interest above cap"),
            (MOST_LOTS - held, None),
        ):
            batch = exchange.batch()
            batch.trade(seller, keeper, Side.BUY, lots, 9)
            batch.liquidate(poor.account, 0, batch.order(keeper, Side.BUY, 1, 9, slot=2), 1)
            if reason is None:
                batch.settle()
                assert exchange.vault.position(keeper.account, 0).size == lots + 1
                continue
            with refused(reason):
                batch.settle()


def tiny() -> Exchange:
    """A market whose ticks are coarse, and which takes as many lots as there can be."""
    template = Exchange().markets[0]
    market = changed(
        template, open_interest_cap_lots=MOST_LOTS, price_band_ppm=250_000, tiers=changed_tiers((0, 100_000))
    )
    exchange = Exchange(markets=(market,))
    exchange.round({0: 10})
    return exchange


def changed_tiers(*rows: tuple[int, int]) -> tuple[Tier, ...]:
    """Tiers of [whole USDC, ppm], with their deductions."""
    tiers: list[Tier] = []
    for lower_usdc, fraction in rows:
        lower, deduction = lower_usdc * USDC, 0
        if tiers:
            deduction = tiers[-1].deduction + lower * (fraction - tiers[-1].initial_fraction_ppm) // 10**6
        tiers.append(Tier(lower, fraction, deduction))
    return tuple(tiers)


@pytest.mark.safety("B04", "contract")
def test_margin_binds_to_the_unit_whatever_number_of_tiers() -> None:
    """Markets of one, two, three and four tiers, below, at and above each tier's bound."""
    rows = ((0, 50_000), (1_000, 100_000), (5_000, 200_000), (20_000, 500_000))
    with boa.env.anchor():
        template = Exchange().markets[0]
        markets = tuple(
            changed(template, market_id=at, symbol=f"T{at}-PERP", tiers=changed_tiers(*rows[: at + 1]))
            for at in range(4)
        )
        exchange = Exchange(markets=markets)
        exchange.round(dict.fromkeys(range(4), 100_000))  # a lot is 0.1 USDC
        maker = exchange.deposit(1, 10**7 * USDC)
        for market in markets:
            for number, notional_usdc in enumerate((999, 1_000, 4_999, 5_001, 30_000)):
                size = 10 * notional_usdc
                notional = market.notional(size, 100_000)
                needed = initial_margin(market, notional) + notional * 400 // 10**6
                party = exchange.deposit(100 + 10 * market.market_id + number, needed)
                for less in (1, 0):
                    with boa.env.anchor():
                        batch = exchange.batch()
                        if less:
                            batch.withdraw(party, 1)
                        batch.trade(maker, party, Side.BUY, size, 100_000, market=market.market_id)
                        if less:
                            with refused("vault: not withdrawable"):
                                batch.settle()
                        else:
                            batch.settle()


@pytest.mark.safety("B08", "contract")
def test_a_liquidations_bound_counts_the_third_tier(exchange: Exchange, maker: Party) -> None:
    """Of a position of 30 million, where a tenth is initial margin: what the book may lose, to the tick."""
    market, size = exchange.markets[0], 50_000_000
    exchange.deposit(1, 20_000_000 * USDC)
    needed = initial_margin(market, market.notional(size, ENTRY))
    whale = exchange.deposit(30, needed + market.notional(size, ENTRY) * 400 // 10**6)
    batch = exchange.batch()
    batch.trade(maker, whale, Side.BUY, size, ENTRY)
    batch.settle()
    mark = ENTRY * 97 // 100
    exchange.round({0: mark})
    margin = exchange.margin(whale.account)
    assert margin.maintenance * 2 // 3 < margin.equity < margin.maintenance
    own = maintenance_margin(market, market.notional(size, mark))
    assert own == margin.maintenance
    closed = 10_000
    book = rules.book_loss_bound(margin.equity, margin.maintenance, own, closed, size)
    ticks = book // market.notional(closed, 1)
    with refused("vault: loss above bound"):
        on_book(exchange, whale, maker, closed, mark - ticks - 1).settle()
    on_book(exchange, whale, maker, closed, mark - ticks).settle()


@pytest.mark.safety("B08", "contract")
@pytest.mark.parametrize(
    ("at", "size", "entry", "mark"), [(2, 12_600, 15_000, 14_550), (3, 29_000, 30_000, 27_780)]
)
def test_a_liquidations_loss_counts_what_a_tick_of_a_lot_is_worth(
    exchange: Exchange, maker: Party, at: int, size: int, entry: int, mark: int
) -> None:
    """And what margin its own market asks for: what the book may lose, to the tick."""
    market, closed = exchange.markets[at], 1_000
    party = exchange.deposit(30, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, size, entry, market=at)
    batch.settle()
    exchange.round({at: mark})
    margin = exchange.margin(party.account)
    book = rules.book_loss_bound(margin.equity, margin.maintenance, margin.maintenance, closed, size)
    ticks = book // market.notional(closed, 1)
    for beyond in (1, 0):
        batch = exchange.batch()
        row = batch.order(maker, Side.BUY, closed, mark - ticks - beyond, market=at, slot=9)
        batch.liquidate(party.account, at, row, closed)
        if beyond:
            with refused("vault: loss above bound"):
                batch.settle()
        else:
            (told,) = events(exchange, batch.settle(), "Liquidated")
            assert told.market == at
            assert told.loss == ticks * closed * market.lot_tick_value


@pytest.mark.safety("B09", "contract")
def test_the_book_takes_from_who_has_nothing_and_from_nobody_in_debt(
    exchange: Exchange, target: Party, keeper: Party
) -> None:
    """With an equity of exactly zero a liquidation at the mark costs nothing and settles; with a unit less it is the fund's."""
    mark = 570_000
    exchange.round({0: mark})
    nothing = exchange.vault.account(target.account).collateral - exchange.margin(target.account).equity
    for debt in (1, 0):
        keep_only(exchange, target.account, nothing - debt)
        if debt:
            with refused("vault: not liquidatable on book"):
                on_book(exchange, target, keeper, 100, mark).settle()
    with refused("vault: loss above bound"):
        on_book(exchange, target, keeper, 100, mark - 1).settle()
    on_book(exchange, target, keeper, 100, mark).settle()
    assert exchange.margin(target.account).equity == 0


@pytest.mark.safety("B06", "contract")
def test_the_funds_cap_counts_what_it_holds_and_its_side(exchange: Exchange, maker: Party) -> None:
    """With all but one lot of its cap it takes one more on that side and not two, and any number from the other."""
    longs = [leveraged(exchange, maker, number, Side.BUY) for number in (20, 21)]
    short = leveraged(exchange, exchange.parties[4], 22, Side.SELL)
    word = exchange.vault.word(1 << 39) & ~((2**64 - 1) << 152)
    exchange.vault.write(1 << 39, word | SIZE + 1 << 152, sender=exchange.clerk.address)
    exchange.round({0: BELOW_TWO_THIRDS})

    def over(party: Party, size: int) -> None:
        batch = exchange.batch()
        batch.take_over(party.account, 0, size)
        batch.settle()

    over(longs[0], SIZE)
    with refused("vault: fund position above cap"):
        over(longs[1], 2)
    over(longs[1], 1)
    exchange.round({0: 2 * ENTRY - BELOW_TWO_THIRDS + 1_000})
    over(short, SIZE)
    assert exchange.vault.position(1, 0).size == 1
