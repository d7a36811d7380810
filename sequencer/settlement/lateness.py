"""Late batches: for up to an hour the vault still takes what holds order fills alone, if everybody who traded also passes at the
newest posted round.

That round goes to the oracle's public lane: the sequencer's must still take the rounds between, which later batches pin. Posting
it is also what makes giving up safe. The vault could still take a `settle` that was sent earlier and never seen again; but that
one has an earlier nonce, so once our round is on the chain the other is too, or never will be.
"""

import structlog

from evermark.protocol.batch import FILL_ORDERS, Batch
from evermark.protocol.oracle import MAX_BATCH_AGE_S
from sequencer.settlement.backlog import Backlog, SealedBatch
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Refused, Unreachable

log = structlog.get_logger("settlement")


def only_order_fills(batch: Batch) -> bool:
    """What a late batch may hold."""
    others = batch.inbox or batch.actions or batch.funding_hours or batch.triggers or batch.withdrawals
    return not others and all(fill.kind == FILL_ORDERS for fill in batch.fills)


class Lateness:
    """Puts recent rounds on the chain for batches that need them."""

    def __init__(self, chain: ExchangeChain, backlog: Backlog) -> None:
        self._chain = chain
        self._backlog = backlog
        self._posted = 0  # the last round that this process posted publicly

    async def prepare(self, sealed: SealedBatch, now_s: int) -> None:
        """Before a batch is tried. Raises Unreachable while it is late and there is no round to post."""
        if now_s <= sealed.round.timestamp + MAX_BATCH_AGE_S or not only_order_fills(sealed.batch):
            return
        newest, known = self._backlog.newest_round, await self._chain.last_public_round()
        if newest is not None and newest.round > known:
            log.warning("a batch is late", batch=sealed.batch.batch_id, age_s=now_s - sealed.round.timestamp)
            try:
                reports = self._backlog.price_reports(newest.round)
                await (await self._chain.start_round(reports, public=True))
                self._posted = newest.round
            except Refused as refusal:
                log.warning("the oracle does not take the newest round", reason=str(refusal))
        elif known != self._posted:
            raise Unreachable(f"batch {sealed.batch.batch_id} is late and waits for a newer round")
