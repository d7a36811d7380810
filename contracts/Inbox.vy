# pragma version 0.4.3
# pragma evm-version prague
"""
@title Inbox
@license Apache-2.0
@notice The on-chain queue through which owners reach the exchange; see `interfaces/IInbox.vyi` for the trust assumptions.
"""

from contracts.interfaces import IERC20
from contracts.interfaces import IInbox
from contracts.modules import door
from contracts.modules import forced
from contracts.modules import ledger

implements: IInbox


interface Vault:
    def account_of(owner: address, sub_account: uint16) -> uint256: view
    def word(key: uint256) -> uint256: view


interface Governor:
    def took_effect(proposal_id: uint256): nonpayable


DEPOSIT: constant(uint8) = 1
DONATION: constant(uint8) = 2
WITHDRAWAL: constant(uint8) = 3
CLOSE: constant(uint8) = 4
CANCEL: constant(uint8) = 5
APPROVE_AGENT: constant(uint8) = 6
REVOKE_AGENT: constant(uint8) = 7
LIQUIDATE: constant(uint8) = 8
GOVERNOR_CHANGE: constant(uint8) = 9
GUARDIAN: constant(uint8) = 10
SHORT_DELAY: constant(uint256) = 600  # seconds until a deposit, donation or guardian's change is overdue
DELAY: constant(uint256) = 3600  # any other entry
MIN_FIRST_DEPOSIT: constant(uint256) = 10_000_000  # 10 USDC: no dust accounts
DAY_S: constant(uint256) = 86_400
AGENT_DAYS: constant(uint256) = 365  # longest life of a session key

U8: constant(uint256) = 2**8 - 1
U16: constant(uint256) = 2**16 - 1
U32: constant(uint256) = 2**32 - 1
U48: constant(uint256) = 2**48 - 1  # as the vault's last batch id: frozen
U64: constant(uint256) = 2**64 - 1
U96: constant(uint256) = 2**96 - 1
U160: constant(uint256) = 2**160 - 1

# Bit offsets of an entry's second word.
SUB_ACCOUNT: constant(uint256) = 8
CREATED: constant(uint256) = 24
DUE: constant(uint256) = 88
BOND: constant(uint256) = 152

TOKEN: public(immutable(address))
VAULT: public(immutable(address))
EXIT: public(immutable(address))
GOVERNOR: public(immutable(address))
BOND_GAS_PRICE: public(immutable(uint256))  # wei a unit of gas

head: public(uint256)
tail: public(uint256)
unconsumed: public(uint256)
deposited: public(uint256)
open_entry: public(HashMap[address, HashMap[uint16, HashMap[uint8, uint256]]])
bonds: public(HashMap[address, uint256])
released: public(HashMap[uint256, bool])  # after a freeze: given back
# Three words an entry: owner 160 | amount u96; kind u8 | sub_account u16 | created u64 | due u64 | bond u96, from the low bits;
# and what its kind needs beyond that.
_who: HashMap[uint256, uint256]
_when: HashMap[uint256, uint256]
_data: HashMap[uint256, uint256]
# Deposits that wait, a list for each account: first id u64 | last id u64 (kept when consumed); and who follows whom.
_waiting: HashMap[address, HashMap[uint16, uint256]]
_next: HashMap[uint256, uint256]


@deploy
def __init__(token: address, vault: address, exit: address, governor: address, bond_gas_price: uint256):
    """
    @param vault May not exist yet: the vault and the inbox name each other; nor may the governor.
    @param bond_gas_price Wei for each unit of gas that an entry's execution may need.
    """
    TOKEN = token
    VAULT = vault
    EXIT = exit
    GOVERNOR = governor
    BOND_GAS_PRICE = bond_gas_price
    self.head = 1
    self.tail = 1


# ----------------------------------------------------------------------------------------------------------------- owners


