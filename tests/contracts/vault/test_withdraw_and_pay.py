"""Section 5 and pay(): money leaves by its owner's signature, into a claim that only the owner is paid."""

import boa
import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, Refused, events, refused, signer

from evermark.protocol.margin import initial_margin
from evermark.protocol.orders import Side

PRICE = 600_000


def withdraw(exchange: Exchange, party: Party, amount: int, **more):
    batch = exchange.batch()
    batch.withdraw(party, amount, **more)
    return batch.settle()


def test_a_withdrawal_becomes_a_claim_and_is_paid(exchange: Exchange, maker: Party) -> None:
    """Amount less fee to the owner, the fee to the fee account, once."""
    (event,) = events(exchange, withdraw(exchange, maker, 1_000 * USDC, fee=3 * USDC), "ClaimCreated")
    owner = Address(maker.signer.address)
    assert exchange.vault.claim(event.claim) == (owner, 997 * USDC, 0)
    assert exchange.vault.account(maker.account).collateral == 99_000 * USDC
    assert exchange.vault.account(2).collateral == 3 * USDC
    exchange.check_invariants()
    exchange.vault.pay(event.claim, sender=boa.env.generate_address())
    assert exchange.token.balanceOf(owner) == 997 * USDC
    for claim in (event.claim, event.claim + 1, 0):
        with boa.reverts("vault: nothing to pay"):
            exchange.vault.pay(claim)


@pytest.mark.safety("D13", "contract")
def test_the_fee_is_at_most_what_was_signed(exchange: Exchange, maker: Party) -> None:
    """One unit above the maximum, or above the amount, is refused."""
    with refused("vault: withdrawal fee too high"):
        withdraw(exchange, maker, 1_000 * USDC, fee=101, max_fee=100)
    with refused("vault: withdrawal fee too high"):
        withdraw(exchange, maker, 100, fee=101, max_fee=1_000)
    withdraw(exchange, maker, 1_000 * USDC, fee=100, max_fee=100)
    withdraw(exchange, maker, 100, fee=100, max_fee=100)


@pytest.mark.safety("D12", "contract")
@pytest.mark.safety("F02", "contract")
def test_only_the_owner_withdraws(exchange: Exchange, maker: Party) -> None:
    """Neither an approved agent nor another trader."""
    agent = signer(77)
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 100)
    batch.settle()
    for key in (agent, signer(2)):
        with refused("vault: not signed by owner"):
            withdraw(exchange, maker, 1, by=key)


def test_a_withdrawal_settles_once(exchange: Exchange, maker: Party) -> None:
    """The action sequence grows, and the deadline is inclusive."""
    sequence = exchange.sequence()
    withdraw(exchange, maker, 5, action_sequence=sequence, deadline=exchange.clock)
    with refused("vault: action sequence too low"):
        withdraw(exchange, maker, 5, action_sequence=sequence)
    with refused("vault: action expired"):
        withdraw(exchange, maker, 5, deadline=exchange.clock - 1)


@pytest.mark.safety("B01", "contract")
def test_profit_leaves_only_above_initial_margin_and_a_fifth(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """With a position, equity after the withdrawal covers max(initial margin, 20 % of notional), to the unit: the fifth is
    rounded up."""
    size = 300_001
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, size, PRICE)
    batch.settle()
    exchange.round({0: 610_001})
    margin = exchange.margin(taker.account)
    notional = size * 610_001
    kept = notional // 5 + 1
    assert notional % 5 == 1
    assert kept > initial_margin(exchange.markets[0], notional)
    assert margin.withdrawable == margin.equity - kept > 0
    with refused("vault: not withdrawable"):
        withdraw(exchange, taker, margin.withdrawable + 1)
    withdraw(exchange, taker, margin.withdrawable)
    assert exchange.margin(taker.account).withdrawable == 0


