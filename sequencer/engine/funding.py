"""FundingHour: one hour's median rates enter the cumulative indices of all markets with a fresh price."""

from collections.abc import Sequence

from evermark.protocol.funding import HOUR_S, cumulative_step
from evermark.protocol.oracle import median_rates
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.batch_builder import MAX_FUNDING_HOURS, STAGE_FUNDING
from sequencer.engine.commands import FundingHour
from sequencer.engine.context import Context, no
from sequencer.engine.events import FundingApplied
from sequencer.engine.market_state import MarketState
from sequencer.engine.rounds import MAX_REPORTS
from sequencer.engine.sealing import enter, round_is_old, seal
from sequencer.engine.state import EngineState

MAX_HOUR = 2**32 - 1


def apply_funding(ctx: Context, command: FundingHour) -> None:
    """Apply an hour once. Markets with a stale price miss it, and stay out of the batch that carries it."""
    state = ctx.state
    refusal = _check(ctx, command)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    fresh = [at for at in state.markets if not at.stale]
    batch = state.batch
    stale_named = any(state.markets[market_id].stale for market_id in batch.markets())
    if stale_named or len(batch.funding_hours) >= MAX_FUNDING_HOURS:
        seal(ctx)
    batch = enter(ctx, STAGE_FUNDING)
    rates = median_rates([signed.report for signed in command.reports], len(state.markets))
    batch.funding_markets |= {at.market_id for at in fresh}
    batch.funding_hours.append(command.reports[0].report.hour)
    enter_hour(ctx, command.reports[0].report.hour, rates, fresh)
    if state.stale_markets:
        ctx.ends_batch = True


def enter_hour(ctx: Context, hour: int, rates: Sequence[int], markets: Sequence[MarketState]) -> None:
    """Let an hour's rates, by market id, enter the indices of `markets`. Where they end before a market, which was listed after
    they were posted, its rate is 0."""
    state = ctx.state
    state.funding_hour = hour
    for at in markets:
        market = at.market
        posted = rates[market.market_id] if market.market_id < len(rates) else 0
        rate = max(-market.funding_cap_ppb, min(market.funding_cap_ppb, posted))
        at.cumulative += cumulative_step(market, at.price.index_ticks, rate)
        at.funding_hour = hour
        ctx.events.append(
            FundingApplied(
                market_id=market.market_id,
                hour=hour,
                rate_ppb=rate,
                index_ticks=at.price.index_ticks,
                cumulative=at.cumulative,
            )
        )
    state.epoch += 1


def _check(ctx: Context, command: FundingHour) -> Reject | None:
    state: EngineState = ctx.state
    genesis, reports = state.genesis, command.reports
    if genesis is None or not genesis.funding_quorum <= len(reports) <= MAX_REPORTS:
        return no(RejectCode.MALFORMED, "not a quorum of reports", "reports", have=len(reports))
    signers = [signed.signer for signed in reports]
    if signers != sorted(set(signers)):
        return no(RejectCode.MALFORMED, "signers do not ascend strictly", "reports")
    if not set(signers) <= set(genesis.funding_keepers):
        return no(RejectCode.NOT_AUTHORISED, "a signer is no funding keeper", "reports")
    hour = reports[0].report.hour
    for signed in reports:
        if signed.report.hour != hour or len(signed.report.rates_ppb) > len(state.markets):
            return no(RejectCode.MALFORMED, "a report is malformed", "reports", hour=hour)
    if not state.funding_hour < hour <= MAX_HOUR:
        return no(RejectCode.STALE_SEQUENCE, "the hour is not newer", hour=hour, last=state.funding_hour)
    if (hour + 1) * HOUR_S > state.now:
        return no(RejectCode.NOT_READY, "the hour is not over", hour=hour, now=state.now)
    if round_is_old(state, ctx.stamp_ms):
        return no(RejectCode.STALE_PRICE, "no recent price round: try again", round_s=state.now)
    if all(at.stale for at in state.markets):
        return no(RejectCode.STALE_PRICE, "no market has a fresh price: try again", hour=hour)
    return None