@payable
@nonreentrant
@external
def deposit(amount: uint256, sub_account: uint16) -> uint256:
    return self._deposit(amount, sub_account)


@payable
@nonreentrant
@external
def deposit_with_permit(
    amount: uint256, sub_account: uint16, deadline: uint256, v: uint8, r: bytes32, s: bytes32
) -> uint256:
    # Whoever saw the permit may have submitted it before; then the allowance is there and that is enough.
    if staticcall IERC20(TOKEN).allowance(msg.sender, self) < amount:
        extcall IERC20(TOKEN).permit(msg.sender, self, amount, deadline, v, r, s)
    return self._deposit(amount, sub_account)


@payable
@nonreentrant
@external
def donate(amount: uint256) -> uint256:
    received: uint256 = self._take(amount)
    assert received > 0, "inbox: nothing arrived"
    return self._add(DONATION, 0, received, 0)


@payable
@nonreentrant
@external
def request_withdrawal(sub_account: uint16, amount: uint256) -> uint256:
    assert amount > 0, "inbox: amount is zero"
    assert amount < 2**95, "inbox: amount too large"
    return self._request(WITHDRAWAL, sub_account, amount, 0)


@payable
@nonreentrant
@external
def request_close(sub_account: uint16, market: uint256, size: uint256) -> uint256:
    assert size > 0, "inbox: size is zero"
    account: uint256 = staticcall Vault(VAULT).account_of(msg.sender, sub_account)
    assert account != 0, "inbox: unknown account"
    return self._request(CLOSE, sub_account, 0, forced.close_data(door.IVault(VAULT), account, market, size))


@payable
@nonreentrant
@external
def request_liquidation(account: uint256) -> uint256:
    assert account >= ledger.FIRST_USER_ACCOUNT and account <= U32, "inbox: unknown account"
    assert staticcall Vault(VAULT).word(ledger.B | account) != 0, "inbox: unknown account"
    assert self.open_entry[msg.sender][0][LIQUIDATE] == 0, "inbox: one of this kind is open"
    entry_id: uint256 = self._add(LIQUIDATE, 0, 0, account)
    self._data[entry_id] = account
    self.open_entry[msg.sender][0][LIQUIDATE] = entry_id
    return entry_id


@payable
@nonreentrant
@external
def request_cancel(sub_account: uint16, slot: uint16, sequence: uint256) -> uint256:
    assert sequence > 0, "inbox: sequence is zero"
    assert sequence <= (block.timestamp + DAY_S) * 1000, "inbox: sequence too far ahead"
    return self._request(CANCEL, sub_account, 0, convert(slot, uint256) | sequence << 16)


@payable
@nonreentrant
@external
def approve_agent(sub_account: uint16, agent: address, expiry: uint256, transfer_cap: uint256) -> uint256:
    assert agent != empty(address) and agent != msg.sender, "inbox: not an agent"
    assert expiry > block.timestamp, "inbox: expiry has passed"
    assert expiry <= min(block.timestamp + AGENT_DAYS * DAY_S, U32), "inbox: expiry too far"
    assert transfer_cap < 2**95, "inbox: amount too large"
    return self._request(APPROVE_AGENT, sub_account, transfer_cap, convert(agent, uint256) | expiry << 160)


@payable
@nonreentrant
@external
def revoke_agent(sub_account: uint16, agent: address) -> uint256:
    assert agent != empty(address) and agent != msg.sender, "inbox: not an agent"
    return self._request(REVOKE_AGENT, sub_account, 0, convert(agent, uint256))


@payable
@nonreentrant
@external
def add_bond(entry_id: uint256):
    assert entry_id >= self.head and entry_id < self.tail, "inbox: no such entry waits"
    when: uint256 = self._when[entry_id]
    assert (when >> BOND) + msg.value <= U96, "inbox: bond too large"
    self._when[entry_id] = when + (msg.value << BOND)