@pytest.mark.safety("A01", "contract")
def test_nothing_leaves_against_a_stale_position(exchange: Exchange, maker: Party, taker: Party) -> None:
    """With the price of an open market stale, its holder cannot withdraw; others can."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    exchange.round(seconds=70, abstain=[0])
    with refused("vault: stale price"):
        withdraw(exchange, taker, 1)
    withdraw(exchange, exchange.parties[5], 1)


def test_every_open_position_must_be_named(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Leaving a pair out of the table does not hide its margin."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    batch = exchange.batch(pairs=(), markets=())
    batch.withdraw(taker, 1)
    with refused("vault: positions not named"):
        batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, 250_000, market=1)
    batch.header = {"pairs": ((0, 1), (1, 1)), "markets": (1,)}
    built = batch.build()
    rows = tuple(
        type(row)(index, row.fee_class, row.order, row.signature) for index, row in enumerate(built.orders)
    )
    batch.header["orders"] = rows
    with refused("vault: positions not named"):
        batch.settle()


def test_a_withdrawal_of_profit_made_in_the_same_batch(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Section 5 sees the fills before it; all of it within the margin after them."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    batch.withdraw(taker, 80_000 * USDC)
    batch.settle()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 200_000, PRICE)
    batch.withdraw(taker, 10_000 * USDC)
    with refused("vault: not withdrawable"):
        batch.settle()


@pytest.mark.safety("E14", "contract")
def test_a_refusing_token_leaves_the_claim(exchange_with_token, maker_of) -> None:
    """A blacklisted owner's claim waits; settlement and others' claims go on; later it is paid."""
    exchange = exchange_with_token("BlacklistToken")
    party, other = maker_of(exchange, 1), maker_of(exchange, 2)
    first = events(exchange, withdraw(exchange, party, 100 * USDC), "ClaimCreated")[0].claim
    second = events(exchange, withdraw(exchange, other, 100 * USDC), "ClaimCreated")[0].claim
    owner = Address(party.signer.address)
    exchange.token.blacklist(owner, True)
    with boa.reverts():
        exchange.vault.pay(first)
    exchange.vault.pay(second)
    assert exchange.vault.claim(first).amount == 100 * USDC
    exchange.check_invariants()
    exchange.token.blacklist(owner, False)
    exchange.vault.pay(first)
    assert exchange.token.balanceOf(owner) == 100 * USDC
    exchange.check_invariants()


@pytest.mark.safety("E17", "contract")
def test_a_calling_token_cannot_be_paid_twice(exchange_with_token, maker_of) -> None:
    """A token that calls pay() again while paying finds the claim gone and the lock held."""
    exchange = exchange_with_token("ReentrantToken")
    party = maker_of(exchange, 1)
    claim = events(exchange, withdraw(exchange, party, 100 * USDC), "ClaimCreated")[0].claim
    exchange.token.arm(exchange.vault.address, claim)
    exchange.vault.pay(claim)
    assert exchange.token.attempts() == 1
    assert not exchange.token.succeeded()
    assert exchange.token.balanceOf(Address(party.signer.address)) == 100 * USDC
    exchange.check_invariants()


def test_a_token_that_returns_false_is_no_payment(exchange_with_token, maker_of) -> None:
    """False instead of a revert leaves the claim, too."""
    exchange = exchange_with_token("BlacklistToken")
    party = maker_of(exchange, 1)
    claim = events(exchange, withdraw(exchange, party, 100 * USDC), "ClaimCreated")[0].claim
    exchange.token.answer_false(True)
    with boa.reverts("vault: token refused"):
        exchange.vault.pay(claim)
    assert exchange.vault.claim(claim).amount == 100 * USDC


@pytest.mark.safety("D14", "contract")
def test_the_door_is_for_clerk_and_backstop_alone(exchange: Exchange, maker: Party) -> None:
    """Nobody else writes the vault's words or speaks in its name, not even the sequencer."""
    strangers = [exchange.sequencer, exchange.reasons.address, Address(maker.signer.address)]
    for sender in (*strangers, boa.env.generate_address()):
        with boa.reverts("vault: not one of its contracts"):
            exchange.vault.write(maker.account, 2**90, sender=sender)
        with boa.reverts("vault: not one of its contracts"):
            exchange.vault.relay([bytes(32)] * 2, b"", sender=sender)
    with pytest.raises((Refused, boa.BoaError)):
        exchange.clerk.settle(sender=exchange.sequencer)
    with pytest.raises((Refused, boa.BoaError)):
        exchange.backstop.close_target(1, maker.account << 6, 0, 1, 1, 0, False, sender=exchange.sequencer)
