"""Section 2, transfers: collateral moves between one owner's sub-accounts, by the owner or by an agent within its cap."""

import pytest
from boa.util.abi import Address
from builders import USDC, Exchange, Party, events, refused, signer

from evermark.protocol.margin import initial_margin
from evermark.protocol.orders import Side

PRICE = 600_000
AGENT = signer(77)


def transfer(exchange: Exchange, party: Party, to: int, amount: int, **more):
    batch = exchange.batch()
    batch.transfer(party, to, amount, **more)
    return batch.settle()


def approve(exchange: Exchange, party: Party, cap: int, life_s: int = 1_000) -> None:
    """An agent with this transfer cap; its approvals take the next action sequence."""
    batch = exchange.batch()
    sequence = exchange.vault.account(party.account).action_sequence + 1
    batch.approve(party, AGENT.address, exchange.clock + life_s, transfer_cap=cap, action_sequence=sequence)
    batch.settle()


def cap_of(exchange: Exchange, party: Party) -> int:
    return exchange.vault.agent(party.account, Address(AGENT.address)).transfer_cap


def test_a_transfer_opens_the_other_account_and_moves_collateral(exchange: Exchange, maker: Party) -> None:
    """From 10 USDC on it registers the sub-account under the next id; one unit less is refused, and not later any more."""
    with refused("vault: too small to register"):
        transfer(exchange, maker, 3, 10 * USDC - 1)
    newest = exchange.vault.totals().accounts
    settled = transfer(exchange, maker, 3, 10 * USDC)
    (opened,) = events(exchange, settled, "AccountRegistered")
    (moved,) = events(exchange, settled, "Transferred")
    owner = int.from_bytes(maker.signer.address, "big")
    assert (opened.account, opened.owner, opened.sub_account) == (newest + 1, owner, 3)
    assert (moved.account, moved.target, moved.amount) == (maker.account, newest + 1, 10 * USDC)
    assert exchange.vault.account_of(Address(maker.signer.address), 3) == newest + 1
    transfer(exchange, maker, 3, 1)
    assert exchange.vault.account(newest + 1).collateral == 10 * USDC + 1
    assert exchange.vault.account(maker.account).collateral == 99_990 * USDC - 1
    back = Party(maker.signer, newest + 1, 3)
    transfer(exchange, back, 0, 10 * USDC + 1)
    assert exchange.vault.account(maker.account).collateral == 100_000 * USDC


