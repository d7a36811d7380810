"""To the unit: the margin ratio that an account keeps when it shrinks below its initial margin, in time and late."""

from typing import Any

import boa
import pytest
from builders import USDC, Builder, Exchange, Party, refused
from msgspec.structs import replace
from test_deleveraging import BELOW_TWO_THIRDS, keep_only
from test_exit import apply_hour
from test_late_batches import pinning
from test_liquidation import BELOW_MAINTENANCE, bounds

from evermark.protocol.liquidation import keeper_share, liquidation_fee
from evermark.protocol.margin import initial_margin, maintenance_margin
from evermark.protocol.orders import Side
from evermark.protocol.units import ceil_div

ENTRY, HIGH, MARK = 600_001, 615_000, 599_999
PRICE = 591_000  # of the sale, within the band of both marks
TAKER_PPM = 400
# Lots held (odd, like the entry) and sold, and whether the initial margins before and after are odd, which their halves round up.
SALES = [
    (60001, 9002, False, False),
    (60001, 9000, False, True),
    (60041, 9000, True, False),
    (60041, 9002, True, True),
]


def hold(exchange: Exchange, maker: Party, size: int) -> Party:
    """Long BTC and a little ETH, which stays as it is, with an hour of funding owed, at a high price."""
    party = exchange.deposit(20, 3_000 * USDC)
    exchange.round({0: ENTRY})
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, size, ENTRY)
    resting = batch.order(maker, Side.SELL, 10, 250_000, market=1, slot=2)
    batch.fill(resting, batch.order(party, Side.BUY, 10, 250_000, market=1), 10)
    batch.settle()
    apply_hour(exchange, 77_777, HIGH)
    return party


def sale(exchange: Exchange, maker: Party, party: Party, sold: int, price: int, **header: Any) -> Builder:
    batch = exchange.batch(**header)
    batch.trade(maker, party, Side.SELL, sold, price)
    return batch


def lost(sold: int, price: int, mark: int = MARK) -> int:
    """What a sale costs against the mark, its fee included."""
    return sold * (mark - price) + ceil_div(sold * price * TAKER_PPM, 10**6)


def leave_equity(exchange: Exchange, party: Party, equity: int) -> None:
    """By its collateral, at the newest marks."""
    collateral = exchange.vault.account(party.account).collateral
    keep_only(exchange, party.account, collateral - exchange.margin(party.account).equity + equity)


@pytest.mark.safety("B15", "contract")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("size", "sold", "odd_before", "odd_after"), SALES)
def test_the_ratio_is_kept_to_the_unit(
    exchange: Exchange, maker: Party, size: int, sold: int, odd_before: bool, odd_after: bool, late: bool
) -> None:
    """With the least equity at which it does not fall a sale settles, with a unit less it does not; late, by the newest round."""
    party, market = hold(exchange, maker, size), exchange.markets[0]
    header = pinning(exchange.pinned) if late else {}
    exchange.round({0: MARK}, seconds=130)
    initials = [initial_margin(market, market.notional(lots, MARK)) for lots in (size, size - sold)]
    assert [initial % 2 == 1 for initial in initials] == [odd_before, odd_after]
    before, after = (maintenance_margin(market, market.notional(lots, MARK)) for lots in (size, size - sold))
    total = exchange.margin(party.account)
    least = ceil_div(lost(sold, PRICE) * total.maintenance, before - after)
    assert total.maintenance < least < total.initial
    for equity in (least - 1, least):
        with boa.env.anchor():
            leave_equity(exchange, party, equity)
            batch = sale(exchange, maker, party, sold, PRICE, **header)
            if equity < least:
                with refused("vault: margin ratio fell"):
                    batch.settle()
            else:
                batch.settle()


@pytest.mark.safety("A01", "contract")
def test_initial_margin_on_a_stale_price_is_enough_to_shrink(exchange: Exchange, maker: Party) -> None:
    """To the unit: with exactly that much afterwards the ratio may fall, with a unit less it may not."""
    party, sold, price = hold(exchange, maker, 60_000), 10_000, 576_000
    exchange.round({0: MARK})
    exchange.round(seconds=70, abstain=[0])
    kept = exchange.margin(party.account).initial
    for lots, sign in ((60_000, -1), (50_000, 1)):
        kept += sign * initial_margin(exchange.markets[0], exchange.markets[0].notional(lots, MARK))
    for missing in (1, 0):
        with boa.env.anchor():
            leave_equity(exchange, party, kept + lost(sold, price) - missing)
            batch = sale(exchange, maker, party, sold, price)
            if missing:
                with refused("vault: margin ratio fell"):
                    batch.settle()
            else:
                batch.settle()
                assert exchange.margin(party.account).equity == exchange.margin(party.account).initial


@pytest.mark.safety("B09", "contract")
def test_a_targets_other_positions_are_named(exchange: Exchange, maker: Party) -> None:
    """Or nobody knows whether it is below maintenance: a profit elsewhere may not be left out."""
    party = hold(exchange, maker, 60_000)
    exchange.round({0: BELOW_TWO_THIRDS})
    leave_equity(exchange, party, 100 * USDC)
    batch = exchange.batch()
    batch.take_over(party.account, 0, 100)
    built = batch.build()
    assert built.pairs == ((0, 0), (1, 0), (1, 1))
    for pairs in (built.pairs[:2], built.pairs):
        batch.header = {"pairs": pairs, "fills": (replace(built.fills[0], first=1),)}
        if len(pairs) == 2:
            with refused("vault: positions not named"):
                batch.settle()
        else:
            batch.settle()


@pytest.mark.safety("B15", "contract")
def test_what_a_keeper_earns_is_not_what_it_began_with(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """To the unit: its fee of a liquidation in the same batch makes up for what a sale of its own loses, like any other gain."""
    keeper, target, size, sold = (
        hold(exchange, maker, 60_001),
        exchange.deposit(21, 1_100 * USDC),
        60_001,
        9_002,
    )
    batch = exchange.batch()
    batch.trade(taker, target, Side.BUY, 33_000, HIGH)
    batch.settle()
    mark = BELOW_MAINTENANCE + 11_000
    exchange.round({0: mark})
    leave_equity(exchange, target, exchange.margin(target.account).maintenance * 5 // 6)
    market, price = exchange.markets[0], mark - 8_500
    fee = liquidation_fee(market, market.notional(10_000, mark), bounds(exchange, target, 10_000)[0])
    before, after = (maintenance_margin(market, market.notional(lots, mark)) for lots in (size, size - sold))
    total = exchange.margin(keeper.account)
    loss = lost(sold, price, mark) - keeper_share(fee)
    least = ceil_div(loss * total.maintenance, before - after)
    assert 0 < least < total.initial
    for equity in (least - 1, least):
        with boa.env.anchor():
            leave_equity(exchange, keeper, equity)
            batch = sale(exchange, maker, keeper, sold, price)
            row = batch.order(taker, Side.BUY, 10_000, mark, slot=7)
            batch.liquidate(target.account, 0, row, 10_000, keeper.account)
            if equity < least:
                with refused("vault: margin ratio fell"):
                    batch.settle()
            else:
                batch.settle()
