# pragma version 0.4.3
"""
@title MarginVault
@license Apache-2.0
@notice See contracts/interfaces/IMarginVault.vyi; the rules of a batch are in docs/settlement.md.
"""

from .interfaces import IERC20
from .interfaces import IMarginVault
from .interfaces import IPriceOracle
from .modules import actions
from .modules import codec
from .modules import eip712
from .modules import fills
from .modules import inbox_section
from .modules import ledger
from .modules import listing
from .modules import orders
from .modules import tables
from .modules import units

implements: IMarginVault
initializes: eip712
initializes: ledger
initializes: tables[ledger := ledger]
initializes: orders[eip712 := eip712, ledger := ledger, tables := tables]
initializes: actions[eip712 := eip712, ledger := ledger, orders := orders, tables := tables]
initializes: fills[ledger := ledger, orders := orders, tables := tables]
initializes: inbox_section[ledger := ledger, tables := tables]
initializes: listing[ledger := ledger]

# ---------------------------------------------------------------------------------------------------------------- storage

MAX_BATCH_AGE_S: constant(uint256) = 120  # block time minus the pinned round's time
MAX_BATCH_BYTES: constant(uint256) = 32_768  # bounds the memory that hashing a batch needs
SMALL_BATCH_BYTES: constant(uint256) = 2_048
IDENTITY: constant(address) = 0x0000000000000000000000000000000000000004
SEQUENCER_LANE: constant(uint8) = 0
HEADER_END: constant(uint256) = 85  # selector and header

TOKEN: immutable(address)
ORACLE: immutable(address)
INBOX: immutable(address)
SEQUENCER: immutable(address)

# ------------------------------------------------------------------------------------------------------------------ admin


@deploy
def __init__(
    token: address,
    oracle: address,
    inbox: address,
    sequencer: address,
    markets: DynArray[IMarginVault.MarketConfig, 64],
):
    """
    @param inbox May not exist yet: the vault and the inbox name each other.
    @param markets Listed under ids from 0, each within the hard bounds of `modules/listing.vy`.
    """
    assert empty(address) not in [token, oracle, inbox, sequencer], "vault: zero address"
    assert len(markets) != 0, "vault: no markets"
    eip712.__init__()
    ledger.__init__()
    TOKEN = token
    ORACLE = oracle
    INBOX = inbox
    SEQUENCER = sequencer
    for config: IMarginVault.MarketConfig in markets:
        listing.add(config)


# ---------------------------------------------------------------------------------------------------------------- traders


@external
@nonreentrant
def pay(claim_id: uint256):
    claim: uint256 = ledger.claims[claim_id]
    amount: uint256 = claim >> 160
    if amount == 0:
        units.fail("vault: nothing to pay")
    owner: address = convert(claim & units.U160, address)
    ledger.claims[claim_id] = claim & units.U160
    ledger.credited -= amount
    log IMarginVault.ClaimPaid(claim=claim_id, to=owner, amount=amount)
    if not extcall IERC20(TOKEN).transfer(owner, amount, default_return_value=True):
        units.fail("vault: token refused")


# ------------------------------------------------------------------------------------------------------------- settlement


@external
@nonreentrant
def settle():
    if msg.sender != SEQUENCER:
        units.fail("vault: not the sequencer")
    header: uint256 = convert(slice(msg.data, 4, 32), uint256)
    batch_id: uint256 = header >> 208
    counters: uint256 = ledger.counters
    if batch_id != (counters & units.U48) + 1:
        units.fail("vault: batch id not next")
    ledger.counters = counters + 1
    self._settle(header >> 168 & units.U40, batch_id)
    log IMarginVault.BatchSettled(
        batch_id=batch_id,
        round=header >> 168 & units.U40,
        journal_sequence=codec.word(53) & units.U48,
        journal_hash=convert(codec.word(HEADER_END), bytes32),
        batch_hash=self._batch_hash(),
    )


