"""Which operation makes the vault refuse a batch: shorter batches of the same records are simulated until the first command
that makes one revert is found, and the account behind it.

A fill has two sides and one command. Whoever has another order in the shorter batch that the vault takes is cleared; of the
others each is left out in turn. What that does not tell, the last refused operation may: a party of both is blamed, and
else the command's own account. A command that is nobody's, a round or an entry of the inbox, stays: of those that traded by it
one is to blame.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from evermark.chain.batches import decode_outline
from evermark.protocol.batch import FIRST_USER_ACCOUNT, encode_batch
from sequencer.engine.apply import apply
from sequencer.engine.commands import AnyCommand, HaltAccount, TriggerLiquidation
from sequencer.engine.context import Context
from sequencer.engine.events import BatchSealed, Trade
from sequencer.engine.sealing import seal
from sequencer.engine.snapshot import restore, snapshot
from sequencer.engine.state import EngineState
from sequencer.journal import decode_command
from sequencer.replay import Applied, replay
from sequencer.settlement.backlog import SealedBatch
from sequencer.settlement.errors import Refused
from sequencer.snapshots.earlier import EarlierStates

Simulate = Callable[[bytes], Awaitable[None]]

log = structlog.get_logger("bisection")


class Suspect(msgspec.Struct, frozen=True):
    """The account to halt, and the record to leave out (0: none)."""

    account: int
    sequence: int
    liquidation: bool  # it was being liquidated


class Bisection:
    """Works on copies, in a thread between two simulations."""

    def __init__(self, earlier: EarlierStates) -> None:
        self._earlier = earlier
        self._parties: set[int] = set()  # of the last refused operation

    async def find(self, sealed: SealedBatch, after: int, simulate: Simulate) -> Suspect | None:
        """Who is to blame for a batch that the vault refuses; `after` is the record that it begins after. None when
        no account's command makes the difference. Raises Unreachable."""
        passes, fails = after, sealed.batch.journal_sequence
        taken: bytes | None = None  # the longest batch that the vault takes
        shorter = await asyncio.to_thread(_Shorter, self._earlier, sealed, after)
        while fails - passes > 1:
            middle = (passes + fails) // 2
            batch = await asyncio.to_thread(shorter.until, middle)
            verdict = await _is_taken(batch, simulate)
            if verdict is False:
                fails = middle
            else:
                passes, taken = middle, batch or taken
                shorter.begin_here()
        command, trades = await asyncio.to_thread(shorter.command, fails)
        account = getattr(command, "account", 0)
        log.error("an operation is isolated", record=fails, kind=type(command).__name__, account=account)
        others, last = _others(account, trades, taken), sealed.batch.journal_sequence
        if account < FIRST_USER_ACCOUNT:
            for party in others:
                if await _is_taken(await asyncio.to_thread(shorter.without, party, fails, last), simulate):
                    return Suspect(party, 0, False)
            return None
        cures = [  # without whom the vault takes the rest
            party
            for party in (account, *others)
            if await _is_taken(await asyncio.to_thread(shorter.without, party, fails + 1, last), simulate)
            is not False
        ]
        if not cures and taken is None:
            return None  # the vault takes nothing of the batch, whoever is left out: that is nobody's fault
        blamed = self._seen_again(account, others)
        if cures and account not in cures:
            blamed = cures[0]
        elif len(others) > 1:
            for other in others:
                if await _is_taken(await asyncio.to_thread(shorter.without, other, fails, fails), simulate):
                    blamed = other
                    break
        return Suspect(blamed, fails, isinstance(command, TriggerLiquidation) and blamed == account)

    def _seen_again(self, account: int, others: list[int]) -> int:
        """Who was a party of the last refused operation too, if that is one; else the command's own account."""
        parties = {account, *others}
        again, self._parties = sorted(parties & self._parties), parties
        return again[0] if len(again) == 1 else account


def _others(account: int, trades: list[Trade], taken: bytes | None) -> list[int]:
    """Who traded with the account, but for those of whom the vault takes another order."""
    cleared = {account}
    if taken is not None:
        batch = decode_outline(taken)
        cleared |= {batch.accounts[batch.pairs[row.pair][0]] for row in batch.orders}
    parties = {side for trade in trades for side in (trade.maker, trade.taker)} - cleared
    return sorted(party for party in parties if party >= FIRST_USER_ACCOUNT)


async def _is_taken(batch: bytes | None, simulate: Simulate) -> bool | None:
    """Whether the vault takes the shorter batch; None where there is none that it could judge."""
    if batch is None:
        return None
    try:
        await simulate(batch)
    except Refused:
        return False
    return True


class _Shorter:
    """Batches of the same beginning, sealed earlier."""

    def __init__(self, earlier: EarlierStates, sealed: SealedBatch, after: int) -> None:
        self._earlier = earlier
        self._sealed = sealed
        self._base, self._base_at = snapshot(earlier.make(after)), after
        self._last, self._last_at = self._base, after

    def until(self, sequence: int) -> bytes | None:
        """The batch as if it had ended with this record; None when nothing is in it yet, or when it pins another round, of which
        the vault cannot judge."""
        state, _ = self._state(sequence)
        self._last, self._last_at = snapshot(state), sequence
        return self._sealed_at(state, sequence, self._earlier.journal.record(sequence).hash)

    def without(self, account: int, first: int, last: int) -> bytes | None:
        """The batch as if, after what the vault takes, the account had been halted and only the records `first` to `last` had
        followed."""
        state = restore(self._base)
        follow: list[AnyCommand] = [HaltAccount(account=account, halted=True, reason="")]
        records = [self._earlier.journal.record(number) for number in range(first, last + 1)]
        commands = [*follow, *(decode_command(record.payload, record.sequence) for record in records)]
        for command in commands:
            apply(state, command, state.sequence + 1, state.stamp_ms)
        return self._sealed_at(state, state.sequence, bytes(32))

    def _sealed_at(self, state: EngineState, sequence: int, hash_: bytes) -> bytes | None:
        ctx = Context(state, sequence + 1, state.stamp_ms)
        if state.sealed_batch < self._sealed.batch.batch_id:
            seal(ctx, sequence)
        made = [event.batch for event in ctx.events if isinstance(event, BatchSealed)]
        wanted = [one for one in made if one.batch_id == self._sealed.batch.batch_id]
        if not wanted or wanted[0].round != self._sealed.batch.round:
            return None
        return encode_batch(msgspec.structs.replace(wanted[0], journal_hash=hash_))

    def begin_here(self) -> None:
        """The vault takes what was made last: later ones begin with it."""
        self._base, self._base_at = self._last, self._last_at

    def command(self, sequence: int) -> tuple[AnyCommand, list[Trade]]:
        """A record's command, and the trades that it made."""
        _, applied = self._state(sequence)
        trades = [event for event in applied[-1].events if isinstance(event, Trade)]
        record = self._earlier.journal.record(sequence)
        return decode_command(record.payload, sequence), trades

    def _state(self, sequence: int) -> tuple[EngineState, list[Applied]]:
        state, applied = restore(self._base), list[Applied]()
        replay(
            self._earlier.journal,
            state,
            (applied.append,),
            after=self._base_at,
            until=sequence,
            state_at=self._earlier.make,
        )
        return state, applied
