"""What strangers send: batches of overdue work, built of nothing but the vault's state and tried before they are sent."""

from collections.abc import Callable, Sequence
from random import Random

from naive_actions import Reverted
from naive_vault import NaiveVault

from evermark.protocol.batch import (
    FILL_DELEVERAGE,
    FILL_FORCED,
    FILL_TAKEOVER,
    INSURANCE_FUND,
    NO_INDEX,
    Batch,
    Fill,
    InboxUse,
    encode_batch,
)
from evermark.protocol.oracle import MAX_BATCH_AGE_S, Round, SignedPriceReport, prices_hash
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from tests.simulation.contracts import FIRST_USER, decoded, post_public
from tests.simulation.ledger import Ledger, copied, price_in

HOUR_OVERDUE_S = 60  # how long after its end anybody may apply a funding hour; an hour in reality
MOST_ENTRIES = 32
MOST_FILLS = 8
FORCED = (InboxEntryKind.CLOSE, InboxEntryKind.LIQUIDATE)
NOBODYS = (InboxEntryKind.GOVERNOR, InboxEntryKind.GUARDIAN)
NOBODY = 0


class Draft:
    """A batch before its tables are sorted."""

    def __init__(self, ledger: Ledger, pinned: Round) -> None:
        self.ledger, self.pinned = ledger, pinned
        self.uses: list[int] = []  # account of each entry that it consumes, 0: none
        self.hours: tuple[int, ...] = ()
        self.accounts: set[int] = set()
        self.pairs: set[tuple[int, int]] = set()
        self.fills: list[
            tuple[int, int, int, int, int, int]
        ] = []  # kind, target, other, market, lots, keeper

    def name(self, account: int) -> None:
        """With all its positions."""
        vault = self.ledger.vault
        self.accounts.add(account)
        self.pairs |= {(account, key) for key in vault.markets if vault.position(account, key)[0]}

    def fill(self, kind: int, target: int, other: int, market: int, lots: int, keeper: int = NOBODY) -> None:
        """One more fill, against an account that may have no position there."""
        for account in (target, other, INSURANCE_FUND):
            self.name(account)
        self.pairs.add((other, market))
        self.fills.append((kind, target, other, market, lots, keeper))

    def encoded(self) -> bytes:
        """The batch, which speaks for no journal."""
        keepers = {fill[5] for fill in self.fills if fill[5]}
        accounts = sorted(self.accounts | {use for use in self.uses if use} | keepers)
        at = {account: index for index, account in enumerate(accounts)}
        pairs = sorted((at[account], market) for account, market in self.pairs)
        place = {(accounts[index], market): number for number, (index, market) in enumerate(pairs)}
        markets = set(self.ledger.vault.markets) if self.hours else {market for _, market in pairs}
        fills = tuple(
            Fill(kind, place[target, market], place[other, market], lots, at.get(keeper, NO_INDEX))
            for kind, target, other, market, lots, keeper in self.fills
        )
        return encode_batch(
            Batch(
                batch_id=len(self.ledger.batches) + 1,
                round=self.pinned.round,
                prices_hash=prices_hash(self.pinned),
                journal_sequence=0,
                journal_hash=bytes(32),
                fee_classes=(),
                markets=tuple(sorted(markets)),
                accounts=tuple(accounts),
                pairs=tuple(pairs),
                orders=(),
                inbox=tuple(InboxUse(at[use] if use else NO_INDEX) for use in self.uses),
                funding_hours=self.hours,
                fills=fills,
            )
        )

    def passes(self) -> bool:
        """The vault would take it."""
        vault = copied(self.ledger.vault)
        try:
            batch = decoded(self.encoded(), self.ledger)
            vault.settle(batch, self.pinned, self.ledger.entries, self.ledger.hours)
        except Reverted:
            return False
        return True

    def passes_with(self, change: Callable[["Draft"], None]) -> bool:
        """Make a change if the vault would take it then."""
        kept = list(self.uses), set(self.accounts), set(self.pairs), list(self.fills)
        change(self)
        if self.passes():
            return True
        self.uses, self.accounts, self.pairs, self.fills = kept
        return False


def overdue_batch(rng: Random, reports: Sequence[SignedPriceReport], ledger: Ledger, time: int) -> bytes:
    """What a stranger executes now, with a round of its own where the sequencer's is old; empty when nothing can be."""
    first = ledger.vault.entries
    due = [entry for entry in ledger.entries[first:][:MOST_ENTRIES] if entry.due < time]
    hours = overdue_hours(ledger, time)
    if not due and not hours:
        return b""
    if time > ledger.lane.timestamp + MAX_BATCH_AGE_S:
        post_public(ledger, reports)
    draft = Draft(ledger, ledger.newest)
    markets = ledger.vault.markets.items()
    if all(_fresh(ledger.vault, draft.pinned, key) for key, _ in markets):
        draft.hours = hours
    head = _consume(draft, due)
    if head is not None and (not draft.uses or rng.random() < 0.5):
        (_close if head.entry_kind is InboxEntryKind.CLOSE else _liquidate)(rng, draft, head)
    return draft.encoded() if draft.uses or draft.hours or draft.fills else b""


