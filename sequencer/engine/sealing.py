"""When the open batch ends. Sections only go forward, tables are bounded, and prices do not change inside a
batch."""

from evermark.protocol.batch import INSURANCE_FUND
from evermark.protocol.units import FUNDING_SCALE
from sequencer.engine.batch_builder import STAGE_EMPTY, Baseline, OpenBatch, build, pair_key
from sequencer.engine.context import Context
from sequencer.engine.events import BatchSealed, CollateralChanged
from sequencer.engine.risk import refresh
from sequencer.engine.state import MAX_OPEN_BATCH_AGE_MS, MAX_ROUND_AGE_MS, Account, EngineState


def seal(ctx: Context, last_sequence: int | None = None) -> None:
    """End the open batch, if there is anything in it, with the command before this one (or
    `last_sequence`)."""
    state = ctx.state
    if state.batch.is_empty:
        return
    tell_dust(ctx)
    state.sealed_batch += 1
    state.unsettled.append((state.now, state.batch.notional))
    state.unsettled_sealed += state.batch.notional
    batch = build(
        state.batch,
        state.sealed_batch,
        state.round,
        ctx.sequence - 1 if last_sequence is None else last_sequence,
        [at.market for at in state.markets],
    )
    state.batch = OpenBatch(state.sealed_batch + 1)
    ctx.events.append(BatchSealed(batch=batch, round=state.round))


def whole_dust(state: EngineState) -> int:
    """Units of dust that the end of the open batch pays from the funding pool to the insurance fund.

    The vault pays them as its batch ends, the engine as it seals, which is with the command after the batch's last: whoever
    compares the two at that last command counts them as paid.
    """
    return state.dust // FUNDING_SCALE


def pay_dust(state: EngineState) -> int:
    """Move the whole units of dust and return how many."""
    whole = whole_dust(state)
    if whole:
        state.dust -= whole * FUNDING_SCALE
        state.funding_pool -= whole
        state.accounts[INSURANCE_FUND].collateral += whole
    return whole


def tell_dust(ctx: Context) -> None:
    """Move the whole units of dust, as a batch ends."""
    whole = pay_dust(ctx.state)
    if whole:
        collateral = ctx.state.accounts[INSURANCE_FUND].collateral
        ctx.events.append(
            CollateralChanged(account=INSURANCE_FUND, delta=whole, collateral=collateral, cause="dust")
        )


def seal_overdue(ctx: Context) -> None:
    """Without new rounds, end a batch that depends on prices before its round is too old to settle."""
    batch = ctx.state.batch
    if batch.priced and ctx.stamp_ms - batch.opened_ms > MAX_OPEN_BATCH_AGE_MS:
        seal(ctx)


def enter(ctx: Context, stage: int, *, priced: bool = True) -> OpenBatch:
    """The open batch, ready for an effect of section `stage`; the caller has made sure that there is room."""
    if stage < ctx.state.batch.stage:
        seal(ctx)
    batch = ctx.state.batch
    if batch.stage == STAGE_EMPTY or (priced and not batch.priced):
        batch.opened_ms = ctx.stamp_ms
    batch.stage = stage
    batch.priced = batch.priced or priced
    return batch


def touch(state: EngineState, account: Account) -> None:
    """Name the account in the batch; its collateral changes."""
    state.batch.accounts.add(account.account_id)


def touch_positions(state: EngineState, account: Account) -> None:
    """Name the account and all its open positions: its margin will be checked."""
    batch, account_id = state.batch, account.account_id
    batch.accounts.add(account_id)
    for market_id, position in account.positions.items():
        if position.size:
            batch.pairs.add(pair_key(account_id, market_id))


def baseline(state: EngineState, account: Account) -> Baseline:
    """The account's margin before section 4 of the open batch, noted at the first touch."""
    batch, noted = state.batch, account.noted
    if noted is None:
        noted = account.noted = Baseline()
    if noted.number != batch.number:
        refresh(state, account)
        noted.begin(batch.number, account.collateral + account.value, account.maintenance)
        batch.noted.append(account)
        batch.accounts.add(account.account_id)
    return noted


def noted_in(batch: OpenBatch, account: Account) -> Baseline | None:
    """The account's margin before the fills of this batch; None when none of them touched it."""
    noted = account.noted
    return noted if noted is not None and noted.number == batch.number else None


def round_is_old(state: EngineState, stamp_ms: int) -> bool:
    """The last round is too old for new effects, or there is none."""
    return stamp_ms - state.now_ms > MAX_ROUND_AGE_MS
