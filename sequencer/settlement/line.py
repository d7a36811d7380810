"""The line to the vault: batches in order, each exactly once, several under way at a time.

Every step starts from what the chain says. The vault takes only batch last + 1, so a crash at any point, a
lost answer or a reorg is handled by asking for the last batch id again and going on from there; nothing is
stored. Where the line cannot go on, `way_out.py` knows what to do; where nobody does, it stands still with an alarm and
asks again, and the exchange goes on without it within the engine's bounds.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog

from evermark.protocol.batch import FILL_ORDERS, Batch, encode_batch
from evermark.protocol.oracle import MAX_BATCH_AGE_S, Round
from sequencer import metrics
from sequencer.engine.commands import AnyCommand, BatchConfirmed
from sequencer.engine.events import Event
from sequencer.settlement.backlog import Backlog, SealedBatch
from sequencer.settlement.chain import ExchangeChain, Receipt
from sequencer.settlement.claims import ClaimPayer
from sequencer.settlement.errors import FROZEN_BATCH_ID, Diverged, Refused, Unreachable, frozen, slipped_in
from sequencer.settlement.hours import other_hours
from sequencer.settlement.standstill import Standstill
from sequencer.settlement.under_way import UnderWay
from sequencer.settlement.way_out import WayOut
from sequencer.settlement.witness import Settled

MOST_BEHIND = 8  # batches under way behind the oldest
PATIENCE_S = MAX_BATCH_AGE_S // 2  # for how much of a batch's window it waits for the one before it
HEARTBEAT_S = 60  # chain seconds between posted rounds, at most, also when nothing settles
POLL_S = 0.5  # wall time between looks at the chain while nothing happens
FIRST_RETRY_S, LAST_RETRY_S = 0.25, 15.0
STOPPED_RETRY_S = (
    10.0  # a refused batch is simulated again this often, in case an operator has cured the reason
)

log = structlog.get_logger("settlement")

Submit = Callable[[AnyCommand], Awaitable[list[Event]]]


class SettlementStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the status page and the alarms read."""

    last_sealed: int
    last_settled: int  # in the newest block
    last_confirmed: int  # deep enough, and known to the engine
    alarm: str  # empty, or why the line stands still
    diverged: bool  # it stands still for a state of the chain that no journal has
    retrying: str  # empty, or the last temporary failure
    last_settle_gas: int
    last_settle_seconds: float


