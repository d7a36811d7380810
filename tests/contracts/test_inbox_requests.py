"""Cancels and agents through the inbox, the oldest waiting deposit, and bonds: who posts, who is paid, what is refused."""

import boa
import pytest
from contract_cases import START_S, compiled
from eth.exceptions import Revert

USDC = 1_000_000
GWEI = 10**9
DEPOSIT, DONATION, WITHDRAWAL, CANCEL, APPROVE, REVOKE = 1, 2, 3, 5, 6, 7
LIQUIDATE, GOVERNOR_CHANGE, GUARDIAN = 8, 9, 10
ALL_SLOTS = 65_535
DAY_S = 86_400
NOBODY = "0x" + "00" * 20


@pytest.fixture
def registered(vault, owner):
    """The owner's sub-account 5 is an account."""
    vault.register(owner, 5, 9)
    return owner


@pytest.fixture
def agent(chain):
    return chain.generate_address("agent")


@pytest.mark.safety("D06", "contract")
def test_an_owner_asks_to_void_a_slot(inbox, registered):
    """Due in an hour at most, with the slot and the sequence in the entry."""
    sequence = START_S * 1000
    assert inbox.request_cancel(5, 7, sequence, sender=registered) == 1
    event = inbox.get_logs()[-1]
    entry = inbox.entry(1)
    assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (CANCEL, registered, 5, 0)
    assert (entry.data & 0xFFFF, entry.data >> 16) == (7, sequence)
    assert (entry.created, entry.due) == (START_S, START_S + 3_600)
    assert (event.id, event.kind, event.data) == (1, CANCEL, entry.data)


def test_a_cancel_reaches_a_day_ahead_at_most(inbox, registered):
    """So that a slip of the finger does not void an account's future; zero voids nothing."""
    with boa.reverts("inbox: sequence is zero"):
        inbox.request_cancel(5, ALL_SLOTS, 0, sender=registered)
    most = (START_S + DAY_S) * 1000
    with boa.reverts("inbox: sequence too far ahead"):
        inbox.request_cancel(5, ALL_SLOTS, most + 1, sender=registered)
    inbox.request_cancel(5, ALL_SLOTS, most, sender=registered)


@pytest.mark.safety("D12", "contract")
def test_an_agent_is_approved_and_revoked(inbox, registered, agent):
    """A key, its expiry and its cap; for contract wallets the only way."""
    expiry = START_S + 365 * DAY_S
    assert inbox.approve_agent(5, agent, expiry, 3 * USDC, sender=registered) == 1
    entry = inbox.entry(1)
    assert (entry.kind, entry.amount, entry.data >> 160) == (APPROVE, 3 * USDC, expiry)
    assert entry.data & (2**160 - 1) == int(agent, 16)
    assert inbox.revoke_agent(5, agent, sender=registered) == 2
    entry = inbox.entry(2)
    assert (entry.kind, entry.amount, entry.data) == (REVOKE, 0, int(agent, 16))


@pytest.mark.safety("D12", "contract")
def test_what_is_no_agent_is_refused(inbox, registered, agent):
    """Nobody, the owner, a life that is over or longer than a year, a cap beyond what accounts hold."""
    for address in (NOBODY, registered):
        with boa.reverts("inbox: not an agent"):
            inbox.approve_agent(5, address, START_S + 60, 0, sender=registered)
        with boa.reverts("inbox: not an agent"):
            inbox.revoke_agent(5, address, sender=registered)
    with boa.reverts("inbox: expiry has passed"):
        inbox.approve_agent(5, agent, START_S, 0, sender=registered)
    with boa.reverts("inbox: expiry too far"):
        inbox.approve_agent(5, agent, START_S + 365 * DAY_S + 1, 0, sender=registered)
    with boa.reverts("inbox: amount too large"):
        inbox.approve_agent(5, agent, START_S + 60, 2**95, sender=registered)
    inbox.approve_agent(5, agent, START_S + 60, 2**95 - 1, sender=registered)


