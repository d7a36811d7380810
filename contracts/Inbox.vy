# pragma version 0.4.3
# pragma evm-version prague
"""
@title Inbox
@license Apache-2.0
@notice The on-chain queue through which owners reach the exchange; see `interfaces/IInbox.vyi` for the trust assumptions.
"""

from contracts.interfaces import IERC20
from contracts.interfaces import IInbox

implements: IInbox


interface Vault:
    def account_of(owner: address, sub_account: uint16) -> uint256: view


DEPOSIT: constant(uint8) = 1
DONATION: constant(uint8) = 2
WITHDRAWAL: constant(uint8) = 3
DEPOSIT_DELAY: constant(uint256) = 600  # seconds until an entry is overdue
WITHDRAWAL_DELAY: constant(uint256) = 3600
MIN_FIRST_DEPOSIT: constant(uint256) = 10_000_000  # 10 USDC: no dust accounts

U8: constant(uint256) = 2**8 - 1
U16: constant(uint256) = 2**16 - 1
U64: constant(uint256) = 2**64 - 1
U160: constant(uint256) = 2**160 - 1

TOKEN: public(immutable(address))
VAULT: public(immutable(address))

head: public(uint256)
tail: public(uint256)
unconsumed: public(uint256)
deposited: public(uint256)
open_withdrawal: public(HashMap[address, HashMap[uint16, uint256]])
# Two words an entry: owner 160 | amount u96; kind u8 | sub_account u16 | created u64 | due u64, from the low bits.
_who: HashMap[uint256, uint256]
_when: HashMap[uint256, uint256]
_registering: HashMap[address, HashMap[uint16, bool]]  # a first deposit waits in the queue


@deploy
def __init__(token: address, vault: address):
    TOKEN = token
    VAULT = vault
    self.head = 1
    self.tail = 1


@nonreentrant
@external
def deposit(amount: uint256, sub_account: uint16) -> uint256:
    return self._deposit(amount, sub_account)


@nonreentrant
@external
def deposit_with_permit(
    amount: uint256, sub_account: uint16, deadline: uint256, v: uint8, r: bytes32, s: bytes32
) -> uint256:
    # Whoever saw the permit may have submitted it before; then the allowance is there and that is enough.
    if staticcall IERC20(TOKEN).allowance(msg.sender, self) < amount:
        extcall IERC20(TOKEN).permit(msg.sender, self, amount, deadline, v, r, s)
    return self._deposit(amount, sub_account)


@nonreentrant
@external
def donate(amount: uint256) -> uint256:
    received: uint256 = self._take(amount)
    assert received > 0, "inbox: nothing arrived"
    return self._add(DONATION, 0, received, DEPOSIT_DELAY)


@nonreentrant
@external
def request_withdrawal(sub_account: uint16, amount: uint256) -> uint256:
    assert amount > 0, "inbox: amount is zero"
    assert amount < 2**95, "inbox: amount too large"
    assert staticcall Vault(VAULT).account_of(msg.sender, sub_account) != 0, "inbox: unknown account"
    assert self.open_withdrawal[msg.sender][sub_account] == 0, "inbox: a withdrawal is open"
    entry_id: uint256 = self._add(WITHDRAWAL, sub_account, amount, WITHDRAWAL_DELAY)
    self.open_withdrawal[msg.sender][sub_account] = entry_id
    return entry_id


@nonreentrant
@external
def consume(count: uint256) -> DynArray[IInbox.Entry, 32]:
    assert msg.sender == VAULT, "inbox: only the vault"
    first: uint256 = self.head
    assert count <= 32, "inbox: more than 32 entries"
    assert first + count <= self.tail, "inbox: no such entry"
    entries: DynArray[IInbox.Entry, 32] = []
    waiting: uint256 = self.unconsumed
    for i: uint256 in range(count, bound=32):
        entry: IInbox.Entry = self._entry(first + i)
        entries.append(entry)
        if entry.kind == WITHDRAWAL:
            self.open_withdrawal[entry.owner][entry.sub_account] = 0
        else:
            waiting -= convert(entry.amount, uint256)
    self.unconsumed = waiting
    self.head = first + count
    log IInbox.EntriesConsumed(first=first, count=count)
    return entries


@view
@external
def entry(entry_id: uint256) -> IInbox.Entry:
    assert entry_id > 0 and entry_id < self.tail, "inbox: no such entry"
    return self._entry(entry_id)


@view
@internal
def _entry(entry_id: uint256) -> IInbox.Entry:
    who: uint256 = self._who[entry_id]
    when: uint256 = self._when[entry_id]
    return IInbox.Entry(
        kind=convert(when & U8, uint8),
        owner=convert(who & U160, address),
        sub_account=convert(when >> 8 & U16, uint16),
        amount=convert(who >> 160, uint96),
        created=convert(when >> 24 & U64, uint64),
        due=convert(when >> 88 & U64, uint64),
    )


@internal
def _deposit(amount: uint256, sub_account: uint16) -> uint256:
    received: uint256 = self._take(amount)
    assert received > 0, "inbox: nothing arrived"
    if not self._registering[msg.sender][sub_account]:
        known: bool = staticcall Vault(VAULT).account_of(msg.sender, sub_account) != 0
        assert known or received >= MIN_FIRST_DEPOSIT, "inbox: first deposit below 10 USDC"
        self._registering[msg.sender][sub_account] = True
    return self._add(DEPOSIT, sub_account, received, DEPOSIT_DELAY)


@internal
def _take(amount: uint256) -> uint256:
    """
    @dev Moves the caller's tokens to the vault and measures what arrived (fees on transfer).
    """
    assert amount < 2**95, "inbox: amount too large"
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(VAULT)
    assert extcall IERC20(TOKEN).transferFrom(
        msg.sender, VAULT, amount, default_return_value=True
    ), "inbox: token refused"
    received: uint256 = staticcall IERC20(TOKEN).balanceOf(VAULT) - before
    assert received < 2**95, "inbox: amount too large"
    self.unconsumed += received
    self.deposited += received
    return received


@internal
def _add(kind: uint8, sub_account: uint16, amount: uint256, delay: uint256) -> uint256:
    entry_id: uint256 = self.tail
    due: uint256 = max(block.timestamp + delay, self._when[entry_id - 1] >> 88 & U64)
    self._who[entry_id] = convert(msg.sender, uint256) | amount << 160
    self._when[entry_id] = (
        convert(kind, uint256) | convert(sub_account, uint256) << 8 | block.timestamp << 24 | due << 88
    )
    self.tail = entry_id + 1
    log IInbox.EntryAdded(
        id=entry_id,
        kind=kind,
        owner=msg.sender,
        sub_account=sub_account,
        amount=amount,
        due=due,
    )
    return entry_id
