"""The batch that a stranger builds of overdue work, from nothing but the vault's state."""

from collections.abc import Sequence

from naive_vault import NaiveVault

from evermark.protocol.batch import INSURANCE_FUND, NO_INDEX, Batch, InboxUse, encode_batch
from evermark.protocol.oracle import Round, prices_hash
from sequencer.engine.commands import InboxEntry, InboxEntryKind


def overdue_batch(
    vault: NaiveVault, batch_id: int, pinned: Round, due: Sequence[InboxEntry], hours: Sequence[int]
) -> bytes:
    """Encoded; empty when nothing of it can apply at the pinned prices."""
    accounts: list[int] = []  # one an entry, 0: nobody's
    pairs: set[tuple[int, int]] = set()
    ids = dict(vault.ids)
    for entry in due:
        account = _account(ids, entry)
        if account and entry.entry_kind is InboxEntryKind.WITHDRAWAL:
            held = [market for market in vault.markets if vault.position(account, market)[0]]
            if not all(_fresh(vault, pinned, market) for market in held):
                break
            pairs |= {(account, market) for market in held}
        accounts.append(account)
    if not all(_fresh(vault, pinned, market) for market in vault.markets):
        hours = ()
    if not accounts and not hours:
        return b""
    named = sorted({account for account in accounts if account})
    at = {account: index for index, account in enumerate(named)}
    markets = set(vault.markets) if hours else {market for _, market in pairs}
    return encode_batch(
        Batch(
            batch_id=batch_id,
            round=pinned.round,
            prices_hash=prices_hash(pinned),
            journal_sequence=0,
            journal_hash=bytes(32),
            fee_classes=(),
            markets=tuple(sorted(markets)),
            accounts=tuple(named),
            pairs=tuple(sorted((at[account], market) for account, market in pairs)),
            orders=(),
            inbox=tuple(InboxUse(at[account] if account else NO_INDEX) for account in accounts),
            funding_hours=tuple(hours),
        )
    )


def _account(ids: dict[tuple[bytes, int], int], entry: InboxEntry) -> int:
    key = (entry.owner, entry.sub_account)
    if entry.entry_kind is InboxEntryKind.DONATION:
        return INSURANCE_FUND
    if entry.entry_kind is InboxEntryKind.DEPOSIT:
        return ids.setdefault(key, len(ids) + 3)
    return ids.get(key, 0)


def _fresh(vault: NaiveVault, pinned: Round, market: int) -> bool:
    return pinned.prices[market].is_fresh(pinned.timestamp, vault.markets[market].max_price_age_s)
