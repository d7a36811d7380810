"""Funding hours that somebody else posted: the chain takes any quorum of the keepers' public reports, and the first counts. Its
medians may be other ones than those of the reports that came here, so the chain's go before ours.
"""

from collections.abc import Sequence

import structlog

from evermark.chain.postings import same_rates
from evermark.protocol.batch import Batch
from evermark.protocol.oracle import SignedFundingReport
from sequencer.settlement.backlog import Backlog
from sequencer.settlement.chain import ExchangeChain
from sequencer.settlement.errors import Refused, Unreachable

Reports = tuple[SignedFundingReport, ...]

log = structlog.get_logger("settlement")


async def other_hours(chain: ExchangeChain, backlog: Backlog, batch: Batch) -> list[int]:
    """Hours of a batch, all of them posted, that have other rates on the chain than the engine applied to the batch's markets."""
    return [
        hour
        for hour in batch.funding_hours
        if not same_rates(await chain.funding_rates(hour), backlog.funding_reports(hour), batch.markets)
    ]


class PostedHours:
    """Asked before an hour is journaled."""

    def __init__(self, chain: ExchangeChain) -> None:
        self._chain = chain
        self._hidden = 0  # the last hour that was complained of

    async def reports_for(self, hour: int, held: Reports) -> Reports:
        """The reports to journal: `held`, or those behind other rates that the chain has already. Empty while nobody knows those.

        Where the node is away it is `held`: settlement compares again before it sends the batch.
        """
        try:
            if not await self._chain.has_funding(hour):
                return held
            rates = await self._chain.funding_rates(hour)
            if same_rates(rates, held, range(max(len(rates), _markets_of(held)))):
                return held
            posted = await self._chain.posted_funding(hour, held)
        except Unreachable:
            return held
        except Refused as hidden:
            if self._hidden != hour:
                log.error("A FUNDING HOUR IS LEFT OUT", hour=hour, reason=str(hidden))
            self._hidden = hour
            return ()
        log.warning("somebody else posted a funding hour from other reports", hour=hour)
        return posted


def _markets_of(reports: Sequence[SignedFundingReport]) -> int:
    return max(len(one.report.rates_ppb) for one in reports)
