"""The guardian: modes of a market for at most 72 hours, which end by themselves and are not renewed back to back."""

from typing import Any

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, events, refused
from governing import CANCEL_ONLY, HALTED, HOUR_S, POST_ONLY, PRICE, REDUCE_ONLY, Governing

from evermark.protocol.governance import MAX_PAUSE_S, PAUSE_REST_S
from evermark.protocol.orders import Side

MARKET_P, MARKET_M = 1 << 39, (1 << 39) + 320


def trade(exchange: Exchange, maker: Party, taker: Party, side: Side = Side.BUY, market: int = 0) -> None:
    batch = exchange.batch()
    price = exchange.last[market].mark_ticks
    resting = batch.order(maker, Side(1 - side), 10, price, slot=1, market=market)
    batch.fill(resting, batch.order(taker, side, 10, price, market=market), 10)
    batch.settle()


@pytest.mark.parametrize("mode", [POST_ONLY, REDUCE_ONLY, CANCEL_ONLY, HALTED])
def test_a_pause_holds_until_its_end_and_not_longer(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, mode: int
) -> None:
    """From the batch that consumes the entry on; a round at its end trades again, without anybody's doing."""
    trade(exchange, maker, taker)
    governing.pause(mode, HOUR_S)
    until = exchange.clock + HOUR_S
    trade(exchange, maker, taker)
    assert exchange.inbox.entry(exchange.inbox.head()).due == exchange.clock + 600
    computation = governing.consume()
    assert [event.key for event in events(exchange, computation, "WordSet")] == [MARKET_P, MARKET_M]
    assert (exchange.vault.word(MARKET_P) >> 248, exchange.vault.word(MARKET_M)) == (mode, until)
    reason = "vault: fill does not reduce" if mode == REDUCE_ONLY else "vault: market closed to trades"
    with refused(reason):
        trade(exchange, maker, taker)
    trade(exchange, maker, taker, market=1)
    if mode == REDUCE_ONLY:
        trade(exchange, maker, taker, Side.SELL)
    exchange.round(seconds=until - 10 - exchange.clock)
    with refused(reason):
        trade(exchange, maker, taker)
    exchange.round(seconds=until - exchange.clock)
    trade(exchange, maker, taker)


def test_a_pause_is_lifted(governing: Governing, exchange: Exchange, maker: Party, taker: Party) -> None:
    """By the guardian, before its time; the market is as it was."""
    before = exchange.vault.word(MARKET_P)
    governing.pause(HALTED, HOUR_S)
    governing.consume()
    with refused("vault: market closed to trades"):
        trade(exchange, maker, taker)
    governing.pause(0, 0)
    governing.consume()
    trade(exchange, maker, taker)
    assert (exchange.vault.word(MARKET_P), exchange.vault.word(MARKET_M)) == (before, 0)


@pytest.mark.safety("F03", "contract")
def test_a_guardian_cannot_pause_for_ever(governing: Governing, exchange: Exchange) -> None:
    """All pauses of a market end within 72 hours of the first one's beginning; then a week of rest. Other markets count
    for themselves."""
    with boa.reverts("governor: longer than 72 hours"):
        governing.pause(HALTED, MAX_PAUSE_S + 1)
    start = exchange.clock
    governing.pause(POST_ONLY, HOUR_S)
    governing.consume()
    exchange.round(seconds=start + 24 * HOUR_S - exchange.clock)
    with boa.reverts("governor: paused for too long"):
        governing.pause(HALTED, 48 * HOUR_S + 1)
    governing.pause(HALTED, 48 * HOUR_S)
    governing.consume()
    governing.pause(HALTED, MAX_PAUSE_S, 1)
    governing.consume()
    for clock in (start + MAX_PAUSE_S, start + MAX_PAUSE_S + PAUSE_REST_S - 10):
        exchange.round(seconds=clock - exchange.clock)
        with boa.reverts("governor: paused for too long"):
            governing.pause(HALTED, 10)
    exchange.round()
    governing.pause(HALTED, MAX_PAUSE_S)


def test_the_whole_exchange_is_paused_market_by_market(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """One call, an entry a market, one batch."""
    governing.pause(HALTED, HOUR_S, 0, 1, 2, 3)
    governing.consume(4)
    for market in range(4):
        with refused("vault: market closed to trades"):
            trade(exchange, maker, taker, market=market)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([], HALTED, 60), "governor: no markets"),
        (([0], 5, 60), "governor: no such mode"),
        (([0], HALTED, 0), "governor: mode and duration"),
        (([0], 0, 60), "governor: mode and duration"),
        (([4], HALTED, 60), "governor: no such market"),
        (([64], HALTED, 60), "governor: no such market"),
        (([0, 0], HALTED, 60), "inbox: one of this kind is open"),
    ],
)
def test_what_is_no_pause_is_refused(
    governing: Governing, exchange: Exchange, arguments: tuple[Any, ...], reason: str
) -> None:
    with boa.reverts(reason):
        governing.contract.pause(*arguments, sender=exchange.guardian)
    for sender in (exchange.proposer, exchange.sequencer):
        with boa.reverts("governor: only the guardian"):
            governing.contract.pause([0], HALTED, 60, sender=sender)
    governing.contract.pause([0], HALTED, 60, sender=exchange.guardian)