@internal
def _settle(round: uint256, batch_id: uint256):
    """
    @dev The sections in their order; orders stand before sections 1 to 3 but are verified after them.
    """
    fee_classes: uint256 = codec.word(HEADER_END + 1) & units.U8
    at: uint256 = HEADER_END + 2 + 4 * fee_classes
    markets: uint256 = codec.word(at) & units.U8 | at << 32
    context: uint256 = self._load_prices(round, batch_id, markets) | fee_classes << 136
    at = unsafe_add(at, markets & units.U8) + 2
    count: uint256 = codec.word(at) & units.U16
    tables.load_accounts(at, count)
    accounts: uint256 = count
    at = unsafe_add(at, 4 * count + 2)
    count = codec.word(at) & units.U16
    tables.load_pairs(at, count, accounts, batch_id)
    context |= accounts << 88 | count << 104
    orders_at: uint256 = at + 3 * count + 2
    rows: uint256 = codec.word(orders_at) & units.U16
    at = orders.skip(orders_at, rows) + 2
    count = codec.word(at) & units.U16
    if count != 0:
        inbox_section.apply(INBOX, at, count, context)
    at = at + 2 * count + 2
    at = actions.apply(at, codec.word(at) & units.U16, context) + 1
    count = codec.word(at) & units.U8
    actions.apply_funding(ORACLE, at, count, markets, context)
    at = at + 5 * count + 2
    context |= rows << 120
    orders.load(orders_at, rows, context)
    if accounts != 0 and tables.accounts[0] & units.U32 == ledger.INSURANCE_FUND:
        tables.touch(0, 0)
    at = fills.apply(at, codec.word(at) & units.U16, context) + 2
    at = actions.withdraw(at, codec.word(at) & units.U16, context)
    if at != len(msg.data):
        units.fail("vault: trailing bytes")
    self._close(accounts, markets, context & units.U40)


@internal
def _load_prices(round: uint256, batch_id: uint256, markets: uint256) -> uint256:
    """
    @dev Pins the round in the sequencer's lane and writes the table of markets. Returns the context: now and batch id.
    """
    words: DynArray[uint256, 33] = staticcall IPriceOracle(ORACLE).round_words(SEQUENCER_LANE, round)
    if keccak256(slice(abi_encode(words), 64, 32 * len(words))) != convert(codec.word(47), bytes32):
        units.fail("vault: prices hash differs")
    now: uint256 = words[0] >> 40
    if block.timestamp > now + MAX_BATCH_AGE_S:
        units.fail("vault: round too old")
    listed: uint256 = ledger.market_count
    first: uint256 = unsafe_add(markets >> 32, 1)
    next_id: uint256 = 0
    for at: uint256 in range(first, unsafe_add(first, markets & units.U8), bound=64):
        market: uint256 = codec.word(at) & units.U8
        if market < next_id:
            units.fail("vault: markets not ascending")
        if market >= listed:
            units.fail("vault: no such market")
        next_id = unsafe_add(market, 1)
        half: uint256 = words[unsafe_add(market >> 1, 1)] >> ((market & 1) << 7) & units.U128
        before: uint256 = ledger.markets_s[market] >> ledger.S_OPEN_INTEREST & units.U64
        tables.markets[market] = half | batch_id << 128 | before << 176
    return now | batch_id << 40


@view
@internal
def _close(accounts: uint256, markets: uint256, now: uint256):
    """
    @dev The closing check of every account whose positions changed, and the open-interest caps.
    """
    for i: uint256 in range(accounts, bound=tables.MAX_ACCOUNTS):
        if tables.accounts[i] & (tables.ROLE_ORDER | tables.ROLE_FUND) != 0:
            tables.check_closing(i, now)
    first: uint256 = unsafe_add(markets >> 32, 1)
    for at: uint256 in range(first, unsafe_add(first, markets & units.U8), bound=64):
        market: uint256 = codec.word(at) & units.U8
        open_interest: uint256 = ledger.markets_s[market] >> ledger.S_OPEN_INTEREST & units.U64
        cap: uint256 = ledger.markets_p[market] >> ledger.P_OPEN_INTEREST_CAP & units.U64
        if open_interest > cap and open_interest > tables.markets[market] >> 176 & units.U64:
            units.fail("vault: open interest above cap")