def overdue_from_s(hour: int) -> int:
    """After this anybody may apply an hour that was posted by then."""
    return (hour + 1) * 3_600 + HOUR_OVERDUE_S


def overdue_hours(ledger: Ledger, time: int) -> tuple[int, ...]:
    """Hours that were posted in time and are not applied, up to the last that is overdue; none of them may be skipped."""
    waiting = sorted(hour for hour in ledger.hours if hour > ledger.last_hour)
    return tuple(hour for hour in waiting if ledger.posted_at[hour] <= overdue_from_s(hour) < time)


def _consume(draft: Draft, due: Sequence[InboxEntry]) -> InboxEntry | None:
    """As many entries as can be; the overdue one behind them if it asks for fills."""
    ids = dict(draft.ledger.vault.ids)
    for entry in due:
        account = _account(ids, entry)

        def use(draft: Draft, account: int = account, entry: InboxEntry = entry) -> None:
            draft.uses.append(account)
            if account and entry.entry_kind in (InboxEntryKind.WITHDRAWAL, *FORCED):
                draft.name(account)

        if not draft.passes_with(use):
            return entry if entry.entry_kind in FORCED and account else None
    return None


def _account(ids: dict[tuple[bytes, int], int], entry: InboxEntry) -> int:
    key = (entry.owner, entry.sub_account)
    if entry.entry_kind is InboxEntryKind.DONATION:
        return INSURANCE_FUND
    if entry.entry_kind is InboxEntryKind.DEPOSIT:
        return ids.setdefault(key, len(ids) + FIRST_USER)
    if entry.entry_kind is InboxEntryKind.LIQUIDATE:
        return entry.target if entry.target in ids.values() else NOBODY
    return NOBODY if entry.entry_kind in NOBODYS else ids.get(key, NOBODY)


def _fresh(vault: NaiveVault, pinned: Round, market: int) -> bool:
    return price_in(pinned, market).is_fresh(pinned.timestamp, vault.markets[market].max_price_age_s)


def _opposite(vault: NaiveVault, market: int, size: int) -> list[tuple[int, int]]:
    """(account, lots), the fund first, then the largest."""
    held = [(key[0], word[0]) for key, word in vault.positions.items() if key[1] == market]
    found = [(account != INSURANCE_FUND, -abs(lots), account) for account, lots in held if lots * size < 0]
    return [(account, -lots) for _, lots, account in sorted(found)]


def _close(rng: Random, draft: Draft, entry: InboxEntry) -> None:
    vault, market = draft.ledger.vault, entry.market_id
    account = vault.ids[entry.owner, entry.sub_account]
    size = vault.position(account, market)[0]
    left = min(abs(size), abs(entry.size))
    for other, held in _opposite(vault, market, size):
        lots = min(left, held)
        while lots and len(draft.fills) < MOST_FILLS:
            part = rng.randint(1, lots) if rng.random() < 0.3 else lots
            if draft.passes_with(
                lambda draft, other=other, part=part: _forced(draft, account, other, market, part)
            ):
                left -= part
                break
            lots //= 2


def _forced(draft: Draft, account: int, other: int, market: int, lots: int) -> None:
    draft.fill(FILL_FORCED, account, other, market, lots)


def _liquidate(rng: Random, draft: Draft, entry: InboxEntry) -> None:
    """A step of it: the most that the fund takes over of a position, else a counterparty."""
    vault, target = draft.ledger.vault, entry.target
    keeper = rng.choice((NOBODY, vault.ids.get((entry.owner, 0), NOBODY)))
    keeper = keeper if keeper != target else NOBODY
    for market in list(vault.markets):
        size = vault.position(target, market)[0]
        lots = abs(size)
        while lots:
            about = FILL_TAKEOVER, target, INSURANCE_FUND, market, lots, keeper
            if draft.passes_with(lambda draft, about=about: draft.fill(*about)):
                return
            lots //= 2
        for other, held in _opposite(vault, market, size):
            about = FILL_DELEVERAGE, target, other, market, min(abs(size), held), NOBODY
            if other != INSURANCE_FUND and draft.passes_with(lambda draft, about=about: draft.fill(*about)):
                return
