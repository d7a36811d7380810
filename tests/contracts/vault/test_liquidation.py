"""Liquidation on the book and take-over by the insurance fund: only below maintenance, at bounded losses, never growing."""

import pytest
from builders import USDC, Exchange, Party, events, refused

from evermark.protocol import liquidation as rules
from evermark.protocol.margin import maintenance_margin
from evermark.protocol.orders import Side

ENTRY = 600_000
SIZE = 33_000
BELOW_MAINTENANCE = 576_500  # 3.9 % down: equity between two thirds of maintenance and maintenance
BELOW_TWO_THIRDS = 574_500
BELOW_ZERO = 569_000


@pytest.fixture
def target(exchange: Exchange, maker: Party) -> Party:
    """A trader with 1,000 USDC, long about 19,800 USDC of BTC."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, SIZE, ENTRY)
    batch.settle()
    return party


@pytest.fixture
def short_target(exchange: Exchange, maker: Party) -> Party:
    """The same, short."""
    party = exchange.deposit(21, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.SELL, SIZE, ENTRY)
    batch.settle()
    return party


def on_book(
    exchange: Exchange,
    target: Party,
    buyer: Party,
    size: int,
    price: int,
    keeper: Party | None = None,
    side=Side.BUY,
):
    batch = exchange.batch()
    resting = batch.order(buyer, side, size, price, slot=9)
    batch.liquidate(target.account, 0, resting, size, keeper.account if keeper else None)
    return batch


def bounds(exchange: Exchange, target: Party, closed: int) -> tuple[int, int]:
    """Loss bound and book loss bound by the Python formulas."""
    margin = exchange.margin(target.account)
    mark = exchange.last[0].mark_ticks
    size = abs(exchange.vault.position(target.account, 0).size)
    position_maintenance = maintenance_margin(exchange.markets[0], size * mark)
    given = (margin.equity, margin.maintenance, position_maintenance, closed, size)
    return rules.loss_bound(*given), rules.book_loss_bound(*given)


@pytest.mark.safety("B09", "contract")
def test_a_healthy_account_is_not_liquidated(exchange: Exchange, target: Party, keeper: Party) -> None:
    """Strictly below maintenance only: equality is healthy. Equity is brought to maintenance to the unit first."""
    exchange.round({0: BELOW_MAINTENANCE + 2_000})
    with refused("vault: not liquidatable on book"):
        on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE).settle()
    exchange.round({0: BELOW_MAINTENANCE})
    margin = exchange.margin(target.account)
    missing = margin.maintenance - margin.equity
    assert missing > 0
    for added, healthy in ((missing - 1, False), (1, True)):
        exchange.inbox.deposit(added, 0, sender=exchange.fund_wallet(target.signer, added))
        batch = exchange.batch()
        batch.inbox(target.account)
        batch.settle()
        attempt = on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE)
        if healthy:
            with refused("vault: not liquidatable on book"):
                attempt.settle()
    assert exchange.margin(target.account).equity == exchange.margin(target.account).maintenance


@pytest.mark.parametrize("direction", [1, -1])
def test_a_liquidation_moves_money_exactly(
    exchange: Exchange, target: Party, short_target: Party, maker: Party, keeper: Party, direction: int
) -> None:
    """Price to the maker's limit, the fee half to the keeper and the rest to the fund, the maker pays its rate."""
    party = target if direction > 0 else short_target
    mark = ENTRY - direction * (ENTRY - BELOW_MAINTENANCE) + (0 if direction > 0 else 800)
    exchange.round({0: mark})
    size, price = 10_000, mark - direction * 300
    loss_bound, book_bound = bounds(exchange, party, size)
    fee_expected = rules.liquidation_fee(exchange.markets[0], size * price, loss_bound - size * 300)
    assert book_bound >= size * 300
    before = {
        account: exchange.vault.account(account).collateral
        for account in (1, 2, party.account, maker.account, 5)
    }
    batch = on_book(exchange, party, maker, size, price, keeper, Side.BUY if direction > 0 else Side.SELL)
    (event,) = events(exchange, batch.settle(), "Liquidated")
    assert (event.account, event.market, event.size, event.kind) == (party.account, 0, size, 1)
    assert (event.loss, event.fee) == (size * 300, fee_expected)
    after = {account: exchange.vault.account(account).collateral - paid for account, paid in before.items()}
    maker_fee = -(-size * price * 100 // 10**6)
    half = rules.keeper_share(fee_expected)
    assert after == {
        1: fee_expected - half,
        2: maker_fee,
        party.account: direction * size * price - fee_expected,
        maker.account: -direction * size * price - maker_fee,
        keeper.account: half,
    }
    assert exchange.vault.position(party.account, 0).size == direction * (SIZE - size)


@pytest.mark.safety("B08", "contract")
def test_the_fee_never_lowers_the_ratio(exchange: Exchange, target: Party, keeper: Party) -> None:
    """At the loss bound's edge the fee is capped by the room that is left, down to zero; the call succeeds."""
    exchange.round({0: BELOW_TWO_THIRDS + 600})
    before = exchange.margin(target.account)
    size = 10_000
    _, book = bounds(exchange, target, size)
    price = BELOW_TWO_THIRDS + 600 - book // size
    on_book(exchange, target, keeper, size, price).settle()
    after = exchange.margin(target.account)
    assert after.equity * before.maintenance >= before.equity * after.maintenance


def test_the_book_may_lose_no_more_than_its_bound(exchange: Exchange, target: Party, keeper: Party) -> None:
    """One lot-tick beyond min(ratio bound, a third of maintenance) is refused, the bound itself settles."""
    exchange.round({0: BELOW_MAINTENANCE})
    size = 1_000
    _, book = bounds(exchange, target, size)
    price = BELOW_MAINTENANCE - book // size
    with refused("vault: loss above bound"):
        on_book(exchange, target, keeper, size, price - 1).settle()
    on_book(exchange, target, keeper, size, price).settle()


@pytest.mark.safety("B11", "contract")
def test_a_liquidation_closes_at_most_the_position(exchange: Exchange, target: Party, keeper: Party) -> None:
    """More lots than the position, or the wrong side, is refused: it never flips and never grows."""
    exchange.round({0: BELOW_MAINTENANCE})
    with refused("vault: larger than the position"):
        on_book(exchange, target, keeper, SIZE + 1, BELOW_MAINTENANCE).settle()
    with refused("vault: same side"):
        on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE, side=Side.SELL).settle()
    on_book(exchange, target, keeper, SIZE, BELOW_MAINTENANCE).settle()
    assert exchange.vault.position(target.account, 0).size == 0


