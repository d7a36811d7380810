# pragma version 0.4.3
"""
@title builder_fees
@license Apache-2.0
@notice What an order's signed builder gets of its fills, beside the exchange's fee.
"""

from . import codec
from . import ledger
from . import reasons
from . import tables
from . import units

uses: ledger
uses: reasons
uses: tables

# For rows with a builder's fee alone: its numerator by row, and what all builders got in the batch, zero between batches.
numerators: transient(uint256[tables.MAX_ROWS])
total: transient(uint256)


@internal
def ready(index: uint256, end: uint256, context: uint256) -> uint256:
    """
    @dev Before the fills, for a row whose extension ends at `end`, which it returns.
    """
    if codec.word(end) >> 16 & units.U16 != 0:
        self.numerators[index] = 0
        tables.name_accounts(context)
    return end


@internal
def pay(index: uint256, link: uint256, notional: uint256) -> uint256:
    """
    @dev Credits the builder, whose account has sub-account 0, at the signed rate.
    @param link The end of the row's extension: the builder's address, its rate u16 at 16, the index of its account u16.
    @return What the fill adds to the row's fee, rounded up in sum.
    """
    rate: uint256 = link >> 16 & units.U16
    account: uint256 = tables.account_at(link & units.U16, tables.asked) & units.U32
    # Registered, of this owner, sub-account 0; the action sequence between them may be any.
    if ledger.words[ledger.B | account] & ~(units.U48 << ledger.B_ACTION_SEQUENCE) != link >> 32 & units.U160 | 1 << ledger.B_REGISTERED:
        reasons.fail(reasons.NOT_THE_BUILDER)
    tables.note_base(link & units.U16)
    numerator: uint256 = self.numerators[index]
    after: uint256 = unsafe_add(numerator, unsafe_mul(notional, rate))
    fee: uint256 = unsafe_sub(unsafe_div(unsafe_add(after, units.PPM - 1), units.PPM), unsafe_div(unsafe_add(numerator, units.PPM - 1), units.PPM))
    self.numerators[index] = after
    ledger.credit(account, convert(fee, int256))
    self.total = unsafe_add(self.total, fee)
    return fee
