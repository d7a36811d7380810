"""Pays the claims that settled batches create, each when it is due. Anyone may do this; the sequencer does it so that
owners need not.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

import structlog

from sequencer import metrics
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Refused

LOOK_BACK = 1_000  # claims looked at after a restart; older unpaid ones are delayed or were refused by the token before

log = structlog.get_logger("claims")


class ClaimPayer:
    """Walks the vault's claims by id, each tried once when it is due; a payout that the token refuses stays a claim."""

    def __init__(self, chain: ExchangeChain, delayed: Callable[[], Iterable[tuple[int, int]]]) -> None:
        """`delayed` gives (due, claim) of what the engine knows to be payable later, when the walk begins."""
        self._chain = chain
        self._delayed = delayed
        self._next: int | None = None
        self._later: list[tuple[int, int]] = []  # heap of (due, claim)

    async def step(self) -> int:
        """Pay what is new, and what has become due. Returns how many were paid. Raises Unreachable."""
        count = await self._chain.claim_count()
        if self._next is None:
            first = max(1, count - LOOK_BACK + 1)
            for due, claim in self._delayed():
                if claim < first:
                    heappush(self._later, (due, claim))
            self._next = first
        paid = 0
        while self._next <= count:
            paid += await self._look_at(self._next)
            self._next += 1
        return paid + await self._pay_due()

    async def _pay_due(self) -> int:
        paid = 0
        now_s = await self._chain.block_time() if self._later else 0
        while self._later and self._later[0][0] <= now_s:
            paid += await self._look_at(self._later[0][1])
            heappop(self._later)
        return paid

    async def _look_at(self, claim_id: int) -> bool:
        amount, due = await self._chain.open_claim(claim_id)
        if amount and due and due > await self._chain.block_time():
            heappush(self._later, (due, claim_id))
            log.info("claim is payable later", claim=claim_id, due=due)
            return False
        return bool(amount) and await self._pay(claim_id)

    async def _pay(self, claim_id: int) -> bool:
        try:
            await self._chain.pay(claim_id)
        except Refused as error:
            metrics.CLAIMS_REFUSED.inc()
            log.warning("claim stays open", claim=claim_id, reason=str(error))
            return False
        metrics.CLAIMS_PAID.inc()
        log.info("claim paid", claim=claim_id)
        return True
