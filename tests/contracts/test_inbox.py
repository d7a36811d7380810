"""The inbox: what waits, for whom, how much, until when, and that only the vault takes it off."""

import boa
import pytest
from contract_cases import START_S, Signer, compiled, text
from eth_abi.abi import encode
from eth_hash.auto import keccak
from test_usdc import permit_of, vrs

USDC = 1_000_000
DEPOSIT, DONATION, WITHDRAWAL = 1, 2, 3
ALL = 2**256 - 1


def conserved(inbox, usdc, vault):
    """What waits is what was deposited and not consumed, and the vault holds it."""
    waiting = sum(
        inbox.entry(number).amount
        for number in range(inbox.head(), inbox.tail())
        if inbox.entry(number).kind != WITHDRAWAL
    )
    assert inbox.unconsumed() == waiting
    assert usdc.balanceOf(vault) >= inbox.unconsumed()
    assert usdc.balanceOf(inbox) == 0


def test_a_deposit_goes_straight_to_the_vault(inbox, usdc, vault, owner):
    """The tokens move at once; the entry says who gets credit, how much, and when it is due."""
    assert inbox.deposit(30 * USDC, 5, sender=owner) == 1
    entry = inbox.entry(1)
    assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (DEPOSIT, owner, 5, 30 * USDC)
    assert (entry.created, entry.due) == (START_S, START_S + 600)
    assert usdc.balanceOf(vault) == inbox.deposited() == inbox.unconsumed() == 30 * USDC
    assert (inbox.head(), inbox.tail()) == (1, 2)
    conserved(inbox, usdc, vault)


def test_an_entry_is_announced(inbox, owner):
    """EntryAdded holds everything that a reader needs."""
    inbox.deposit(30 * USDC, 5, sender=owner)
    event = inbox.get_logs()[-1]
    assert (event.id, event.kind, event.owner, event.sub_account) == (1, DEPOSIT, owner, 5)
    assert (event.amount, event.data, event.due, event.bond) == (30 * USDC, 0, START_S + 600, 0)


def test_the_first_deposit_is_at_least_ten_usdc(inbox, vault, owner):
    """No dust accounts; once one is on its way or registered, any amount may be added."""
    with boa.reverts("inbox: first deposit below 10 USDC"):
        inbox.deposit(10 * USDC - 1, 0, sender=owner)
    assert inbox.tail() == 1
    inbox.deposit(10 * USDC, 0, sender=owner)
    inbox.deposit(1, 0, sender=owner)
    with boa.reverts("inbox: first deposit below 10 USDC"):
        inbox.deposit(USDC, 1, sender=owner)
    vault.register(owner, 2, 9)
    inbox.deposit(1, 2, sender=owner)
    assert inbox.tail() == 4


def test_nothing_is_no_deposit(inbox, usdc, vault, owner):
    """A deposit or donation of nothing is refused, and so is more than the owner has or an entry can hold; as much as it can is
    taken."""
    vault.register(owner, 0, 9)
    for give in (
        lambda amount: inbox.deposit(amount, 0, sender=owner),
        lambda a: inbox.donate(a, sender=owner),
    ):
        with boa.reverts("inbox: nothing arrived"):
            give(0)
        with boa.reverts("usdc: balance too low"):
            give(1_001 * USDC)
        with boa.reverts("inbox: amount too large"):
            give(2**95)
        give(1)
        usdc.mint(owner, 2**95 - 1)
        give(2**95 - 1)
        assert inbox.entry(inbox.tail() - 1).amount == 2**95 - 1


def test_a_donation_names_no_account(inbox, usdc, vault, owner):
    """Anyone gives to the insurance fund, any amount above nothing."""
    assert inbox.donate(3, sender=owner) == 1
    event = inbox.get_logs()[-1]
    assert (event.kind, event.amount, event.data, event.due) == (DONATION, 3, 0, START_S + 600)
    entry = inbox.entry(1)
    assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (DONATION, owner, 0, 3)
    conserved(inbox, usdc, vault)


def test_a_withdrawal_is_requested_by_its_owner(inbox, usdc, vault, owner):
    """For a registered account, due in an hour, one at a time; it moves no tokens and counts in no sum."""
    with boa.reverts("inbox: unknown account"):
        inbox.request_withdrawal(5, 7 * USDC, sender=owner)
    vault.register(owner, 5, 9)
    with boa.reverts("inbox: amount is zero"):
        inbox.request_withdrawal(5, 0, sender=owner)
    with boa.reverts("inbox: amount too large"):
        inbox.request_withdrawal(5, 2**95, sender=owner)
    with boa.env.anchor():
        inbox.request_withdrawal(5, 2**95 - 1, sender=owner)
        assert inbox.entry(1).amount == 2**95 - 1
    assert inbox.request_withdrawal(5, 7 * USDC, sender=owner) == 1
    entry = inbox.entry(1)
    assert (entry.kind, entry.owner, entry.sub_account, entry.amount) == (WITHDRAWAL, owner, 5, 7 * USDC)
    assert entry.due == START_S + 3_600
    assert entry.data == 0
    assert inbox.open_entry(owner, 5, WITHDRAWAL) == 1
    assert inbox.unconsumed() == inbox.deposited() == usdc.balanceOf(vault) == 0


