"""Random signed actions and mark triggers for the vault and its reference model, lawful and not."""

from __future__ import annotations

from typing import Any

from builders import USDC, Builder, Party, signer

from evermark.protocol import signing
from evermark.protocol.orders import Side, Trigger


def some_actions(twin: Any, batch: Builder, parties: list[Party]) -> None:
    """Transfers by owners and agents, some beyond what is free or capped; approvals; withdrawals; cancels."""
    pick, agent, vault = twin.random, signer(500), twin.exchange.vault
    if pick.random() < 0.15:
        amount = pick.choice((1, 50 * USDC, 3_000 * USDC))
        batch.withdraw(pick.choice(parties), amount, fee=pick.choice((0, 1)))
    if pick.random() < 0.1:
        batch.cancel(pick.choice(parties), slot=pick.randint(0, 3), sequence=twin.exchange.sequence())
    party, sub_account = pick.choice(parties), pick.randint(0, 2)
    sequence = vault.account(party.account).action_sequence + 1
    chance = pick.random()
    if chance < 0.1:
        expiry, cap = twin.exchange.clock + 1_000, pick.randint(0, 100) * USDC
        batch.approve(party, agent.address, expiry, transfer_cap=cap, action_sequence=sequence)
    elif chance < 0.3:
        held = vault.account_of("0x" + party.signer.address.hex(), sub_account)
        if sub_account and held and pick.random() < 0.5:
            party, sub_account = Party(party.signer, held, sub_account), 0
        amount = pick.choice((9 * USDC, 10 * USDC, 60 * USDC, 5_000 * USDC))
        batch.transfer(party, sub_account, amount, by=pick.choice((party.signer, agent)))
        twin.signers[batch.actions[-1][2].to_bytes()] = recovered(twin, batch)


def recovered(twin: Any, batch: Builder) -> bytes:
    """Who signed the last action, as the model is told."""
    _, message, signature = batch.actions[-1]
    return signing.recover(signing.digest(twin.exchange.separator, message), signature)


def some_triggers(twin: Any, batch: Builder, parties: list[Party]) -> None:
    """An order with a mark trigger, its bit set or not, filled or not; now and then at a mark that does not meet it."""
    pick = twin.random
    if pick.random() > 0.4 or batch.fills:
        return
    maker, taker = parties[0], pick.choice(parties[1:])
    mark = twin.exchange.last[0].mark_ticks
    trigger = pick.choice((Trigger.MARK_ABOVE, Trigger.MARK_BELOW))
    price = mark + pick.choice((-1, 0, 1))
    more = {"slot": pick.randint(4, 6), "trigger": trigger, "trigger_price": price}
    waiting = batch.order(taker, Side.SELL, 50, mark - 10, amend=pick.random() < 0.2, **more)
    if pick.random() < 0.8:
        batch.bits.append(waiting)
    if pick.random() < 0.7:
        batch.fill(batch.order(maker, Side.BUY, 50, mark, slot=8), waiting, pick.randint(1, 50))
