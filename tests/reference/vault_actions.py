"""Section 2 of the reference model: approvals, cancels, transfers; builders' fees; claims; and how a model refuses."""

from fractions import Fraction
from math import ceil, floor
from typing import Any

from vault_state import Account


class Refused(Exception):
    """The batch breaks a rule; nothing of it happens."""


def need(condition: bool, rule: str) -> None:
    if not condition:
        raise Refused(rule)


class Actions:
    """What `Run` does with signed actions and mark triggers."""

    def action(self, action: Any) -> None:
        account = self.vault.accounts[self.batch.accounts[action.account_index]]
        if hasattr(action, "cancel"):
            cancel = action.cancel
            need(cancel.deadline >= self.now and cancel.sequence <= (self.now + 86_400) * 1000, "cancel")
            self.void(account, cancel.all_slots, cancel.slot, cancel.sequence)
            return
        if hasattr(action, "transfer"):
            self.transfer(self.batch.accounts[action.account_index], action)
            return
        if not hasattr(action, "approval"):
            self.write_off(self.batch.accounts[action.account_index])
            return
        approval = action.approval
        need(approval.deadline >= self.now and approval.action_sequence > account.action_sequence, "approval")
        need(approval.agent_expiry <= self.now + 365 * 86_400, "approval")
        account.action_sequence = approval.action_sequence
        number = self.batch.accounts[action.account_index]
        self.vault.agents[number, approval.agent] = (approval.agent_expiry, approval.transfer_cap)

    def transfer(self, number: int, action: Any) -> None:
        """Between accounts of one owner; an agent's cap counts down."""
        signed, account = action.transfer, self.vault.accounts[number]
        need(signed.deadline >= self.now and signed.action_sequence > account.action_sequence, "action")
        need(signed.amount > 0 and signed.to_sub_account != signed.sub_account, "nothing")
        signer = self.signers.get(action.signature.to_bytes(), signed.owner)
        if signer != signed.owner:
            expiry, cap = self.vault.agents.get((number, signer), (0, 0))
            need(expiry >= self.now and signed.amount <= cap, "cap")
            need(signed.action_sequence == account.action_sequence + 1, "next")
            self.vault.agents[number, signer] = (expiry, cap - signed.amount)
        account.action_sequence = signed.action_sequence
        key = (signed.owner, signed.to_sub_account)
        if key not in self.vault.owners:
            need(signed.amount >= 10 * 10**6, "register")
            self.vault.owners[key] = 3 + len(self.vault.owners)
        target = self.vault.owners[key]
        need(self.batch.accounts[action.target_index] == target, "elsewhere")
        margin = self.margin(number)
        need(margin.fresh and signed.amount <= self.withdrawable(margin), "withdrawable")
        need(not (self.vault.restarted and margin.notional), "outage")
        account.collateral -= signed.amount
        self.vault.accounts.setdefault(target, Account()).collateral += signed.amount

    def trigger(self, row: Any) -> None:
        """The pinned mark meets what the order's owner signed."""
        order, (number, market) = row.order, self.pairs[row.pair]
        account, mark = self.vault.accounts[number], self.prices[market].mark
        need(self.fresh(market) and order.slot > 0, "trigger")
        need(
            (order.trigger == 1 and mark >= order.trigger_price)
            or (order.trigger == 2 and mark <= order.trigger_price),
            "trigger",
        )
        stored, filled = account.slots.get(order.slot, (0, 0))
        need(order.sequence >= stored, "sequence")
        account.slots[order.slot] = (
            order.sequence,
            filled if order.sequence == stored or order.amend else 0,
        )
        account.triggered[order.slot] = order.sequence

    def builder_fee(self, index: int, payer: int, notional: int) -> None:
        row = self.batch.orders[index]
        if not row.order.max_builder_fee_ppm:
            return
        builder = self.batch.accounts[row.builder_index]
        need(self.vault.owners.get((row.order.builder, 0)) == builder, "builder")
        before = self.built.get(index, 0)
        after = self.built[index] = before + notional * row.order.max_builder_fee_ppm
        fee = ceil(Fraction(after, 10**6)) - ceil(Fraction(before, 10**6))
        self.vault.accounts[payer].collateral -= fee
        self.vault.accounts[builder].collateral += fee

    def claim(self, number: int, amount: int) -> None:
        """Outflow limits: a claim waits until what left lately has drained to the limit of an hour and of a day."""
        vault = self.vault
        deposits = vault.credited - sum(claimed for _, claimed in vault.claims)
        deposits = min(max(deposits, 0), 2**95 - 1)
        hour, day, then = vault.levels
        passed = max(0, self.now - then)
        limits = max(100_000 * 10**6, deposits // 100), max(1_000_000 * 10**6, deposits // 10)
        levels, waits = [], []
        for level, limit, period in ((hour, limits[0], 3_600), (day, limits[1], 86_400)):
            drained = floor(Fraction(limit * passed, period))
            level = min(max(0, level - drained) + amount, limit + floor(Fraction(limit * 604_800, period)))
            levels.append(level)
            waits.append(ceil(Fraction((level - limit) * period, limit)))
        vault.levels = (levels[0], levels[1], max(then, self.now))
        vault.dues.append(self.now + max(waits) if max(waits) > 0 else 0)
        vault.claims.append((number, amount))
