"""Pays the claims that settled batches create. Anyone may do this; the sequencer does it so that owners
need not.
"""

import structlog

from sequencer import metrics
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Refused

LOOK_BACK = 1_000  # claims looked at after a restart; older unpaid ones were refused by the token before

log = structlog.get_logger("claims")


class ClaimPayer:
    """Walks the vault's claims by id, each tried once; a payout that the token refuses stays a claim."""

    def __init__(self, chain: ExchangeChain) -> None:
        self._chain = chain
        self._next: int | None = None

    async def step(self) -> int:
        """Pay what is new. Returns how many were paid. Raises Unreachable."""
        count = await self._chain.claim_count()
        if self._next is None:
            self._next = max(1, count - LOOK_BACK + 1)
        paid = 0
        while self._next <= count:
            paid += await self._pay(self._next)
            self._next += 1
        return paid

    async def _pay(self, claim_id: int) -> bool:
        if not await self._chain.claim_amount(claim_id):
            return False
        try:
            await self._chain.pay(claim_id)
        except Refused as error:
            metrics.CLAIMS_REFUSED.inc()
            log.warning("claim stays open", claim=claim_id, reason=str(error))
            return False
        metrics.CLAIMS_PAID.inc()
        log.info("claim paid", claim=claim_id)
        return True
