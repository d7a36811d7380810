"""Proposals: who, how far, not before when, and what becomes of them."""

from typing import Any

import boa
import pytest
from builders import MARKETS, NOBODY, Exchange, Party, events, refused
from governing import (
    CANCELLED,
    HOUR_S,
    IN_FORCE,
    PRICE,
    THIN,
    THIN_INDEX,
    WITHOUT_EFFECT,
    Governing,
)

from evermark.chain.governor import Action, listing_arguments
from evermark.protocol.governance import DELAY_S, LONG_DELAY_S
from evermark.protocol.orders import Side

NEW = "0x00000000000000000000000000000000000000AB"
PROPOSALS: dict[str, tuple[str, tuple[Any, ...], bool]] = {
    "listing": ("listing", (*listing_arguments(THIN), THIN_INDEX), False),
    "tuning": ("tuning", (0, *listing_arguments(MARKETS[0])), False),
    "removal": ("keeper", (0, NEW, False), False),
    "sequencer": ("sequencer", (NEW,), False),
    "reference": ("reference", (0, ("0x" + "00" * 20, 0, 0, 0)), False),
    "addition": ("keeper", (1, NEW, True), True),
    "quorums": ("quorums", (1, 1), True),
    "guardian": ("role", (8, NEW), True),
    "governor": ("role", (9, NEW), True),
}


@pytest.mark.safety("F01", "contract")
@pytest.mark.parametrize("name", PROPOSALS)
def test_nothing_happens_before_its_delay_or_after_its_deadline(
    governing: Governing, exchange: Exchange, name: str
) -> None:
    """48 hours, or 14 days; a second too early, a second too late, twice, cancelled: refused."""
    call, arguments, slow = PROPOSALS[name]
    delay, contract = (LONG_DELAY_S if slow else DELAY_S), governing.contract
    start = boa.env.timestamp = exchange.clock
    first, second = (governing.propose(call, *arguments, slow=slow) for _ in range(2))
    boa.env.timestamp = start + delay - 1
    with boa.reverts("governor: too early"):
        governing.execute(first)
    boa.env.timestamp = governing.deadline(slow) + 1
    with boa.reverts("governor: deadline has passed"):
        governing.execute(first)
    boa.env.timestamp = start + delay
    contract.cancel(second, sender=exchange.proposer)
    with boa.reverts("governor: not proposed"):
        governing.execute(second)
    exchange.clock = start + delay - exchange.clock % 10
    exchange.round()
    governing.execute(first)
    with boa.reverts("governor: not proposed"):
        governing.execute(first)
    with boa.reverts("governor: not proposed"):
        contract.cancel(first, sender=exchange.guardian if name == "governor" else exchange.proposer)


@pytest.mark.safety("F06", "ops")
def test_a_transaction_signed_long_ago_proposes_nothing(governing: Governing, exchange: Exchange) -> None:
    """The deadline is part of the proposal and at most a day behind its delay: what is sent a day later is refused, as is
    a later deadline now."""
    signed = (NEW, governing.deadline(hours=24))
    with boa.reverts("governor: deadline too far"):
        governing.contract.propose_sequencer(NEW, signed[1] + 1, sender=exchange.proposer)
    with boa.reverts("governor: deadline before delay"):
        governing.contract.propose_sequencer(NEW, exchange.clock + DELAY_S - 1, sender=exchange.proposer)
    boa.env.timestamp = exchange.clock + 86_400
    with boa.env.anchor():
        governing.contract.propose_sequencer(*signed, sender=exchange.proposer)
    boa.env.timestamp += 1
    with boa.reverts("governor: deadline before delay"):
        governing.contract.propose_sequencer(*signed, sender=exchange.proposer)


def test_only_the_governor_proposes(governing: Governing, exchange: Exchange) -> None:
    """Neither the guardian nor a stranger; both may carry out what is ripe, and a stranger cancels nothing."""
    for name, (call, arguments, slow) in PROPOSALS.items():
        for sender in (exchange.guardian, boa.env.generate_address("stranger")):
            with boa.reverts("governor: only the governor"):
                getattr(governing.contract, f"propose_{call}")(
                    *arguments, governing.deadline(slow), sender=sender
                )
        proposal = governing.propose(call, *arguments, slow=slow)
        with boa.reverts("governor: not governor or guardian"):
            governing.contract.cancel(proposal, sender=boa.env.generate_address("stranger"))
        canceller = exchange.guardian
        if name == "guardian":
            with boa.reverts("governor: guardian's own end"):
                governing.contract.cancel(proposal, sender=exchange.guardian)
            canceller = exchange.proposer
        governing.contract.cancel(proposal, sender=canceller)
        assert governing.state(proposal) == CANCELLED


