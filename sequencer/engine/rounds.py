"""OracleRound: new prices, and with them engine time. Stale markets, expired orders, and the end of the open
batch."""

from heapq import heappop

from evermark.protocol.oracle import SETTLED_BIT, SignedPriceReport, aggregate
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.units import MAX_PRICE_TICKS
from sequencer.engine.cash_settlement import settle_positions
from sequencer.engine.commands import OracleRound
from sequencer.engine.context import Context, no
from sequencer.engine.debts import write_off_debts
from sequencer.engine.events import CancelReason, RoundApplied
from sequencer.engine.modes import end_pauses, update_staleness
from sequencer.engine.open_orders import cancel
from sequencer.engine.sealing import seal
from sequencer.engine.state import EngineState

MAX_REPORTS = 15  # the PriceOracle contract takes no more


def apply_round(ctx: Context, command: OracleRound) -> None:
    """Put a round's medians in force.

    A batch that depends on the old prices ends first; one that does not (deposits) ends with the new round and all
    that follows from it, which leaves it the most time to settle.
    """
    state = ctx.state
    refusal = _check(state, command)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    if state.batch.priced:
        seal(ctx)
    reports = [signed.report for signed in command.reports]
    genesis = state.genesis
    quorum = genesis.oracle_quorum if genesis is not None else 0
    jumps_ppm = tuple(at.market.jump_ppm_per_s | at.settlement_price << SETTLED_BIT for at in state.markets)
    state.round = aggregate(reports, quorum, [at.price for at in state.markets], jumps_ppm)
    state.epoch += 1
    ctx.events.append(RoundApplied(round=state.round, jumps_ppm=jumps_ppm))
    for at, price in zip(state.markets, state.round.prices, strict=True):
        at.price = price
        update_staleness(ctx, at)
    end_pauses(ctx)
    write_off_debts(ctx)
    settle_positions(ctx)
    ctx.ends_batch = True
    expire_orders(ctx)
    while state.delayed_claims and state.delayed_claims[0][0] <= state.now:
        heappop(state.delayed_claims)
    for at in state.markets:
        if at.last_price:
            at.triggers.trail(at.last_price)
        state.stirred.add(at.market.market_id)


def _check(state: EngineState, command: OracleRound) -> Reject | None:
    genesis, reports = state.genesis, command.reports
    if genesis is None or not genesis.oracle_quorum <= len(reports) <= MAX_REPORTS:
        return no(RejectCode.MALFORMED, "not a quorum of reports", "reports", have=len(reports))
    signers = [signed.signer for signed in reports]
    if signers != sorted(set(signers)):
        return no(RejectCode.MALFORMED, "signers do not ascend strictly", "reports")
    if not set(signers) <= set(genesis.oracle_keepers):
        return no(RejectCode.NOT_AUTHORISED, "a signer is no oracle keeper", "reports")
    round_ = reports[0].report.round
    if round_ <= state.round.round:
        return no(RejectCode.STALE_SEQUENCE, "the round is not newer", round=round_, last=state.round.round)
    if not all(_well_formed(state, signed, round_, genesis.round_seconds) for signed in reports):
        return no(RejectCode.MALFORMED, "a report is malformed", "reports", round=round_)
    return None


def _well_formed(state: EngineState, signed: SignedPriceReport, round_: int, round_seconds: int) -> bool:
    report = signed.report
    return (
        report.round == round_
        and report.timestamp // round_seconds == round_
        and len(report.prices) <= len(state.markets)
        and all(
            price == 0 or (0 < price >> 32 <= MAX_PRICE_TICKS and price & MAX_PRICE_TICKS)
            for price in report.prices
        )
    )


def expire_orders(ctx: Context) -> None:
    """Cancel what has expired by the new time."""
    for order in ctx.state.expiries.ended(ctx.state.now):
        cancel(ctx, order, CancelReason.EXPIRED)
