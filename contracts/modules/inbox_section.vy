# pragma version 0.4.3
"""
@title inbox_section
@license Apache-2.0
@notice Section 1 of a batch: deposits, donations and forced withdrawals, in queue order.
"""

from . import codec
from . import ledger
from . import tables
from . import units
from ..interfaces import IMarginVault

uses: ledger
uses: tables

NO_INDEX: constant(uint256) = 65535
DEPOSIT: constant(uint256) = 1
DONATION: constant(uint256) = 2
WITHDRAWAL: constant(uint256) = 3

SKIPPED_UNKNOWN_ACCOUNT: constant(uint256) = 1
SKIPPED_STALE_PRICE: constant(uint256) = 2
SKIPPED_NOTHING_WITHDRAWABLE: constant(uint256) = 3
SKIPPED_UNKNOWN_KIND: constant(uint256) = 4


struct Entry:
    kind: uint8
    owner: address
    sub_account: uint16
    amount: uint96
    created: uint64
    due: uint64


# IInbox without the list that `consume` returns: decoding up to 32 entries would cost every batch 12 KB of memory.
interface Queue:
    def consume(count: uint256): nonpayable
    def entry(entry_id: uint256) -> Entry: view


@internal
def apply(inbox: address, start: uint256, count: uint256, context: uint256):
    """
    @dev Consumes the next `count` entries; each names the table index of its account.
    """
    first: uint256 = ledger.counters >> 48 & units.U64
    ledger.counters = unsafe_add(ledger.counters, count << 48)
    extcall Queue(inbox).consume(count)
    for i: uint256 in range(count, bound=32):
        entry: Entry = staticcall Queue(inbox).entry(first + i)
        index: uint256 = codec.word(unsafe_add(start, unsafe_mul(2, unsafe_add(i, 1)))) & units.U16
        kind: uint256 = convert(entry.kind, uint256)
        if kind == DEPOSIT:
            self._deposit(first + i, entry, index, context)
        elif kind == DONATION:
            self._credit(first + i, ledger.INSURANCE_FUND, convert(entry.amount, uint256))
        elif kind == WITHDRAWAL:
            self._withdraw(first + i, entry, index, context)
        else:
            log IMarginVault.EntrySkipped(entry=first + i, reason=SKIPPED_UNKNOWN_KIND)


@view
@internal
def _account_of(entry: Entry) -> uint256:
    return ledger.account_ids[
        convert(entry.owner, uint256) | convert(entry.sub_account, uint256) << ledger.B_SUB_ACCOUNT
    ]


@view
@internal
def _check_named(account: uint256, index: uint256, context: uint256):
    if tables.account_at(index, context) & units.U32 != account:
        units.fail("vault: entry of another account")


@internal
def _credit(entry_id: uint256, account: uint256, amount: uint256):
    ledger.credit(account, convert(amount, int256))
    ledger.credited += amount
    log IMarginVault.Deposited(entry=entry_id, account=account, amount=amount)


@internal
def _deposit(entry_id: uint256, entry: Entry, index: uint256, context: uint256):
    """
    @dev Registers (owner, sub-account) under the next id when it is new, and credits it.
    """
    account: uint256 = self._account_of(entry)
    if account == 0:
        account = ledger.register(entry.owner, entry.sub_account)
        log IMarginVault.AccountRegistered(
            account=account, owner=entry.owner, sub_account=convert(entry.sub_account, uint256)
        )
    self._check_named(account, index, context)
    self._credit(entry_id, account, convert(entry.amount, uint256))


@internal
def _withdraw(entry_id: uint256, entry: Entry, index: uint256, context: uint256):
    """
    @dev A claim of min(requested, withdrawable), or nothing with the reason in an event.
    """
    account: uint256 = self._account_of(entry)
    if account == 0:
        log IMarginVault.EntrySkipped(entry=entry_id, reason=SKIPPED_UNKNOWN_ACCOUNT)
        return
    self._check_named(account, index, context)
    sum: tables.Margin = tables.margin(index, context & units.U40, False)
    if not sum.fresh:
        log IMarginVault.EntrySkipped(entry=entry_id, reason=SKIPPED_STALE_PRICE)
        return
    amount: uint256 = min(convert(entry.amount, uint256), tables.withdrawable(sum))
    if amount == 0:
        log IMarginVault.EntrySkipped(entry=entry_id, reason=SKIPPED_NOTHING_WITHDRAWABLE)
        return
    ledger.claim_for(account, amount)