@pytest.mark.safety("B09", "contract")
def test_take_over_is_strictly_below_two_thirds(exchange: Exchange, target: Party) -> None:
    """Between two thirds of maintenance and maintenance the fund may not take over."""
    exchange.round({0: BELOW_MAINTENANCE})
    batch = exchange.batch()
    batch.take_over(target.account, 0, SIZE)
    with refused("vault: not below two thirds"):
        batch.settle()


@pytest.mark.parametrize("direction", [1, -1])
def test_the_fund_takes_over_at_the_bound(
    exchange: Exchange, target: Party, short_target: Party, keeper: Party, direction: int
) -> None:
    """The target loses exactly the bound against the mark, the fund receives it less the keeper's half fee."""
    party = target if direction > 0 else short_target
    mark = BELOW_TWO_THIRDS if direction > 0 else 625_500
    exchange.round({0: mark})
    size = 20_000
    bound, _ = bounds(exchange, party, size)
    assert bound > 0
    fee = rules.liquidation_fee(exchange.markets[0], size * mark, bound)
    before = {
        account: exchange.vault.account(account).collateral for account in (1, party.account, keeper.account)
    }
    batch = exchange.batch()
    batch.take_over(party.account, 0, size, keeper.account)
    (event,) = events(exchange, batch.settle(), "Liquidated")
    assert (event.loss, event.fee, event.kind) == (bound, fee, 2)
    after = {account: exchange.vault.account(account).collateral - paid for account, paid in before.items()}
    half = rules.keeper_share(fee)
    assert after == {
        1: -direction * size * mark + bound - half,
        party.account: direction * size * mark - bound,
        keeper.account: half,
    }
    assert exchange.vault.position(1, 0).size == direction * size


def test_a_deficit_is_written_off_against_the_fund(exchange: Exchange, target: Party) -> None:
    """Below zero the fund pays what the account lacks: taking all of it over leaves the account flat at zero."""
    exchange.round({0: BELOW_ZERO})
    deficit = exchange.margin(target.account).equity
    assert deficit < 0
    with refused("vault: not liquidatable on book"):
        on_book(exchange, target, exchange.parties[5], 100, BELOW_ZERO).settle()
    fund = exchange.margin(1).equity
    batch = exchange.batch()
    batch.take_over(target.account, 0, SIZE)
    batch.settle()
    assert exchange.vault.account(target.account).collateral == 0
    assert exchange.margin(1).equity == fund + deficit


