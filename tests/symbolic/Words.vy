# pragma version 0.4.3
# The packed words of the ledger and of orders: what one field's change leaves of the others, and the order of nonces.

from contracts.modules import eip712
from contracts.modules import ledger
from contracts.modules import orders
from contracts.modules import reasons
from contracts.modules import tables
from contracts.modules import units

initializes: reasons
initializes: eip712
initializes: ledger
initializes: tables[ledger := ledger, reasons := reasons]
initializes: orders[eip712 := eip712, ledger := ledger, reasons := reasons, tables := tables]


@deploy
def __init__():
    eip712.__init__()
    ledger.__init__()
    reasons.__init__(self)


@pure
@internal
def _holds(condition: bool):
    if not condition:
        raw_revert(concat(method_id("Panic(uint256)", output_type=Bytes[4]), convert(1, bytes32)))


@pure
@external
def check_collateral_is_stored_and_nothing_else_changes(word: uint256, collateral: int256):
    stored: uint256 = ledger.with_collateral(word, collateral)
    self._holds(ledger.collateral_of(stored) == collateral)
    self._holds(stored >> 96 == word >> 96)
    self._holds(abs(collateral) <= units.MAX_COLLATERAL)


@external
def check_slot_sequence_never_falls(word: uint256, sequence: uint48, amend: bool, size: uint64, odd: bool):
    """
    @dev For every stored word: a lower sequence reverts, an equal one continues, a higher one starts anew or carries over.
    """
    key: uint256 = ledger.SLOTS | 3 << 15 | 1
    ledger.words[key] = word
    row: uint256 = 3 | convert(sequence, uint256) << 80
    if amend:
        row |= orders.ROW_AMEND
    slot: uint256 = 2
    half: uint256 = word & units.U128
    other: uint256 = word >> 128
    if odd:
        slot = 3
        half = word >> 128
        other = word & units.U128
    filled: uint256 = orders._use_slot(row, slot, convert(size, uint256))
    before: uint256 = half & units.U48
    self._holds(convert(sequence, uint256) >= before)
    expected: uint256 = convert(size, uint256)
    if amend or convert(sequence, uint256) == before:
        expected += half >> 48 & units.U62
    self._holds(filled == expected)
    after: uint256 = ledger.words[key]
    if odd:
        self._holds(after & units.U128 == other)
        after = after >> 128
    else:
        self._holds(after >> 128 == other)
        after = after & units.U128
    self._holds(after & units.U48 == convert(sequence, uint256))
    self._holds(after >> 48 & units.U62 == filled & units.U62)


@external
def check_taker_sequence_rises(word: uint256, sequence: uint48):
    """
    @dev Slot 0: the first use of a row needs a higher sequence, which is stored; the rest of the account's word stays.
    """
    ledger.words[3] = word
    row: uint256 = 3 | convert(sequence, uint256) << 80
    filled: uint256 = orders._use_taker(row, 0)
    after: uint256 = ledger.words[3]
    self._holds(convert(sequence, uint256) > word >> ledger.A_TAKER_SEQUENCE & units.U48)
    self._holds(after >> ledger.A_TAKER_SEQUENCE & units.U48 == convert(sequence, uint256))
    self._holds((after ^ word) & ~(units.U48 << ledger.A_TAKER_SEQUENCE) == 0)
    self._holds(filled == 0)
