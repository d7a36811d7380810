"""Closes by the inbox, judged by what their owners asked for: nobody else is closed, at no worse a price; both sides shrink."""

from __future__ import annotations

from typing import Any

from builders import Exchange
from hostile_ledger import FIRST_USER, Moment, ceil_div, equity, maintenance

from evermark.protocol import batch as codec

PPM = 10**6
INBOX_CLOSE = 4
LOTS = 2**62 - 1
KINDS = (codec.FILL_FORCED_ON_BOOK, codec.FILL_FORCED)


def sides(batch: codec.Batch, fill: codec.Fill) -> tuple[int, int, int]:
    """Closer, market, and the account on the other side (0: an order's)."""
    index, market = batch.pairs[fill.first]
    other = batch.pairs[fill.second][0] if fill.kind == codec.FILL_FORCED else None
    return batch.accounts[index], market, 0 if other is None else batch.accounts[other]


def check_forced(exchange: Exchange, before: Moment, after: Moment, batch: codec.Batch) -> None:
    """Invariant 4: only whose own entry stands behind those that the batch consumes, and no more of it than was asked for."""
    closed = 0
    for fill in batch.fills:
        if fill.kind not in KINDS:
            continue
        closer, market, other = sides(batch, fill)
        entry: Any = exchange.inbox.entry(before.totals.inbox_head + len(batch.inbox))
        assert entry.kind == INBOX_CLOSE, "invariant 4: closed without being asked"
        assert exchange.vault.account_of(entry.owner, entry.sub_account) == closer, (
            "invariant 4: closed somebody who did not ask"
        )
        assert entry.data & 0xFF == market, "invariant 4: closed in another market"
        closed += fill.size
        assert closed <= entry.data >> 16 & LOTS, "invariant 4: closed more than was asked for"
        for account in (closer, other):
            if account:
                check_shrinks(before, after, account, market)
            if account >= FIRST_USER:
                healthy = equity(exchange, after, account) >= maintenance(exchange, after, account) - 1
                assert healthy, "a forced close left an account below maintenance"


def check_shrinks(before: Moment, after: Moment, account: int, market: int) -> None:
    held, left = before.held(account, market), after.held(account, market)
    assert abs(left) < abs(held) or held == 0, "invariant 4: a forced close did not shrink a position"
    assert held * left >= 0, "invariant 4: a forced close turned a position"


def forced_loss(exchange: Exchange, batch: codec.Batch, account: int) -> int:
    """What the closes that an account asked for may cost it against the mark; a counterparty may lose nothing."""
    total = 0
    for fill in batch.fills:
        if fill.kind in KINDS and sides(batch, fill)[0] == account:
            market = exchange.markets[sides(batch, fill)[1]]
            rate = min(market.liquidation_fee_ppm, market.tiers[0].initial_fraction_ppm // 2)
            value = fill.size * exchange.last[market.market_id].mark_ticks * market.lot_tick_value
            total += ceil_div(value * rate, PPM)
    return total
