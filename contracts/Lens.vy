# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Lens
@license Apache-2.0
@notice See contracts/interfaces/ILens.vyi. Decodes the words of the vault that asks (modules/ledger.vy has their numbers).
"""

from .interfaces import ILens
from .modules import door
from .modules import eip712
from .modules import forced
from .modules import ledger
from .modules import running
from .modules import units

implements: ILens


@view
@external
def account(account_id: uint256) -> ILens.Account:
    a: uint256 = self._word(self._known(account_id))
    b: uint256 = self._word(ledger.B | self._known(account_id))
    return ILens.Account(
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
    named: uint256 = convert(owner, uint256) | convert(sub_account, uint256) << ledger.B_SUB_ACCOUNT
    if named >> 67 == 0:
        return 0  # such a key is a word of another table, and nobody owns so small an address
    return self._word(named)


@view
@external
def position(account_id: uint256, market_id: uint256) -> ILens.Position:
    word: uint256 = self._word(running.STORED | self._known(account_id) << 6 | market_id & 63)
    return ILens.Position(
        size=units.signed(word, 192),
        entry_cumulative=units.signed(word >> 64, 128),
        entry_mark=word >> 192 & units.U32,
    )


@view
@external
def slot(account_id: uint256, slot_: uint256) -> ILens.Slot:
    state: uint256 = self._word(ledger.SLOTS | self._known(account_id) << 15 | (slot_ & units.U16) >> 1) >> ((slot_ & 1) << 7)
    return ILens.Slot(
        sequence=state & units.U48,
        filled=state >> 48 & units.U62,
        triggered=state >> ledger.SLOT_TRIGGERED & 1 != 0,
    )


@view
@external
def agent(account_id: uint256, agent_: address) -> ILens.Agent:
    word: uint256 = self._word(ledger.AGENTS | self._known(account_id) << 160 | convert(agent_, uint256))
    return ILens.Agent(expiry=word & units.U64, transfer_cap=word >> 64)


@view
@external
def market_count() -> uint256:
    count: uint256 = 0
    for market: uint256 in range(64):
        if self._word(ledger.MARKET_H | market) == 0:
            break
        count += 1
    return count


@view
@external
def market_state(market_id: uint256) -> ILens.MarketState:
    s: uint256 = self._word(ledger.MARKET_S | market_id & 63)
    return ILens.MarketState(
        cumulative_funding=units.signed(s, 128),
        open_interest=s >> ledger.S_OPEN_INTEREST & units.U64,
        last_funding_hour=s >> ledger.S_LAST_HOUR & units.U32,
    )


@view
@external
def market_words(market_id: uint256) -> uint256[5]:
    market: uint256 = market_id & 63
    return [
        self._word(ledger.MARKET_P | market),
        self._word(ledger.MARKET_T0 | market),
        self._word(ledger.MARKET_T1 | market),
        self._word(ledger.MARKET_H | market),
        self._word(ledger.MARKET_S | market),
    ]


@view
@external
def claim(claim_id: uint256) -> ILens.Claim:
    word: uint256 = self._word(ledger.CLAIMS | claim_id & units.U40)
    return ILens.Claim(
        owner=convert(word & units.U160, address),
        amount=word >> 160,
        due=self._word(ledger.CLAIM_DUES | claim_id & units.U40),
    )


@view
@external
def totals() -> ILens.Totals:
    counters: uint256 = self._word(ledger.COUNTERS)
    pool: uint256 = self._word(ledger.POOL)
    return ILens.Totals(
        funding_pool=units.signed(pool, 128),
        dust=pool >> 128,
        batch_id=counters & units.U48,
        inbox_head=counters >> 48 & units.U63,
        accounts=counters >> 112 & units.U32,
        claims=counters >> 144 & units.U40,
        credited=self._word(ledger.CREDITED),
    )


@view
@external
def running_margin(account_index: uint256) -> door.Margin:
    return running.margin(door.IVault(msg.sender), account_index)


@view
@external
def close_outcome(now: uint256, entry_id: uint256, data: uint256, account_id: uint256, account_index: uint256) -> uint256:
    return forced.close_outcome(door.IVault(msg.sender), now, entry_id, data, account_id, account_index)


@view
@external
def liquidation_outcome(inbox: address, account_id: uint256, account_index: uint256) -> uint256:
    return forced.liquidation_outcome(door.IVault(msg.sender), inbox, account_id, account_index)


@view
@external
def domain_separator() -> bytes32:
    return eip712.separator_of(msg.sender)


@view
@external
def eip712Domain() -> (bytes1, String[8], String[1], uint256, address, bytes32, DynArray[uint256, 1]):
    # 0x0f: name, version, chain id and verifying contract are in use (EIP-5267).
    return 0x0f, "Evermark", "1", chain.id, msg.sender, empty(bytes32), []


@view
@internal
def _word(key: uint256) -> uint256:
    return staticcall door.IVault(msg.sender).word(key)


@pure
@internal
def _known(account_id: uint256) -> uint256:
    """
    @dev Account ids have 32 bits; what is larger is no account, as 0 is none.
    """
    return account_id if account_id <= units.U32 else 0
