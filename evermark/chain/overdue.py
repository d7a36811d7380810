"""Batches of anybody: the overdue entries at the head of the inbox, built from contract state alone.

They are what an owner, or whoever wants the bonds, sends when the sequencer does not execute the inbox; the rules are in
docs/settlement.md. An entry that asks for fills (a close, a liquidation) takes one batch or more of them before it is consumed.
"""

from typing import Any

from evermark.chain.exit import ExitContracts, ExitRefused
from evermark.chain.overdue_batch import Draft, OverdueVault, read
from evermark.chain.overdue_fills import close_fills, liquidation_fills
from evermark.chain.transactions import TransactionSender
from evermark.chain.vault import InboxKind
from evermark.protocol.oracle import Round

MAX_ROUND_AGE_S = 120  # the vault takes no older one
MOST_ENTRIES = 32  # the inbox hands out no more at once
MOST_BATCHES = 64  # of one call: whoever wants more calls again
FORCED = (InboxKind.CLOSE, InboxKind.LIQUIDATE)
NOBODYS = (InboxKind.DONATION, InboxKind.GOVERNOR, InboxKind.GUARDIAN)  # need no account
STAYS = ("vault: not closed yet", "vault: not liquidated yet")


class OverdueWork:
    """Finds, builds and sends what is overdue."""

    def __init__(self, contracts: ExitContracts) -> None:
        self._contracts = contracts
        self._vault = OverdueVault(contracts)
        self._inbox = contracts.inbox.functions

    async def execute(self, sender: TransactionSender) -> int:
        """Settle the overdue entries at the head, in as many batches as they take; how many entries. 0: nothing is overdue.

        Raises ExitRefused when nothing of them can be executed now, TransactionReverted with the vault's reason.
        """
        executed, worked = 0, False
        for _ in range(MOST_BATCHES):
            try:
                consumed = await self._step(sender)
            except ExitRefused:
                if worked:
                    break
                raise
            if consumed is None:
                break
            executed, worked = executed + consumed, True
        return executed

    async def _step(self, sender: TransactionSender) -> int | None:
        """One batch; how many entries it consumed, None when nothing is overdue."""
        block_s = await self._contracts.block_time()
        entries = await self._overdue(block_s)
        if not entries:
            return None
        round_ = await self._vault.newest_round()
        if block_s > round_.timestamp + MAX_ROUND_AGE_S:
            raise ExitRefused(
                f"exit: the oracle's newest round is {block_s - round_.timestamp} s old, and executing needs one of the "
                f"last {MAX_ROUND_AGE_S} s. Without keepers, freeze once the head is a day overdue"
            )
        if entries[0].kind in FORCED:
            return await self._forced(sender, entries[0], round_)
        draft = await self._prefix(entries, round_)
        if not draft.uses:
            raise ExitRefused(
                "exit: the first entry withdraws from a position whose price is stale, and waits for a price"
            )
        await self._vault.settle(sender, draft, round_)
        return len(draft.uses)

    async def _overdue(self, block_s: int) -> list[Any]:
        """Entries from the head on that are overdue and of a kind known here."""
        head, tail = await read(self._inbox.head()), await read(self._inbox.tail())
        entries = []
        for number in range(head, min(tail, head + MOST_ENTRIES)):
            entry = await read(self._inbox.entry(number))
            if entry.due >= block_s or entry.kind not in list(InboxKind):
                break
            entries.append(entry)
        return entries

    async def _forced(self, sender: TransactionSender, entry: Any, round_: Round) -> int:
        """The head asks for fills: it is consumed when they are done, else they go on."""
        closing = entry.kind == InboxKind.CLOSE
        account = await self._vault.account_of(entry.owner, entry.sub_account) if closing else entry.data
        leaves = Draft()
        await self._vault.name(leaves, account)
        leaves.uses.append(account)
        why_not = await self._vault.simulate(sender, leaves, round_)
        if why_not is None:
            await self._vault.settle(sender, leaves, round_)
            return 1
        if why_not not in STAYS:
            raise ExitRefused(f"exit: the first entry waits ({why_not})")
        number = await read(self._inbox.head())
        if closing:
            part = await close_fills(self._vault, sender, number, entry, account, round_)
        else:
            part = await liquidation_fills(self._vault, sender, account, round_)
        if part is None:
            raise ExitRefused(
                "exit: the first entry waits: nobody can take more of the position now, or the hour's closes reached their cap"
            )
        await self._vault.settle(sender, part, round_)
        return 0

    async def _prefix(self, entries: list[Any], round_: Round) -> Draft:
        """Up to the first entry that asks for fills, or withdraws while a price is stale."""
        draft, new = Draft(), dict[tuple[str, int], int]()
        next_id = await self._vault.account_count() + 1
        for entry in entries:
            if entry.kind in FORCED:
                break
            key = (entry.owner, entry.sub_account)
            account = 0
            if entry.kind not in NOBODYS:
                account = await self._vault.account_of(*key) or new.get(key, 0)
            if not account and entry.kind == InboxKind.DEPOSIT:
                account = new[key] = next_id
                next_id += 1
            if account and entry.kind == InboxKind.WITHDRAWAL:
                markets = await self._vault.open_markets(account)
                if not all([await self._vault.is_fresh(market, round_) for market in markets]):
                    break
                draft.pairs |= {(account, market) for market in markets}
            draft.uses.append(account)
        return draft
