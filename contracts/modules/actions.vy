# pragma version 0.4.3
"""
@title actions
@license Apache-2.0
@notice Sections 2, 3 and 5 of a batch: agent approvals and cancels, funding hours, signed withdrawals.
"""

from . import codec
from . import eip712
from . import ledger
from . import orders
from . import tables
from . import units
from ..interfaces import IMarginVault
from ..interfaces import IPriceOracle

uses: eip712
uses: ledger
uses: orders
uses: tables

CANCEL_TYPE_HASH: constant(bytes32) = keccak256(
    "Cancel(address owner,uint16 subAccount,bool allSlots,uint16 slot,uint48 sequence,uint64 deadline)"
)
WITHDRAW_TYPE_HASH: constant(bytes32) = keccak256(
    "Withdraw(address owner,uint16 subAccount,uint96 amount,uint96 maxFee,uint48 actionSequence,uint64 deadline)"
)
APPROVE_AGENT_TYPE_HASH: constant(bytes32) = keccak256(
    "ApproveAgent(address owner,uint16 subAccount,address agent,uint64 agentExpiry,uint96 transferCap,uint48 actionSequence,uint64 deadline)"
)

APPROVE_AGENT: constant(uint256) = 1
CANCEL: constant(uint256) = 2
FUNDING_HOUR: constant(uint256) = 1
HEAD_BYTES: constant(uint256) = 3  # tag, account index
CANCEL_BYTES: constant(uint256) = 13
APPROVAL_BYTES: constant(uint256) = 46
WITHDRAWAL_BYTES: constant(uint256) = 48  # account index to deadline
SIGNATURE_BYTES: constant(uint256) = 65
ALL_SLOTS: constant(uint256) = 65535  # in the event; no slot of this number is ever cancelled alone
AGENT_DAYS: constant(uint256) = 365  # longest life of a session key


@internal
def apply(start: uint256, count: uint256, context: uint256) -> uint256:
    """
    @dev Section 2. Returns where it ends.
    """
    at: uint256 = start
    for i: uint256 in range(count, bound=256):
        at = unsafe_add(at, HEAD_BYTES)
        head: uint256 = codec.word(at)
        account: uint256 = tables.account_at(head & units.U16, context) & units.U32
        tag: uint256 = head >> 16 & units.U8
        if tag == CANCEL:
            at = unsafe_add(at, CANCEL_BYTES)
            self._cancel(at, account, context & units.U40)
        elif tag == APPROVE_AGENT:
            at = unsafe_add(at, APPROVAL_BYTES)
            self._approve_agent(at, account, context & units.U40)
        else:
            units.fail("vault: action reserved")
        at = unsafe_add(at, SIGNATURE_BYTES)
    return at


@view
@internal
def _named(account: uint256) -> uint256:
    b: uint256 = ledger.accounts_b[account]
    if b == 0:
        units.fail("vault: unknown account")
    return b


@view
@internal
def _signer(struct_hash: bytes32, signature: uint256) -> address:
    """
    @dev Signer by the 65 bytes r, s, v at offset `signature`.
    """
    return eip712.signer(
        eip712.separator(),
        struct_hash,
        codec.word(unsafe_add(signature, 32)),
        codec.word(unsafe_add(signature, 64)),
        codec.word(unsafe_add(signature, SIGNATURE_BYTES)) & units.U8,
    )


@internal
def _raise_action_sequence(account: uint256, b: uint256, sequence: uint256, signer: address):
    """
    @dev Approvals and withdrawals are the owner's alone, each under a higher action sequence than the last.
    """
    if convert(signer, uint256) != b & units.U160:
        units.fail("vault: not signed by owner")
    stored: uint256 = b >> ledger.B_ACTION_SEQUENCE & units.U48
    if sequence <= stored:
        units.fail("vault: action sequence too low")
    ledger.accounts_b[account] = b ^ (stored ^ sequence) << ledger.B_ACTION_SEQUENCE


@internal
def _cancel(at: uint256, account: uint256, now: uint256):
    """
    @dev all_slots u8, slot u16, sequence u48, deadline u32 end at `at`.
    """
    body: uint256 = codec.word(at)
    all_slots: uint256 = body >> 96 & units.U8
    slot: uint256 = body >> 80 & units.U16
    sequence: uint256 = body >> 32 & units.U48
    if all_slots > 1:
        units.fail("vault: malformed cancel")
    if body & units.U32 < now:
        units.fail("vault: action expired")
    if sequence > (now + units.DAY_S) * 1000:
        units.fail("vault: sequence too far ahead")
    b: uint256 = self._named(account)
    struct_hash: bytes32 = keccak256(
        abi_encode(
            CANCEL_TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            all_slots,
            slot,
            sequence,
            body & units.U32,
        )
    )
    signer: address = self._signer(struct_hash, at)
    if convert(signer, uint256) != b & units.U160:
        orders.check_agent(account, signer, now)
    if all_slots == 0 and slot != 0:
        orders.void_slot(account, slot, sequence)
    else:
        offset: uint256 = ledger.A_TAKER_SEQUENCE
        if all_slots != 0:
            offset = ledger.A_MIN_SEQUENCE
            slot = ALL_SLOTS
        a: uint256 = ledger.accounts_a[account]
        stored: uint256 = a >> offset & units.U48
        if sequence > stored:
            ledger.accounts_a[account] = a ^ (stored ^ sequence) << offset
    log IMarginVault.OrdersVoided(account=account, slot=slot, sequence=sequence)