@view
@internal
def _batch_hash() -> bytes32:
    """
    @dev Vyper takes all of calldata only through a call; buffers are static, so a small batch has its own.
    """
    size: uint256 = len(msg.data)
    if size <= SMALL_BATCH_BYTES:
        return keccak256(
            slice(raw_call(IDENTITY, msg.data, max_outsize=SMALL_BATCH_BYTES, is_static_call=True), 4, size - 4)
        )
    if size > MAX_BATCH_BYTES:
        units.fail("vault: batch too large")
    return keccak256(
        slice(raw_call(IDENTITY, msg.data, max_outsize=MAX_BATCH_BYTES, is_static_call=True), 4, size - 4)
    )


# ------------------------------------------------------------------------------------------------------------------ views


@view
@external
def account(account_id: uint256) -> IMarginVault.Account:
    a: uint256 = ledger.accounts_a[account_id]
    b: uint256 = ledger.accounts_b[account_id]
    return IMarginVault.Account(
        owner=convert(b & units.U160, address),
        sub_account=b >> ledger.B_SUB_ACCOUNT & units.U16,
        collateral=ledger.collateral_of(a),
        taker_sequence=a >> ledger.A_TAKER_SEQUENCE & units.U48,
        min_sequence=a >> ledger.A_MIN_SEQUENCE & units.U48,
        action_sequence=b >> ledger.B_ACTION_SEQUENCE & units.U48,
        open_positions=a >> ledger.A_OPEN_POSITIONS & units.U8,
    )


@view
@external
def account_of(owner: address, sub_account: uint16) -> uint256:
    return ledger.account_ids[convert(owner, uint256) | convert(sub_account, uint256) << ledger.B_SUB_ACCOUNT]


@view
@external
def position(account_id: uint256, market_id: uint256) -> IMarginVault.Position:
    word: uint256 = ledger.positions[account_id << 6 | market_id & 63]
    return IMarginVault.Position(
        size=units.signed(word, 192),
        entry_cumulative=units.signed(word >> 64, 128),
        entry_mark=word >> 192 & units.U32,
    )


@view
@external
def slot(account_id: uint256, slot_: uint256) -> IMarginVault.Slot:
    state: uint256 = ledger.slots[account_id << 15 | slot_ >> 1] >> ((slot_ & 1) << 7)
    return IMarginVault.Slot(
        sequence=state & units.U48,
        filled=state >> 48 & units.U62,
        triggered=state >> ledger.SLOT_TRIGGERED & 1 != 0,
    )


@view
@external
def agent(account_id: uint256, agent_: address) -> IMarginVault.Agent:
    word: uint256 = ledger.agents[account_id][agent_]
    return IMarginVault.Agent(expiry=word & units.U64, transfer_cap=word >> 64)


@view
@external
def market_count() -> uint256:
    return ledger.market_count


@view
@external
def market_state(market_id: uint256) -> IMarginVault.MarketState:
    s: uint256 = ledger.markets_s[market_id]
    return IMarginVault.MarketState(
        cumulative_funding=units.signed(s, 128),
        open_interest=s >> ledger.S_OPEN_INTEREST & units.U64,
        last_funding_hour=s >> ledger.S_LAST_HOUR & units.U32,
    )


@view
@external
def market_words(market_id: uint256) -> uint256[5]:
    return [
        ledger.markets_p[market_id],
        ledger.markets_t0[market_id],
        ledger.markets_t1[market_id],
        convert(ledger.markets_h[market_id], uint256),
        ledger.markets_s[market_id],
    ]


@view
@external
def claim(claim_id: uint256) -> IMarginVault.Claim:
    word: uint256 = ledger.claims[claim_id]
    return IMarginVault.Claim(owner=convert(word & units.U160, address), amount=word >> 160)


@view
@external
def totals() -> IMarginVault.Totals:
    counters: uint256 = ledger.counters
    return IMarginVault.Totals(
        funding_pool=units.signed(ledger.pool, 128),
        dust=ledger.pool >> 128,
        batch_id=counters & units.U48,
        inbox_head=counters >> 48 & units.U64,
        accounts=counters >> 112 & units.U32,
        claims=counters >> 144,
        credited=ledger.credited,
    )


@view
@external
def domain_separator() -> bytes32:
    return eip712.separator()
