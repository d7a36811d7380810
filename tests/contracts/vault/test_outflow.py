"""Outflow limits: a claim above an hour's or a day's limit is payable later, at most seven days, and nothing is refused."""

import boa
import pytest
from boa.util.abi import Address
from builders import DEPOSITS_WORD, USDC, Exchange, Party, events, signer

from evermark.protocol.outflow import DAY_FLOOR, HOUR_FLOOR, MAX_DELAY_S


def withdraw(exchange: Exchange, party: Party, amount: int, **more):
    """The claim of a signed withdrawal in a batch of its own."""
    batch = exchange.batch()
    batch.withdraw(party, amount, **more)
    return events(exchange, batch.settle(), "ClaimCreated")[0]


def force(exchange: Exchange, party: Party, amount: int):
    """The claim of a withdrawal through the inbox."""
    exchange.inbox.request_withdrawal(party.sub_account, amount, sender=Address(party.signer.address))
    batch = exchange.batch()
    batch.inbox(party.account)
    return events(exchange, batch.settle(), "ClaimCreated")[0]


def whale(exchange: Exchange, usdc: int, number: int = 50) -> Party:
    return exchange.deposit(number, usdc * USDC)


@pytest.mark.safety("B18", "contract")
def test_what_is_above_an_hours_limit_is_paid_when_the_hour_allows_it(
    exchange: Exchange, maker: Party
) -> None:
    """At the limit a claim is payable at once; one above it waits until as much has drained, not a second longer."""
    whole = whale(exchange, 9_650_000)  # 10,000,000 with what the others have: an hour's share is the floor
    assert withdraw(exchange, whole, HOUR_FLOOR).due == 0
    exchange.vault.pay(1)
    late = withdraw(exchange, maker, 50_000 * USDC)
    assert late.due == exchange.clock + 1_800
    assert exchange.vault.claim(late.claim) == (Address(maker.signer.address), 50_000 * USDC, late.due)
    boa.env.timestamp = late.due - 1
    with boa.reverts(f"vault: payable at {late.due}"):
        exchange.vault.pay(late.claim)
    boa.env.timestamp = late.due
    exchange.vault.pay(late.claim)
    assert exchange.token.balanceOf(Address(maker.signer.address)) == 50_000 * USDC


@pytest.mark.safety("B18", "contract")
def test_the_limits_are_shares_of_all_deposits(exchange: Exchange, maker: Party) -> None:
    """A hundredth an hour and a tenth a day of what collateral and pool come to, when that is above the floors."""
    whole = whale(exchange, 99_650_000)
    assert exchange.vault.word(DEPOSITS_WORD) == 100_000_000 * USDC
    assert withdraw(exchange, whole, 1_000_000 * USDC).due == 0
    assert exchange.vault.word(DEPOSITS_WORD) == 99_000_000 * USDC
    exchange.round(seconds=3_600)  # 990,000 drained of 1,000,000, and as much is an hour's limit now
    assert withdraw(exchange, whole, 980_000 * USDC).due == 0
    # 980,200 an hour: 990,000 + 98,020 stand above it by 107,820
    assert withdraw(exchange, maker, 98_020 * USDC).due == exchange.clock + -(-107_820 * 3_600 // 980_200)


@pytest.mark.safety("B18", "contract")
def test_a_day_bounds_what_the_hours_would_let_through(exchange: Exchange) -> None:
    """An hour's limit each hour comes to more than a day's: the day's level decides then."""
    whole = whale(exchange, 5_000_000)
    dues = []
    for _ in range(14):
        dues.append(withdraw(exchange, whole, HOUR_FLOOR).due)
        exchange.round(seconds=3_600)
    # Each hour 100,000 come and 1,000,000 / 24 go: the day's limit is reached with the seventeenth.
    assert not any(dues)
    for _ in range(4):
        late = withdraw(exchange, whole, HOUR_FLOOR).due
        exchange.round(seconds=3_600)
    drained = DAY_FLOOR // 24
    above = 18 * HOUR_FLOOR - 17 * drained - DAY_FLOOR
    assert abs(late - (exchange.clock - 3_600) - above * 86_400 // DAY_FLOOR) <= 2


@pytest.mark.safety("B18", "contract")
def test_nothing_waits_for_more_than_seven_days(exchange: Exchange, maker: Party) -> None:
    """Everybody leaves at once: nobody is refused, by signature or by the inbox, and the last are paid after seven days."""
    whole = whale(exchange, 50_000_000)
    first = withdraw(exchange, whole, 50_000_000 * USDC)
    assert first.due == exchange.clock + MAX_DELAY_S
    for late in (withdraw(exchange, maker, 1_000 * USDC), force(exchange, maker, 99_000 * USDC)):
        assert late.due == exchange.clock + MAX_DELAY_S
    exchange.round(seconds=MAX_DELAY_S)
    for claim in range(1, exchange.vault.totals().claims + 1):
        exchange.vault.pay(claim)
    # What had to wait does not make others wait for longer: only a day's level is still at its limit.
    assert withdraw(exchange, exchange.parties[4], 99 * USDC).due == exchange.clock + 9


@pytest.mark.safety("B18", "contract")
@pytest.mark.safety("F02", "contract")
def test_neither_sequencer_nor_many_accounts_get_more_out(exchange: Exchange) -> None:
    """Split over accounts and batches, by signature and inbox, within an hour: what is payable stays below two limits."""
    parties = [exchange.deposit(60 + number, 100_000 * USDC) for number in range(4)]
    began, made = exchange.clock, []
    for turn in range(8):
        way = force if turn % 2 else withdraw
        claim = way(exchange, parties[turn // 2], 50_000 * USDC)
        made.append((claim.due or exchange.clock, claim.amount))
        exchange.round()
    within = [amount for due, amount in made if due <= began + 3_600]
    assert HOUR_FLOOR <= sum(within) <= 2 * HOUR_FLOOR
    assert sum(amount for _, amount in made) == 400_000 * USDC


@pytest.mark.safety("B18", "contract")
def test_nobody_can_raise_a_limit(exchange: Exchange, maker: Party) -> None:
    """The limits are constants of the clerk; neither governor nor sequencer may write the words that count."""
    for caller in (exchange.governor, exchange.sequencer, Address(maker.signer.address)):
        for word in (DEPOSITS_WORD, DEPOSITS_WORD + 1):
            with boa.reverts("vault: not one of its contracts"):
                exchange.vault.write(word, 0, sender=caller)


def test_an_older_round_drains_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The sequencer may pin a round older than the last batch's; time then stands still for the levels."""
    older = exchange.pinned
    exchange.round()
    withdraw(exchange, maker, 90_000 * USDC)
    newer, exchange.pinned = exchange.pinned, older
    late = withdraw(exchange, taker, 20_000 * USDC)
    assert late.due == older.timestamp + 360
    assert exchange.vault.word(DEPOSITS_WORD + 1) & (2**40 - 1) == newer.timestamp


def test_the_exit_is_not_limited(exchange: Exchange, maker: Party) -> None:
    """After a freeze a share of any size is a claim that is payable at once."""
    whole = whale(exchange, 20_000_000)
    exchange.inbox.request_withdrawal(0, 1, sender=Address(maker.signer.address))
    exchange.clock += 2 * 86_400
    boa.env.timestamp = exchange.clock
    exchange.exit.freeze()
    exchange.exit.push(100)
    claim = exchange.exit.take(whole.account)
    assert exchange.vault.claim(claim) == (Address(signer(50).address), 20_000_000 * USDC, 0)
    exchange.vault.pay(claim)
