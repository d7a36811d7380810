"""Section 1: cancels and agents that owners ask for on the chain, and who is paid for executing entries."""

import boa
import pytest
from boa.util.abi import Address
from builders import MARKETS, USDC, Builder, Exchange, Party, events, refused, send, signer
from msgspec.structs import replace

from evermark.protocol.orders import Side

PRICE = 600_000
ALL_SLOTS = 65_535


def execute(exchange: Exchange, *accounts: int):
    """A batch that consumes an entry of each of these accounts."""
    batch = exchange.batch()
    for account in accounts:
        batch.inbox(account)
    return batch.settle()


def wallet(party: Party) -> Address:
    return Address(party.signer.address)


@pytest.mark.safety("D06", "contract")
def test_a_voided_slot_never_fills_again(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A sequencer that kept the signed order cannot settle it; a higher sequence in the slot trades."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 4, PRICE), 4)
    batch.settle()
    sequence = resting.order.sequence
    exchange.inbox.request_cancel(0, 1, sequence + 1, sender=wallet(maker))
    (voided,) = events(exchange, execute(exchange, maker.account), "OrdersVoided")
    assert (voided.account, voided.slot, voided.sequence) == (maker.account, 1, sequence + 1)
    assert tuple(exchange.vault.slot(maker.account, 1)) == (sequence + 1, 2**62 - 1, False)
    replayed = exchange.batch()
    row = replayed.again(resting)
    replayed.fill(row, replayed.order(taker, Side.BUY, 4, PRICE), 4)
    with refused("vault: slot sequence too low"):
        replayed.settle()
    exchange.sequence()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    assert exchange.vault.position(taker.account, 0).size == 14


@pytest.mark.safety("D06", "contract")
@pytest.mark.parametrize("by_inbox", [True, False], ids=["inbox", "signed"])
def test_a_cancel_at_its_own_sequence_ends_an_order_that_filled_in_part(
    exchange: Exchange, maker: Party, taker: Party, by_inbox: bool
) -> None:
    """The rest of it never fills, nor does an amend that would carry over what it filled."""
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 10, PRICE, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 4, PRICE), 4)
    batch.settle()
    sequence = resting.order.sequence
    if by_inbox:
        exchange.inbox.request_cancel(0, 1, sequence, sender=wallet(maker))
        execute(exchange, maker.account)
    else:
        batch = exchange.batch()
        batch.cancel(maker, slot=1, sequence=sequence)
        batch.settle()
    assert tuple(exchange.vault.slot(maker.account, 1)) == (sequence, 2**62 - 1, False)
    for amend in (False, True):
        batch = exchange.batch()
        changed = {"sequence": sequence + 1, "amend": True} if amend else {}
        row = batch.order(maker, Side.SELL, 10, PRICE, slot=1, **changed) if amend else batch.again(resting)
        batch.fill(row, batch.order(taker, Side.BUY, 4, PRICE), 4)
        with refused("vault: order overfilled"):
            batch.settle()


def test_a_lower_cancel_changes_nothing(exchange: Exchange, maker: Party, taker: Party) -> None:
    """What an order at a higher sequence filled is not forgotten."""
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    before = tuple(exchange.vault.slot(maker.account, 1))
    exchange.inbox.request_cancel(0, 1, before[0] - 1, sender=wallet(maker))
    execute(exchange, maker.account)
    assert tuple(exchange.vault.slot(maker.account, 1)) == before


def test_slot_0_and_all_slots_are_voided_in_the_account(
    exchange: Exchange, maker: Party, taker: Party
) -> None:
    """Immediate orders by their sequence; everything, with the signed actions, by one number."""
    sequence = exchange.sequence()
    exchange.inbox.request_cancel(0, 0, sequence, sender=wallet(taker))
    execute(exchange, taker.account)
    assert exchange.vault.account(taker.account).taker_sequence == sequence
    batch = exchange.batch()
    late = batch.order(taker, Side.BUY, 5, PRICE, sequence=sequence)
    batch.fill(batch.order(maker, Side.SELL, 5, PRICE, slot=1), late, 5)
    with refused("vault: taker sequence too low"):
        batch.settle()
    sequence = exchange.sequence()
    exchange.inbox.request_cancel(0, ALL_SLOTS, sequence, sender=wallet(maker))
    (voided,) = events(exchange, execute(exchange, maker.account), "OrdersVoided")
    assert (voided.slot, voided.sequence) == (ALL_SLOTS, sequence)
    state = exchange.vault.account(maker.account)
    assert (state.min_sequence, state.action_sequence) == (sequence, sequence)
    batch = exchange.batch()
    old = batch.order(maker, Side.SELL, 5, PRICE, slot=2, sequence=sequence)
    batch.fill(old, batch.order(taker, Side.BUY, 5, PRICE), 5)
    with refused("vault: order voided"):
        batch.settle()
    batch = exchange.batch()
    batch.withdraw(maker, USDC, action_sequence=sequence)
    with refused("vault: action sequence too low"):
        batch.settle()
    batch = exchange.batch()
    batch.withdraw(maker, USDC)
    batch.trade(maker, taker, Side.BUY, 5, PRICE)
    batch.settle()