@internal
def _approve_agent(at: uint256, account: uint256, now: uint256):
    """
    @dev agent b20, expiry u32, transfer cap u96, action sequence u48, deadline u32 end at `at`.
    """
    body: uint256 = codec.word(at)
    agent: address = convert(codec.word(unsafe_sub(at, 26)) & units.U160, address)
    expiry: uint256 = body >> 176 & units.U32
    cap: uint256 = body >> 80 & units.U96
    sequence: uint256 = body >> 32 & units.U48
    if body & units.U32 < now:
        units.fail("vault: action expired")
    if expiry > now + AGENT_DAYS * units.DAY_S:
        units.fail("vault: agent expiry too far")
    b: uint256 = self._named(account)
    struct_hash: bytes32 = keccak256(
        abi_encode(
            APPROVE_AGENT_TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            agent,
            expiry,
            cap,
            sequence,
            body & units.U32,
        )
    )
    self._raise_action_sequence(account, b, sequence, self._signer(struct_hash, at))
    ledger.agents[account][agent] = expiry | cap << 64
    log IMarginVault.AgentApproved(account=account, agent=agent, expiry=expiry, transfer_cap=cap)


@internal
def withdraw(start: uint256, count: uint256, context: uint256) -> uint256:
    """
    @dev Section 5. Returns where it ends. The operator's fee comes out of the amount and is bounded by the signed maximum.
    """
    at: uint256 = start
    now: uint256 = context & units.U40
    for i: uint256 in range(count, bound=256):
        at = unsafe_add(at, WITHDRAWAL_BYTES)
        body: uint256 = codec.word(at)
        amounts: uint256 = codec.word(unsafe_sub(at, 22))
        index: uint256 = codec.word(unsafe_sub(at, 46)) & units.U16
        account: uint256 = tables.account_at(index, context) & units.U32
        max_fee: uint256 = amounts & units.U96
        amount: uint256 = amounts >> 96 & units.U96
        fee: uint256 = body >> 80 & units.U96
        b: uint256 = self._named(account)
        if body & units.U32 < now:
            units.fail("vault: action expired")
        if fee > max_fee or fee > amount:
            units.fail("vault: withdrawal fee too high")
        sequence: uint256 = body >> 32 & units.U48
        struct_hash: bytes32 = keccak256(
            abi_encode(
                WITHDRAW_TYPE_HASH,
                b & units.U160,
                b >> ledger.B_SUB_ACCOUNT & units.U16,
                amount,
                max_fee,
                sequence,
                body & units.U32,
            )
        )
        self._raise_action_sequence(account, b, sequence, self._signer(struct_hash, at))
        sum: tables.Margin = tables.margin(index, now, False)
        if not sum.fresh:
            units.fail("vault: stale price")
        if amount > tables.withdrawable(sum):
            units.fail("vault: not withdrawable")
        if fee != 0:
            ledger.credit(account, -convert(fee, int256))
            ledger.credit(ledger.FEE_ACCOUNT, convert(fee, int256))
        ledger.claim_for(account, amount - fee)
        at = unsafe_add(at, SIGNATURE_BYTES)
    return at


@internal
def apply_funding(oracle: address, start: uint256, count: uint256, markets: uint256, context: uint256):
    """
    @dev Section 3: each funding hour moves the cumulative index of every market of the batch's market table.
    """
    for i: uint256 in range(count, bound=64):
        entry: uint256 = codec.word(unsafe_add(start, unsafe_mul(5, unsafe_add(i, 1))))
        if entry >> 32 & units.U8 != FUNDING_HOUR:
            units.fail("vault: funding tag reserved")
        hour: uint256 = entry & units.U32
        rates: DynArray[int256, 64] = staticcall IPriceOracle(oracle).funding_rates(hour)
        for k: uint256 in range(markets >> 32, unsafe_add(markets >> 32, markets & units.U8), bound=64):
            market: uint256 = codec.word(unsafe_add(k, 1)) & units.U8
            self._apply_hour(market, hour, rates[market], context & units.U40)


@internal
def _apply_hour(market: uint256, hour: uint256, rate: int256, now: uint256):
    s: uint256 = ledger.markets_s[market]
    if hour <= s >> ledger.S_LAST_HOUR & units.U32:
        units.fail("vault: funding hour not next")
    price: uint256 = tables.markets[market]
    p: uint256 = ledger.markets_p[market]
    if (price >> 64 & units.U40) + (p >> ledger.P_MAX_PRICE_AGE & units.U16) < now:
        units.fail("vault: stale price")
    # min(4 %, half the first maintenance fraction) per hour
    cap: int256 = convert(min(40_000_000, (ledger.markets_t0[market] >> 48 & units.U24) * 250), int256)
    clamped: int256 = max(-cap, min(cap, rate))
    step: int256 = convert((price & units.U32) * (p & units.U32) * 1000, int256) * clamped
    cumulative: int256 = units.signed(s, 128) + step
    if convert(convert(cumulative, int128), int256) != cumulative:
        units.fail("vault: funding out of range")
    ledger.markets_s[market] = (
        s >> 128 << 128 & ~(units.U32 << ledger.S_LAST_HOUR)
        | units.bits(cumulative) & units.U128
        | hour << ledger.S_LAST_HOUR
    )
    log IMarginVault.FundingApplied(market=market, hour=hour, rate_ppb=clamped, cumulative=cumulative)
