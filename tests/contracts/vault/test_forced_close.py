"""Closes that owners ask for in the inbox: fills while the entry stands at the head, and how the entry leaves it."""

from typing import Any

import boa
import pytest
from boa.util.abi import Address
from builders import MARKETS, USDC, Builder, Exchange, Party, Refused, events, refused
from test_market_modes import HALTED, clamp, set_mode

from evermark.protocol.forced import close_loss, close_penalty, hour_cap
from evermark.protocol.orders import Side

ENTRY = 600_000
SIZE = 1_000
ALL = 2**62 - 1
FORCED, CLOSING, MARKET_P = (1 << 39) + 384, (1 << 39) + 520, 1 << 39
NO_POSITION, BELOW_MAINTENANCE = 5, 6


def wallet(party: Party) -> Address:
    return Address(party.signer.address)


@pytest.fixture
def long(exchange: Exchange, maker: Party, taker: Party) -> Party:
    """The taker, long 1,000 lots of BTC against the maker."""
    trade(exchange, maker, taker)
    return taker


@pytest.fixture
def short(exchange: Exchange, maker: Party, taker: Party) -> Party:
    """The taker, short 1,000 lots of BTC against the maker."""
    trade(exchange, maker, taker, Side.SELL)
    return taker


def trade(exchange: Exchange, maker: Party, taker: Party, side: Side = Side.BUY, size: int = SIZE) -> None:
    batch = exchange.batch()
    batch.trade(maker, taker, side, size, exchange.last[0].mark_ticks)
    batch.settle()


def ask(exchange: Exchange, party: Party, lots: int = ALL, market: int = 0) -> int:
    return exchange.inbox.request_close(party.sub_account, market, lots, sender=wallet(party))


def part(exchange: Exchange, closer: Party, other: int, size: int, **header: Any) -> Builder:
    """A batch that closes `size` lots of the closer's against another account's."""
    batch = exchange.batch(**header)
    batch.force(closer.account, 0, other, size)
    return batch


def on_book(exchange: Exchange, closer: Party, maker: Party, size: int, price: int) -> Builder:
    batch = exchange.batch()
    side = Side.BUY if exchange.vault.position(closer.account, 0).size > 0 else Side.SELL
    batch.force_on_book(closer.account, 0, batch.order(maker, side, size, price, slot=5), size)
    return batch


def leave(exchange: Exchange, *accounts: int) -> Any:
    batch = exchange.batch()
    for account in accounts:
        batch.inbox(account)
    return batch.settle()


