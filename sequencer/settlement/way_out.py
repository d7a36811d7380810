"""What settlement does where it cannot go on: what can never settle is reversed by a journaled command (`reversal.py`), and the
line goes on behind it.

Four things end there: somebody else's batch took the next id, a batch missed its window, the vault refuses an operation,
whose account is then halted, or a funding hour was posted from other reports. Only a refusal that is no account's stops the line,
with an alarm; trading is bounded meanwhile by the engine's unsettled limits.
"""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from evermark.protocol.oracle import MAX_BATCH_AGE_S, SignedFundingReport
from sequencer.engine.commands import AnyCommand, ForeignBatch, FundingHour, HaltAccount, ReversalCause
from sequencer.settlement.backlog import Backlog, SealedBatch
from sequencer.settlement.bisection import Bisection
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Refused, Unreachable
from sequencer.settlement.reversal import ReversalPlan, changes_rules

# Refusals that no operation causes. Some of them pass by themselves, with a node that lags behind.
OTHER_PRICES = "vault: prices hash differs"
NOBODYS = ("oracle: ", OTHER_PRICES, "vault: round too old", "vault: only the sequencer")
FUTURE_S = 5  # how far a round may be ahead of the block that it is posted in
FRESH_S = 30  # a reversal waits for a round no older than this: what stands is matched at it

log = structlog.get_logger("reversal")

Reverse = Callable[[ReversalPlan], Awaitable[None]]


