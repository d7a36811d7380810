# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title MarginVault
@license Apache-2.0
@notice See contracts/interfaces/IMarginVault.vyi; the rules of a batch are in docs/settlement.md.
"""

from .interfaces import IERC20
from .interfaces import IMarginVault
from .interfaces import IPriceOracle
from .modules import builder_fees
from .modules import closing
from .modules import codec
from .modules import eip712
from .modules import fills
from .modules import ledger
from .modules import listing
from .modules import orders
from .modules import tables
from .modules import reasons
from .modules import units

interface IClerk:
    def newest_lane(oracle: address, round: uint256) -> uint8: view


interface ILateness:
    def check_late(time: uint256) -> bool: view


# What the vault calls of IInbox.
interface IQueue:
    def consume(count: uint256, submitter: address): nonpayable


implements: IMarginVault
initializes: reasons
initializes: eip712
initializes: ledger
initializes: tables[ledger := ledger, reasons := reasons]
initializes: builder_fees[ledger := ledger, reasons := reasons, tables := tables]
initializes: orders[builder_fees := builder_fees, eip712 := eip712, ledger := ledger, reasons := reasons, tables := tables]
initializes: closing[ledger := ledger, reasons := reasons, tables := tables]
initializes: fills[closing := closing, ledger := ledger, orders := orders, reasons := reasons, tables := tables]
initializes: listing[ledger := ledger]

# Events of IMarginVault that clerk and backstop compose and `relay` emits: declared here so that they stand in this contract's ABI.


event AccountRegistered:
    account: indexed(uint256)
    owner: indexed(address)
    sub_account: uint256


event Deposited:
    entry: indexed(uint256)
    account: indexed(uint256)
    amount: uint256


event EntrySkipped:
    entry: indexed(uint256)
    reason: uint256


event ClaimCreated:
    claim: indexed(uint256)
    account: indexed(uint256)
    owner: indexed(address)
    amount: uint256
    due: uint256


event AgentApproved:
    account: indexed(uint256)
    agent: indexed(address)
    expiry: uint256
    transfer_cap: uint256


event Transferred:
    account: indexed(uint256)
    target: indexed(uint256)
    signer: indexed(address)
    amount: uint256


event OrdersVoided:
    account: indexed(uint256)
    slot: uint256
    sequence: uint256


event Liquidated:
    account: indexed(uint256)
    market: indexed(uint256)
    size: uint256
    loss: int256
    fee: uint256
    kind: uint256


event CashSettled:
    market: indexed(uint256)
    account: uint256
    counterparty: uint256
    size: uint256
    price: uint256


event Deleveraged:
    account: indexed(uint256)
    market: indexed(uint256)
    size: uint256
    paid: int256


event ForcedClose:
    entry: indexed(uint256)
    account: indexed(uint256)
    market: indexed(uint256)
    size: uint256
    loss: int256
    kind: uint256


event WrittenOff:
    account: indexed(uint256)
    amount: uint256


event OrderTriggered:
    account: indexed(uint256)
    slot: uint256
    sequence: uint256
    mark: uint256


event WordSet:
    key: indexed(uint256)
    word: uint256


event FundingApplied:
    market: indexed(uint256)
    hour: uint256
    rate_ppb: int256
    cumulative: int256


# ---------------------------------------------------------------------------------------------------------------- storage

MAX_BATCH_AGE_S: constant(uint256) = 120  # block time minus the pinned round's time
MAX_LATE_S: constant(uint256) = 3_600  # the same of a late batch: order fills alone, checked at the newest round too
MAX_BATCH_BYTES: constant(uint256) = 32_768  # bounds the memory that hashing a batch needs
SMALL_BATCH_BYTES: constant(uint256) = 2_048
IDENTITY: constant(address) = 0x0000000000000000000000000000000000000004
SEQUENCER_LANE: constant(uint8) = 0
HEADER_END: constant(uint256) = 85  # selector and header

WITHDRAWALS: constant(uint256) = 1 << 144  # in the context: the clerk's second task
OVERDUE: constant(uint256) = 1 << 145  # the batch is not the sequencer's: the clerk admits only overdue work

# The clerk's task: offset u32, then the context.
task: transient(uint256)

TOKEN: immutable(address)
ORACLE: immutable(address)
INBOX: immutable(address)
CLERK: immutable(address)
EXIT: immutable(address)
SEQUENCER: immutable(address)
VERIFIER: immutable(address)
LENS: immutable(address)

# ------------------------------------------------------------------------------------------------------------------ admin


@deploy
def __init__(
    token: address,
    oracle: address,
    inbox: address,
    clerk: address,
    backstop: address,
    reasons_: address,
    verifier: address,
    lens: address,
    exit: address,
    sequencer: address,
    markets: DynArray[IMarginVault.MarketConfig, 64],
):
    """
    @param inbox May not exist yet: the vault and the inbox name each other.
    @param markets Listed under ids from 0, each within the hard bounds of `modules/listing.vy`.
    """
    roles: address[10] = [token, oracle, inbox, clerk, backstop, reasons_, verifier, lens, exit, sequencer]
    assert empty(address) not in roles, "vault: zero address"
    assert len(markets) != 0, "vault: no markets"
    eip712.__init__()
    ledger.__init__()
    TOKEN = token
    ORACLE = oracle
    INBOX = inbox
    CLERK = clerk
    EXIT = exit
    closing.__init__(backstop)
    reasons.__init__(reasons_)
    VERIFIER = verifier
    LENS = lens
    SEQUENCER = sequencer
    for market: uint256 in range(len(markets), bound=64):
        listing.add(market, markets[market])


# ---------------------------------------------------------------------------------------------------------------- traders


@external
@nonreentrant
def pay(claim_id: uint256):
    claim: uint256 = ledger.words[ledger.CLAIMS | claim_id]
    amount: uint256 = claim >> 160
    if amount == 0:
        reasons.fail(reasons.NOTHING_TO_PAY)
    due: uint256 = ledger.words[ledger.CLAIM_DUES | claim_id]
    if block.timestamp < due:
        reasons.fail(reasons.PAYABLE_AT | due << 8)
    owner: address = convert(claim & units.U160, address)
    ledger.words[ledger.CLAIMS | claim_id] = claim & units.U160
    ledger.words[ledger.CREDITED] -= amount
    log IMarginVault.ClaimPaid(claim=claim_id, to=owner, amount=amount)
    if not extcall IERC20(TOKEN).transfer(owner, amount, default_return_value=True):
        reasons.fail(reasons.TOKEN_REFUSED)


# ------------------------------------------------------------------------------------------------------------- settlement


@external
@nonreentrant
def settle():
    size: uint256 = len(msg.data)
    if size > MAX_BATCH_BYTES:
        reasons.fail(reasons.BATCH_TOO_LARGE)
    header: uint256 = convert(slice(msg.data, 4, 32), uint256)
    batch_id: uint256 = header >> 208
    counters: uint256 = ledger.words[ledger.COUNTERS]
    if batch_id != (counters & units.U48) + 1:
        if counters & units.U48 == units.U48:
            reasons.fail(reasons.FROZEN)
        reasons.fail(reasons.BATCH_ID_NOT_NEXT)
    self._settle(header >> 168 & units.U40, batch_id)
    # Only a call takes all of calldata into memory. Its buffers are static: a small batch has its own, and they lie last in memory.
    batch_hash: bytes32 = empty(bytes32)
    if size <= SMALL_BATCH_BYTES:
        batch_hash = keccak256(
            slice(raw_call(IDENTITY, msg.data, max_outsize=SMALL_BATCH_BYTES, is_static_call=True), 4, size - 4)
        )
    else:
        batch_hash = keccak256(
            slice(raw_call(IDENTITY, msg.data, max_outsize=MAX_BATCH_BYTES, is_static_call=True), 4, size - 4)
        )
    log IMarginVault.BatchSettled(
        batch_id=batch_id,
        round=header >> 168 & units.U40,
        journal_sequence=codec.word(53) & units.U48,
        journal_hash=convert(codec.word(HEADER_END), bytes32),
        batch_hash=batch_hash,
    )


@internal
def _settle(round: uint256, batch_id: uint256):
    """
    @dev The sections in their order; orders stand before sections 1 to 3, which decide owners and agents, but are verified after them.
    """
    fee_classes: uint256 = codec.word(HEADER_END + 1) & units.U8
    at: uint256 = unsafe_add(HEADER_END + 2, unsafe_mul(4, fee_classes))
    markets: uint256 = codec.word(at) & units.U8 | at << 32
    context: uint256 = self._load_prices(round, batch_id, markets) | fee_classes << 136
    at = unsafe_add(unsafe_add(at, markets & units.U8), 2)
    accounts: uint256 = codec.word(at) & units.U16
    accounts_at: uint256 = at
    at = unsafe_add(unsafe_add(at, unsafe_mul(4, accounts)), 2)
    pairs: uint256 = codec.word(at) & units.U16
    tables.load(accounts_at, accounts, at, pairs, batch_id)
    at = unsafe_add(unsafe_add(at, unsafe_mul(3, pairs)), 4)
    rows: uint256 = codec.word(at) & units.U32  # where they end, as the batch says, and their number
    context |= accounts << 88 | pairs << 104 | (rows & units.U16) << 120 | accounts_at << 152
    rows_at: uint256 = at
    rows_end: uint256 = unsafe_add(at, rows >> 16)
    at = unsafe_add(rows_end, 5)
    # Sections 1 to 3 are the clerk's, unless their three counts are zero; it decides what anybody may settle.
    if codec.word(at) & units.U40 != 0 or context & OVERDUE != 0:
        at = self._clerk(unsafe_sub(at, 5), context)
    loaded: uint256 = orders.load(rows_at, rows & units.U16, context)
    if loaded != rows_end:
        if loaded & units.U32 != rows_end:
            reasons.fail(reasons.TRAILING_BYTES)
        self._verify(rows_at, loaded >> 32, context)
    at = unsafe_add(at, 2)
    fees: int256 = 0
    at, fees = fills.apply(at, codec.word(at) & units.U16, context)
    if builder_fees.total != 0:
        fees = unsafe_sub(fees, convert(builder_fees.total, int256))
        builder_fees.total = 0
    if context & tables.LATE != 0:
        tables.name_accounts(context)
        assert staticcall ILateness(closing.BACKSTOP).check_late(block.timestamp)
    closing.close(context)
    self._count_interest(markets)
    counters: uint256 = unsafe_add(ledger.words[ledger.COUNTERS], 1)
    ledger.set_counters(counters, unsafe_add(counters >> ledger.COUNTERS_FEES, units.bits(fees)))
    at = unsafe_add(at, 2)
    if codec.word(at) & units.U16 != 0:
        tables.settled(pairs)
        at = self._clerk(unsafe_sub(at, 2), context | WITHDRAWALS)
    if at != len(msg.data):
        reasons.fail(reasons.TRAILING_BYTES)


@internal
def _verify(at: uint256, count: uint256, context: uint256):
    """
    @dev Has the verifier look at the signatures of all rows whose scheme is not 0, of which there are `count`.
    """
    self.task = context << 32 | at
    if convert(raw_call(VERIFIER, msg.data, max_outsize=32, is_static_call=True), uint256) != count:
        reasons.fail(reasons.ROWS_NOT_VERIFIED)


@internal
def _clerk(at: uint256, context: uint256) -> uint256:
    """
    @dev Has the clerk work through sections 1 to 3, or section 5, from offset `at`. Returns where they end.
    """
    if context & tables.LATE != 0:
        reasons.fail(reasons.TOO_LATE_FOR_IT)
    inbox_count: uint256 = codec.word(unsafe_add(at, 2)) & units.U16
    if inbox_count != 0 and context & WITHDRAWALS == 0:
        extcall IQueue(INBOX).consume(inbox_count, msg.sender)
    self.task = context << 32 | at
    tables.name_accounts(context & ~WITHDRAWALS)
    return convert(raw_call(CLERK, msg.data, max_outsize=32), uint256)


@internal
def _load_prices(round: uint256, batch_id: uint256, markets: uint256) -> uint256:
    """
    @dev Pins the round in the sequencer's lane, for anybody else the newest of both lanes, and writes the table of markets.
         Returns the context: now and batch id.
    """
    lane: uint8 = SEQUENCER_LANE
    overdue: uint256 = 0
    if not self._is_sequencer():
        overdue = OVERDUE
        lane = staticcall IClerk(CLERK).newest_lane(ORACLE, round)
    words: DynArray[uint256, 33] = staticcall IPriceOracle(ORACLE).round_words(lane, round)
    if keccak256(slice(abi_encode(words), 64, 32 * len(words))) != convert(codec.word(47), bytes32):
        reasons.fail(reasons.PRICES_HASH_DIFFERS)
    now: uint256 = words[0] >> 40
    age: uint256 = unsafe_sub(max(block.timestamp, now), now)
    if age > MAX_LATE_S:
        reasons.fail(reasons.ROUND_TOO_OLD)
    first: uint256 = unsafe_add(markets >> 32, 1)
    next_id: uint256 = 0
    for at: uint256 in range(first, unsafe_add(first, markets & units.U8), bound=64):
        market: uint256 = codec.word(at) & units.U8
        if market < next_id:
            reasons.fail(reasons.MARKETS_NOT_ASCENDING)
        if market > 63 or ledger.words[ledger.MARKET_P | market] == 0:
            reasons.fail(reasons.NO_SUCH_MARKET)
        next_id = unsafe_add(market, 1)
        half: uint256 = words[unsafe_add(market >> 1, 1)] >> ((market & 1) << 7) & units.U128
        if half >> 104 & 1 != 0:
            # A clamped price is as uncertain as a stale one, and every rule about those holds: its time becomes 0.
            half = half & ~(units.U40 << 64)
        tables.markets[market] = half | batch_id << 128
    return now | batch_id << 40 | overdue | (tables.LATE if age > MAX_BATCH_AGE_S else 0)


@view
@internal
def _is_sequencer() -> bool:
    """
    @dev The one of the deployment, until the governor rotates it: a bit in a word that every batch reads anyway says so.
    """
    if ledger.words[ledger.COUNTERS] & ledger.ROTATED == 0:
        return msg.sender == SEQUENCER
    return convert(msg.sender, uint256) == ledger.words[ledger.SEQUENCER]


@internal
def _count_interest(markets: uint256):
    first: uint256 = unsafe_add(markets >> 32, 1)
    for at: uint256 in range(first, unsafe_add(first, markets & units.U8), bound=64):
        closing.count_interest(codec.word(at) & units.U8)


# ----------------------------------------------------------------------------------------------------- clerk and backstop


@view
@external
def clerk_task() -> (uint256, address, address):
    return self.task, INBOX, ORACLE


@external
def write(key: uint256, word: uint256):
    self._only_its_contracts()
    if key >> 32 == 0:
        ledger.set_account_word(key, word)
    elif key == ledger.COUNTERS:
        ledger.set_counters(word, ledger.words[key] >> ledger.COUNTERS_FEES)
    elif key >> 48 == 0:
        ledger.words[key] = word
        if key >> 6 == ledger.MARKET_T0 >> 6:
            # Word S repeats the first tier.
            s: uint256 = ledger.words[ledger.MARKET_S | key & 63]
            ledger.words[ledger.MARKET_S | key & 63] = s & units.U225 | ledger.first_tier(word)
    else:
        ledger.named[key] = word


@external
def relay(topics: DynArray[bytes32, 4], data: Bytes[128]):
    self._only_its_contracts()
    if len(topics) == 2:
        raw_log([topics[0], topics[1]], data)
    elif len(topics) == 3:
        raw_log([topics[0], topics[1], topics[2]], data)
    else:
        raw_log([topics[0], topics[1], topics[2], topics[3]], data)


@view
@internal
def _only_its_contracts():
    if msg.sender != CLERK and msg.sender != closing.BACKSTOP and msg.sender != EXIT:
        reasons.fail(reasons.NOT_ONE_OF_ITS_CONTRACTS)


# ------------------------------------------------------------------------------------------------------------------ views


@view
@external
def word(key: uint256) -> uint256:
    if key >> 32 == 0:
        return ledger.account_word(key)
    if key == ledger.COUNTERS:
        return ledger.words[key] & units.U184
    if key >> 46 == 1:
        stored: uint256 = ledger.words[key]
        return stored >> 64 << 64 | units.bits(tables.running_size(key & units.U38)) & units.U64
    if key >> 48 == 0:
        return ledger.words[key]
    kind: uint256 = key >> 64
    if kind > 6:
        return ledger.named[key]
    index: uint256 = key & units.U38
    if kind == 6:
        return units.bits(tables.account_base[index])
    if kind == 5:
        return ledger.words[ledger.POSITIONS | index]
    if kind == 4:
        return tables.asked
    if kind == 3:
        return tables.accounts[index]
    if kind == 2:
        return tables.pairs[index]
    if kind == 1:
        return tables.markets[index]
    return ledger.named[key]


@view
@external
@raw_return
def __default__() -> Bytes[512]:
    """
    @dev Every other view is the lens's, which reads this contract's words: decoding needs no room here.
    """
    return raw_call(LENS, msg.data, max_outsize=512, is_static_call=True)