@pytest.mark.safety("F03", "contract")
def test_a_halt_stops_neither_inbox_nor_claims_nor_exit(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """With every market halted: deposits, withdrawals with a position open, payments; and the freeze, when nobody works."""
    trade(exchange, maker, taker)
    governing.pause(HALTED, MAX_PAUSE_S, 0, 1, 2, 3)
    governing.consume(4)
    exchange.deposit(30, 100 * USDC)
    exchange.inbox.request_withdrawal(0, 50 * USDC, sender=Address(taker.signer.address))
    batch = exchange.batch()
    batch.inbox(taker.account)
    batch.name(taker.account)
    batch.settle()
    claim = exchange.vault.totals().claims
    exchange.vault.pay(claim)
    assert exchange.vault.claim(claim).amount == 0
    exchange.inbox.request_withdrawal(0, 50 * USDC, sender=Address(maker.signer.address))
    boa.env.timestamp += 86_400 + HOUR_S + 1
    exchange.exit.freeze()


def test_a_guardian_cannot_outlast_its_time_with_a_late_entry(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """An entry that is consumed after the end that it names changes nothing any more."""
    governing.pause(HALTED, 60)
    exchange.round(seconds=120)
    batch = exchange.batch()
    batch.inbox(None)
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 10


# --------------------------------------------------------------------------------------------------------- dead markets


@pytest.mark.safety("E12", "contract")
def test_a_withdrawal_on_a_dead_price_holds_up_others_for_an_hour_at_most(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """It waits until an hour after it was due, then it is skipped, and whoever stands behind it is paid."""
    trade(exchange, maker, taker)
    exchange.inbox.request_withdrawal(0, USDC, sender=Address(taker.signer.address))
    other = exchange.parties[5]
    exchange.inbox.request_withdrawal(0, USDC, sender=Address(other.signer.address))
    due = exchange.inbox.entry(exchange.inbox.head()).due

    def execute() -> Any:
        batch = exchange.batch(journal_sequence=0, journal_hash=bytes(32))
        batch.inbox(taker.account)
        batch.inbox(other.account)
        batch.name(taker.account)
        return batch.settle(sender=boa.env.generate_address("anybody"))

    exchange.round(seconds=due + HOUR_S - exchange.clock, abstain=[0])
    with refused("vault: stale price"):
        execute()
    exchange.round(abstain=[0])
    computation = execute()
    (skipped,) = events(exchange, computation, "EntrySkipped")
    assert skipped.reason == 10
    (claim,) = events(exchange, computation, "ClaimCreated")
    assert claim.account == other.account
    exchange.inbox.request_withdrawal(0, USDC, sender=Address(taker.signer.address))
    exchange.round()
    batch = exchange.batch()
    batch.inbox(taker.account)
    batch.name(taker.account)
    assert events(exchange, batch.settle(), "ClaimCreated")


@pytest.mark.safety("E11", "contract")
def test_a_market_without_a_price_for_a_week_freezes_the_exchange(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Not earlier, not one that nobody holds, and not while the public lane has a price."""
    trade(exchange, maker, taker)
    start = exchange.clock
    exchange.round(seconds=604_800 - 20, abstain=[0])
    with boa.reverts("exit: nobody is in it"):
        exchange.exit.freeze_dead_market(1)
    with boa.reverts("exit: no such market"):
        exchange.exit.freeze_dead_market(64)
    boa.env.timestamp = start + 604_800
    with boa.reverts("exit: not a week without a price"):
        exchange.exit.freeze_dead_market(0)
    boa.env.timestamp += 1
    with boa.env.anchor():
        exchange.branch().post_public({0: PRICE})
        with boa.reverts("exit: not a week without a price"):
            exchange.exit.freeze_dead_market(0)
    exchange.exit.freeze_dead_market(0)
    with boa.reverts("exit: frozen already"):
        exchange.exit.freeze_dead_market(0)
    exchange.exit.push(100)
    assert exchange.exit.marks(0) == PRICE
    assert exchange.exit.payout(taker.account) > 0


# ----------------------------------------------------------------------------------------------------------- delisting


@pytest.mark.parametrize(("paused", "beside"), [(0, REDUCE_ONLY), (POST_ONLY, CANCEL_ONLY), (HALTED, HALTED)])
def test_a_delisted_market_only_reduces_for_good(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party, paused: int, beside: int
) -> None:
    """Beside a pause that runs the stricter holds; what is over or lifted leaves reduce-only; it is delisted once."""
    trade(exchange, maker, taker)
    proposal, again = (governing.propose("delisting", 0) for _ in range(2))
    governing.wait()
    if paused:
        governing.pause(paused, HOUR_S)
        governing.consume()
    governing.execute(proposal)
    governing.consume()
    assert exchange.vault.word(MARKET_P) >> 248 == beside
    if paused:
        with refused("vault: market closed to trades"):
            trade(exchange, maker, taker, Side.SELL)
        exchange.round(seconds=HOUR_S)
    with refused("vault: fill does not reduce"):
        trade(exchange, maker, taker)
    trade(exchange, maker, taker, Side.SELL)
    governing.pause(0, 0)
    governing.consume()
    assert exchange.vault.word(MARKET_P) >> 248 == REDUCE_ONLY
    governing.execute(again)
    governing.consume()
    assert governing.state(again) == 5  # without effect


def test_a_pause_of_a_delisted_market_leaves_it_delisted(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """While one pause runs a second may take its place: beside each the stricter mode holds, and behind it reduce-only again."""
    trade(exchange, maker, taker)
    governing.carry_out("delisting", 0)
    for mode, beside in ((HALTED, HALTED), (POST_ONLY, CANCEL_ONLY)):
        governing.pause(mode, HOUR_S)
        until = exchange.clock + HOUR_S
        governing.consume()
        assert exchange.vault.word(MARKET_P) >> 248 == beside
        assert exchange.vault.word(MARKET_M) == until | REDUCE_ONLY << 40
    exchange.round(seconds=HOUR_S)
    with refused("vault: fill does not reduce"):
        trade(exchange, maker, taker)
    trade(exchange, maker, taker, Side.SELL)
