# pragma version 0.4.3
# The packed words of the ledger and of orders: what one field's change leaves of the others, and the order of nonces.

from contracts.modules import builder_fees
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
initializes: builder_fees[ledger := ledger, reasons := reasons, tables := tables]
initializes: orders[builder_fees := builder_fees, eip712 := eip712, ledger := ledger, reasons := reasons, tables := tables]


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


@pure
@internal
def _head(slot: uint256, sequence: uint48, ordered: uint256, amend: bool) -> uint256:
    """
    @dev A row's head as `orders.use` reads it: a size of eight bytes, any signed fee, neither trigger nor extension.
    """
    # The masks change nothing: they let halmos see that the slot, and so where its word is, depends on neither field.
    head: uint256 = 7 << orders.SIZE_WIDTH | slot << orders.SLOT
    head |= (convert(sequence, uint256) & units.U48) << orders.SEQUENCE
    head |= units.U16 << orders.MAX_FEE | (ordered & units.U64) << 8
    if amend:
        head |= orders.AMEND
    return head


@external
def check_slot_sequence_never_falls(
    word: uint256, sequence: uint48, amend: bool, size: uint64, ordered: uint64, odd: bool
):
    """
    @dev For every stored word: a lower sequence reverts, an equal one continues, a higher one starts anew or carries over.
    """
    assert convert(ordered, uint256) <= units.MAX_SIZE_LOTS
    key: uint256 = ledger.SLOTS | 3 << 15 | 1
    ledger.words[key] = word
    slot: uint256 = 2
    half: uint256 = word & units.U128
    other: uint256 = word >> 128
    if odd:
        slot = 3
        half = word >> 128
        other = word & units.U128
    head: uint256 = self._head(slot, sequence, convert(ordered, uint256), amend)
    fee: int256 = orders.use(0, orders.FEE_ZERO << orders.FEE, head, 3 << 6, convert(size, uint256), 0, 0)
    self._holds(fee == 0)
    before: uint256 = half & units.U48
    self._holds(convert(sequence, uint256) >= before)
    expected: uint256 = convert(size, uint256)
    if amend or convert(sequence, uint256) == before:
        expected += half >> 48 & units.U62
    self._holds(expected <= convert(ordered, uint256))
    after: uint256 = ledger.words[key]
    if odd:
        self._holds(after & units.U128 == other)
        after = after >> 128
    else:
        self._holds(after >> 128 == other)
        after = after & units.U128
    self._holds(after & units.U48 == convert(sequence, uint256))
    self._holds(after >> 48 & units.U62 == expected)
    triggered: uint256 = 0
    if convert(sequence, uint256) == before:
        triggered = half >> ledger.SLOT_TRIGGERED & 1
    self._holds(after >> ledger.SLOT_TRIGGERED & 1 == triggered)
    self._holds(after >> 111 == half >> 111)


@external
def check_taker_sequence_rises(word: uint256, sequence: uint48, size: uint64, ordered: uint64):
    """
    @dev Slot 0: the first use of a row needs a higher sequence, which is stored; the rest of the account's word stays.
    """
    ledger.words[3] = word
    head: uint256 = self._head(0, sequence, convert(ordered, uint256), False)
    orders.use(0, orders.FEE_ZERO << orders.FEE, head, 3 << 6, convert(size, uint256), 0, 0)
    after: uint256 = ledger.words[3]
    self._holds(convert(sequence, uint256) > word >> ledger.A_TAKER_SEQUENCE & units.U48)
    self._holds(after >> ledger.A_TAKER_SEQUENCE & units.U48 == convert(sequence, uint256))
    self._holds((after ^ word) & ~(units.U48 << ledger.A_TAKER_SEQUENCE) == 0)
    self._holds(size <= ordered)
    self._holds(orders.rows[0] & units.U64 == convert(size, uint256))


@external
def check_taker_goes_on(word: uint256, sequence: uint48, used: uint64, size: uint64, ordered: uint64):
    """
    @dev Slot 0: a further fill of a row needs the sequence that its first one stored, adds to what was filled, and changes no storage.
    """
    assert used <= ordered and convert(ordered, uint256) <= units.MAX_SIZE_LOTS
    ledger.words[3] = word
    head: uint256 = self._head(0, sequence, convert(ordered, uint256), False)
    row: uint256 = orders.FEE_ZERO << orders.FEE | orders.USED | convert(used, uint256)
    assert convert(size, uint256) <= units.MAX_SIZE_LOTS
    orders.use(0, row, head, 3 << 6, convert(size, uint256), 0, 0)
    self._holds(convert(sequence, uint256) == word >> ledger.A_TAKER_SEQUENCE & units.U48)
    self._holds(ledger.words[3] == word)
    self._holds(orders.rows[0] & units.U64 == convert(used, uint256) + convert(size, uint256))
    self._holds(convert(used, uint256) + convert(size, uint256) <= convert(ordered, uint256))