def test_one_withdrawal_is_open_per_account(inbox, vault, owner):
    """A second one waits until the first is consumed; other accounts are not concerned."""
    vault.register(owner, 5, 9)
    vault.register(owner, 6, 10)
    inbox.request_withdrawal(5, USDC, sender=owner)
    with boa.reverts("inbox: one of this kind is open"):
        inbox.request_withdrawal(5, USDC, sender=owner)
    inbox.request_withdrawal(6, USDC, sender=owner)
    vault.consume(inbox, 1)
    assert inbox.open_entry(owner, 5, WITHDRAWAL) == 0
    inbox.request_withdrawal(5, USDC, sender=owner)


@pytest.mark.safety("E18", "contract")
def test_entries_are_due_in_order(inbox, vault, owner, chain):
    """Delays are in seconds, and nobody is due before the one ahead in the queue."""
    vault.register(owner, 0, 9)
    inbox.request_withdrawal(0, USDC, sender=owner)
    inbox.deposit(USDC, 0, sender=owner)
    assert [inbox.entry(number).due for number in (1, 2)] == [START_S + 3_600] * 2
    chain.timestamp = START_S + 3_100
    inbox.deposit(USDC, 0, sender=owner)
    assert inbox.entry(3).due == START_S + 3_700


def test_the_vault_consumes_from_the_head(inbox, usdc, vault, owner, chain):
    """In order, what there is, and never twice; consumed entries stay readable."""
    vault.register(owner, 0, 9)
    inbox.deposit(20 * USDC, 0, sender=owner)
    inbox.donate(5 * USDC, sender=owner)
    inbox.request_withdrawal(0, 3 * USDC, sender=owner)
    vault.consume(inbox, 2)
    taken = [inbox.entry(number) for number in (1, 2)]
    assert [(entry.kind, entry.amount) for entry in taken] == [(DEPOSIT, 20 * USDC), (DONATION, 5 * USDC)]
    assert (inbox.head(), inbox.tail(), inbox.unconsumed(), inbox.deposited()) == (3, 4, 0, 25 * USDC)
    with boa.reverts("inbox: no such entry"):
        vault.consume(inbox, 2)
    vault.consume(inbox, 0)
    assert inbox.head() == 3
    vault.consume(inbox, 1)
    assert inbox.head() == 4
    assert inbox.entry(1) == taken[0]
    conserved(inbox, usdc, vault)


def test_only_the_vault_consumes(inbox, owner, vault):
    """Nobody else, not even the owner of the entry."""
    inbox.deposit(20 * USDC, 0, sender=owner)
    with boa.reverts("inbox: only the vault"):
        inbox.consume(1, owner, sender=owner)
    vault.consume(inbox, 1)
    assert inbox.head() == 2


def test_up_to_32_entries_are_consumed_at_once(inbox, vault, owner):
    """One more is refused and takes nothing."""
    vault.register(owner, 0, 9)
    for _ in range(33):
        inbox.deposit(USDC, 0, sender=owner)
    with boa.reverts("inbox: more than 32 entries"):
        vault.consume(inbox, 33)
    vault.consume(inbox, 32)
    assert inbox.head() == 33
    assert inbox.unconsumed() == USDC


def test_entries_that_do_not_exist_cannot_be_read(inbox, owner):
    """Ids start at 1 and end before the tail."""
    inbox.deposit(20 * USDC, 0, sender=owner)
    assert inbox.entry(1).amount == 20 * USDC
    for number in (0, 2, ALL):
        with boa.reverts("inbox: no such entry"):
            inbox.entry(number)


@pytest.mark.safety("E16", "contract")
def test_plain_transfers_to_the_vault_change_nothing(inbox, usdc, vault, owner):
    """Tokens sent past the inbox are credited to nobody and spoil no later deposit."""
    usdc.transfer(vault, 1, sender=owner)
    assert (inbox.unconsumed(), inbox.deposited(), inbox.tail()) == (0, 0, 1)
    inbox.deposit(20 * USDC, 0, sender=owner)
    assert inbox.entry(1).amount == inbox.deposited() == 20 * USDC
    vault.pass_on(usdc, owner, 1)
    conserved(inbox, usdc, vault)


@pytest.fixture
def odd(chain, vault):
    """An inbox on a token with bad habits, and an owner with 1,000 of it."""
    token = compiled("OddToken").deploy()
    inbox = compiled("Inbox").deploy(token, vault, vault, vault, 0)
    owner = chain.generate_address("owner")
    token.mint(owner, 1_000 * USDC)
    token.approve(inbox, ALL, sender=owner)
    return token, inbox, owner


