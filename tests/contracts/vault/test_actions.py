"""Section 2: agents are approved by their owner alone, orders are voided by owner or agent."""

import pytest
from builders import Exchange, Party, events, refused, signer

from evermark.protocol.orders import Side

PRICE = 600_000
DAY_S = 86_400


@pytest.mark.safety("D12", "contract")
def test_only_the_owner_approves(exchange: Exchange, maker: Party) -> None:
    """An agent cannot approve another key, nor can a stranger."""
    agent, other = signer(77), signer(78)
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 100)
    (event,) = events(exchange, batch.settle(), "AgentApproved")
    assert (event.account, event.expiry) == (maker.account, exchange.clock + 100)
    for key in (agent, other):
        batch = exchange.batch()
        batch.approve(maker, other.address, exchange.clock + 100, by=key)
        with refused("vault: not signed by owner"):
            batch.settle()


@pytest.mark.safety("D12", "contract")
def test_an_agent_lives_a_year_at_most(exchange: Exchange, maker: Party) -> None:
    """365 days from the round are the longest expiry."""
    for days_s, passes in ((365 * DAY_S + 1, False), (365 * DAY_S, True)):
        batch = exchange.batch()
        batch.approve(maker, signer(77).address, exchange.clock + days_s)
        if passes:
            batch.settle()
        else:
            with refused("vault: agent expiry too far"):
                batch.settle()


@pytest.mark.safety("D12", "contract")
def test_an_approval_settles_once(exchange: Exchange, maker: Party) -> None:
    """The action sequence grows: a revoked agent cannot be approved again by the old signature."""
    agent = signer(77)
    first = exchange.sequence()
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 100, action_sequence=first)
    batch.settle()
    batch = exchange.batch()
    batch.approve(maker, agent.address, 0)
    batch.settle()
    assert exchange.vault.agent(maker.account, "0x" + agent.address.hex()).expiry == 0
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 100, action_sequence=first)
    with refused("vault: action sequence too low"):
        batch.settle()


@pytest.mark.parametrize("action", ["approve", "cancel"])
def test_actions_have_a_deadline(exchange: Exchange, maker: Party, action: str) -> None:
    """Inclusive, by the round's time."""
    for late, passes in ((1, False), (0, True)):
        batch = exchange.batch()
        deadline = exchange.clock - late
        if action == "approve":
            batch.approve(maker, signer(77).address, exchange.clock + 100, deadline=deadline)
        else:
            batch.cancel(maker, slot=1, sequence=1, deadline=deadline)
        if passes:
            batch.settle()
        else:
            with refused("vault: action expired"):
                batch.settle()


