"""Signed messages of keepers: price and funding reports to the collector, liquidation triggers to the
engine.
"""

import msgspec

from evermark.protocol.batch import FIRST_USER_ACCOUNT
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import TriggerLiquidation
from sequencer.engine.events import CommandRejected, Liquidated
from sequencer.engine.risk import margin_of
from sequencer.gateway import parse, wire
from sequencer.gateway.answers import Answer, submit, unknown_market
from sequencer.gateway.checking import Recovered
from sequencer.gateway.limits import Limiter
from sequencer.gateway.refusal import Refusal, engine_refusal, refuse
from sequencer.gateway.services import Services
from sequencer.gateway.signers import Signers, evidence
from sequencer.history.records import wire_int
from sequencer.reports import Received


class KeeperDesk:
    """Every verb raises Refusal for what it does not pass on."""

    def __init__(self, services: Services, limiter: Limiter, signers: Signers) -> None:
        self._services = services
        self._limiter = limiter
        self._signers = signers

    async def prices(self, request: wire.PriceReportRequest) -> Answer:
        """A price report of a registered oracle keeper."""
        report, signature = parse.price_report_of(request.report), parse.signature_of(request)
        signer, recovered = await self._signers.keeper(report, signature, request)
        self._limiter.keeper(signer)
        taken = self._services.reports.add_price(SignedPriceReport(report, signer, signature))
        return _received(taken, recovered)

    async def funding(self, request: wire.FundingReportRequest) -> Answer:
        """A funding report of a registered funding keeper."""
        report, signature = parse.funding_report_of(request.report), parse.signature_of(request)
        signer, recovered = await self._signers.keeper(report, signature, request)
        self._limiter.keeper(signer)
        taken = self._services.reports.add_funding(SignedFundingReport(report, signer, signature))
        return _received(taken, recovered)

    async def liquidate(self, request: wire.LiquidationRequest) -> Answer:
        """A trigger of anybody: the numbers decide, and a healthy account is refused before the journal."""
        trigger, signature = parse.trigger_of(request.trigger), parse.signature_of(request)
        state = self._services.state
        if trigger.market not in state.market_ids:
            raise unknown_market(trigger.market)
        account = state.accounts.get(trigger.account)
        if account is None or trigger.account < FIRST_USER_ACCOUNT:
            raise refuse(RejectCode.UNKNOWN_ACCOUNT, "no such account", "account", account=trigger.account)
        signer, _ = await self._signers.keeper(trigger, signature, request)
        self._limiter.keeper(signer)
        now = self._services.now_s()
        if trigger.deadline < now:
            raise refuse(
                RejectCode.EXPIRED,
                "the deadline has passed",
                "deadline",
                deadline=trigger.deadline,
                now=now,
            )
        margin = margin_of(state, account)
        if not margin.liquidatable:
            raise refuse(
                RejectCode.HEALTHY_ACCOUNT,
                "equity is at or above maintenance",
                equity=margin.equity,
                maintenance_margin=margin.maintenance,
            )
        command = TriggerLiquidation(
            account=trigger.account,
            market_id=state.market_ids[trigger.market],
            keeper=signer,
            keeper_account=state.account_ids.get((signer, 0), 0),
        )
        events = await submit(self._services, command)
        for event in events:
            if isinstance(event, CommandRejected):
                raise engine_refusal(event.reject)
        return Answer.of({"liquidated": [self._step(e) for e in events if isinstance(e, Liquidated)]})

    def _step(self, event: Liquidated) -> dict[str, int | str | bool]:
        return {
            "market": self._services.state.markets[event.market_id].market.symbol,
            "size": wire_int(event.size),
            "price": event.price,
            "taken_over": event.taken_over,
            "deleveraged": event.deleveraged,
        }


def _received(taken: Received | Reject, recovered: Recovered) -> Answer:
    if isinstance(taken, Reject):
        details = taken.details | evidence(recovered)
        raise Refusal(msgspec.structs.replace(taken, details=details))
    return Answer.of({"accepted": taken.accepted, "have": taken.have, "need": taken.need})
