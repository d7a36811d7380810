"""The fills that an overdue close or liquidation asks for, chosen from contract state and tried before they are sent."""

from typing import Any

from evermark.chain.exit import CLOSING_WORD
from evermark.chain.overdue_batch import Draft, OverdueVault
from evermark.chain.transactions import TransactionSender
from evermark.protocol.batch import FILL_DELEVERAGE, FILL_FORCED, FILL_TAKEOVER, INSURANCE_FUND
from evermark.protocol.forced import HOUR_S, LEAST_CAP, SHARE
from evermark.protocol.oracle import Round

MOST_FILLS = 8  # of a batch: each names an account with up to 16 positions, and gas bounds a transaction
FORCED_WORDS = (1 << 39) + 384  # of each market: what closes took of its hour (docs/settlement.md, "Storage")
LOTS = 2**62 - 1


async def close_fills(
    vault: OverdueVault, sender: TransactionSender, number: int, entry: Any, account: int, round_: Round
) -> Draft | None:
    """The next part of a close, against the fund and the largest opposite positions; None when there is none."""
    market = entry.data & 0xFF
    size = await vault.size(account, market)
    left = min(abs(size), (entry.data >> 16 & LOTS) - await _closed(vault, number))
    left = min(left, await _hour_left(vault, market, round_))
    draft = Draft()
    await vault.name(draft, account)
    for other, held in await vault.opposite(market, size):
        if left <= 0 or len(draft.fills) == MOST_FILLS:
            break
        alone = Draft()
        await vault.name(alone, account)
        await vault.name(alone, other)
        lots = min(left, held)
        alone.fills.append((FILL_FORCED, (account, market), (other, market), lots, 0))
        if await vault.simulate(sender, alone, round_) is None:
            draft.pairs |= alone.pairs
            draft.fills += alone.fills
            left -= lots
    return draft if draft.fills else None


async def _closed(vault: OverdueVault, number: int) -> int:
    """Lots closed for the entry so far."""
    word = await vault.word(CLOSING_WORD)
    return word >> 64 & 2**64 - 1 if word & 2**64 - 1 == number else 0


async def _hour_left(vault: OverdueVault, market: int, round_: Round) -> int:
    """Lots that closes may still take in the market in the round's hour."""
    word = await vault.word(FORCED_WORDS + market)
    if word & 0xFFFFFFFF == round_.timestamp // HOUR_S:
        return (word >> 96) - (word >> 32 & 2**64 - 1)
    lot = round_.prices[market].mark_ticks * await vault.lot_tick_value(market)
    return max(await vault.open_interest(market) // SHARE, LEAST_CAP // max(lot, 1), 1)


async def liquidation_fills(
    vault: OverdueVault, sender: TransactionSender, account: int, round_: Round
) -> Draft | None:
    """The next step of a liquidation: the most of a position that the fund takes over, else a counterparty; None
    when there is none.
    The sender's account, where it has one, is paid as the keeper's.
    """
    keeper = await vault.account_of(sender.address, 0)
    for market in await vault.open_markets(account):
        size = await vault.size(account, market)
        lots = abs(size)
        while lots:
            draft = await _against(vault, account, INSURANCE_FUND, market)
            pairs = (account, market), (INSURANCE_FUND, market)
            draft.fills.append((FILL_TAKEOVER, *pairs, lots, keeper if keeper != account else 0))
            if await vault.simulate(sender, draft, round_) is None:
                return draft
            lots //= 2
        for other, held in await vault.opposite(market, size):
            if other == INSURANCE_FUND:
                continue
            draft = await _against(vault, account, other, market)
            await vault.name(draft, INSURANCE_FUND)
            pairs = (account, market), (other, market)
            draft.fills.append((FILL_DELEVERAGE, *pairs, min(abs(size), held), 0))
            if await vault.simulate(sender, draft, round_) is None:
                return draft
    return None


async def _against(vault: OverdueVault, account: int, other: int, market: int) -> Draft:
    draft = Draft()
    await vault.name(draft, account)
    await vault.name(draft, other)
    draft.pairs.add((other, market))
    return draft