def test_keepers_and_quorums_change_with_the_batch_that_consumes_them(
    governing: Governing, exchange: Exchange
) -> None:
    """Registered after 14 days, removed after 48 hours, not below the quorum; what no longer fits holds up nobody."""
    oracle = exchange.oracle
    assert not oracle.is_oracle_keeper(NEW)
    added = governing.propose("keeper", 0, NEW, True, slow=True)
    governing.wait(slow=True)
    governing.execute(added)
    assert not oracle.is_oracle_keeper(NEW)
    governing.consume()
    assert oracle.is_oracle_keeper(NEW)
    assert governing.state(added) == IN_FORCE
    removed = [governing.propose("keeper", 0, NEW, False) for _ in range(2)]
    governing.wait()
    skipped = []
    for proposal in removed:
        governing.execute(proposal)
        skipped += events(exchange, governing.consume(), "EntrySkipped")
    assert [event.reason for event in skipped] == [9]  # the second one, which no longer applies
    assert [governing.state(proposal) for proposal in removed] == [IN_FORCE, WITHOUT_EFFECT]
    assert not oracle.is_oracle_keeper(NEW)
    quorums = governing.carry_out("quorums", 3, 1, slow=True)
    assert governing.state(quorums) == WITHOUT_EFFECT
    assert oracle.oracle_quorum() == 1
    governing.carry_out("keeper", 1, NEW, True, slow=True)
    assert oracle.is_funding_keeper(NEW)
    governing.carry_out("keeper", 1, NEW, False)
    assert not oracle.is_funding_keeper(NEW)


@pytest.mark.safety("F08", "ops")
def test_a_rotated_sequencer_settles_and_the_old_one_does_not(
    governing: Governing, exchange: Exchange, maker: Party, taker: Party
) -> None:
    """From the batch on that consumed the rotation, in the vault and in the oracle's lane; and once more, back to another."""
    old, new = exchange.sequencer, boa.env.generate_address("new sequencer")
    exchange.deposit(20, 100_000_000)
    proposal = governing.propose("sequencer", new)
    governing.wait()
    governing.execute(proposal)
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle()
    governing.consume()
    with boa.reverts("oracle: only the sequencer"):
        exchange.round()
    exchange.sequencer = new
    exchange.round()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    with refused("vault: not only overdue work"):
        batch.settle(sender=old)
    batch.settle(sender=new)
    assert exchange.oracle.sequencer() == new
    assert exchange.vault.totals().inbox_head == exchange.inbox.head()
    exchange.deposit(21, 100_000_000)
    governing.carry_out("sequencer", old)
    exchange.sequencer = old
    exchange.round()
    batch = exchange.batch()
    batch.trade(maker, taker, Side.BUY, 10, PRICE)
    batch.settle(sender=old)


@pytest.mark.safety("F08", "ops")
def test_a_sequencer_cannot_keep_its_own_removal_out(governing: Governing, exchange: Exchange) -> None:
    """An hour after the entry was queued anybody executes it, and the old key settles nothing any more."""
    new = boa.env.generate_address("new sequencer")
    proposal = governing.propose("sequencer", new)
    governing.wait()
    governing.execute(proposal)
    exchange.round(seconds=HOUR_S + 10)
    batch = exchange.batch(journal_sequence=0, journal_hash=bytes(32))
    batch.inbox(None)
    batch.settle(sender=boa.env.generate_address("anybody"))
    assert exchange.oracle.sequencer() == new
    with boa.reverts("oracle: only the sequencer"):
        exchange.round()


def test_roles_are_handed_on(governing: Governing, exchange: Exchange) -> None:
    """After 14 days; never both to one."""
    both = governing.propose("role", 8, exchange.proposer, slow=True)
    guardian = governing.propose("role", 8, NEW, slow=True)
    governing.wait(slow=True)
    with boa.reverts("governor: one for two roles"):
        governing.execute(both)
    governing.execute(guardian)
    assert governing.contract.guardian() == NEW
    governor = governing.propose("role", 9, boa.env.generate_address("next"), slow=True)
    governing.wait(slow=True)
    governing.execute(governor)
    with boa.reverts("governor: only the governor"):
        governing.propose("sequencer", NEW)


