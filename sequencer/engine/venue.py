"""Genesis, SetMarketMode and BatchConfirmed: what the operator and the chain tell the exchange itself."""

from evermark.protocol.batch import FEE_ACCOUNT, INSURANCE_FUND
from evermark.protocol.oracle import NO_PRICE, Round
from evermark.protocol.orders import NO_ADDRESS
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import BatchConfirmed, Genesis, MarketMode, SetMarketMode
from sequencer.engine.context import Context, no
from sequencer.engine.market_state import MarketState
from sequencer.engine.modes import refresh_mode
from sequencer.engine.state import Account, EngineState


def begin(ctx: Context, command: Genesis) -> None:
    """Make the markets and the reserved accounts. Only a fresh state takes it."""
    state = ctx.state
    refusal = _check_genesis(state, command)
    if refusal is not None:
        ctx.refuse(refusal)
        return
    state.genesis = command
    state.markets = [MarketState(market, NO_PRICE) for market in command.markets]
    state.market_ids = {market.symbol: market.market_id for market in command.markets}
    state.stale_markets = len(command.markets)
    state.round = Round(0, 0, tuple(NO_PRICE for _ in command.markets))
    for account_id in (INSURANCE_FUND, FEE_ACCOUNT):
        state.add_account(Account(account_id, NO_ADDRESS, 0))


def set_mode(ctx: Context, command: SetMarketMode) -> None:
    """The operator's own restriction of a market, beside what the chain says; halting it cancels all that waits there."""
    state = ctx.state
    if not 0 <= command.market_id < len(state.markets):
        ctx.refuse(no(RejectCode.UNKNOWN_MARKET, "no such market", "market_id", market_id=command.market_id))
        return
    if command.mode == MarketMode.SETTLED:
        ctx.refuse(no(RejectCode.MALFORMED, "nobody settles a market by command", "mode"))
        return
    at = state.markets[command.market_id]
    at.set_by_operator = command.mode
    refresh_mode(ctx, at, command.reason)


def confirm_batch(ctx: Context, command: BatchConfirmed) -> None:
    """Count a batch, and all before it, as settled."""
    state = ctx.state
    if not state.confirmed_batch < command.batch_id <= state.sealed_batch:
        ctx.refuse(
            no(
                RejectCode.STALE_SEQUENCE,
                "not a sealed batch that waits",
                "batch_id",
                batch=command.batch_id,
                confirmed=state.confirmed_batch,
                sealed=state.sealed_batch,
            )
        )
        return
    settled = command.batch_id - state.confirmed_batch
    state.unsettled_sealed -= sum(notional for _, notional in state.unsettled[:settled])
    del state.unsettled[:settled]
    state.confirmed_batch = command.batch_id


def _check_genesis(state: EngineState, command: Genesis) -> Reject | None:
    if state.genesis is not None:
        return no(RejectCode.MALFORMED, "the exchange has begun already")
    if [market.market_id for market in command.markets] != list(range(len(command.markets))):
        return no(RejectCode.MALFORMED, "market ids are not dense", "markets")
    for keepers, quorum in (
        (command.oracle_keepers, command.oracle_quorum),
        (command.funding_keepers, command.funding_quorum),
    ):
        if not 0 < quorum <= len(keepers):
            return no(RejectCode.MALFORMED, "a quorum without keepers", "oracle_quorum", quorum=quorum)
    if command.round_seconds <= 0:
        return no(RejectCode.MALFORMED, "a round lasts at least a second", "round_seconds")
    return None