@payable
@nonreentrant
@external
def queue_change(kind: uint8, topic: uint16, data: uint256) -> uint256:
    assert msg.sender == GOVERNOR, "inbox: only the governor"
    assert kind == GOVERNOR_CHANGE or kind == GUARDIAN, "inbox: not a change"
    assert self.open_entry[msg.sender][topic][kind] == 0, "inbox: one of this kind is open"
    entry_id: uint256 = self._add(kind, topic, 0, data)
    self._data[entry_id] = data
    self.open_entry[msg.sender][topic][kind] = entry_id
    return entry_id


# ---------------------------------------------------------------------------------------------------------------- execution


@nonreentrant
@external
def consume(count: uint256, submitter: address):
    assert msg.sender == VAULT, "inbox: only the vault"
    first: uint256 = self.head
    assert count <= 32, "inbox: more than 32 entries"
    assert first + count <= self.tail, "inbox: no such entry"
    waiting: uint256 = self.unconsumed
    bond: uint256 = 0
    for i: uint256 in range(count, bound=32):
        who: uint256 = self._who[first + i]
        when: uint256 = self._when[first + i]
        owner: address = convert(who & U160, address)
        sub_account: uint16 = convert(when >> SUB_ACCOUNT & U16, uint16)
        kind: uint8 = convert(when & U8, uint8)
        bond += when >> BOND
        if kind == DEPOSIT or kind == DONATION:
            waiting -= who >> 160
        else:
            self.open_entry[owner][sub_account][kind] = 0
        if kind == DEPOSIT:
            last: uint256 = self._waiting[owner][sub_account] >> 64
            self._waiting[owner][sub_account] = self._next[first + i] | last << 64
        elif kind == GOVERNOR_CHANGE:
            extcall Governor(GOVERNOR).took_effect(self._data[first + i])
    self.unconsumed = waiting
    self.head = first + count
    self.bonds[submitter] += bond
    log IInbox.EntriesConsumed(first=first, count=count, submitter=submitter, bond=bond)


@nonreentrant
@external
def release(entry_id: uint256) -> (address, uint256):
    assert msg.sender == EXIT, "inbox: only the exit"
    assert entry_id >= self.head and entry_id < self.tail, "inbox: no such entry waits"
    assert not self.released[entry_id], "inbox: released already"
    self.released[entry_id] = True
    who: uint256 = self._who[entry_id]
    when: uint256 = self._when[entry_id]
    owner: address = convert(who & U160, address)
    kind: uint256 = when & U8
    self.bonds[owner] += when >> BOND
    amount: uint256 = 0
    if kind == convert(DEPOSIT, uint256) or kind == convert(DONATION, uint256):
        amount = who >> 160
        self.unconsumed -= amount
    return owner, amount


@nonreentrant
@external
def collect_bonds() -> uint256:
    amount: uint256 = self.bonds[msg.sender]
    assert amount > 0, "inbox: no bonds"
    self.bonds[msg.sender] = 0
    log IInbox.BondsCollected(collector=msg.sender, amount=amount)
    taken: bool = raw_call(msg.sender, b"", value=amount, revert_on_failure=False)
    assert taken, "inbox: bonds refused"
    return amount


# ------------------------------------------------------------------------------------------------------------------ views


@view
@external
def entry(entry_id: uint256) -> IInbox.Entry:
    assert entry_id > 0 and entry_id < self.tail, "inbox: no such entry"
    who: uint256 = self._who[entry_id]
    when: uint256 = self._when[entry_id]
    return IInbox.Entry(
        kind=convert(when & U8, uint8),
        owner=convert(who & U160, address),
        sub_account=convert(when >> SUB_ACCOUNT & U16, uint16),
        amount=convert(who >> 160, uint96),
        created=convert(when >> CREATED & U64, uint64),
        due=convert(when >> DUE & U64, uint64),
        bond=convert(when >> BOND, uint96),
        data=self._data[entry_id],
    )