def test_the_registered_account_trades_in_the_same_batch(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Section 2 comes before the fills, so what it opened and filled with collateral may trade at once."""
    batch = exchange.batch()
    isolated = Party(maker.signer, exchange.vault.totals().accounts + 1, 9)
    batch.transfer(maker, 9, 1_000 * USDC)
    batch.trade(isolated, taker, Side.BUY, 1_000, PRICE)
    batch.settle()
    assert exchange.vault.position(isolated.account, 0).size == -1_000
    assert exchange.vault.account(isolated.account).sub_account == 9


@pytest.mark.safety("B01", "contract")
@pytest.mark.safety("B02", "contract")
def test_what_stays_is_as_safe_as_after_a_withdrawal(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Unrealized profit leaves only above max(initial margin, 20 % of notional); taking margin from an isolated position
    is no way round."""
    batch = exchange.batch()
    isolated = Party(taker.signer, exchange.vault.totals().accounts + 1, 1)
    batch.transfer(taker, 1, 20_000 * USDC)
    batch.trade(maker, isolated, Side.BUY, 100_000, PRICE)
    batch.settle()
    exchange.round({0: PRICE + 6_000})
    notional = exchange.markets[0].notional(100_000, PRICE + 6_000)
    equity = exchange.margin(isolated.account).equity
    assert equity > 20_000 * USDC
    free = equity - max(initial_margin(exchange.markets[0], notional), -(-notional // 5))
    with refused("vault: not withdrawable"):
        transfer(exchange, isolated, 0, free + 1)
    transfer(exchange, isolated, 0, free)
    with refused("vault: not withdrawable"):
        transfer(exchange, isolated, 0, 1)


@pytest.mark.safety("A01", "contract")
def test_a_stale_price_holds_a_position_s_collateral(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Without a fresh price nobody knows what is free; an account without positions moves on."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    batch.settle()
    exchange.round(seconds=70, abstain=(0,))
    with refused("vault: stale price"):
        transfer(exchange, taker, 1, 100 * USDC)
    transfer(exchange, exchange.parties[5], 1, 100 * USDC)


def test_all_open_positions_are_named(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A transfer that hides a position is refused."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 1_000, PRICE)
    batch.settle()
    batch = exchange.batch(pairs=(), markets=())
    batch.transfer(taker, 1, 100 * USDC)
    with refused("vault: positions not named"):
        batch.settle()


@pytest.mark.safety("B25", "contract")
def test_nothing_goes_to_itself_or_elsewhere(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Not to the same account, not nothing, not into an account that the signature does not name."""
    for to, amount in ((0, 100 * USDC), (1, 0)):
        with refused("vault: nothing to transfer"):
            transfer(exchange, maker, to, amount)
    with refused("vault: transfer elsewhere"):
        transfer(exchange, maker, 1, 100 * USDC, target=taker.account)
    transfer(exchange, maker, 1, 100 * USDC)
    with refused("vault: transfer elsewhere"):
        transfer(exchange, maker, 1, 100 * USDC, target=maker.account)


@pytest.mark.safety("D12", "contract")
@pytest.mark.safety("F02", "contract")
def test_a_stranger_moves_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Neither another trader nor an agent without a cap, whose cap of 0 allows no unit."""
    with refused("vault: not owner nor live agent"):
        transfer(exchange, maker, 1, 100 * USDC, by=taker.signer)
    approve(exchange, maker, 0)
    with refused("vault: above transfer cap"):
        transfer(exchange, maker, 1, 1, by=AGENT)


@pytest.mark.safety("D12", "contract")
def test_an_agents_cap_counts_down(exchange: Exchange, maker: Party) -> None:
    """Up to its cap in sum, to the owner's accounts only, and not beyond its expiry; the owner's own transfers cost no cap."""
    approve(exchange, maker, 100 * USDC)
    transfer(exchange, maker, 1, 60 * USDC, by=AGENT)
    assert cap_of(exchange, maker) == 40 * USDC
    transfer(exchange, maker, 1, 500 * USDC)
    with refused("vault: above transfer cap"):
        transfer(exchange, maker, 1, 40 * USDC + 1, by=AGENT)
    transfer(exchange, maker, 1, 40 * USDC, by=AGENT)
    assert cap_of(exchange, maker) == 0
    approve(exchange, maker, 100 * USDC, life_s=10)
    exchange.round()
    transfer(exchange, maker, 1, 1 * USDC, by=AGENT)
    exchange.round()
    with refused("vault: not owner nor live agent"):
        transfer(exchange, maker, 1, 1 * USDC, by=AGENT)


@pytest.mark.safety("D12", "contract")
def test_an_agent_cannot_use_up_the_owners_sequences(exchange: Exchange, maker: Party) -> None:
    """Its transfer takes the next action sequence, so the owner can always revoke it; the owner's may leap."""
    approve(exchange, maker, 100 * USDC)
    sequence = exchange.vault.account(maker.account).action_sequence
    with refused("vault: action sequence not next"):
        transfer(exchange, maker, 1, 10 * USDC, by=AGENT, action_sequence=2**48 - 1)
    transfer(exchange, maker, 1, 10 * USDC, by=AGENT, action_sequence=sequence + 1)
    transfer(exchange, maker, 1, 10 * USDC, action_sequence=sequence + 9)


@pytest.mark.safety("D02", "contract")
def test_a_transfer_settles_once_and_in_time(exchange: Exchange, maker: Party) -> None:
    """The action sequence grows over transfers and withdrawals alike, the deadline is inclusive, and a withdrawal's
    signature is none of a transfer."""
    transfer(exchange, maker, 1, 10 * USDC, action_sequence=7)
    with refused("vault: action sequence too low"):
        transfer(exchange, maker, 1, 10 * USDC, action_sequence=7)
    batch = exchange.batch()
    batch.withdraw(maker, 1, action_sequence=7)
    with refused("vault: action sequence too low"):
        batch.settle()
    with refused("vault: action expired"):
        transfer(exchange, maker, 1, 10 * USDC, deadline=exchange.clock - 1)
    transfer(exchange, maker, 1, 10 * USDC, deadline=exchange.clock)
    batch = exchange.batch()
    batch.withdraw(maker, 10 * USDC, action_sequence=20)
    _, _, _, signature = batch.withdrawals.pop()
    batch.transfer(maker, 1, 10 * USDC, action_sequence=20)
    account, message, _ = batch.actions.pop()
    batch.actions.append((account, message, signature))
    with refused("vault: not owner nor live agent"):
        batch.settle()


def test_a_reserved_account_transfers_nothing(exchange: Exchange, maker: Party) -> None:
    """The insurance fund and the fee account have no owner, so nobody signs for them."""
    for account in (1, 2):
        with refused("vault: unknown account"):
            transfer(exchange, Party(maker.signer, account), 1, 10 * USDC)
