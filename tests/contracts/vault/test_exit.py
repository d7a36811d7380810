"""Freeze, count, take: everybody gets out of a dead exchange, with nothing but the contracts and in any order."""

import random
from contextlib import suppress
from fractions import Fraction

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, Refused, refused, signer
from eth_hash.auto import keccak

from evermark.protocol.margin import funding_owed
from evermark.protocol.orders import Side

PRICE = 600_000
DAY_S = 86_400
HOUR_S = 3_600
ANYBODY = "0x" + "42" * 20
NOBODY = "0x" + "00" * 20


def wallet(party: Party) -> Address:
    return Address(party.signer.address)


def request_and_wait(exchange: Exchange, party: Party, seconds: int = HOUR_S + DAY_S + 1) -> None:
    """A withdrawal that nobody executes, and the time until anyone may freeze."""
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(party))
    boa.env.timestamp = exchange.clock + seconds


def freeze(exchange: Exchange, party: Party) -> None:
    request_and_wait(exchange, party)
    exchange.exit.freeze(sender=ANYBODY)


def count_all(exchange: Exchange, step: int = 2) -> None:
    while not exchange.exit.complete():
        exchange.exit.push(step, sender=ANYBODY)


def take_and_pay(exchange: Exchange, party: Party) -> int:
    """What arrives in the owner's wallet."""
    before = exchange.token.balanceOf(wallet(party))
    exchange.vault.pay(exchange.exit.take(party.account, sender=ANYBODY), sender=ANYBODY)
    return exchange.token.balanceOf(wallet(party)) - before


def trade(exchange: Exchange, maker: Party, taker: Party, side: Side, size: int, price: int = PRICE) -> None:
    batch = exchange.batch()
    batch.trade(maker, taker, side, size, price)
    batch.settle()


def test_the_exit_names_the_inbox(exchange: Exchange) -> None:
    """Who knows the exit alone finds the contract to ask at."""
    assert exchange.exit.inbox() == exchange.inbox.address


@pytest.mark.safety("E11", "contract")
def test_only_a_day_overdue_inbox_freezes(exchange: Exchange, maker: Party) -> None:
    """Not while nothing waits, not a second too early, and once."""
    with boa.reverts("exit: nothing waits"):
        exchange.exit.freeze()
    assert not exchange.exit.complete()
    with boa.reverts("exit: not counted yet"):
        exchange.exit.take(maker.account)
    request_and_wait(exchange, maker, HOUR_S + DAY_S)
    with boa.reverts("exit: not a day overdue"):
        exchange.exit.freeze()
    boa.env.timestamp += 1
    exchange.exit.freeze(sender=ANYBODY)
    assert exchange.exit.frozen_at() == boa.env.timestamp
    assert exchange.exit.accounts() == exchange.vault.totals().accounts
    with boa.reverts("exit: frozen already"):
        exchange.exit.freeze()


@pytest.mark.safety("F03", "contract")
def test_an_executed_inbox_cannot_be_frozen(exchange: Exchange, maker: Party) -> None:
    """A sequencer that executes its head late, but does, keeps the exchange; the next head has its own clock."""
    request_and_wait(exchange, maker)
    exchange.clock = boa.env.timestamp
    exchange.round()
    batch = exchange.batch()
    batch.inbox(maker.account)
    batch.settle()
    with boa.reverts("exit: nothing waits"):
        exchange.exit.freeze()
    exchange.inbox.request_withdrawal(0, USDC, sender=wallet(maker))
    with boa.reverts("exit: not a day overdue"):
        exchange.exit.freeze()