@view
@external
def oldest_deposit(owner: address, sub_account: uint16) -> uint256:
    first: uint256 = self._waiting[owner][sub_account] & U64
    if first == 0:
        return 0
    return self._when[first] >> CREATED & U64


@view
@external
def bond(kind: uint8) -> uint256:
    return self._bond(kind)


# ---------------------------------------------------------------------------------------------------------- rules of a kind


@pure
@internal
def _delay(kind: uint8) -> uint256:
    """
    @dev Seconds from adding an entry until it is overdue.
    """
    if kind == DEPOSIT or kind == DONATION or kind == GUARDIAN:
        return SHORT_DELAY
    return DELAY


@view
@internal
def _bond(kind: uint8) -> uint256:
    """
    @dev Wei for the worst case of a batch that executes the entry alone; tests/contracts/vault/test_requests_in_batches.py measures the gas.
    """
    gas: uint256 = 350_000  # the account's 16 open positions are named and read
    if kind == WITHDRAWAL or kind == GOVERNOR_CHANGE:
        gas = 700_000  # 16 open positions; a market's words, twice looked at
    if kind == CLOSE or kind == LIQUIDATE:
        gas = 2_500_000  # two batches: the fills, with 16 open positions on both sides, and then the entry
    return gas * BOND_GAS_PRICE


# --------------------------------------------------------------------------------------------------------------- internals


@payable
@internal
def _deposit(amount: uint256, sub_account: uint16) -> uint256:
    received: uint256 = self._take(amount)
    assert received > 0, "inbox: nothing arrived"
    waiting: uint256 = self._waiting[msg.sender][sub_account]
    if waiting == 0:
        known: bool = staticcall Vault(VAULT).account_of(msg.sender, sub_account) != 0
        assert known or received >= MIN_FIRST_DEPOSIT, "inbox: first deposit below 10 USDC"
    entry_id: uint256 = self._add(DEPOSIT, sub_account, received, 0)
    if waiting & U64 == 0:
        self._waiting[msg.sender][sub_account] = entry_id | entry_id << 64
    else:
        self._next[waiting >> 64] = entry_id
        self._waiting[msg.sender][sub_account] = waiting & U64 | entry_id << 64
    return entry_id


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


@payable
@internal
def _request(kind: uint8, sub_account: uint16, amount: uint256, data: uint256) -> uint256:
    """
    @dev What only a registered account may ask for, once of each kind at a time.
    """
    assert staticcall Vault(VAULT).account_of(msg.sender, sub_account) != 0, "inbox: unknown account"
    assert self.open_entry[msg.sender][sub_account][kind] == 0, "inbox: one of this kind is open"
    entry_id: uint256 = self._add(kind, sub_account, amount, data)
    self._data[entry_id] = data
    self.open_entry[msg.sender][sub_account][kind] = entry_id
    return entry_id


@payable
@internal
def _add(kind: uint8, sub_account: uint16, amount: uint256, data: uint256) -> uint256:
    assert (staticcall Vault(VAULT).word(ledger.COUNTERS)) & U48 != U48, "inbox: frozen"
    assert msg.value >= self._bond(kind), "inbox: bond too small"
    assert msg.value <= U96, "inbox: bond too large"
    entry_id: uint256 = self.tail
    due: uint256 = max(block.timestamp + self._delay(kind), self._when[entry_id - 1] >> DUE & U64)
    self._who[entry_id] = convert(msg.sender, uint256) | amount << 160
    self._when[entry_id] = (
        convert(kind, uint256)
        | convert(sub_account, uint256) << SUB_ACCOUNT
        | block.timestamp << CREATED
        | due << DUE
        | msg.value << BOND
    )
    self.tail = entry_id + 1
    log IInbox.EntryAdded(
        id=entry_id,
        kind=kind,
        owner=msg.sender,
        sub_account=sub_account,
        amount=amount,
        data=data,
        due=due,
        bond=msg.value,
    )
    return entry_id
