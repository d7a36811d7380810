"""What was sent and no receipt has told of. A batch names no predecessor: one that follows on another would be mined as well
where somebody else's took the other's place, at a state that no journal has. So batches follow each other only while nobody
else's can come, and those that are stuck are outbid before one can.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from evermark.protocol.oracle import MAX_BATCH_AGE_S
from sequencer.settlement.backlog import SealedBatch
from sequencer.settlement.chain import ExchangeChain, Receipt
from sequencer.settlement.errors import Unreachable

ALONE_S = MAX_BATCH_AGE_S + 30  # by then what is under way is mined, or never will be, but for fills alone
OUTBID_S = 30  # for how long before somebody else's batch may come stuck ones are outbid
LOOK_S = 0.5  # wall time between two looks at the time

Sent = tuple[SealedBatch, "asyncio.Future[Receipt]"]

log = structlog.get_logger("settlement")


class UnderWay:
    """The line's, and what processes before this one have left."""

    def __init__(self, chain: ExchangeChain, now_s: Callable[[], int], newest: int) -> None:
        """`now_s` is chain time; any batch up to `newest` may have been sent before."""
        self._chain = chain
        self._now_s = now_s
        self._newest = newest

    async def is_alone(self, hours: Sequence[int]) -> bool:
        """Nobody else's batch can come for a while, also when these funding hours are posted now."""
        now_s = self._now_s()
        return await self._chain.overdue_from_s(now_s, hours) > now_s + ALONE_S

    async def outbid_strays(self, oldest: int, hours: Sequence[int]) -> None:
        """Before the oldest batch is sent, with its funding hours: what may have been sent behind it before has to be gone where
        somebody else's batch can come. Raises Unreachable until it is."""
        if oldest >= self._newest or await self.is_alone(hours):
            return
        if not await self._chain.nothing_in_flight():
            raise Unreachable(
                f"batches behind batch {oldest} may be in flight, and somebody may take its place: they are outbid first"
            )
        self._newest = oldest

    async def wait(self, sent: Sequence[Sent]) -> None:
        """Until everything is mined or has failed. Where some follow on another that is stuck, only until somebody else's batch
        can come soon: what is not mined by then is cancelled."""
        self._newest = max(self._newest, *(sealed.batch.batch_id for sealed, _ in sent))
        futures = [settling for _, settling in sent]
        until_s = self._now_s() + ALONE_S - OUTBID_S
        try:
            while not all(settling.done() for settling in futures):
                await asyncio.wait(futures, timeout=LOOK_S)
                if len(sent) > 1 and self._now_s() > until_s:
                    until_s = await self._free_until_s(until_s)
                    if self._now_s() > until_s:
                        log.warning(
                            "BATCHES ARE STUCK: what is not mined is outbid", first=sent[0][0].batch.batch_id
                        )
                        return
        finally:
            for settling in futures:
                settling.cancel()  # does nothing to what is done
            await asyncio.gather(*futures, return_exceptions=True)

    async def _free_until_s(self, known_s: int) -> int:
        try:
            return await self._chain.overdue_from_s(self._now_s()) - OUTBID_S
        except Unreachable:
            return max(known_s, self._now_s())  # nobody could be outbid either: asked again