@pytest.mark.safety("E13", "contract")
def test_one_entry_of_a_kind_is_open(inbox, vault, registered, agent):
    """Deposits excepted; another kind, and the same one after it was consumed, are taken."""
    requests = {
        WITHDRAWAL: lambda: inbox.request_withdrawal(5, USDC, sender=registered),
        CANCEL: lambda: inbox.request_cancel(5, 1, 1, sender=registered),
        APPROVE: lambda: inbox.approve_agent(5, agent, START_S + 60, 0, sender=registered),
        REVOKE: lambda: inbox.revoke_agent(5, agent, sender=registered),
    }
    for kind, request in requests.items():
        number = request()
        assert inbox.open_entry(registered, 5, kind) == number
        with boa.reverts("inbox: one of this kind is open"):
            request()
    vault.consume(inbox, 4)
    for kind, request in requests.items():
        assert inbox.open_entry(registered, 5, kind) == 0
        request()
    with boa.reverts("inbox: unknown account"):
        inbox.request_cancel(6, 1, 1, sender=registered)


def test_any_trader_s_account_may_be_named_for_liquidation(inbox, vault, registered, chain):
    """From the first to the last that there can be, one at a time by each who names; none that is reserved or unknown."""
    last = 2**32 - 1
    for account in (2, 3, last, last + 1):
        vault.register(registered, 6, account)
    for account in (0, 2, 4, last + 1, 2**40 + 3):
        with boa.reverts("inbox: unknown account"):
            inbox.request_liquidation(account, sender=registered)
    for number, account in enumerate((3, last), 1):
        keeper = chain.generate_address()
        assert inbox.request_liquidation(account, sender=keeper) == number
        entry = inbox.entry(number)
        assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (LIQUIDATE, keeper, 0, 0)
        assert (entry.data, entry.due) == (account, START_S + 3_600)
        assert inbox.open_entry(keeper, 0, LIQUIDATE) == number
        with boa.reverts("inbox: one of this kind is open"):
            inbox.request_liquidation(account, sender=keeper)


def test_one_change_of_a_topic_is_open(inbox, vault):
    """Whoever has proposed what: the governor's second change of a kind and topic waits until the first was consumed."""
    governor = inbox.GOVERNOR()
    changes = [(kind, topic) for kind in (GUARDIAN, GOVERNOR_CHANGE) for topic in (0, 65_535)]
    for number, (kind, topic) in enumerate(changes, 1):
        assert inbox.queue_change(kind, topic, 70 + number, sender=governor) == number
        entry = inbox.entry(number)
        assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (kind, governor, topic, 0)
        assert (entry.data, entry.due) == (70 + number, START_S + (600 if kind == GUARDIAN else 3_600))
        assert inbox.open_entry(governor, topic, kind) == number
        with boa.reverts("inbox: one of this kind is open"):
            inbox.queue_change(kind, topic, 1, sender=governor)
    for kind in (0, LIQUIDATE, 11):
        with boa.reverts("inbox: not a change"):
            inbox.queue_change(kind, 7, 1, sender=governor)
    vault.consume(inbox, 1)
    inbox.queue_change(*changes[0], 1, sender=governor)


def test_the_oldest_waiting_deposit_is_known(inbox, vault, registered, chain):
    """When it was made, by account, as the queue is worked off; other entries and accounts do not count."""
    vault.register(registered, 6, 10)
    assert inbox.oldest_deposit(registered, 5) == 0
    for later in (1, 11, 21, 31):
        chain.timestamp = START_S + later
        inbox.deposit(USDC, 5 if later != 21 else 6, sender=registered)
    inbox.donate(1, sender=registered)
    expected = [START_S + 1, START_S + 11, START_S + 31, START_S + 31, 0]
    for consumed, created in enumerate(expected):
        assert inbox.oldest_deposit(registered, 5) == created, consumed
        assert inbox.oldest_deposit(registered, 6) == (START_S + 21 if consumed < 3 else 0)
        if consumed < 4:
            vault.consume(inbox, 1)
    vault.consume(inbox, 1)
    for later in (41, 51, 61, 71):  # one is consumed between the others
        chain.timestamp = START_S + later
        inbox.deposit(USDC, 5, sender=registered)
        assert inbox.oldest_deposit(registered, 5) == START_S + max(41, later - 10)
        if later != 41:
            vault.consume(inbox, 1)
            assert inbox.oldest_deposit(registered, 5) == START_S + later


