"""The end of a delisted market: its positions end in cash against each other, all at its one settlement price.

From the round after the market is settled on, that price is its mark, so nobody's equity changes by it and
nobody's margin is asked. Longs and shorts meet in the order of their account ids, a batch's worth a round, until none is left.
"""

from evermark.protocol.batch import FILL_CASH, INSURANCE_FUND
from sequencer.engine.batch_builder import (
    FILL_CAP,
    MAX_ACCOUNTS,
    MAX_PAIRS,
    STAGE_FILLS,
    OpenFill,
    pair_key,
)
from sequencer.engine.context import Context
from sequencer.engine.events import CashSettled
from sequencer.engine.ledger import change_position
from sequencer.engine.market_state import MarketState
from sequencer.engine.sealing import enter
from sequencer.engine.state import Account, EngineState


def settle_positions(ctx: Context) -> None:
    """What finds place in this round's batch; the rest follows with the next rounds."""
    left = FILL_CAP
    for at in ctx.state.markets:
        if at.settlement_price and at.holders:
            left = _settle_market(ctx, at, left)


def _settle_market(ctx: Context, at: MarketState, most: int) -> int:
    """Returns how many of `most` fills are left."""
    state: EngineState = ctx.state
    longs, shorts = _sides(state, at)
    while longs and most and state.batch.has_room_for_fills():
        long, short = state.accounts[longs[-1]], state.accounts[shorts[-1]]
        if not _fits(state, long, short):
            return 0
        lots = min(long.positions[at.market_id].size, -short.positions[at.market_id].size)
        _settle_pair(ctx, at, long, short, lots)
        for side in (longs, shorts):
            if not state.accounts[side[-1]].positions[at.market_id].size:
                side.pop()
        most -= 1
    return most


def _sides(state: EngineState, at: MarketState) -> tuple[list[int], list[int]]:
    """Accounts that are long and short, the lowest id last."""
    holders = sorted(at.holders, reverse=True)
    sizes = {account: state.accounts[account].positions[at.market_id].size for account in holders}
    return [key for key in holders if sizes[key] > 0], [key for key in holders if sizes[key] < 0]


def _fits(state: EngineState, long: Account, short: Account) -> bool:
    """The batch has place for both, with all their positions."""
    batch = state.batch
    return (
        len(batch.pairs) + long.open_positions + short.open_positions <= MAX_PAIRS
        and len(batch.accounts) + 4 <= MAX_ACCOUNTS
    )


def _settle_pair(ctx: Context, at: MarketState, long: Account, short: Account, lots: int) -> None:
    price, market_id = at.settlement_price, at.market_id
    # The fund comes second: the vault takes who comes first for a user.
    first, second = (short, long) if long.account_id == INSURANCE_FUND else (long, short)
    batch = enter(ctx, STAGE_FILLS)
    batch.targets |= {first.account_id, second.account_id} - {INSURANCE_FUND}
    batch.deleveraged = True  # their orders in other markets go on waiting
    change_position(ctx, long, at, -lots, price)
    change_position(ctx, short, at, lots, price)
    pairs = pair_key(first.account_id, market_id), pair_key(second.account_id, market_id)
    batch.fills.append(OpenFill(FILL_CASH, *pairs, lots))
    ctx.events.append(
        CashSettled(
            market_id=market_id,
            account=first.account_id,
            counterparty=second.account_id,
            size=lots,
            price=price,
        )
    )
