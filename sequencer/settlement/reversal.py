"""What is journaled when something can never settle: the reversal, what the chain has instead, and then again, in their
order, the commands that were voided and still stand.

A command stands that was not refused. Of an order that is more: it still waits, or fills of it were voided, or a
later command that stands ended it. An order that ended by itself untraded has ended, and its owner knows it.

An operator's release does not come again for an account that is halted anew: it was given before what the account is halted for.

Where a change of the governor's is among what is voided, or in somebody else's batch, the newest round comes again too, before
all else that does: from then on the rules that made its prices are those that the chain has.
"""

from collections.abc import Sequence

import msgspec

from sequencer.engine.commands import (
    AgentApproval,
    AnyCommand,
    CancelOrder,
    DepositWaits,
    ForeignBatch,
    FundingHour,
    HaltAccount,
    InboxEntry,
    InboxEntryKind,
    OracleRound,
    PlaceOrder,
    ReversalCause,
    Reverse,
    SetMarketMode,
    TransferRequest,
    WithdrawRequest,
)
from sequencer.engine.events import CancelReason, CommandRejected, OrderCancelled
from sequencer.replay import Applied, replay
from sequencer.snapshots.earlier import EarlierStates

STANDING = (
    AgentApproval,
    CancelOrder,
    DepositWaits,
    FundingHour,
    HaltAccount,
    InboxEntry,
    PlaceOrder,
    SetMarketMode,
    TransferRequest,
    WithdrawRequest,
)
BY_COMMAND = (CancelReason.USER, CancelReason.REPLACED)  # how a command of the owner's ends an order


class ReversalPlan(msgspec.Struct, frozen=True):
    """Back to the end of batch `batch_id`, which is record `after`; `foreign` batches follow it on the chain.

    `instead` is journaled before what stands, the record `without` is left out, and in place of others come the commands that
    `replaced` names by record.
    """

    batch_id: int
    after: int
    cause: ReversalCause
    foreign: tuple[ForeignBatch, ...] = ()
    instead: tuple[AnyCommand, ...] = ()
    without: int = 0
    replaced: tuple[tuple[int, AnyCommand], ...] = ()


def reversal_commands(plan: ReversalPlan, earlier: EarlierStates, head: int) -> list[AnyCommand]:
    """Everything that is journaled, as one group after record `head`. Takes as long as a start; has `earlier` prepared for the
    reversal when it returns."""
    standing = _Standing()
    state = earlier.make(plan.after)
    replay(earlier.journal, state, (standing.observe,), after=plan.after, until=head, state_at=earlier.make)
    consumed = {entry.entry_id for batch in plan.foreign for entry in batch.entries}
    replaced = dict(plan.replaced)
    again = [
        replaced.get(sequence, command)
        for sequence, command in standing.commands()
        if sequence != plan.without
    ]
    halted = {command.account for command in plan.instead if isinstance(command, HaltAccount)}
    governed = standing.governed or any(map(changes_rules, plan.foreign))
    rounds = [standing.newest_round] if governed and standing.newest_round is not None else []
    earlier.prepare(plan.after)
    return [
        Reverse(after=plan.after, batch_id=plan.batch_id, cause=plan.cause, with_prices=bool(rounds)),
        *plan.foreign,
        *rounds,
        *plan.instead,
        *(
            command
            for command in again
            if not (_entry_of(command) & consumed or _released_by(command) & halted)
        ),
    ]


class _Standing:
    """Follows the voided records once more, to see what became of each."""

    def __init__(self) -> None:
        self._commands: list[tuple[int, AnyCommand]] = []
        self._ended: set[bytes] = set()  # orders that ended by themselves, untraded
        self.governed = False  # a change of the governor's applied, now void or not
        self.newest_round: OracleRound | None = None

    def observe(self, applied: Applied) -> None:
        if isinstance(applied.command, Reverse):  # of this range's own: what it voided comes again after it
            after = applied.command.after
            self._commands = [item for item in self._commands if item[0] <= after]
        refused = any(isinstance(event, CommandRejected) for event in applied.events)
        if isinstance(applied.command, OracleRound) and not refused:
            self.newest_round = applied.command
        self.governed |= not refused and changes_rules(applied.command)
        if isinstance(applied.command, STANDING) and not refused:
            self._commands.append((applied.sequence, applied.command))
            if isinstance(applied.command, PlaceOrder):
                self._ended.discard(applied.command.order_hash)
        for event in applied.events:
            if isinstance(event, OrderCancelled) and not event.filled and event.reason not in BY_COMMAND:
                self._ended.add(event.order_hash)

    def commands(self) -> Sequence[tuple[int, AnyCommand]]:
        return [
            (sequence, command)
            for sequence, command in self._commands
            if not (isinstance(command, PlaceOrder) and command.order_hash in self._ended)
        ]


def changes_rules(command: AnyCommand) -> bool:
    """Whether entries of the governor's are in it, which may change how the chain makes rounds."""
    entries = command.entries if isinstance(command, ForeignBatch) else (command,)
    return any(
        isinstance(entry, InboxEntry) and entry.entry_kind is InboxEntryKind.GOVERNOR for entry in entries
    )


def _released_by(command: AnyCommand) -> set[int]:
    return {command.account} if isinstance(command, HaltAccount) and not command.halted else set()


def _entry_of(command: AnyCommand) -> set[int]:
    return {command.entry_id} if isinstance(command, (InboxEntry, DepositWaits)) else set()
