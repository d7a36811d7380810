"""Which operation makes the vault refuse a batch: shorter batches of the same records are simulated until the first command
that makes one revert is found, and the account behind it.

A fill has two sides and one command. The command's account is blamed, unless another party of its trades was one of the last
refused operation too.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from evermark.protocol.batch import FIRST_USER_ACCOUNT, encode_batch
from sequencer.engine.commands import AnyCommand, TriggerLiquidation
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
    """The account to halt, and the record to leave out."""

    account: int
    sequence: int
    liquidation: bool  # it was being liquidated


class Bisection:
    """Works on copies, in a thread between two simulations."""

    def __init__(self, earlier: EarlierStates) -> None:
        self._earlier = earlier
        self._parties: set[int] = set()  # of the last refused operation

    async def find(self, sealed: SealedBatch, after: int, simulate: Simulate) -> Suspect | None:
        """Who is to blame for a batch that the vault refuses; `after` is the record that the batch before it ends with. None when
        no account's command makes the difference. Raises Unreachable."""
        passes, fails = after, sealed.batch.journal_sequence
        shorter = await asyncio.to_thread(_Shorter, self._earlier, sealed, after)
        while fails - passes > 1:
            middle = (passes + fails) // 2
            if await _is_taken(await asyncio.to_thread(shorter.until, middle), simulate):
                passes = middle
                shorter.begin_here()
            else:
                fails = middle
        command, trades = await asyncio.to_thread(shorter.command, fails)
        log.error("an operation is isolated", record=fails, kind=type(command).__name__)
        return self._blame(command, trades, fails)

    def _blame(self, command: AnyCommand, trades: list[Trade], sequence: int) -> Suspect | None:
        account = getattr(command, "account", 0)
        if account < FIRST_USER_ACCOUNT:
            return None
        parties = {account} | {side for trade in trades for side in (trade.maker, trade.taker)}
        parties = {party for party in parties if party >= FIRST_USER_ACCOUNT}
        again, self._parties = sorted(parties & self._parties), parties
        blamed = again[0] if len(again) == 1 else account
        return Suspect(blamed, sequence, isinstance(command, TriggerLiquidation) and blamed == account)


async def _is_taken(batch: bytes | None, simulate: Simulate) -> bool:
    """Whether the vault takes the shorter batch; one that there is not, or that it cannot judge, counts as taken."""
    if batch is None:
        return True
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
        ctx = Context(state, sequence + 1, state.stamp_ms)
        if state.sealed_batch < self._sealed.batch.batch_id:
            seal(ctx, sequence)
        made = [event.batch for event in ctx.events if isinstance(event, BatchSealed)]
        wanted = [one for one in made if one.batch_id == self._sealed.batch.batch_id]
        if not wanted or wanted[0].round != self._sealed.batch.round:
            return None
        hash_ = self._earlier.journal.record(sequence).hash
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