def test_changes_enter_the_inbox_from_the_governor_alone(exchange: Exchange) -> None:
    """Nobody else queues them, not the governor's key either; nobody but the inbox says that one took effect."""
    for sender in (exchange.proposer, exchange.guardian, exchange.sequencer):
        with boa.reverts("inbox: only the governor"):
            exchange.inbox.queue_change(9, 0, 1, sender=sender)
        with boa.reverts("governor: only the inbox"):
            exchange.governance.took_effect(1, sender=sender)
    with boa.reverts("inbox: not a change"):
        exchange.inbox.queue_change(3, 0, 1, sender=exchange.governor)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (1, 5),  # an account
        ((1 << 39) + 512, 0),  # the counters
        ((1 << 39) + 514, 0),  # credited tokens
        ((1 << 39) + 256, 1 << 224),  # a funding index
        ((1 << 39) + 192, 7),  # a symbol
        ((1 << 39) + 384, 7),  # what forced closes took of a market's hour
        ((1 << 39) + 447, 7),
        (1 << 39, 7),  # a lot's worth
        (1 << 46 | 3 << 6, 1),  # a position
        (1 << 255 | 1, 1),  # an agent
    ],
)
def test_a_governor_with_other_code_could_not_touch_balances(exchange: Exchange, key: int, word: int) -> None:
    """The clerk lets through words of markets' parameters, whatever the governor's contract answers."""
    source = f"""
interface Queue:
    def queue_change(kind: uint8, topic: uint16, data: uint256) -> uint256: payable
@external
def queue(inbox: address):
    extcall Queue(inbox).queue_change(9, 0, 1)
@external
def took_effect(proposal_id: uint256):
    pass
@view
@external
def words(kind: uint8, topic: uint16, data: uint256) -> DynArray[uint256, 16]:
    return [{key}, {word}]
"""
    hostile = boa.loads(source, override_address=exchange.governor)
    hostile.queue(exchange.inbox.address)
    batch = exchange.batch()
    batch.inbox(None)
    with refused("vault: not the governor's word"):
        batch.settle()


@pytest.mark.parametrize(
    "call, arguments, reason",
    [
        ("delisting", (63,), "governor: no such market"),
        ("delisting", (64,), "governor: no such market"),
        ("keeper", (2, NEW, True), "governor: no such role"),
        ("keeper", (0, NOBODY, True), "governor: no such role"),
        ("quorums", (2, 1), "governor: bad quorum"),
        ("quorums", (17, 1), "governor: bad quorum"),
        ("quorums", (1, 2), "governor: bad quorum"),
        ("quorums", (1, 17), "governor: bad quorum"),
        ("sequencer", (NOBODY,), "governor: zero address"),
        ("role", (int(Action.GUARDIAN) - 1, NEW), "governor: no such role"),
        ("role", (int(Action.GOVERNOR) + 1, NEW), "governor: no such role"),
        ("role", (int(Action.GUARDIAN), NOBODY), "governor: zero address"),
    ],
)
def test_what_cannot_be_meant_is_not_proposed(
    governing: Governing, call: str, arguments: tuple[Any, ...], reason: str
) -> None:
    """Refused at the proposal already, and not two weeks later."""
    with boa.reverts(reason):
        governing.propose(call, *arguments, slow=True)


def test_a_tuning_names_the_markets_own_symbol(governing: Governing) -> None:
    """So that a wrong market id tunes nothing."""
    with boa.reverts("governor: another symbol"):
        governing.propose("tuning", 1, *listing_arguments(MARKETS[0]))


def test_a_proposal_and_an_even_pause_need_no_bond_of_the_wrong_size(
    governing: Governing, exchange: Exchange
) -> None:
    """What no batch consumes takes no money along, and bonds of several markets divide evenly."""
    payer = boa.env.generate_address("payer")
    for account in (payer, exchange.guardian):
        boa.env.set_balance(account, 10)
    proposal = governing.propose("role", int(Action.GUARDIAN), NEW, slow=True)
    governing.wait(slow=True)
    with boa.reverts("governor: needs no bond"):
        governing.contract.execute(proposal, sender=payer, value=1)
    governing.execute(proposal)
    assert boa.env.get_balance(payer) == 10
    exchange.guardian = NEW
    boa.env.set_balance(NEW, 10)
    with boa.reverts("governor: uneven bonds"):
        governing.contract.pause([0, 1], 1, 60, sender=NEW, value=3)
    governing.contract.pause([0, 1], 1, 60, sender=NEW, value=4)
    assert [exchange.inbox.entry(exchange.inbox.tail() - back).bond for back in (1, 2)] == [2, 2]