class SettlementLine:
    """Settles the backlog until cancelled."""

    def __init__(
        self,
        chain: ExchangeChain,
        backlog: Backlog,
        submit: Submit,
        now_s: Callable[[], int],
        way_out: WayOut,
        standstill: Standstill,
        delayed_claims: Callable[[], list[tuple[int, int]]] = list,
    ) -> None:
        """`submit` is the pipeline's, `now_s` chain time; `delayed_claims` gives (due, claim) of what the engine knows to be
        payable later."""
        self._chain = chain
        self._backlog = backlog
        self._submit = submit
        self._now_s = now_s
        self._way_out = way_out
        self._standstill = standstill
        self._under_way = UnderWay(chain, now_s, backlog.last_sealed)
        self._claims = ClaimPayer(chain, delayed_claims)
        self._early_round = (
            0  # rounds up to it were posted before batches that wait, perhaps by rules from before those
        )
        self.reached = False  # the chain has answered since the start
        self._settled = 0
        self._retrying = ""
        self._gas = 0
        self._seconds = 0.0

    def status(self) -> SettlementStatus:
        """A snapshot of the line."""
        return SettlementStatus(
            last_sealed=self._backlog.last_sealed,
            last_settled=self._settled,
            last_confirmed=self._backlog.last_confirmed,
            alarm=self._standstill.alarm,
            diverged=self._standstill.diverged,
            retrying=self._retrying,
            last_settle_gas=self._gas,
            last_settle_seconds=self._seconds,
        )

    async def run(self) -> None:
        """Work until cancelled. Raises Ended; anything else that it raises is a bug."""
        delay = FIRST_RETRY_S
        while True:
            try:
                worked = await self.step()
            except Unreachable as error:
                metrics.SETTLE_RETRIES.inc()
                self._retrying = str(error)
                log.warning("settlement will be tried again", reason=str(error), delay_s=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_S)
            except Refused as error:
                self._standstill.begin(self._settled + 1, error)
                await asyncio.sleep(STOPPED_RETRY_S)
            else:
                self._standstill.end()
                self._retrying = ""
                delay = FIRST_RETRY_S
                if not worked:
                    await self._rest()

    async def step(self) -> bool:
        """One unit of work: confirm what is deep enough, then settle one batch, follow somebody else's, or post a due
        round.

        Returns False when there was nothing to do. Raises Unreachable, Refused or Ended.
        """
        self._settled, final = await self._chain.last_batch_ids()
        if FROZEN_BATCH_ID in (self._settled, final):
            await self._claims.step()
            if self._settled == final:
                raise frozen()
            raise Unreachable("the exchange is frozen in a block that is not deep enough yet")
        foreign = await self._first_foreign()
        self.reached = True
        if self._settled < self._backlog.last_confirmed:
            raise Unreachable(
                f"the node shows batch {self._settled} where batch {self._backlog.last_confirmed} was confirmed: it lags "
                "behind, or the chain took back more blocks than `confirmations`"
            )
        try:
            confirmed = await self._confirm(min(final, foreign - 1) if foreign else final)
        except Diverged:
            await self._claims.step()
            raise
        if foreign:
            return await self._way_out.follow(foreign, final) or confirmed
        sealed = self._backlog.sealed(self._settled + 1)
        if sealed is not None:
            await self._settle(sealed)
            await self._claims.step()
            return True
        if self._settled > self._backlog.last_sealed:
            raise Refused(
                f"the vault has settled batch {self._settled}, but this journal ends at batch "
                f"{self._backlog.last_sealed}: another journal settles here"
            )
        return bool(await self._claims.step()) or await self._heartbeat() or confirmed

    async def _first_foreign(self) -> int:
        """The first settled batch that is somebody else's and that the journal does not know yet; 0 without one. Those before
        it are what this journal sealed under their ids.

        Anybody may execute overdue work in a batch of their own, which takes the next id and names no journal.
        """
        if self._settled <= self._backlog.last_confirmed:
            return 0
        found: Settled | None = await self._chain.settled_batch(self._settled)
        first = 0
        while found is not None and found.batch_id > self._backlog.last_confirmed and found.is_foreign:
            first = found.batch_id
            found = await self._chain.settled_batch(first - 1) if first > 1 else None
        if found is not None:
            _check_journal(found, self._backlog.sealed(found.batch_id))
        return first

    async def _confirm(self, final: int) -> bool:
        """Tell the engine of every batch that is deep enough, in order."""
        first = self._backlog.last_confirmed + 1
        for batch_id in range(first, min(final, self._backlog.last_sealed) + 1):
            found, sealed = await self._chain.settled_batch(batch_id), self._backlog.sealed(batch_id)
            if found.is_foreign:
                raise slipped_in(batch_id)
            _check_journal(found, sealed)
            await self._submit(BatchConfirmed(batch_id=batch_id, block_number=found.block_number))
        return final >= first

    async def _settle(self, head: SealedBatch) -> None:
        """Settle the oldest batch that waits, and with it those behind it, without waiting for each to be mined."""
        await self._under_way.outbid_strays(head.batch.batch_id, head.batch.funding_hours)
        await self._wait_for_depth(head)
        lane_round = (await self._chain.last_round()).round
        late = self._now_s() > head.round.timestamp + MAX_BATCH_AGE_S
        try:
            await self._post_round(head.round, lane_round)
            if late and may_be_late(head.batch):
                await self._post_newest()
            await self._post_funding(head.batch)
            others = await other_hours(self._chain, self._backlog, head.batch)
            if not others:
                await self._chain.simulate_settle(encode_batch(head.batch))
        except Refused as refusal:
            await self._way_out.give_up(head, refusal, posted_early=head.round.round <= self._early_round)
            return
        if others:
            await self._way_out.take_funding(head, others)
            return
        began, sent = time.monotonic(), [(head, await self._chain.start_settle(encode_batch(head.batch)))]
        behind = 0 if late else MOST_BEHIND
        try:
            async for sealed, settling in self._start_behind(head, behind, max(lane_round, head.round.round)):
                sent.append((sealed, settling))
        except Refused as refusal:
            raise Unreachable(f"a batch behind batch {head.batch.batch_id}: {refusal}") from refusal
        finally:  # whatever is under way is waited for
            await self._under_way.wait(sent)
        for sealed, settling in sent:
            if settling.cancelled():
                raise Unreachable(f"batch {sealed.batch.batch_id} is stuck, and what follows on it is outbid")
            try:
                self._tell_settled(sealed, settling.result(), began)
            except Refused as refusal:  # nobody has simulated it; the next step does
                raise Unreachable(f"batch {sealed.batch.batch_id}: {refusal}") from refusal

    async def _wait_for_depth(self, head: SealedBatch) -> None:
        """While a reorganisation could put somebody else's batch in the place of the one before `head`, that one has to be deep
        enough: `head` would settle on top of theirs. But not until the window of `head` is over. Raises Unreachable."""
        before = head.batch.batch_id - 1
        if before <= self._backlog.last_confirmed or self._now_s() > head.round.timestamp + PATIENCE_S:
            return
        if not await self._under_way.is_alone(()):
            raise Unreachable(f"batch {before} is not deep enough, and somebody may take its place")

    async def _start_behind(
        self, head: SealedBatch, most: int, lane_round: int
    ) -> "AsyncIterator[tuple[SealedBatch, asyncio.Future[Receipt]]]":
        """Start `most` batches that follow on `head`, each behind the rounds that the lane lacks after `lane_round`; what is
        started later is mined later. Only while nobody else's batch can come between, for one in the place of a batch would
        let the next one follow on it."""
        last = head
        for _ in range(most):
            sealed = self._backlog.sealed(last.batch.batch_id + 1)
            if sealed is None:
                return
            hours = (*(head.batch.funding_hours if last is head else ()), *sealed.batch.funding_hours)
            if (last is head or hours) and not await self._under_way.is_alone(hours):
                return
            await self._post_funding(sealed.batch)
            if await other_hours(self._chain, self._backlog, sealed.batch):
                return
            for number in self._backlog.rounds_to_post(sealed.round, lane_round):
                posting = await self._chain.start_round(self._backlog.price_reports(number))
                posting.add_done_callback(_look_at)  # the batch behind it fails where it has
            yield sealed, await self._chain.start_settle(encode_batch(sealed.batch))
            last, lane_round = sealed, max(lane_round, sealed.round.round)

    def _tell_settled(self, sealed: SealedBatch, receipt: Receipt, began: float) -> None:
        batch = sealed.batch
        self._gas, self._seconds = receipt.gas_used, time.monotonic() - began
        metrics.SETTLE_GAS.inc(receipt.gas_used)
        metrics.SETTLE_SECONDS.observe(self._seconds)
        log.info(
            "batch settled",
            batch=batch.batch_id,
            block=receipt.block_number,
            gas=receipt.gas_used,
            fills=len(batch.fills),
            orders=len(batch.orders),
            inbox=len(batch.inbox),
            seconds=round(self._seconds, 3),
            age_s=self._now_s() - sealed.round.timestamp,
        )

    async def _post_funding(self, batch: Batch) -> None:
        for hour in batch.funding_hours:
            if not await self._chain.has_funding(hour):
                await self._chain.post_funding(self._backlog.funding_reports(hour))

    async def _post_round(self, round_: Round, lane_round: int) -> None:
        for number in self._backlog.rounds_to_post(round_, lane_round):
            await (await self._chain.start_round(self._backlog.price_reports(number)))

    async def _post_newest(self) -> None:
        """A late batch is judged at the newest round too. Those that waiting batches pin go before it: the lane only grows."""
        rounds = [sealed.round for sealed in self._backlog.waiting()]
        if self._backlog.newest_round is not None:
            rounds.append(self._backlog.newest_round)
        for round_ in rounds:
            self._early_round = max(self._early_round, round_.round)
            await self._post_round(round_, (await self._chain.last_round()).round)

    async def _heartbeat(self) -> bool:
        """Post the newest round when the lane's last one is old; only with nothing waiting that pins an
        older one."""
        newest = self._backlog.newest_round
        if newest is None or self._backlog.last_sealed > self._settled:
            return False
        lane = await self._chain.last_round()
        due = newest.round > lane.round and newest.timestamp >= lane.timestamp + HEARTBEAT_S
        if not due:
            return False
        await self._post_round(newest, lane.round)
        return True

    async def _rest(self) -> None:
        self._backlog.changed.clear()
        try:
            await asyncio.wait_for(self._backlog.changed.wait(), POLL_S)
        except TimeoutError:
            pass  # time to look at the chain again


def _check_journal(found: Settled, sealed: SealedBatch | None) -> None:
    """A settled batch is the one that was sealed here, if one was. Raises Refused."""
    if sealed is not None and sealed.batch.journal_hash != found.journal_hash:
        raise Refused(
            f"batch {found.batch_id} on the chain names record {found.journal_sequence} of another journal"
        )


def may_be_late(batch: Batch) -> bool:
    """The vault takes it up to an hour after its round: it holds nothing but fills of orders against orders."""
    other = batch.inbox or batch.actions or batch.funding_hours or batch.triggers or batch.withdrawals
    return not other and all(fill.kind == FILL_ORDERS for fill in batch.fills)


def _look_at(done: "asyncio.Future[Receipt]") -> None:
    """Nobody else asks for its error."""
    if not done.cancelled() and done.exception() is not None:
        log.warning("a round was not posted", reason=str(done.exception()))