@pytest.mark.safety("E15", "contract")
def test_what_arrives_is_bounded_too(odd, vault):
    """A token that makes more of a deposit than was sent: credited up to the bound of an amount, refused above it."""
    token, inbox, owner = odd
    token.give_more(2**95 - 20 * USDC)
    with boa.reverts("inbox: amount too large"):
        inbox.deposit(20 * USDC, 0, sender=owner)
    inbox.deposit(20 * USDC - 1, 0, sender=owner)
    assert inbox.entry(1).amount == inbox.unconsumed() == token.balanceOf(vault) == 2**95 - 1


@pytest.mark.safety("E15", "contract")
def test_a_fee_on_transfer_is_not_credited(odd, vault):
    """What arrived at the vault is credited, and the minimum is measured on that."""
    token, inbox, owner = odd
    token.take_fee(10)
    with boa.reverts("inbox: first deposit below 10 USDC"):
        inbox.deposit(11 * USDC, 0, sender=owner)
    inbox.deposit(20 * USDC, 0, sender=owner)
    assert inbox.entry(1).amount == inbox.unconsumed() == token.balanceOf(vault) == 18 * USDC
    token.take_fee(100)
    with boa.reverts("inbox: nothing arrived"):
        inbox.donate(USDC, sender=owner)


def test_a_token_that_answers_false_is_believed(odd):
    """No entry without a transfer; when the token takes it, there is one."""
    token, inbox, owner = odd
    token.refuse(True)
    with boa.reverts("inbox: token refused"):
        inbox.deposit(20 * USDC, 0, sender=owner)
    token.refuse(False)
    assert inbox.deposit(20 * USDC, 0, sender=owner) == 1


def test_a_token_that_answers_nothing_works(chain, vault):
    """Old tokens return no value from transferFrom."""
    token = compiled("SilentToken").deploy()
    inbox = compiled("Inbox").deploy(token, vault, vault, vault, 0)
    owner = chain.generate_address("owner")
    token.mint(owner, 20 * USDC)
    inbox.deposit(20 * USDC, 0, sender=owner)
    assert inbox.entry(1).amount == token.balanceOf(vault) == 20 * USDC


def call_of(signature, types, arguments):
    return keccak(signature.encode())[:4] + encode(types, arguments)


@pytest.mark.safety("E17", "contract")
@pytest.mark.parametrize("target", ["inbox", "vault"])
def test_reentry_in_the_middle_of_a_deposit_is_refused(odd, vault, target):
    """A token that calls back can neither add an entry nor have entries consumed meanwhile."""
    token, inbox, owner = odd
    inbox.deposit(20 * USDC, 0, sender=owner)
    if target == "inbox":
        token.call_back(inbox, call_of("donate(uint256)", ["uint256"], [1]))
    else:
        token.call_back(
            vault, call_of("consume(address,uint256)", ["address", "uint256"], [str(inbox.address), 1])
        )
    with boa.reverts():
        inbox.deposit(20 * USDC, 0, sender=owner)
    assert (inbox.head(), inbox.tail(), inbox.deposited()) == (1, 2, 20 * USDC)
    token.call_back("0x" + "00" * 20, b"")
    assert inbox.deposit(20 * USDC, 0, sender=owner) == 2


@pytest.fixture
def permitting(chain, usdc):
    """An owner with a key, 100 USDC and no allowance."""
    signer = Signer(b"\x41" * 32)
    usdc.mint(text(signer.address), 100 * USDC)
    return signer, text(signer.address)


def test_a_deposit_with_permit_needs_no_approval(inbox, usdc, permitting):
    """One transaction; the permit is used up."""
    signer, owner = permitting
    deadline = START_S + 60
    signature = vrs(permit_of(usdc, signer, owner, inbox.address, 20 * USDC, deadline))
    assert inbox.deposit_with_permit(20 * USDC, 3, deadline, *signature, sender=owner) == 1
    assert inbox.entry(1).amount == 20 * USDC
    assert usdc.allowance(owner, inbox) == 0
    with boa.reverts("usdc: permit signer is not the owner"):
        inbox.deposit_with_permit(20 * USDC, 3, deadline, *signature, sender=owner)


def test_a_permit_that_somebody_submitted_first_does_no_harm(inbox, usdc, permitting, chain):
    """Front-running the permit only spares the owner its gas; it deposits for nobody else."""
    signer, owner = permitting
    deadline = START_S + 60
    signature = vrs(permit_of(usdc, signer, owner, inbox.address, 20 * USDC, deadline))
    thief = chain.generate_address("thief")
    with boa.reverts("usdc: permit signer is not the owner"):
        inbox.deposit_with_permit(20 * USDC, 3, deadline, *signature, sender=thief)
    usdc.permit(owner, inbox, 20 * USDC, deadline, *signature, sender=thief)
    assert inbox.deposit_with_permit(20 * USDC, 3, deadline, *signature, sender=owner) == 1
    assert inbox.entry(1).owner.lower() == owner