@pytest.mark.safety("D12", "contract")
@pytest.mark.safety("D11", "contract")
def test_an_approved_agent_trades_until_it_is_revoked(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Without a signature of the owner; the revoke also voids what the owner signed before it."""
    agent = signer(77)
    address = Address(agent.address)
    expiry = exchange.clock + 1_000
    exchange.inbox.approve_agent(0, address, expiry, 9, sender=wallet(taker))
    (approved,) = events(exchange, execute(exchange, taker.account), "AgentApproved")
    assert (approved.account, approved.expiry, approved.transfer_cap) == (taker.account, expiry, 9)
    assert tuple(exchange.vault.agent(taker.account, address)) == (expiry, 9)

    def trade_by_agent() -> None:
        batch = exchange.batch()
        taking = batch.order(taker, Side.BUY, 5, PRICE, by=agent)
        batch.fill(batch.order(maker, Side.SELL, 5, PRICE, slot=1), taking, 5)
        batch.settle()

    trade_by_agent()
    signed_before = exchange.clock * 1000
    exchange.inbox.revoke_agent(0, address, sender=wallet(taker))
    (revoked,) = events(exchange, execute(exchange, taker.account), "AgentApproved")
    assert (revoked.expiry, revoked.transfer_cap) == (0, 0)
    assert tuple(exchange.vault.agent(taker.account, address)) == (0, 0)
    assert exchange.vault.account(taker.account).action_sequence == signed_before
    with refused("vault: not owner nor live agent"):
        trade_by_agent()
    batch = exchange.batch()
    batch.approve(taker, agent.address, expiry, action_sequence=signed_before)
    with refused("vault: action sequence too low"):
        batch.settle()


@pytest.mark.safety("D11", "contract")
def test_a_request_never_lowers_an_action_sequence(exchange: Exchange, maker: Party) -> None:
    """Neither a lower cancel of everything nor a revoke from before what was signed ahead: nothing gets valid again."""
    ahead = exchange.clock * 1000 + 10**6
    agent = signer(77)
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 1_000, action_sequence=ahead)
    batch.settle()
    sequence = exchange.sequence()
    assert sequence < ahead
    exchange.inbox.request_cancel(0, ALL_SLOTS, sequence, sender=wallet(maker))
    execute(exchange, maker.account)
    exchange.inbox.revoke_agent(0, Address(agent.address), sender=wallet(maker))
    execute(exchange, maker.account)
    state = exchange.vault.account(maker.account)
    assert (state.min_sequence, state.action_sequence) == (sequence, ahead)
    assert tuple(exchange.vault.agent(maker.account, Address(agent.address))) == (0, 0)
    exchange.inbox.request_cancel(0, ALL_SLOTS, ahead + 1, sender=wallet(maker))
    execute(exchange, maker.account)
    assert exchange.vault.account(maker.account).action_sequence == ahead + 1


def test_requests_name_their_own_account(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A hostile sequencer cannot void somebody else's slot with an entry."""
    exchange.inbox.request_cancel(0, 1, 5, sender=wallet(maker))
    with refused("vault: entry of another account"):
        execute(exchange, taker.account)
    execute(exchange, maker.account)


@pytest.mark.safety("E10", "contract")
def test_a_request_races_no_batch(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Asking moves nothing: fills that rely on the collateral settle, and the withdrawal then pays what they leave free."""
    free = exchange.margin(taker.account).withdrawable
    exchange.inbox.request_withdrawal(0, free, sender=wallet(taker))
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 300_000, PRICE)
    batch.settle()
    left = exchange.margin(taker.account).withdrawable
    assert 0 < left < free
    (claim,) = events(exchange, execute(exchange, taker.account), "ClaimCreated")
    assert claim.amount == left
    exchange.inbox.request_withdrawal(0, free, sender=wallet(taker))
    (skipped,) = events(exchange, execute(exchange, taker.account), "EntrySkipped")
    assert skipped.reason == 3


# ------------------------------------------------------------------------------------------------------------------ bonds


@pytest.fixture
def bonded():
    """An exchange of its own whose entries post bonds."""
    with boa.env.anchor():
        exchange = Exchange(bond_gas_price=1)
        exchange.round({0: PRICE, 1: 250_000, 2: 15_000, 3: 30_000})
        yield exchange


def funded_request(exchange: Exchange, party: Party, kind: int, call, *arguments) -> int:
    """Adds an entry with exactly its bond; returns the bond."""
    bond = exchange.inbox.bond(kind)
    boa.env.set_balance(wallet(party), 10**18)
    call(*arguments, sender=wallet(party), value=bond)
    return bond


def bonded_deposit(exchange: Exchange, number: int, amount: int) -> Party:
    owner = signer(number)
    party = Party(owner, exchange.vault.totals().accounts + 1)
    exchange.fund_wallet(owner, amount)
    funded_request(exchange, party, 1, exchange.inbox.deposit, amount, 0)
    execute(exchange, party.account)
    return party


def test_the_sequencer_earns_the_bonds_of_its_batches(bonded: Exchange) -> None:
    """Every entry's bond is owed to who sent the batch, which takes it from the inbox."""
    party = bonded_deposit(bonded, 1, 50 * USDC)
    earned = bonded.inbox.bond(1)
    earned += funded_request(bonded, party, 5, bonded.inbox.request_cancel, 0, 1, 7)
    execute(bonded, party.account)
    assert bonded.inbox.bonds(bonded.sequencer) == earned
    assert bonded.inbox.collect_bonds(sender=bonded.sequencer) == earned


def transaction_gas(exchange: Exchange, account: int) -> int:
    """What a batch of one entry costs its sender."""
    batch = exchange.batch()
    batch.inbox(account)
    return batch_gas(exchange, batch)


def batch_gas(exchange: Exchange, batch: Builder) -> int:
    """On cold storage, calldata and the base of every transaction included."""
    data = batch.data()
    state = boa.env.evm.vm.state
    state.lock_changes()
    for address in (exchange.vault.address, exchange.sequencer):
        state.mark_address_warm(bytes.fromhex(str(address)[2:]))
    used = send(exchange, data).get_gas_used()
    return used + 21_000 + sum(16 if byte else 4 for byte in data)


def test_a_bond_covers_the_worst_case_of_its_entry() -> None:
    """A first deposit, an approval, a cancel of everything, a revoke; with 16 open positions on both sides a withdrawal, a close
    in two batches, a liquidation that is not needed."""
    markets = tuple(replace(MARKETS[0], market_id=number, symbol=f"M{number}-PERP") for number in range(16))
    with boa.swap_env(boa.Env()):  # committing its state, as cold gas wants it, spoils the anchors of another
        exchange = Exchange(markets, bond_gas_price=1)
        exchange.round(dict.fromkeys(range(16), PRICE))
        inbox, used = exchange.inbox, {}
        party, other = Party(signer(1), 3), Party(signer(2), 4)
        for number, trader in enumerate((party, other)):
            exchange.fund_wallet(trader.signer, 900_000 * USDC)
            funded_request(exchange, trader, 1, inbox.deposit, 900_000 * USDC, 0)
            used[1] = transaction_gas(exchange, 3 + number)
        for market in markets:
            batch = exchange.batch()
            batch.trade(other, party, Side.BUY, 10, PRICE, market=market.market_id)
            batch.settle()
        agent = Address(signer(77).address)
        requests = {
            5: (inbox.request_cancel, 0, ALL_SLOTS, exchange.sequence()),
            6: (inbox.approve_agent, 0, agent, exchange.clock + 60, 5),
            7: (inbox.revoke_agent, 0, agent),
            3: (inbox.request_withdrawal, 0, USDC),
        }
        for kind, (call, *arguments) in requests.items():
            funded_request(exchange, party, kind, call, *arguments)
            used[kind] = transaction_gas(exchange, 3)
        funded_request(exchange, party, 4, inbox.request_close, 0, 0, 10)
        close = exchange.batch()
        close.force(3, 0, 4, 10)
        used[4] = batch_gas(exchange, close)
        used[4] += transaction_gas(exchange, 3)
        funded_request(exchange, party, 8, inbox.request_liquidation, 4)
        used[8] = transaction_gas(exchange, 4)
        assert inbox.head() == inbox.tail()
        for kind, gas in used.items():
            assert gas < inbox.bond(kind), used
        assert used[3] > inbox.bond(1), "the bond of a withdrawal is not idle"
        assert used[4] > inbox.bond(3), "nor is that of a close"