# ------------------------------------------------------------------------------------------------------------------ bonds


@pytest.fixture
def bonded(usdc, vault, registered, chain):
    """An inbox at 2 gwei a unit of gas, and an owner with ether and an allowance."""
    others = (chain.generate_address("exit"), chain.generate_address("governor"))
    inbox = compiled("Inbox").deploy(usdc, vault, *others, 2 * GWEI)
    usdc.approve(inbox, 2**256 - 1, sender=registered)
    chain.set_balance(registered, 10**18)
    return inbox


@pytest.mark.safety("E13", "contract")
def test_each_entry_posts_a_bond(bonded, registered, agent):
    """The gas of its worst case at the deployment's price; less is refused, more adds to it."""
    requests = {
        DEPOSIT: lambda wei: bonded.deposit(USDC, 5, sender=registered, value=wei),
        DONATION: lambda wei: bonded.donate(USDC, sender=registered, value=wei),
        WITHDRAWAL: lambda wei: bonded.request_withdrawal(5, USDC, sender=registered, value=wei),
        CANCEL: lambda wei: bonded.request_cancel(5, 1, 1, sender=registered, value=wei),
        APPROVE: lambda wei: bonded.approve_agent(5, agent, START_S + 60, 0, sender=registered, value=wei),
        REVOKE: lambda wei: bonded.revoke_agent(5, agent, sender=registered, value=wei),
    }
    total = 0
    for kind, request in requests.items():
        bond = bonded.bond(kind)
        assert bond >= 300_000 * 2 * GWEI
        with boa.reverts("inbox: bond too small"):
            request(bond - 1)
        number = request(bond + kind)
        assert bonded.entry(number).bond == bond + kind
        assert bonded.entry(number).due in (START_S + 600, START_S + 3_600)
        total += bond + kind
    assert boa.env.get_balance(bonded.address) == total