@pytest.mark.safety("B06", "contract")
def test_the_fund_keeps_its_own_margin_and_cap(exchange: Exchange, maker: Party) -> None:
    """A take-over that would leave the fund below initial margin, or above the market's cap, is refused."""
    whale = exchange.deposit(22, 120_000 * USDC)
    market = exchange.markets[0]
    exchange.deposit(1, 3_000_000 * USDC)
    exchange.round({0: 200_000})
    size = market.fund_position_cap_lots + 1
    batch = exchange.batch()
    batch.trade(maker, whale, Side.BUY, size, 200_000)
    batch.settle()
    exchange.round({0: 195_600})
    for closed, reason in (
        (size, "vault: fund position above cap"),
        (size - 1, "vault: below initial margin"),
    ):
        batch = exchange.batch()
        batch.take_over(whale.account, 0, closed)
        with refused(reason):
            batch.settle()


def test_a_target_does_not_trade_in_the_same_batch(exchange: Exchange, target: Party, keeper: Party) -> None:
    """Targets are exempt from the closing check, so they may use no order beside: before, after or as the maker."""
    exchange.round({0: BELOW_MAINTENANCE})
    for first in (True, False):
        batch = on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE)
        closing = batch.order(target, Side.SELL, 10, BELOW_MAINTENANCE, slot=3)
        batch.fill(closing, batch.order(exchange.parties[4], Side.BUY, 10, BELOW_MAINTENANCE), 10)
        if first:
            batch.fills.reverse()
        with refused("vault: target also trades"):
            batch.settle()
    batch = exchange.batch()
    own = batch.order(target, Side.BUY, 100, BELOW_MAINTENANCE, slot=3)
    batch.liquidate(target.account, 0, own, 100)
    with refused("vault: target also trades"):
        batch.settle()


@pytest.mark.safety("F05", "contract")
def test_reserved_accounts_are_no_targets_and_no_keepers(
    exchange: Exchange, target: Party, keeper: Party
) -> None:
    """Neither fund nor fee account is liquidated, and a fee goes only to a registered keeper."""
    exchange.round({0: BELOW_TWO_THIRDS})
    batch = exchange.batch()
    batch.take_over(target.account, 0, SIZE)
    batch.settle()
    batch = exchange.batch()
    batch.take_over(1, 0, 100)
    with refused("vault: reserved account"):
        batch.settle()
    second = exchange.deposit(23, 1_000 * USDC)
    for reserved in (1, 2, 99):
        batch = exchange.batch()
        batch.take_over(second.account, 0, 100, reserved)
        with refused("vault: larger than the position"):
            batch.settle()


def test_keepers_must_be_registered(exchange: Exchange, target: Party, keeper: Party) -> None:
    """A fee to the fund's, the fee account's or an unknown id is refused; without a keeper the fund keeps it all."""
    exchange.round({0: BELOW_TWO_THIRDS})
    for account in (1, 2, 99):
        batch = exchange.batch()
        batch.take_over(target.account, 0, 100, account)
        with refused("vault: keeper not registered"):
            batch.settle()


@pytest.mark.safety("A01", "contract")
def test_no_liquidation_on_a_stale_price(
    exchange: Exchange, target: Party, maker: Party, keeper: Party
) -> None:
    """Any stale market among the target's open ones stops it."""
    batch = exchange.batch()
    batch.trade(maker, target, Side.BUY, 10, 250_000, market=1)
    batch.settle()
    exchange.round({0: BELOW_TWO_THIRDS}, seconds=70, abstain=[1])
    with refused("vault: stale price"):
        on_book(exchange, target, keeper, 100, BELOW_TWO_THIRDS).settle()
    batch = exchange.batch()
    batch.take_over(target.account, 0, 100)
    with refused("vault: stale price"):
        batch.settle()


def test_the_fund_takes_over_into_its_own_pair_only(exchange: Exchange, target: Party) -> None:
    """Another account's pair, or the fund's of another market, is refused."""
    exchange.round({0: BELOW_TWO_THIRDS})
    for wrong in ((4, 0), (1, 1)):
        batch = exchange.batch()
        batch.take_over(target.account, 0, 100)
        kind, first, _, size, keeper = batch.fills[0]
        batch.fills[0] = (kind, first, wrong, size, keeper)
        with refused("vault: not the fund's pair"):
            batch.settle()


