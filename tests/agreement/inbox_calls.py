"""What owners add to the inbox of an agreement test's exchange: on the chain, and as the engine's command."""

import boa
from eth_hash.auto import keccak

from evermark.chain.governor import Action, Proposal, ProposalState, decode_change
from evermark.chain.vault import InboxItem
from evermark.protocol.governance import DELAY_S, LONG_DELAY_S, PauseMarket
from evermark.protocol.signing import Signer
from sequencer.engine.commands import DepositWaits, InboxEntry, InboxEntryKind
from sequencer.engine.events import CommandRejected
from sequencer.settlement.chain import inbox_command


def signer(role: str) -> Signer:
    """A key by its role."""
    return Signer(keccak(role.encode()))


def hex_address(raw: bytes) -> str:
    return "0x" + raw.hex()


class InboxCalls:
    """The part of `exchange.Exchange` that queues; an entry that the engine cannot take yet waits in `waiting`."""

    waiting: list[InboxEntry]

    def deposit(self, owner: Signer, amount: int, sub_account: int = 0):
        """Mint, deposit through the Inbox, and tell the engine."""
        address = hex_address(owner.address)
        # The vault lets nobody be liquidated for long who has deposited: it must see the engine's time.
        boa.env.evm.patch.timestamp = self.now
        self.token.mint(address, amount)
        with boa.env.prank(address):
            self.token.approve(self.inbox.address, amount)
            self.inbox.deposit(amount, sub_account)
        return self._entry(InboxEntryKind.DEPOSIT, owner.address, sub_account, amount)

    def donate(self, amount: int):
        """Seed the insurance fund."""
        donor = signer("donor")
        boa.env.evm.patch.timestamp = self.now
        self.token.mint(hex_address(donor.address), amount)
        with boa.env.prank(hex_address(donor.address)):
            self.token.approve(self.inbox.address, amount)
            self.inbox.donate(amount)
        return self._entry(InboxEntryKind.DONATION, donor.address, 0, amount)

    def request_withdrawal(self, owner: Signer, amount: int):
        """An inbox withdrawal, unless one is open."""
        return self._request(
            InboxEntryKind.WITHDRAWAL, owner, self.inbox.request_withdrawal, (0, amount), amount=amount
        )

    def request_close(self, owner: Signer, market: int, lots: int):
        """A close of at most so many lots, unless one is open or the chain knows no position."""
        self.retry_entry()  # it may settle what ends the position
        account = self.vault.account_of(hex_address(owner.address), 0)
        if not self.vault.position(account, market).size:
            return []
        return self._request(InboxEntryKind.CLOSE, owner, self.inbox.request_close, (0, market, lots))

    def request_liquidation(self, keeper: Signer, account: int):
        """A liquidation that the sequencer did not do."""
        call = self.inbox.request_liquidation
        return self._request(InboxEntryKind.LIQUIDATE, keeper, call, (account,))

    def request_cancel(self, owner: Signer, slot: int, sequence: int):
        """An inbox cancel of a slot, or of all with 65535."""
        call = self.inbox.request_cancel
        fields = {"slot": slot, "order_sequence": sequence}
        return self._request(InboxEntryKind.CANCEL, owner, call, (0, slot, sequence), **fields)

    def approve_by_inbox(self, owner: Signer, agent: Signer, expiry: int, cap: int):
        """A session key without a signature."""
        arguments = (0, hex_address(agent.address), expiry, cap)
        fields = {"agent": agent.address, "agent_expiry": expiry, "amount": cap}
        return self._request(
            InboxEntryKind.APPROVE_AGENT, owner, self.inbox.approve_agent, arguments, **fields
        )

    def revoke_by_inbox(self, owner: Signer, agent: Signer):
        """The end of a session key without a signature."""
        arguments = (0, hex_address(agent.address))
        kind, call = InboxEntryKind.REVOKE_AGENT, self.inbox.revoke_agent
        return self._request(kind, owner, call, arguments, agent=agent.address)

    def govern(self, call: str, *arguments, slow: bool = False, execute: bool = True) -> int:
        """Propose, and unless told otherwise wait for the delay and execute; the proposal's id."""
        boa.env.evm.patch.timestamp = self.now
        delay = LONG_DELAY_S if slow else DELAY_S
        propose = getattr(self.governance, f"propose_{call}")
        with boa.env.prank(hex_address(self.proposer.address)):
            proposal = propose(*arguments, self.now + delay + 20 * 3_600)
        if execute:
            self.round(self.last_prices, delay)
            self.execute(proposal)
        return proposal

    def execute(self, proposal: int):
        """Carry out what is ripe, and tell the engine as the sequencer would read it from the chain."""
        self.retry_entry()
        boa.env.evm.patch.timestamp = self.now
        self.governance.execute(proposal)
        return self._entry(InboxEntryKind.GOVERNOR, self._governor(), 0, change=self.change_of(proposal))

    def settle_market(self, market: int):
        """Anybody has a delisted market settled, whose price the oracle knows."""
        self.retry_entry()
        boa.env.evm.patch.timestamp = self.now
        self.governance.settle(market)
        change = self.change_of(self.governance.proposal_count())
        return self._entry(InboxEntryKind.GOVERNOR, self._governor(), 0, change=change)

    def pause(self, market: int, mode: int, duration_s: int):
        """The guardian's mode of one market, unless an entry of it is open."""
        self.retry_entry()
        if self.inbox.open_entry(self.governance.address, market, InboxEntryKind.GUARDIAN):
            return []
        boa.env.evm.patch.timestamp = self.now
        with boa.env.prank(hex_address(self.guardian.address)):
            self.governance.pause([market], mode, duration_s)
        until = self.now + duration_s if mode else 0
        change = PauseMarket(market, mode, until)
        return self._entry(InboxEntryKind.GUARDIAN, self._governor(), market, change=change)

    def change_of(self, proposal: int):
        """The change of a proposal, decoded as `evermark.chain.governor` does."""
        values = self.governance.proposal(proposal)
        config, terms = self.governance.listing(proposal)
        return decode_change(
            Proposal(Action(values[0]), ProposalState(values[1]), *values[2:]), tuple(config), tuple(terms)
        )

    def _governor(self) -> bytes:
        return bytes.fromhex(str(self.governance.address)[2:])

    def _request(self, kind, owner: Signer, call, arguments, **fields):
        """What waits at the head goes first; an entry of the kind that is open refuses another."""
        self.retry_entry()
        if self.inbox.open_entry(hex_address(owner.address), 0, kind):
            return []
        boa.env.evm.patch.timestamp = self.now
        with boa.env.prank(hex_address(owner.address)):
            call(*arguments)
        return self._entry(kind, owner.address, 0, **fields)

    def retry_entry(self) -> None:
        """Offer the engine the entries that it could not take yet, in order."""
        while self.waiting:
            if not self._offer(self.waiting[0])[0]:
                return
            self.waiting.pop(0)

    def _offer(self, entry: InboxEntry):
        """Whether the engine took the entry, after as many parts as it can do now; and all events."""
        events = []
        while self.state.entry_count < entry.entry_id:
            told = self.send(entry)
            events += told
            if any(isinstance(event, CommandRejected) for event in told):
                return False, events
        return True, events

    def _entry(self, kind, owner: bytes, sub_account: int, amount: int = 0, **fields):
        self.entries += 1
        fields |= self._packed(kind)
        command = InboxEntry(
            entry_id=self.entries,
            entry_kind=kind,
            owner=owner,
            sub_account=sub_account,
            amount=amount,
            created=self.now,
            due=int(self.inbox.entry(self.entries).due),
            **fields,
        )
        if self.waiting:
            self.waiting.append(command)
            self.retry_entry()
            self._tell_waiting(command)
            return []
        taken, events = self._offer(command)
        if not taken:
            self.waiting.append(command)
            self._tell_waiting(command)
        return events

    def _tell_waiting(self, entry: InboxEntry) -> None:
        """As the sequencer does: the owner of a deposit that waits is not liquidated meanwhile."""
        if entry.entry_kind is InboxEntryKind.DEPOSIT and entry in self.waiting:
            self.send(
                DepositWaits(
                    entry_id=entry.entry_id,
                    owner=entry.owner,
                    sub_account=entry.sub_account,
                    created=entry.created,
                )
            )

    def _packed(self, kind):
        """What the chain noted of a close or a liquidation, as the sequencer reads it."""
        if kind not in (InboxEntryKind.CLOSE, InboxEntryKind.LIQUIDATE):
            return {}
        item = InboxItem(*self.inbox.entry(self.entries))
        command = inbox_command(self.entries, item)
        return {name: getattr(command, name) for name in ("market_id", "size", "mark", "target")}
