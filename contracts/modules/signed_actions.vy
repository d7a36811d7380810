# pragma version 0.4.3
"""
@title signed_actions
@license Apache-2.0
@notice Cancel, ApproveAgent, Transfer and Withdraw as a batch carries them, and who signed them; the mirror of `evermark/protocol/signing.py`.
@dev `at` is always the offset in calldata where the action's fields end and its 65 bytes of signature begin.
"""

from . import codec
from . import eip712
from . import ledger
from . import units

CANCEL_TYPE_HASH: constant(bytes32) = keccak256(
    "Cancel(address owner,uint16 subAccount,bool allSlots,uint16 slot,uint48 sequence,uint64 deadline)"
)
WITHDRAW_TYPE_HASH: constant(bytes32) = keccak256(
    "Withdraw(address owner,uint16 subAccount,uint96 amount,uint96 maxFee,uint48 actionSequence,uint64 deadline)"
)
APPROVE_AGENT_TYPE_HASH: constant(bytes32) = keccak256(
    "ApproveAgent(address owner,uint16 subAccount,address agent,uint64 agentExpiry,uint96 transferCap,uint48 actionSequence,uint64 deadline)"
)

TRANSFER_TYPE_HASH: constant(bytes32) = keccak256(
    "Transfer(address owner,uint16 subAccount,uint16 toSubAccount,uint96 amount,uint48 actionSequence,uint64 deadline)"
)

HEAD_BYTES: constant(uint256) = 3  # tag, account index
CANCEL_BYTES: constant(uint256) = 13
APPROVAL_BYTES: constant(uint256) = 46
TRANSFER_BYTES: constant(uint256) = 26
WITHDRAWAL_BYTES: constant(uint256) = 48  # account index to deadline
SIGNATURE_BYTES: constant(uint256) = 65


struct Cancel:
    all_slots: uint256
    slot: uint256
    sequence: uint256
    deadline: uint256


struct Approval:
    agent: uint256
    expiry: uint256
    transfer_cap: uint256
    sequence: uint256
    deadline: uint256


struct Transfer:
    to_sub_account: uint256
    amount: uint256
    sequence: uint256
    deadline: uint256


struct Withdrawal:
    amount: uint256
    max_fee: uint256
    fee: uint256
    sequence: uint256
    deadline: uint256


@view
@internal
def separator(vault: address) -> bytes32:
    """
    @dev Of the chain that it runs on now, so that a signature for another one is worthless.
    """
    return eip712.separator_of(vault)


@pure
@internal
def _check_deadline(deadline: uint256, now: uint256):
    if deadline < now:
        units.fail("vault: action expired")


@view
@internal
def _signer(separator: bytes32, struct_hash: bytes32, at: uint256) -> address:
    r: uint256 = codec.word(at + 32)
    s: uint256 = codec.word(at + 64)
    return eip712.signer(separator, struct_hash, r, s, codec.word(at + SIGNATURE_BYTES) & units.U8)


@view
@internal
def read_cancel(at: uint256, now: uint256) -> Cancel:
    """
    @dev all_slots u8, slot u16, sequence u48, deadline u32.
    """
    body: uint256 = codec.word(at)
    self._check_deadline(body & units.U32, now)
    all_slots: uint256 = body >> 96 & units.U8
    if all_slots > 1:
        units.fail("vault: malformed cancel")
    return Cancel(
        all_slots=all_slots,
        slot=body >> 80 & units.U16,
        sequence=body >> 32 & units.U48,
        deadline=body & units.U32,
    )


@view
@internal
def cancel_signer(cancel: Cancel, b: uint256, separator: bytes32, at: uint256) -> address:
    struct_hash: bytes32 = keccak256(
        abi_encode(CANCEL_TYPE_HASH, b & units.U160, b >> ledger.B_SUB_ACCOUNT & units.U16, cancel)
    )
    return self._signer(separator, struct_hash, at)


@view
@internal
def read_approval(at: uint256, now: uint256) -> Approval:
    """
    @dev agent b20, expiry u32, transfer cap u96, action sequence u48, deadline u32.
    """
    body: uint256 = codec.word(at)
    self._check_deadline(body & units.U32, now)
    return Approval(
        agent=codec.word(at - 26) & units.U160,
        expiry=body >> 176 & units.U32,
        transfer_cap=body >> 80 & units.U96,
        sequence=body >> 32 & units.U48,
        deadline=body & units.U32,
    )


@view
@internal
def approval_signer(approval: Approval, b: uint256, separator: bytes32, at: uint256) -> address:
    struct_hash: bytes32 = keccak256(
        abi_encode(APPROVE_AGENT_TYPE_HASH, b & units.U160, b >> ledger.B_SUB_ACCOUNT & units.U16, approval)
    )
    return self._signer(separator, struct_hash, at)


@view
@internal
def read_transfer(at: uint256, now: uint256) -> Transfer:
    """
    @dev index of the account that receives u16, its sub-account u16, amount u96, action sequence u48, deadline u32.
    """
    body: uint256 = codec.word(at)
    self._check_deadline(body & units.U32, now)
    return Transfer(
        to_sub_account=body >> 176 & units.U16,
        amount=body >> 80 & units.U96,
        sequence=body >> 32 & units.U48,
        deadline=body & units.U32,
    )


@view
@internal
def transfer_signer(transfer: Transfer, b: uint256, separator: bytes32, at: uint256) -> address:
    struct_hash: bytes32 = keccak256(
        abi_encode(TRANSFER_TYPE_HASH, b & units.U160, b >> ledger.B_SUB_ACCOUNT & units.U16, transfer)
    )
    return self._signer(separator, struct_hash, at)


@view
@internal
def read_withdrawal(at: uint256, now: uint256) -> Withdrawal:
    """
    @dev account index u16, amount u96, maximum fee u96, fee u96, action sequence u48, deadline u32.
    """
    body: uint256 = codec.word(at)
    amounts: uint256 = codec.word(at - 22)
    self._check_deadline(body & units.U32, now)
    return Withdrawal(
        amount=amounts >> 96 & units.U96,
        max_fee=amounts & units.U96,
        fee=body >> 80 & units.U96,
        sequence=body >> 32 & units.U48,
        deadline=body & units.U32,
    )


@view
@internal
def withdrawal_signer(withdrawal: Withdrawal, b: uint256, separator: bytes32, at: uint256) -> address:
    struct_hash: bytes32 = keccak256(
        abi_encode(
            WITHDRAW_TYPE_HASH,
            b & units.U160,
            b >> ledger.B_SUB_ACCOUNT & units.U16,
            withdrawal.amount,
            withdrawal.max_fee,
            withdrawal.sequence,
            withdrawal.deadline,
        )
    )
    return self._signer(separator, struct_hash, at)
