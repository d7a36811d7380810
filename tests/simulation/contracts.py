"""MarginVault, PriceOracle and Inbox as the reference models say, over a `Ledger`. What a contract refuses raises Refused, what
only says that the chain has moved on Unreachable, as settlement hears it.
"""

from collections.abc import Sequence

from msgspec.structs import replace
from naive_actions import Reverted

from evermark.chain.batches import decode_outline
from evermark.protocol.batch import AccountOwner, Batch, decode_batch
from evermark.protocol.governance import AnyChange, ListMarket
from evermark.protocol.oracle import (
    MAX_BATCH_AGE_S,
    MAX_LATE_S,
    NO_PRICE,
    SETTLED_BIT,
    Round,
    SignedFundingReport,
    SignedPriceReport,
    aggregate,
    median_rates,
)
from sequencer.engine.commands import InboxEntry, InboxEntryKind
from sequencer.settlement.errors import Refused, Unreachable
from tests.simulation.ledger import Ledger

DUE_S = 190  # how long an entry waits in the inbox before anybody may execute it; an hour in reality
QUORUM = 3
UNBOUNDED = (
    InboxEntryKind.DEPOSIT,
    InboxEntryKind.DONATION,
    InboxEntryKind.GOVERNOR,
    InboxEntryKind.GUARDIAN,
)
FIRST_USER, FUND, FEES = 3, 1, 2


def enter(
    ledger: Ledger,
    time: int,
    kind: InboxEntryKind,
    owner: bytes,
    amount: int = 0,
    *,
    slot: int = 0,
    order_sequence: int = 0,
    target: int = 0,
    change: AnyChange | None = None,
) -> None:
    """A transaction to the Inbox, of an owner's sub-account 0. Of most kinds an owner has one entry at a time."""
    if target and target not in ledger.vault.ids.values():
        raise Refused("inbox: unknown account")
    waiting = ledger.entries[ledger.vault.entries :]
    if kind not in UNBOUNDED and any((one.owner, one.entry_kind) == (owner, kind) for one in waiting):
        raise Refused("inbox: one of this kind is open")
    ledger.entries.append(
        InboxEntry(
            entry_id=len(ledger.entries) + 1,
            entry_kind=kind,
            owner=owner,
            sub_account=0,
            amount=amount,
            created=time,
            slot=slot,
            order_sequence=order_sequence,
            target=target,
            due=time + DUE_S,
            change=change,
        )
    )


def request_close(ledger: Ledger, time: int, owner: bytes, market_id: int, lots: int) -> None:
    """Inbox.request_close: at most the position of now, on its side, at the market's newest mark."""
    account = ledger.vault.ids.get((owner, 0), 0)
    size = ledger.vault.position(account, market_id)[0]
    if not account or not size or not ledger.mark(market_id):
        raise Refused("inbox: no position")
    enter(ledger, time, InboxEntryKind.CLOSE, owner)
    signed = min(lots, abs(size)) * (1 if size > 0 else -1)
    ledger.entries[-1] = replace(
        ledger.entries[-1], market_id=market_id, size=signed, mark=ledger.mark(market_id)
    )


def post_round(ledger: Ledger, reports: Sequence[SignedPriceReport]) -> None:
    """PriceOracle.post_round, the sequencer's lane."""
    made = _made(ledger, reports, ledger.lane)
    if made.round <= ledger.lane.round:
        raise Unreachable("oracle: round not newer")
    ledger.lane = ledger.ring[made.round] = made


def post_public(ledger: Ledger, reports: Sequence[SignedPriceReport]) -> None:
    """PriceOracle.post_round_public. A round that is not newer is left."""
    made = _made(ledger, reports, ledger.public)
    if made.round > ledger.public.round:
        ledger.public = ledger.public_ring[made.round] = made


def _made(ledger: Ledger, reports: Sequence[SignedPriceReport], last: Round) -> Round:
    if any(len(item.report.prices) > len(ledger.jumps_ppm) for item in reports):
        raise Refused("oracle: too many markets")
    prices = (*last.prices, *(NO_PRICE for _ in range(len(ledger.jumps_ppm) - len(last.prices))))
    return aggregate([item.report for item in reports], QUORUM, prices, ledger.jumps_ppm)