@pytest.mark.safety("E11", "contract")
def test_nothing_settles_after_a_freeze(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Not even the sequencer's batch with the next id or any other; claims are paid as before."""
    batch = exchange.batch()
    batch.withdraw(maker, 5 * USDC)
    batch.settle()
    claim, next_id = exchange.vault.totals().claims, exchange.vault.totals().batch_id + 1
    freeze(exchange, maker)
    exchange.clock = boa.env.timestamp
    exchange.round()
    for batch_id in (next_id, next_id + 1, 0, 1, 2**48 - 1):
        late = exchange.batch(batch_id=batch_id)
        late.trade(maker, taker, Side.BUY, 1, PRICE)
        with refused("vault: frozen"):
            late.settle()
    exchange.vault.pay(claim)
    assert exchange.token.balanceOf(wallet(maker)) == 5 * USDC
    with boa.reverts("inbox: frozen"):
        exchange.inbox.deposit(USDC, 0, sender=exchange.fund_wallet(maker.signer, USDC))


def test_taking_waits_for_the_count(exchange: Exchange, maker: Party) -> None:
    """In steps of any size by anybody, each account once; nothing before a freeze, nothing twice."""
    for early in (
        lambda: exchange.exit.push(1),
        lambda: exchange.exit.reclaim(1),
        lambda: exchange.exit.equity(3),
    ):
        with boa.reverts("exit: not frozen"):
            early()
    freeze(exchange, maker)
    with boa.reverts("exit: nothing to count"):
        exchange.exit.push(0)
    total = exchange.vault.totals().accounts
    for _ in range(total - 1):
        exchange.exit.push(1, sender=ANYBODY)
        assert not exchange.exit.complete()
        with boa.reverts("exit: not counted yet"):
            exchange.exit.take(maker.account)
    exchange.exit.push(2**255, sender=ANYBODY)
    assert exchange.exit.complete()
    sums = exchange.exit.positive_equity(), exchange.exit.pot()
    with boa.reverts("exit: nothing to count"):
        exchange.exit.push(1)
    assert sums == (exchange.exit.positive_equity(), exchange.exit.pot())


def apply_hour(exchange: Exchange, rate_ppb: int, mark: int = 590_007) -> None:
    """The running hour of market 0, at this mark."""
    hour = exchange.clock // HOUR_S
    exchange.round({0: mark}, seconds=HOUR_S - exchange.clock % HOUR_S + 10)
    exchange.post_funding(hour, {0: rate_ppb})
    batch = exchange.batch()
    batch.hours, batch.markets = [hour], {0}
    batch.settle()


@pytest.mark.safety("E11", "contract")
@pytest.mark.safety("F05", "contract")
def test_everybody_takes_equity_at_the_pinned_marks(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Profit and loss, funding owed, fees paid; the reserved accounts take nothing, nobody takes twice."""
    trade(exchange, maker, taker, Side.BUY, 50_001)
    apply_hour(exchange, 77_777, 601_234)
    exchange.round({0: 590_007})
    expected: dict[int, int] = {}
    late = exchange.parties[5]  # whose position begins at an index that is not zero
    trade(exchange, maker, late, Side.BUY, 777, 590_007)
    apply_hour(exchange, 55_555)
    for party in (maker, taker, late):
        expected[party.account] = exchange.margin(party.account).equity
    assert exchange.vault.position(late.account, 0).entry_cumulative > 0
    held = exchange.vault.position(taker.account, 0)
    assert funding_owed(held.size, exchange.vault.market_state(0).cumulative_funding, held.entry_cumulative)
    freeze(exchange, taker)
    count_all(exchange)
    for party in (taker, maker, late):
        assert exchange.exit.equity(party.account) == expected[party.account]
        assert take_and_pay(exchange, party) == expected[party.account]
        with boa.reverts("exit: nothing to take"):
            exchange.exit.take(party.account)
    for account in (0, 1, 2, exchange.vault.totals().accounts + 1, 2**32):
        with boa.reverts("exit: nothing to take"):
            exchange.exit.take(account)


@pytest.mark.safety("B17", "contract")
@pytest.mark.safety("E11", "contract")
def test_a_hole_is_shared_by_everybody(exchange: Exchange, maker: Party, taker: Party, keeper: Party) -> None:
    """With an account below zero that the fund cannot cover, each gets the same part, whoever comes first."""
    poor = exchange.deposit(50, 5_000 * USDC)
    trade(exchange, maker, poor, Side.SELL, 150_000)
    exchange.round({0: 1_150_000})  # the short is deep below zero, by more than the fund holds
    deficit = exchange.margin(poor.account).equity
    assert deficit < -exchange.vault.account(1).collateral - exchange.vault.account(2).collateral
    freeze(exchange, maker)
    count_all(exchange, 3)
    users = [maker, taker, keeper]
    equities = [exchange.margin(party.account).equity for party in users]
    share = Fraction(exchange.exit.pot(), exchange.exit.positive_equity())
    assert share < 1
    with boa.reverts("exit: nothing to take"):
        exchange.exit.take(poor.account)
    paid = []
    for party in reversed(users):
        paid.append(take_and_pay(exchange, party))
        with boa.reverts("exit: nothing to take"):  # once, though its account keeps what the hole took of it
            exchange.exit.take(party.account)
    assert paid[::-1] == [int(equity * share) for equity in equities]
    assert 0 <= exchange.exit.pot() - sum(paid) < len(users)
    assert exchange.vault.totals().credited < len(users)


def claims_of(exchange: Exchange) -> list[tuple[int, int]]:
    """Number and account of the claims of the last call."""
    topic = int.from_bytes(keccak(b"ClaimCreated(uint256,uint256,address,uint256,uint256)"), "big")
    logs = exchange.exit._computation.get_log_entries()
    return [tuple(topics[1:3]) for _, topics, _ in logs if topics[0] == topic]


def test_unconsumed_entries_go_back_in_full(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Deposits and donations to who made them, before and beside the pot; requests free their bond only."""
    freeze_at = exchange.inbox.head()
    exchange.inbox.deposit(33 * USDC, 7, sender=exchange.fund_wallet(signer(70), 33 * USDC))
    exchange.inbox.donate(4 * USDC, sender=exchange.fund_wallet(signer(71), 4 * USDC))
    freeze(exchange, taker)
    count_all(exchange)
    assert exchange.exit.pot() == exchange.vault.totals().credited
    for number, owner, amount in ((freeze_at, 70, 33 * USDC), (freeze_at + 1, 71, 4 * USDC)):
        claim = exchange.exit.reclaim(number, sender=ANYBODY)
        (created,) = claims_of(exchange)
        assert created == (claim, 0)
        exchange.vault.pay(claim)
        assert exchange.token.balanceOf(Address(signer(owner).address)) == amount
        with boa.reverts("inbox: released already"):
            exchange.exit.reclaim(number)
    claims = exchange.vault.totals().claims
    assert exchange.exit.reclaim(freeze_at + 2) == 0
    assert exchange.vault.totals().claims == claims
    with boa.reverts("inbox: no such entry waits"):
        exchange.exit.reclaim(freeze_at - 1)
    assert exchange.inbox.unconsumed() == 0


@pytest.mark.safety("E16", "contract")
def test_tokens_sent_by_plain_transfer_change_no_share(exchange: Exchange, maker: Party) -> None:
    """The pot is what was credited, not what the vault happens to hold."""
    freeze(exchange, maker)
    exchange.token.mint(exchange.vault.address, 10**12)
    count_all(exchange)
    assert exchange.exit.pot() == exchange.vault.totals().credited
    equity = exchange.margin(maker.account).equity
    exchange.token.mint(exchange.vault.address, 10**12)
    assert take_and_pay(exchange, maker) == equity


def test_only_its_contracts_write_words(exchange: Exchange, maker: Party) -> None:
    """Neither before nor after a freeze has anybody else the exit's rights."""
    freeze(exchange, maker)
    for stranger in (exchange.sequencer, ANYBODY, exchange.inbox.address):
        with pytest.raises(boa.BoaError):
            exchange.vault.write(3, 0, sender=stranger)


@pytest.mark.safety("E14", "contract")
def test_a_token_that_refuses_blocks_only_that_payout(exchange_with_token, maker_of) -> None:
    """Its share stays a claim that can be paid later; the others get theirs."""
    exchange = exchange_with_token("BlacklistToken")
    first, second = (maker_of(exchange, number) for number in (1, 2))
    freeze(exchange, second)
    count_all(exchange)
    exchange.token.blacklist(wallet(first), True)
    claim = exchange.exit.take(first.account)
    with pytest.raises(boa.BoaError):
        exchange.vault.pay(claim)
    assert take_and_pay(exchange, second) == 1_000 * USDC
    assert exchange.vault.claim(claim).amount == 1_000 * USDC
    exchange.token.blacklist(wallet(first), False)
    exchange.vault.pay(claim)
    assert exchange.token.balanceOf(wallet(first)) == 1_000 * USDC


def call_of(signature: str, number: int) -> bytes:
    return keccak(signature.encode())[:4] + number.to_bytes(32, "big")


@pytest.mark.safety("E17", "contract")
def test_a_token_that_calls_back_while_paying_gains_nothing(exchange_with_token, maker_of) -> None:
    """In the middle of a payout neither another payout nor a second share of the same account is to be had."""
    exchange = exchange_with_token("ReentrantToken")
    first, second = (maker_of(exchange, number) for number in (1, 2))
    freeze(exchange, second)
    count_all(exchange)
    claim = exchange.exit.take(first.account)
    for target, data in (
        (exchange.exit, call_of("take(uint256)", first.account)),
        (exchange.vault, call_of("pay(uint256)", claim)),
    ):
        with boa.env.anchor():
            exchange.token.arm_call(target.address, data)
            exchange.vault.pay(claim)
            assert exchange.token.attempts() == 1
            assert not exchange.token.succeeded()
            assert exchange.token.balanceOf(wallet(first)) == 1_000 * USDC
    # Somebody else's share may be taken meanwhile, as at any time: it only makes a claim.
    exchange.token.arm_call(exchange.exit.address, call_of("take(uint256)", second.account))
    exchange.vault.pay(claim)
    assert exchange.token.succeeded()
    exchange.token.arm_call(NOBODY, b"")
    exchange.vault.pay(claim + 1)
    assert exchange.token.balanceOf(exchange.vault.address) == exchange.vault.totals().credited == 0


@pytest.mark.safety("E17", "contract")
def test_a_freeze_in_the_middle_of_a_deposit_loses_nothing(exchange_with_token, maker_of) -> None:
    """The deposit reverts as a whole: a frozen inbox takes no entries."""
    exchange = exchange_with_token("ReentrantToken")
    party = maker_of(exchange, 1)
    request_and_wait(exchange, party)
    owner = exchange.fund_wallet(party.signer, 5 * USDC)
    exchange.token.arm_call(exchange.exit.address, keccak(b"freeze()")[:4])
    with boa.reverts("inbox: frozen"):
        exchange.inbox.deposit(5 * USDC, 0, sender=owner)
    assert exchange.exit.frozen_at() == 0
    assert exchange.token.balanceOf(owner) == 5 * USDC
    exchange.token.arm_call(NOBODY, b"")
    exchange.inbox.deposit(5 * USDC, 0, sender=owner)


def test_the_newer_lane_prices_each_market(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A public round after the sequencer's last one counts, of a market in which its keepers abstain the older price."""
    trade(exchange, maker, taker, Side.BUY, 1_000)
    assert exchange.last[1].mark_ticks == 250_000
    exchange.post_public({0: 612_345}, abstain=(1, 2, 3), seconds=30)
    freeze(exchange, maker)
    assert [exchange.exit.marks(market) for market in range(5)] == [612_345, 250_000, 15_000, 30_000, 0]
    count_all(exchange)
    change = (612_345 - PRICE) * 1_000
    assert exchange.exit.equity(taker.account) == exchange.margin(taker.account).equity + change


@pytest.mark.safety("B26", "contract")
@pytest.mark.safety("F02", "contract")
@pytest.mark.parametrize("seed", range(2))
def test_a_random_exchange_pays_out_what_it_holds(exchange: Exchange, maker: Party, seed: int) -> None:
    """Random positions, prices, funding and claims: shares are exact, sums within the tokens, in any order."""
    pick = random.Random(seed)
    traders = [exchange.deposit(60 + n, pick.randint(20, 4_000) * USDC + n) for n in range(5)]
    for _ in range(12):
        trader, market = pick.choice(traders), pick.choice((0, 1, 3))
        mark = exchange.last[market].mark_ticks
        room = exchange.margin(trader.account).equity * 8 // mark
        if room > 0:
            batch = exchange.batch()
            side = pick.choice((Side.BUY, Side.SELL))
            size = max(1, min(room, 10**6) // pick.choice((1, 3)))
            batch.trade(maker, trader, side, size, mark, market=market)
            with suppress(Refused):  # some are beyond their margin, and settle nothing
                batch.settle()
        exchange.round(
            {m: max(2_000, exchange.last[m].mark_ticks * pick.randint(900, 1_110) // 1_000) for m in range(4)}
        )
    batch = exchange.batch()
    batch.withdraw(maker, 7)
    batch.settle()
    waiting = pick.randint(1, 10**9)
    exchange.inbox.deposit(waiting, 0, sender=exchange.fund_wallet(maker.signer, waiting))
    claim, entry = exchange.vault.totals().claims, exchange.inbox.head()
    everybody = [*exchange.parties.values()]
    equities = {party.account: exchange.margin(party.account).equity for party in everybody}
    freeze(exchange, maker)
    count_all(exchange, pick.randint(1, 9))
    positive = sum(max(0, equity) for equity in equities.values())
    totals = exchange.vault.totals()
    assert exchange.exit.positive_equity() == positive
    assert exchange.exit.pot() == totals.credited - 7
    share = min(Fraction(1), Fraction(totals.credited - 7, positive))
    pick.shuffle(everybody)
    for party in everybody:
        due = int(max(0, equities[party.account]) * share)
        assert exchange.exit.payout(party.account) == due
        if due:
            assert take_and_pay(exchange, party) == due
        else:
            with boa.reverts("exit: nothing to take"):
                exchange.exit.take(party.account)
    exchange.vault.pay(claim)
    exchange.vault.pay(exchange.exit.reclaim(entry))
    left = exchange.token.balanceOf(exchange.vault.address)
    assert left == exchange.vault.totals().credited >= 0
