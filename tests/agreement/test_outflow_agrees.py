"""Outflow limits agree between engine, vault and naive model, by hand and on random streams."""

import random

import boa
import pytest

from evermark.protocol.markets import load_markets
from evermark.protocol.orders import Side
from evermark.protocol.outflow import DAY_FLOOR, HOUR_FLOOR, MAX_DELAY_S
from sequencer.engine.events import WithdrawalClaimed
from tests import fast_evm
from tests.agreement.exchange import signer
from tests.agreement.random_traders import PRICES, START
from tests.agreement.three_ways import ThreeWays

USDC = 10**6


@pytest.fixture
def exchange():
    with boa.swap_env(fast_evm.fresh()):
        made = ThreeWays(load_markets(), START)
        made.round(PRICES)
        yield made


def claimed(events) -> WithdrawalClaimed:
    return next(event for event in events if isinstance(event, WithdrawalClaimed))


def test_signed_and_forced_withdrawals_wait_alike(exchange):
    """Within one batch and over several, beside a deposit that raises the limit and a position that gains."""
    rich, other = signer("rich"), signer("other")
    exchange.deposit(rich, 30_000_000 * USDC)
    exchange.deposit(other, 1_000_000 * USDC)
    exchange.order(rich, 0, Side.SELL, 100_000, 1_136_300, slot=1)
    exchange.order(other, 0, Side.BUY, 100_000, 1_137_000, slot=0)
    exchange.round([(1_137_000, 1_137_100), *PRICES[1:]])
    exchange.confirm()
    assert claimed(exchange.withdraw(other, 300_000 * USDC)).payable_at == 0
    late = claimed(exchange.withdraw(rich, 1_000_001, fee=1))
    assert (late.claim, late.amount, late.fee) == (2, 1_000_000, 1)
    exchange.round(PRICES)
    exchange.compare()
    forced = claimed(exchange.request_withdrawal(rich, 2_000_000 * USDC))
    assert forced.payable_at > exchange.now + 3_600
    exchange.deposit(other, 90_000_000 * USDC)
    assert claimed(exchange.withdraw(other, 900_000 * USDC)).payable_at > exchange.now
    exchange.round(PRICES)
    exchange.compare()
    exchange.round(PRICES, 3_600)
    exchange.compare()


@pytest.mark.safety("B18", "contract")
@pytest.mark.safety("C02", "contract")
@pytest.mark.safety("C02", "sequencer")
def test_random_withdrawals_agree(exchange):
    """Amounts and pauses of every scale: levels, times and claims equal to the last unit after every batch."""
    random_ = random.Random(18)
    owners = [signer(f"owner {number}") for number in range(4)]
    for owner in owners:
        exchange.deposit(owner, random_.randrange(1, 40_000_000) * USDC + 20_000_000 * USDC)
    waits = set()
    for _ in range(40):
        owner = random_.choice(owners)
        most = exchange.state.accounts[exchange.account(owner)].collateral
        amount = min(most, random_.randrange(1, 10 ** random_.randrange(4, 15)))
        if random_.random() < 0.2:
            exchange.deposit(owner, random_.randrange(10 * USDC, 10**13))
        elif amount and random_.random() < 0.7:
            waits.add(claimed(exchange.withdraw(owner, amount)).payable_at > 0)
        elif amount:
            exchange.request_withdrawal(owner, amount)
        if random_.random() < 0.6:
            exchange.round(PRICES, random_.choice([5, 5, 60, 3_600, 40_000, 300_000]))
            exchange.confirm()
            exchange.compare()
    exchange.round(PRICES)
    exchange.compare()
    assert waits == {True, False}
    assert all(due <= exchange.now + MAX_DELAY_S for due, *_ in exchange.state.delayed_claims)
    assert HOUR_FLOOR < DAY_FLOOR < exchange.state.claimed