def post_funding(ledger: Ledger, reports: Sequence[SignedFundingReport], *, hidden: bool = False) -> None:
    """PriceOracle.post_funding; `hidden` where the transaction does not show the reports."""
    hour = reports[0].report.hour
    if hour in ledger.hours:
        raise Unreachable("oracle: hour already posted")
    if any(len(item.report.rates_ppb) > len(ledger.jumps_ppm) for item in reports):
        raise Refused("oracle: too many markets")
    ledger.hours[hour] = median_rates([item.report for item in reports], len(ledger.jumps_ppm))
    ledger.postings[hour] = tuple(reports)
    ledger.posted_at[hour] = ledger.time_s
    if hidden:
        ledger.hidden.add(hour)


def settle(
    data: bytes, ledger: Ledger, number: int, time: int, poisoned: frozenset[int] = frozenset()
) -> None:
    """MarginVault.settle, in block `number`; no order of a poisoned account passes."""
    if int.from_bytes(data[:6], "big") != len(ledger.batches) + 1:
        raise Unreachable("vault: batch id not next")
    batch = decoded(data, ledger)
    pinned, newest = ledger.pinned(batch.round, batch.prices_hash), ledger.newest
    if {batch.accounts[batch.pairs[row.pair][0]] for row in batch.orders} & poisoned:
        raise Refused("vault: signature")
    late = time > pinned.timestamp + MAX_BATCH_AGE_S
    if time > pinned.timestamp + MAX_LATE_S:
        raise Refused("vault: round too old")
    if late and time > newest.timestamp + MAX_BATCH_AGE_S:
        raise Refused("vault: no recent round")
    if any(hour not in ledger.hours for hour in batch.funding_hours):
        raise Refused("oracle: hour not posted")
    try:
        ledger.vault.settle(batch, pinned, ledger.entries, ledger.hours, newest if late else None)
    except Reverted as refusal:
        if not late:
            raise
        raise Refused(f"vault: {refusal}") from refusal
    _follow_governor(ledger)
    ledger.batches.append(data)
    ledger.settled_blocks.append(number)


def _follow_governor(ledger: Ledger) -> None:
    """What the governor's contract changed in the oracle while the inbox was consumed."""
    markets, changes = ledger.vault.markets, [entry.change for entry in ledger.entries]
    for market_id in range(len(ledger.jumps_ppm), len(markets)):
        symbol = markets[market_id].symbol
        listed = [
            one.market for one in changes if isinstance(one, ListMarket) and one.market.symbol == symbol
        ]
        ledger.jumps_ppm.append(listed[0].jump_ppm_per_s)
    for market_id, price in ledger.vault.settlement_prices.items():
        if not ledger.jumps_ppm[market_id] >> SETTLED_BIT:
            ledger.jumps_ppm[market_id] |= price << SETTLED_BIT


def decoded(data: bytes, ledger: Ledger) -> Batch:
    """The batch with its owners, those included whom it registers itself; its transfers signed by them, as the model wants it."""
    outline, ids = decode_outline(data), dict(ledger.vault.ids)
    first = ledger.vault.entries
    for entry in ledger.entries[first : first + len(outline.inbox)]:
        if entry.entry_kind is InboxEntryKind.DEPOSIT:
            ids.setdefault((entry.owner, entry.sub_account), len(ids) + FIRST_USER)
    owners = {number: AccountOwner(*key) for key, number in ids.items()}
    for action in outline.actions:
        transfer = getattr(action, "transfer", None)
        if transfer is not None:
            owner = owners[outline.accounts[action.account_index]].owner  # type: ignore[union-attr]
            number = ids.setdefault((owner, transfer.to_sub_account), len(ids) + FIRST_USER)
            owners.setdefault(number, AccountOwner(owner, transfer.to_sub_account))
    owners |= {FUND: AccountOwner(bytes(20), 0), FEES: AccountOwner(bytes(20), 0)}
    batch = decode_batch(data, owners, [market.symbol for market in ledger.vault.markets.values()])
    actions = tuple(
        replace(one, signature=replace(one.signature, r=int.from_bytes(one.transfer.owner, "big")))
        if hasattr(one, "transfer")
        else one
        for one in batch.actions
    )
    return replace(batch, actions=actions)