@pytest.fixture
def fund_long(exchange: Exchange, target: Party) -> Exchange:
    """The fund holds 33,000 lots of BTC after a take-over."""
    exchange.round({0: BELOW_TWO_THIRDS})
    batch = exchange.batch()
    batch.take_over(target.account, 0, SIZE)
    batch.settle()
    return exchange


def test_an_order_fills_against_the_fund_at_the_mark(fund_long: Exchange, taker: Party) -> None:
    """The fund's position shrinks at the mark; the taker pays its fee, the fund none."""
    mark = BELOW_TWO_THIRDS
    before = {account: fund_long.vault.account(account).collateral for account in (1, 2, taker.account)}
    batch = fund_long.batch()
    batch.fill_fund(batch.order(taker, Side.BUY, 1_000, mark), 1_000)
    batch.settle()
    fee = -(-1_000 * mark * 400 // 10**6)
    after = {account: fund_long.vault.account(account).collateral - paid for account, paid in before.items()}
    assert after == {1: 1_000 * mark, 2: fee, taker.account: -1_000 * mark - fee}
    assert fund_long.vault.position(1, 0).size == SIZE - 1_000


def test_the_fund_only_shrinks(fund_long: Exchange, taker: Party) -> None:
    """A sell to the long fund, or a buy of more than it holds, is refused."""
    for side, size in ((Side.SELL, 10), (Side.BUY, SIZE + 1)):
        batch = fund_long.batch()
        batch.fill_fund(batch.order(taker, side, size, BELOW_TWO_THIRDS), size)
        with refused("vault: fill does not reduce"):
            batch.settle()


def test_fund_fills_respect_the_taker(fund_long: Exchange, taker: Party, maker: Party) -> None:
    """Limit, post-only, signed fee and freshness bind here as in any fill."""
    mark = BELOW_TWO_THIRDS
    cases = (
        ({"price": mark - 1}, "vault: price beyond limit"),
        ({"price": mark, "post_only": True, "slot": 1}, "vault: post-only would take"),
        ({"price": mark, "max_fee_ppm": 399}, "vault: fee above signed maximum"),
    )
    for fields, reason in cases:
        batch = fund_long.batch()
        more = dict(fields)
        batch.fill_fund(batch.order(taker, Side.BUY, 10, more.pop("price"), **more), 10)
        with refused(reason):
            batch.settle()
    for seconds in (60, 10):
        fund_long.round(seconds=seconds, abstain=[0])
        batch = fund_long.batch()
        batch.fill_fund(batch.order(taker, Side.BUY, 10, mark), 10)
        if seconds == 60:  # as old as a price may be
            batch.settle()
            continue
        with refused("vault: stale price"):
            batch.settle()


def test_a_rebate_needs_a_takers_fee(exchange: Exchange, target: Party, keeper: Party) -> None:
    """A maker who meets a liquidation gets no rebate: nobody pays it."""
    exchange.round({0: BELOW_MAINTENANCE})
    batch = on_book(exchange, target, keeper, 100, BELOW_MAINTENANCE)
    batch.fee_classes = ((-1, 400),)
    with refused("vault: rebate above taker fee"):
        batch.settle()


@pytest.mark.safety("B10", "contract")
def test_the_maker_of_a_liquidation_is_checked(exchange: Exchange, target: Party) -> None:
    """Who takes the position over needs the margin for it."""
    poor = exchange.deposit(24, 20 * USDC)
    exchange.round({0: BELOW_MAINTENANCE})
    with refused("vault: below initial margin"):
        on_book(exchange, target, poor, SIZE, BELOW_MAINTENANCE).settle()


def test_nobody_is_liquidated_while_a_deposit_waits_for_long(
    exchange: Exchange, target: Party, keeper: Party
) -> None:
    """More than ten minutes from the deposit to the round: refused on the book and by the fund, until it is consumed."""
    exchange.inbox.deposit(1_000, 0, sender=exchange.fund_wallet(target.signer, 1_000))
    exchange.round({0: BELOW_TWO_THIRDS}, seconds=600)
    on_book(exchange, target, keeper, 100, BELOW_TWO_THIRDS).settle()
    exchange.round({0: BELOW_TWO_THIRDS})
    attempts = [on_book(exchange, target, keeper, 100, BELOW_TWO_THIRDS), exchange.batch()]
    attempts[1].take_over(target.account, 0, 100)
    for batch in attempts:
        with refused("vault: a deposit waits"):
            batch.settle()
    batch = on_book(exchange, target, keeper, 100, BELOW_TWO_THIRDS)
    batch.inbox(target.account)
    batch.settle()