@pytest.mark.safety("D06", "contract")
def test_a_cancel_voids_its_slot_up_to_its_sequence(exchange: Exchange, maker: Party, taker: Party) -> None:
    """The cancelled order fills no more, a newer one in the slot does; the other half of the word is untouched."""
    batch = exchange.batch()
    old = batch.order(maker, Side.SELL, 10, PRICE, slot=2)
    neighbour = batch.order(maker, Side.SELL, 10, PRICE, slot=3)
    batch.fill(old, batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.fill(neighbour, batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.settle()
    batch = exchange.batch()
    batch.cancel(maker, slot=2, sequence=old.order.sequence + 1)
    (event,) = events(exchange, batch.settle(), "OrdersVoided")
    assert (event.account, event.slot, event.sequence) == (maker.account, 2, old.order.sequence + 1)
    batch = exchange.batch()
    batch.fill(batch.again(old), batch.order(taker, Side.BUY, 1, PRICE), 1)
    with refused("vault: slot sequence too low"):
        batch.settle()
    batch = exchange.batch()
    batch.fill(
        batch.order(maker, Side.SELL, 5, PRICE, slot=2, sequence=old.order.sequence + 1),
        batch.order(taker, Side.BUY, 1, PRICE),
        1,
    )
    with refused("vault: order overfilled"):
        batch.settle()
    batch = exchange.batch()
    batch.fill(batch.order(maker, Side.SELL, 5, PRICE, slot=2), batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.fill(batch.again(neighbour), batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.settle()


@pytest.mark.safety("D06", "contract")
def test_a_cancel_of_all_slots_voids_every_order(exchange: Exchange, maker: Party, taker: Party) -> None:
    """Up to the sequence nothing of the account fills, in any slot, in the very batch of the cancel."""
    first, second = exchange.sequence(), exchange.sequence()
    for slot in (0, 1, 9):
        batch = exchange.batch()
        batch.cancel(maker, all_slots=True, sequence=first)
        row = batch.order(maker, Side.BUY if slot == 0 else Side.SELL, 5, PRICE, slot=slot, sequence=first)
        if slot:
            batch.fill(row, batch.order(taker, Side.BUY, 1, PRICE), 1)
        with refused("vault: order voided"):
            batch.settle()
    batch = exchange.batch()
    batch.cancel(maker, all_slots=True, sequence=first)
    row = batch.order(maker, Side.SELL, 5, PRICE, slot=1, sequence=second)
    batch.fill(row, batch.order(taker, Side.BUY, 1, PRICE), 1)
    batch.settle()
    assert exchange.vault.account(maker.account).min_sequence == first


def test_a_cancel_of_slot_0_raises_the_taker_sequence(exchange: Exchange, maker: Party, taker: Party) -> None:
    """A taker order at or below the cancelled sequence no longer fills."""
    sequence = exchange.sequence()
    batch = exchange.batch()
    batch.cancel(taker, slot=0, sequence=sequence)
    batch.settle()
    batch = exchange.batch()
    resting = batch.order(maker, Side.SELL, 5, PRICE, slot=1)
    batch.fill(resting, batch.order(taker, Side.BUY, 1, PRICE, sequence=sequence), 1)
    with refused("vault: taker sequence too low"):
        batch.settle()


def test_an_older_cancel_changes_nothing(exchange: Exchange, maker: Party) -> None:
    """Replayed or late, a cancel never lowers a sequence."""
    high, low = exchange.sequence() + 10, exchange.sequence()
    for fields in ({"slot": 4}, {"slot": 0}, {"all_slots": True}):
        for sequence in (high, low):
            batch = exchange.batch()
            batch.cancel(maker, sequence=sequence, **fields)
            batch.settle()
    assert exchange.vault.slot(maker.account, 4).sequence == high
    account = exchange.vault.account(maker.account)
    assert (account.taker_sequence, account.min_sequence) == (high, high)


def test_agents_cancel_and_strangers_do_not(exchange: Exchange, maker: Party) -> None:
    """A live agent may void orders of its account, to the last second of its life."""
    agent = signer(77)
    batch = exchange.batch()
    batch.cancel(maker, slot=1, sequence=5, by=agent)
    with refused("vault: not owner nor live agent"):
        batch.settle()
    batch = exchange.batch()
    batch.approve(maker, agent.address, exchange.clock + 10)
    batch.cancel(maker, slot=1, sequence=5, by=agent)
    batch.settle()
    assert exchange.vault.slot(maker.account, 1).sequence == 5
    for sequence in (6, 7):
        exchange.round()
        batch = exchange.batch()
        batch.cancel(maker, slot=1, sequence=sequence, by=agent)
        if sequence == 6:
            batch.settle()
            continue
        with refused("vault: not owner nor live agent"):
            batch.settle()
    assert exchange.vault.slot(maker.account, 1).sequence == 6


def test_a_cancel_reaches_at_most_a_day_ahead(exchange: Exchange, maker: Party) -> None:
    """A stolen agent key cannot void the account's future; the day is inclusive."""
    most = (exchange.clock + DAY_S) * 1000
    batch = exchange.batch()
    batch.cancel(maker, all_slots=True, sequence=most + 1)
    with refused("vault: sequence too far ahead"):
        batch.settle()
    batch = exchange.batch()
    batch.cancel(maker, all_slots=True, sequence=most)
    batch.settle()
    assert exchange.vault.account(maker.account).min_sequence == most


def test_a_cancel_is_of_one_kind(exchange: Exchange, maker: Party) -> None:
    """all_slots is 0 or 1."""
    from builders import send

    batch = exchange.batch()
    batch.cancel(maker, all_slots=True, sequence=5)
    data = bytearray(batch.data())
    at = bytes(data).index(b"\x02\x00\x00\x01\x00\x00")
    data[at + 3] = 2
    with refused("vault: malformed cancel"):
        send(exchange, bytes(data))


def test_unregistered_accounts_have_no_actions(exchange: Exchange, maker: Party) -> None:
    """Nobody approves, cancels or withdraws for a reserved or unknown account."""
    for account in (1, 2, 99):
        party = Party(signer(5), account)
        for action in ("approve", "cancel", "withdraw"):
            batch = exchange.batch()
            if action == "approve":
                batch.approve(party, signer(77).address, exchange.clock)
            elif action == "cancel":
                batch.cancel(party, slot=1, sequence=5)
            else:
                batch.withdraw(party, 1)
            with refused("vault: unknown account"):
                batch.settle()
