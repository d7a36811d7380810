"""revm, which most contract tests run on, does what py-evm does."""

from typing import Any

import boa
import pytest
from builders import USDC, Exchange, Refused, Side, events, send

from tests import fast_evm

PRICE = 600_000


def story() -> list[Any]:
    """What the exchange answers, says and keeps, on boa's chain of the moment."""
    boa.env.set_random_seed(1)
    boa.env.eoa = boa.env.generate_address()
    exchange = Exchange()
    exchange.round({0: PRICE})
    maker, taker = (exchange.deposit(number, 10_000 * USDC) for number in (1, 2))
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.withdraw(maker, 5 * USDC)
    data = batch.data()
    told: list[Any] = []
    with boa.env.anchor():
        computation = send(exchange, data)
        told += [
            vars(event)
            for name in ("BatchSettled", "ClaimCreated")
            for event in events(exchange, computation, name)
        ]
        exchange.vault.pay(1)
        told.append(exchange.token.balanceOf(exchange.vault.address))
        told += [exchange.vault.account(account) for account in (maker.account, taker.account)]
        told.append(exchange.vault.position(taker.account, 0))
    for spoilt in (data[:-1], data[:200] + bytes([data[200] ^ 1]) + data[201:], data + bytes(1)):
        with pytest.raises(Refused) as refusal:
            send(exchange, spoilt)
        told.append(str(refusal.value))
    told.append(exchange.vault.totals())
    with pytest.raises(boa.BoaError) as failure:  # a contract is the sender
        exchange.token.transfer(exchange.sequencer, 1, sender=exchange.oracle.address)
    told.append(failure.value.stack_trace.last_frame.pretty_vm_reason)
    exchange.token.transfer(exchange.oracle.address, 3 * USDC, sender=exchange.vault.address)
    told.append(exchange.token.balanceOf(exchange.oracle.address))
    return told


@pytest.mark.skipif(not fast_evm.is_wanted(), reason="py-evm is the only EVM here")
def test_both_evms_tell_the_same_story() -> None:
    """Results, events, refusals with their reasons, what a revert undoes, and a call by a contract."""
    told = []
    for environment in (fast_evm.fresh(), boa.Env()):
        with boa.swap_env(environment):
            told.append(story())
    assert told[0] == told[1]