class WayOut:
    """The settlement line's, which has looked at the chain before it calls."""

    def __init__(
        self,
        chain: ExchangeChain,
        backlog: Backlog,
        now_s: Callable[[], int],
        reverse: Reverse,
        bisection: Bisection,
        funding_reports: Callable[[int], Sequence[SignedFundingReport]],
    ) -> None:
        """`reverse` journals a reversal and returns when it is applied; `funding_reports` gives all that came for an hour."""
        self._chain = chain
        self._backlog = backlog
        self._now_s = now_s
        self._reverse = reverse
        self._bisection = bisection
        self._funding_reports = funding_reports

    async def follow(self, first: int, final: int) -> bool:
        """Once batches of somebody else, from `first` on, are deep enough, go on behind them: what this journal has matched
        since the batch before them is void. False while that waits. Raises Unreachable
        while what was sent before may be mined."""
        await (
            self._leave_nothing_in_flight()
        )  # at once: what was sent behind ours would settle on top of theirs
        if final < first or not self._is_priced():
            return False
        batches: list[ForeignBatch] = []
        entry = self._backlog.entries_settled + 1
        for batch_id in range(first, final + 1):
            if not (await self._chain.settled_batch(batch_id)).is_foreign:
                break
            batches.append(await self._chain.foreign_batch(batch_id, entry))
            entry += len(batches[-1].entries)
        if any(map(changes_rules, batches)) and not await self._is_priced_after(batches[-1]):
            return False
        last = batches[-1].batch_id
        log.error("SOMEBODY ELSE'S BATCH: reversing", first=first, last=last)
        await self._turn_back(self._plan(ReversalCause.FOREIGN_BATCH, foreign=tuple(batches)))
        if self._backlog.last_confirmed < last:
            raise Refused(f"the engine does not follow batch {first} of somebody else; look at the journal")
        return True

    async def give_up(self, sealed: SealedBatch, refusal: Refused, *, posted_early: bool = False) -> None:
        """The vault refuses the oldest batch that waits: for good, once its window is over; else it is one operation's fault.

        With `posted_early` its round was posted before the batches in front of it, for a late one. Where a change of the
        governor's was among those, the lane has other prices than the engine, for good.

        Raises Unreachable while nobody knows, Refused when nothing can be done.
        """
        self._check_deep(sealed, str(refusal))
        ends, now_s = sealed.round.timestamp + MAX_BATCH_AGE_S, self._now_s()
        never = posted_early and str(refusal).startswith(OTHER_PRICES)
        missed = never or await self._chain.past_time_s(now_s) > ends
        if not missed and now_s > ends:
            raise Unreachable(f"its window is over, but not yet for good: {refusal}")
        if not self._is_priced():
            raise Unreachable(f"{refusal}; a reversal waits for prices")
        if not missed and str(refusal).startswith(NOBODYS):
            raise refusal
        await self._leave_nothing_in_flight(sealed.batch.batch_id - 1)
        if missed:
            told = "CAN NOT FOLLOW ON A LATE ONE" if never else "HAS MISSED ITS WINDOW"
            log.error(f"A BATCH {told}: reversing", batch=sealed.batch.batch_id)
            await self._turn_back(self._plan(ReversalCause.MISSED_WINDOW))
        else:
            await self._isolate(sealed, refusal)

    async def take_funding(self, sealed: SealedBatch, hours: Sequence[int]) -> None:
        """The chain holds other rates for these hours of the oldest batch that waits: what follows the batch before it happens
        again with the reports that were posted.

        Raises Unreachable while that waits, Refused when nobody knows those reports.
        """
        self._check_deep(sealed, "a funding hour has other rates on the chain")
        if not self._is_priced():
            raise Unreachable("a funding hour has other rates on the chain; a reversal waits for prices")
        replaced: list[tuple[int, AnyCommand]] = []
        for hour in hours:
            known = dict.fromkeys((*self._backlog.funding_reports(hour), *self._funding_reports(hour)))
            posted = await self._chain.posted_funding(hour, tuple(known))
            replaced.append((self._backlog.funding_record(hour), FundingHour(reports=posted)))
        await self._leave_nothing_in_flight(sealed.batch.batch_id - 1)
        log.error("OTHER FUNDING RATES ON THE CHAIN: reversing", batch=sealed.batch.batch_id, hours=hours)
        await self._turn_back(self._plan(ReversalCause.OTHER_FUNDING, replaced=tuple(replaced)))

    def _check_deep(self, sealed: SealedBatch, why: str) -> None:
        if self._backlog.last_confirmed != sealed.batch.batch_id - 1:
            raise Unreachable(f"batch {sealed.batch.batch_id - 1} is not deep enough: {why}")

    async def _leave_nothing_in_flight(self, newest: int | None = None) -> None:
        """What was given up must not settle after all: the vault takes fills up to an hour late, and one batch in the place of
        another. `newest` is the vault's last batch, where it matters that it still is."""
        if not await self._chain.nothing_in_flight():
            raise Unreachable("a reversal waits until what was sent before can not be mined any more")
        if newest is not None and (await self._chain.last_batch_ids())[0] != newest:
            raise Unreachable(f"batch {newest + 1} was mined after all")

    async def _isolate(self, sealed: SealedBatch, refusal: Refused) -> None:
        """Go on without the operation that makes the vault refuse a batch, and without its account."""
        after = self._backlog.base_sequence
        suspect = await self._bisection.find(sealed, after, self._chain.simulate_settle)
        if suspect is None:
            raise refusal
        log.error(
            "AN ACCOUNT IS HALTED", account=suspect.account, record=suspect.sequence, reason=str(refusal)
        )
        halt = HaltAccount(
            account=suspect.account, halted=True, reason=str(refusal), liquidation=suspect.liquidation
        )
        await self._turn_back(
            self._plan(ReversalCause.REVERTING_BATCH, instead=(halt,), without=suspect.sequence)
        )

    def _plan(
        self,
        cause: ReversalCause,
        *,
        foreign: tuple[ForeignBatch, ...] = (),
        instead: tuple[HaltAccount, ...] = (),
        without: int = 0,
        replaced: tuple[tuple[int, AnyCommand], ...] = (),
    ) -> ReversalPlan:
        backlog = self._backlog
        return ReversalPlan(
            backlog.last_confirmed, backlog.confirmed_sequence, cause, foreign, instead, without, replaced
        )

    async def _turn_back(self, plan: ReversalPlan) -> None:
        await self._reverse(plan)
        told = self._backlog.last_reversal
        if told is not None:
            voided = told.last_trade + 1 - told.first_trade
            log.error(
                "REVERSED",
                cause=told.cause.value,
                after=told.after,
                batch=told.batch_id,
                trades_voided=voided,
            )

    async def _is_priced_after(self, batch: ForeignBatch) -> bool:
        """Whether the newest round cannot have been in a lane before the batch: what the chain makes of it, it makes by the new
        rules."""
        newest = self._backlog.newest_round
        mined_s = await self._chain.time_of(batch.block_number)
        return newest is not None and newest.timestamp > mined_s + FUTURE_S

    def _is_priced(self) -> bool:
        newest = self._backlog.newest_round
        return newest is not None and self._now_s() - newest.timestamp <= FRESH_S