def test_bonds_are_for_as_much_gas_as_a_kind_needs_at_worst(bonded):
    """What docs/exit.md tells owners to send; test_requests_in_batches.py measures that it is enough."""
    gas = {kind: bonded.bond(kind) // (2 * GWEI) for kind in range(1, 11)}
    assert gas == {
        **dict.fromkeys((DEPOSIT, DONATION, CANCEL, APPROVE, REVOKE, 10), 350_000),
        **dict.fromkeys((WITHDRAWAL, 9), 700_000),
        **dict.fromkeys((4, 8), 2_500_000),
    }


def test_a_bond_pays_whoever_executes(bonded, vault, registered, chain):
    """Owed to the submitter of the batch that consumed the entry, and taken by it once."""
    executor = chain.generate_address("executor")
    bond = bonded.bond(DEPOSIT)
    for _ in range(2):
        bonded.deposit(USDC, 5, sender=registered, value=bond)
    bonded.add_bond(2, sender=registered, value=5)
    vault.consume(bonded, 2, sender=executor)
    assert bonded.bonds(executor) == 2 * bond + 5
    before = boa.env.get_balance(executor)
    assert bonded.collect_bonds(sender=executor) == 2 * bond + 5
    assert boa.env.get_balance(executor) == before + 2 * bond + 5
    assert boa.env.get_balance(bonded.address) == 0
    for stranger in (executor, registered):
        with boa.reverts("inbox: no bonds"):
            bonded.collect_bonds(sender=stranger)


def test_a_bond_grows_while_its_entry_waits(bonded, vault, registered):
    """By anybody; of a consumed entry, or one that does not exist, it does not."""
    bonded.deposit(USDC, 5, sender=registered, value=bonded.bond(DEPOSIT))
    bonded.add_bond(1, sender=registered, value=7)
    assert bonded.entry(1).bond == bonded.bond(DEPOSIT) + 7
    chain_wei = 2**96
    boa.env.set_balance(registered, 2 * chain_wei)
    with boa.reverts("inbox: bond too large"):
        bonded.add_bond(1, sender=registered, value=chain_wei - 7)
    with boa.reverts("inbox: bond too large"):
        bonded.deposit(USDC, 5, sender=registered, value=chain_wei)
    with boa.env.anchor():
        number = bonded.deposit(USDC, 5, sender=registered, value=chain_wei - 2)
        bonded.add_bond(number, sender=registered, value=1)
        assert bonded.entry(number).bond == chain_wei - 1
    with boa.env.anchor():
        number = bonded.deposit(USDC, 5, sender=registered, value=chain_wei - 1)
        assert bonded.entry(number).bond == chain_wei - 1
    vault.consume(bonded, 1)
    for number in (0, 1, 2):
        with boa.reverts("inbox: no such entry waits"):
            bonded.add_bond(number, sender=registered, value=1)


def test_an_executor_that_refuses_its_bond_blocks_nobody(bonded, vault, registered, usdc, chain):
    """Entries are consumed all the same; the bond waits, and others take theirs."""
    bond = bonded.bond(DEPOSIT)
    for _ in range(2):
        bonded.deposit(USDC, 5, sender=registered, value=bond)
    vault.consume(bonded, 1, sender=usdc.address)  # a contract that takes no ether
    vault.consume(bonded, 1, sender=registered)
    assert bonded.head() == 3
    with boa.reverts("inbox: bonds refused"):
        bonded.collect_bonds(sender=usdc.address)
    assert bonded.bonds(usdc.address) == bond
    bonded.collect_bonds(sender=registered)
    assert boa.env.get_balance(bonded.address) == bond


def test_ether_without_an_entry_is_refused(bonded, registered):
    """The inbox holds bonds and nothing else."""
    with pytest.raises(Revert):
        boa.env.raw_call(bonded.address, sender=registered, value=1)
    assert boa.env.get_balance(bonded.address) == 0


# ----------------------------------------------------------------------------------------------------------- after a freeze


def test_a_frozen_exchange_takes_no_entries(bonded, vault, registered):
    """Whatever would be added could never be executed."""
    bond = bonded.bond(WITHDRAWAL)
    bonded.deposit(USDC, 5, sender=registered, value=bond)
    vault.freeze()
    with boa.reverts("inbox: frozen"):
        bonded.deposit(USDC, 5, sender=registered, value=bond)
    with boa.reverts("inbox: frozen"):
        bonded.request_withdrawal(5, USDC, sender=registered, value=bond)
    assert (bonded.tail(), bonded.unconsumed()) == (2, USDC)


def test_the_exit_gives_entries_back(bonded, vault, registered, chain):
    """Deposits with their tokens, requests with their bond, each once, none that was consumed; and only the exit does."""
    exit_ = bonded.EXIT()
    bonds = [bonded.bond(kind) for kind in (DEPOSIT, DEPOSIT, WITHDRAWAL, DONATION)]
    bonded.deposit(USDC, 5, sender=registered, value=bonds[0])
    bonded.deposit(2 * USDC, 5, sender=registered, value=bonds[1])
    bonded.request_withdrawal(5, USDC, sender=registered, value=bonds[2])
    bonded.donate(3 * USDC, sender=registered, value=bonds[3])
    vault.consume(bonded, 1, sender=chain.generate_address("executor"))
    for stranger in (registered, vault.address):
        with boa.reverts("inbox: only the exit"):
            bonded.release(2, sender=stranger)
    for number in (0, 1, 5):
        with boa.reverts("inbox: no such entry waits"):
            bonded.release(number, sender=exit_)
    assert bonded.release(2, sender=exit_) == (registered, 2 * USDC)
    assert bonded.release(3, sender=exit_) == (registered, 0)
    assert bonded.release(4, sender=exit_) == (registered, 3 * USDC)
    assert bonded.unconsumed() == 0
    assert bonded.bonds(registered) == sum(bonds[1:])
    with boa.reverts("inbox: released already"):
        bonded.release(2, sender=exit_)
    bonded.collect_bonds(sender=registered)