def collaterals(exchange: Exchange, *parties: Party) -> list[int]:
    return [exchange.vault.account(party.account).collateral for party in parties]


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("moved", [0, -2_000, 900, 9_000])
def test_lots_and_money_move_exactly(
    exchange: Exchange, maker: Party, taker: Party, direction: int, moved: int
) -> None:
    """Half the penalty below the worse of both marks, at most the whole penalty below the mark; what the closer
    loses the counterparty gets. When all is closed the entry leaves, without effect of its own."""
    trade(exchange, maker, taker, Side.BUY if direction > 0 else Side.SELL)
    ask(exchange, taker)
    mark = ENTRY + direction * moved
    exchange.round({0: mark})
    market = exchange.markets[0]
    penalty = close_penalty(market, market.notional(SIZE, mark))
    loss = close_loss(penalty, market.notional(SIZE, moved))
    assert (loss == penalty) == (moved == 9_000)
    assert (loss == -(-penalty // 2)) == (moved <= 0)
    before = collaterals(exchange, taker, maker)
    computation = part(exchange, taker, maker.account, SIZE).settle()
    (told,) = events(exchange, computation, "ForcedClose")
    assert (told.entry, told.account, told.market) == (exchange.inbox.head(), taker.account, 0)
    assert (told.size, told.loss, told.kind) == (SIZE, loss, 6)
    (other,) = events(exchange, computation, "Deleveraged")
    assert (other.account, other.size, other.paid) == (maker.account, SIZE, -loss)
    changes = [now - was for now, was in zip(collaterals(exchange, taker, maker), before, strict=True)]
    notional = direction * market.notional(SIZE, mark)
    assert changes == [notional - loss, loss - notional]
    assert exchange.vault.account(taker.account).open_positions == 0
    assert not events(exchange, leave(exchange, taker.account), "EntrySkipped")
    assert exchange.inbox.head() == exchange.inbox.tail()


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_an_order_takes_it_at_its_price_within_the_penalty(
    exchange: Exchange, maker: Party, taker: Party, keeper: Party, side: Side
) -> None:
    """One tick beyond the penalty is refused, at it the close settles; at a better price than the mark too. No fee
    but the maker's."""
    trade(exchange, maker, taker, side)
    ask(exchange, taker)
    away = close_penalty(exchange.markets[0], ENTRY)
    with refused("vault: loss above bound"):
        on_book(exchange, taker, keeper, 400, ENTRY - side.sign * (away + 1)).settle()
    before = collaterals(exchange, taker)[0]
    on_book(exchange, taker, keeper, 400, ENTRY - side.sign * away).settle()
    assert collaterals(exchange, taker)[0] - before == side.sign * 400 * (ENTRY - side.sign * away)
    on_book(exchange, taker, keeper, 600, ENTRY + side.sign * 7).settle()
    assert exchange.vault.account(taker.account).open_positions == 0
    assert exchange.vault.position(keeper.account, 0).size == side.sign * SIZE


@pytest.mark.safety("F02", "contract")
def test_nobody_is_closed_who_did_not_ask(
    exchange: Exchange, long: Party, maker: Party, keeper: Party
) -> None:
    """No entry; somebody else's at the head; another market's; one that is done. Then the owner's own: it settles."""
    attempt = part(exchange, long, maker.account, 10)
    with pytest.raises(Refused):
        attempt.settle()
    ask(exchange, maker, 5)
    with refused("vault: head asks for no close"):
        part(exchange, long, maker.account, 10).settle()
    part(exchange, maker, long.account, 5).settle()
    with refused("vault: more than asked for"):
        part(exchange, maker, long.account, 1).settle()
    leave(exchange, maker.account)
    with pytest.raises(Refused):
        part(exchange, maker, long.account, 1).settle()
    batch = exchange.batch()
    batch.trade(maker, long, Side.BUY, 10, 250_000, market=1)
    batch.settle()
    ask(exchange, long, market=1)
    with refused("vault: head asks for no close"):
        part(exchange, long, maker.account, 10).settle()
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(keeper))
    batch = exchange.batch()
    batch.force(long.account, 1, maker.account, 10)
    batch.settle()
    leave(exchange, long.account)
    with refused("vault: head asks for no close"):
        part(exchange, long, maker.account, 10).settle()


def test_only_as_much_as_was_asked_for_and_held(exchange: Exchange, long: Party, maker: Party) -> None:
    """The entry keeps at most the position of the moment; a close never flips, and counts over several batches."""
    entry = ask(exchange, long, 600)
    data = exchange.inbox.entry(entry).data
    assert (data & 255, data >> 8 & 1, data >> 16 & ALL, data >> 80) == (0, 1, 600, ENTRY)
    with refused("vault: more than asked for"):
        part(exchange, long, maker.account, 601).settle()
    part(exchange, long, maker.account, 400).settle()
    assert exchange.vault.word(CLOSING) & 2**128 - 1 == entry | 400 << 64
    with refused("vault: more than asked for"):
        part(exchange, long, maker.account, 201).settle()
    with refused("vault: not closed yet"):
        leave(exchange, long.account)
    part(exchange, long, maker.account, 200).settle()
    leave(exchange, long.account)
    trade(exchange, long, maker, Side.BUY, 300)  # 100 are left
    assert exchange.inbox.entry(ask(exchange, long)).data >> 16 & ALL == 100
    with refused("vault: larger than the position"):
        part(exchange, long, maker.account, 101).settle()


def test_whoever_turned_the_position_round_is_not_closed(
    exchange: Exchange, long: Party, maker: Party
) -> None:
    """The entry meant the long; of the short that became of it nothing closes, and the entry leaves."""
    ask(exchange, long)
    trade(exchange, long, maker, Side.BUY, SIZE + 50)
    with refused("vault: larger than the position"):
        part(exchange, long, maker.account, 10).settle()
    (skipped,) = events(exchange, leave(exchange, long.account), "EntrySkipped")
    assert skipped.reason == NO_POSITION


def test_a_closed_position_needs_no_close(exchange: Exchange, long: Party, maker: Party) -> None:
    """Its owner closed it by an order: the entry leaves with its reason. The inbox takes none for a position that is not
    there."""
    ask(exchange, long)
    trade(exchange, long, maker, Side.BUY)
    (skipped,) = events(exchange, leave(exchange, long.account), "EntrySkipped")
    assert skipped.reason == NO_POSITION
    with boa.reverts("inbox: no position"):
        ask(exchange, long)


def test_an_account_below_maintenance_is_left_to_liquidation(exchange: Exchange, maker: Party) -> None:
    """Neither fills nor a wait at the head; a tick above, it closes."""
    poor = exchange.deposit(20, 1_000 * USDC)
    trade(exchange, maker, poor, Side.BUY, 33_000)
    ask(exchange, poor)
    exchange.round({0: 576_500})
    with refused("vault: below maintenance"):
        part(exchange, poor, maker.account, 100).settle()
    with boa.env.anchor():
        (skipped,) = events(exchange, leave(exchange, poor.account), "EntrySkipped")
        assert skipped.reason == BELOW_MAINTENANCE
    exchange.round({0: 577_700})
    assert exchange.margin(poor.account).equity >= exchange.margin(poor.account).maintenance
    part(exchange, poor, maker.account, 100).settle()
    after = exchange.margin(poor.account)
    assert after.equity >= after.maintenance


@pytest.mark.safety("B20", "contract")
def test_the_counterparty_is_opposite_shrinks_and_can_bear_it(
    exchange: Exchange, long: Party, maker: Party, keeper: Party
) -> None:
    """Not on the same side, not beyond its size, not without a position, not the fee account, not in another market; and not
    below maintenance after it."""
    trade(exchange, maker, keeper, Side.BUY, 10)
    poor = exchange.deposit(21, 1_000 * USDC)
    ask(exchange, long)
    for other, size, why in (
        (keeper.account, 5, "vault: same side"),
        (long.account, 5, "vault: same side"),
        (2, 5, "vault: same side"),
        (1, 5, "vault: same side"),
    ):
        with refused(why):
            part(exchange, long, other, size).settle()
    trade(exchange, keeper, poor, Side.SELL, 31_000)
    with refused("vault: larger than the position"):
        exchange.vault.write(FORCED, exchange.clock // 3_600 | 10**6 << 96, sender=exchange.backstop.address)
        part(exchange, long, poor.account, 31_001).settle()
    exchange.round({0: 625_000})
    margin = exchange.margin(poor.account)
    assert 0 < margin.equity < margin.maintenance
    with refused("vault: counterparty unhealthy"):
        part(exchange, long, poor.account, 1).settle()
    part(exchange, long, maker.account, 1).settle()


def test_the_fund_takes_it_by_its_own_position(exchange: Exchange, maker: Party, keeper: Party) -> None:
    """Where it is opposite and shrinks: it earns the loss, and needs no deleveraging event."""
    poor = exchange.deposit(20, 1_000 * USDC)
    trade(exchange, maker, poor, Side.BUY, 33_000)
    exchange.round({0: 574_000})
    batch = exchange.batch()
    batch.take_over(poor.account, 0, 33_000)
    batch.settle()
    ask(exchange, maker, 20_000)
    before = exchange.margin(1).equity
    computation = part(exchange, maker, 1, 20_000).settle()
    (told,) = events(exchange, computation, "ForcedClose")
    assert not events(exchange, computation, "Deleveraged")
    assert exchange.margin(1).equity - before == told.loss > 0
    assert exchange.vault.position(1, 0).size == 13_000
    leave(exchange, maker.account)
    ask(exchange, maker)
    exchange.vault.write(FORCED, exchange.clock // 3_600 | 10**6 << 96, sender=exchange.backstop.address)
    with refused("vault: larger than the position"):
        part(exchange, maker, 1, 13_001).settle()


def test_a_closer_has_no_order_in_the_batch(exchange: Exchange, long: Party, maker: Party) -> None:
    """Nor has a counterparty: both are exempt from the closing check, and nothing hides behind that."""
    ask(exchange, long)
    for party in (long, maker):
        batch = part(exchange, long, maker.account, 10)
        batch.fill(
            batch.order(party, Side.SELL, 5, 250_000, market=1, slot=3),
            batch.order(exchange.parties[5], Side.BUY, 5, 250_000, market=1),
            5,
        )
        with refused("vault: target also trades"):
            batch.settle()
    part(exchange, long, maker.account, 10).settle()


@pytest.mark.safety("A01", "contract")
@pytest.mark.safety("A03", "contract")
def test_a_stale_or_clamped_price_and_a_halt_wait(exchange: Exchange, long: Party, maker: Party) -> None:
    """No fill, and the entry stays at the head; in any other mode the close goes on."""
    ask(exchange, long)
    with boa.env.anchor(), refused("vault: stale price"):
        part(exchange, long, maker.account, 10, **clamp(exchange)).settle()
    set_mode(exchange, HALTED)
    with refused("vault: market halted"):
        part(exchange, long, maker.account, 10).settle()
    with refused("vault: not closed yet"):
        leave(exchange, long.account)
    set_mode(exchange, HALTED - 1)
    part(exchange, long, maker.account, 10).settle()
    exchange.round(seconds=600, abstain=[0])
    with refused("vault: stale price"):
        part(exchange, long, maker.account, 10).settle()
    with refused("vault: stale price"):
        leave(exchange, long.account)


def test_an_hour_takes_so_much_of_a_market(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A tenth of the open interest, or 25,000 USDC: up to it, not beyond. The entry that reached it leaves; the next one
    waits for the next hour."""
    trade(exchange, maker, taker, Side.BUY, 60_000)
    exchange.round(seconds=3_600 - exchange.clock % 3_600 + 10)
    cap = hour_cap(exchange.markets[0], 60_000, ENTRY)
    assert cap == 41_666
    assert hour_cap(exchange.markets[0], 10**6, ENTRY) == 10**5
    ask(exchange, taker)
    with refused("vault: cap of the hour"):
        part(exchange, taker, maker.account, cap + 1).settle()
    part(exchange, taker, maker.account, cap - 10).settle()
    with refused("vault: not closed yet"):
        leave(exchange, taker.account)
    part(exchange, taker, maker.account, 10).settle()
    assert exchange.vault.word(FORCED) == exchange.clock // 3_600 | cap << 32 | cap << 96
    leave(exchange, taker.account)
    ask(exchange, taker, 20)
    with refused("vault: cap of the hour"):
        part(exchange, taker, maker.account, 1).settle()
    with refused("vault: not closed yet"):
        leave(exchange, taker.account)
    exchange.round(seconds=3_600)
    part(exchange, taker, maker.account, 20).settle()
    leave(exchange, taker.account)


@pytest.mark.safety("E11", "contract")
def test_a_part_counts_as_progress(exchange: Exchange, long: Party, maker: Party) -> None:
    """The day after which anybody may freeze begins again with each part, and only the head's own counts."""
    ask(exchange, long)
    exchange.round(seconds=3_600 + 80_000)
    part(exchange, long, maker.account, 1).settle()
    boa.env.timestamp += 10_000
    with boa.reverts("exit: not a day overdue"):
        exchange.exit.freeze()
    boa.env.timestamp += 76_401
    exchange.exit.freeze()


def test_small_closes_never_beat_one(exchange: Exchange, long: Party, maker: Party) -> None:
    """A lot at a time costs at least as much as all at once (invariant 9)."""
    ask(exchange, long, 20)
    before = collaterals(exchange, long)[0]
    with boa.env.anchor():
        part(exchange, long, maker.account, 20).settle()
        at_once = collaterals(exchange, long)[0] - before
    batch = exchange.batch()
    for _ in range(20):
        batch.force(long.account, 0, maker.account, 1)
    batch.settle()
    assert collaterals(exchange, long)[0] - before <= at_once


def test_what_the_inbox_takes(exchange: Exchange, long: Party) -> None:
    """A registered account's own position, in a listed market, a size; one close at a time."""
    inbox, owner = exchange.inbox, wallet(long)
    with boa.reverts("inbox: size is zero"):
        inbox.request_close(0, 0, 0, sender=owner)
    with boa.reverts("inbox: unknown account"):
        inbox.request_close(7, 0, 1, sender=owner)
    for market in (64, 2**255):
        with boa.reverts("inbox: no such market"):
            inbox.request_close(0, market, 1, sender=owner)
    for market in (1, len(MARKETS), 63):
        with boa.reverts("inbox: no position"):
            inbox.request_close(0, market, 1, sender=owner)
    ask(exchange, long, 2**256 - 1)
    with boa.reverts("inbox: one of this kind is open"):
        ask(exchange, long)
