"""Write-off on chain: only of a user's debt without positions, only by what the insurance fund can spare."""

import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, events, refused
from test_deleveraging import keep_only

from evermark.protocol.orders import Side

ENTRY = 600_000
SIZE = 33_000
BELOW_ZERO = 569_000


@pytest.fixture
def debtor(exchange: Exchange, maker: Party) -> Party:
    """Below zero equity it closed its long at a price above the mark: flat, and in debt."""
    party = exchange.deposit(20, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, party, Side.BUY, SIZE, ENTRY)
    batch.settle()
    exchange.round({0: BELOW_ZERO})
    batch = exchange.batch()
    batch.trade(maker, party, Side.SELL, SIZE, BELOW_ZERO + 300)
    batch.settle()
    assert exchange.vault.account(party.account).collateral < 0
    return party


def write_off(exchange: Exchange, account: int):
    batch = exchange.batch()
    batch.write_off(account)
    return batch


def test_the_fund_pays_the_debt_exactly(exchange: Exchange, debtor: Party) -> None:
    """The account stands at zero, the fund lost as much; a second time there is nothing to write off."""
    debt, fund = (-exchange.vault.account(debtor.account).collateral, exchange.vault.account(1).collateral)
    (told,) = events(exchange, write_off(exchange, debtor.account).settle(), "WrittenOff")
    assert (told.account, told.amount) == (debtor.account, debt)
    assert exchange.vault.account(debtor.account).collateral == 0
    assert exchange.vault.account(1).collateral == fund - debt
    with refused("vault: nothing to write off"):
        write_off(exchange, debtor.account).settle()


def test_a_poor_fund_pays_what_it_has(exchange: Exchange, debtor: Party) -> None:
    """Everything down to zero, and nothing from nothing."""
    debt = -exchange.vault.account(debtor.account).collateral
    keep_only(exchange, 1, 0)
    with refused("vault: the fund cannot pay"):
        write_off(exchange, debtor.account).settle()
    keep_only(exchange, 1, debt - 1)
    write_off(exchange, debtor.account).settle()
    assert exchange.vault.account(debtor.account).collateral == -1
    assert exchange.vault.account(1).collateral == 0


def test_the_first_user_is_one_like_any(exchange: Exchange, maker: Party) -> None:
    """Accounts 1 and 2 are reserved, 3 is a trader's."""
    assert maker.account == 3
    keep_only(exchange, maker.account, -7)
    write_off(exchange, maker.account).settle()
    assert exchange.vault.account(maker.account).collateral == 0


@pytest.mark.safety("B10", "contract")
def test_only_debts_of_flat_users(exchange: Exchange, debtor: Party, maker: Party) -> None:
    """Not of an account in credit, of one with a position, or of a reserved account."""
    for account in (maker.account, 2):
        with refused("vault: nothing to write off"):
            write_off(exchange, account).settle()
    holder = exchange.deposit(21, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, holder, Side.BUY, SIZE, BELOW_ZERO)
    batch.settle()
    assert exchange.vault.account(holder.account).collateral < 0
    with refused("vault: nothing to write off"):
        write_off(exchange, holder.account).settle()


def test_the_funds_margin_and_prices_count(exchange: Exchange, debtor: Party, maker: Party) -> None:
    """The fund is named with its positions, at fresh prices, and keeps its initial margin."""
    second = exchange.deposit(22, 1_000 * USDC)
    batch = exchange.batch()
    batch.trade(maker, second, Side.BUY, SIZE, BELOW_ZERO)
    batch.settle()
    exchange.round({0: BELOW_ZERO - 26_000})
    batch = exchange.batch()
    batch.take_over(second.account, 0, SIZE)
    batch.settle()
    batch = write_off(exchange, debtor.account)
    batch.accounts.clear()
    batch.named.clear()
    with refused("vault: positions not named"):
        batch.settle()
    margin = exchange.margin(1)
    keep_only(exchange, 1, exchange.vault.account(1).collateral - (margin.equity - margin.initial) + 5)
    exchange.round(seconds=70, abstain=[0])
    with refused("vault: stale price"):
        write_off(exchange, debtor.account).settle()
    exchange.round({0: BELOW_ZERO - 26_000})
    debt = -exchange.vault.account(debtor.account).collateral
    write_off(exchange, debtor.account).settle()
    assert exchange.vault.account(debtor.account).collateral == 5 - debt
    margin = exchange.margin(1)
    assert margin.equity == margin.initial


@pytest.mark.safety("B17", "contract")
def test_an_account_below_zero_holds_up_nobody_in_the_inbox(
    exchange: Exchange, debtor: Party, taker: Party
) -> None:
    """The vault lets forced withdrawals through whatever others owe; the debtor itself has nothing to withdraw."""
    for party, claims in ((taker, 1), (debtor, 1)):
        exchange.inbox.request_withdrawal(0, 40 * USDC, sender=Address(party.signer.address))
        batch = exchange.batch()
        batch.inbox(party.account)
        batch.settle()
        assert exchange.vault.totals().claims == claims
    exchange.vault.pay(1)
    assert exchange.token.balanceOf(Address(taker.signer.address)) == 40 * USDC
