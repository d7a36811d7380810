# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Exit
@license Apache-2.0
@notice How owners get out when nobody executes the inbox any more; see `interfaces/IExit.vyi` for rules and trust assumptions.
@dev The vault admits this contract by immutable address and it writes the vault's words (modules/ledger.vy). It touches no tokens:
     what is owed becomes a claim of the vault, which anyone has paid with `pay`.
"""

from .interfaces import IExit
from .interfaces import IInbox
from .interfaces import IPriceOracle
from .modules import door
from .modules import ledger
from .modules import units

implements: IExit


interface IQueue:
    def release(entry_id: uint256) -> (address, uint256): nonpayable


DAY_S: constant(uint256) = 86_400
DEAD_S: constant(uint256) = 604_800  # a market without a price for a week: longer than the governor needs to delist it
MOST: constant(uint256) = 1_000  # accounts counted at once; gas bounds it below that when they hold positions
FROZEN: constant(uint256) = units.U48  # as last batch id: no batch can follow it
CLAIM_CREATED: constant(bytes32) = keccak256("ClaimCreated(uint256,uint256,address,uint256,uint256)")

VAULT: public(immutable(address))

frozen_at: public(uint256)
last_batch: public(uint256)
accounts: public(uint256)  # the newest account id at the freeze
cursor: public(uint256)  # the next account to count
marks: public(uint256[64])
positive_equity: public(uint256)
pot: public(int256)
taken: public(HashMap[uint256, bool])


@deploy
def __init__(vault: address):
    """
    @param vault May not exist yet: the vault and the exit name each other.
    """
    VAULT = vault


# ----------------------------------------------------------------------------------------------------------------- anyone


@external
def freeze():
    assert self.frozen_at == 0, "exit: frozen already"
    task: uint256 = 0
    inbox: address = empty(address)
    oracle: address = empty(address)
    task, inbox, oracle = self._contracts()
    head: uint256 = staticcall IInbox(inbox).head()
    assert head < staticcall IInbox(inbox).tail(), "exit: nothing waits"
    due: uint256 = convert((staticcall IInbox(inbox).entry(head)).due, uint256)
    part: uint256 = staticcall door.IVault(VAULT).word(ledger.CLOSING)
    if part & units.U64 == head:
        # A close that goes on in parts is not ignored.
        due = max(due, part >> 128 & units.U64)
    assert block.timestamp > due + DAY_S, "exit: not a day overdue"
    self._freeze(oracle, head)


@external
def freeze_dead_market(market: uint256):
    assert self.frozen_at == 0, "exit: frozen already"
    assert market < 64, "exit: no such market"
    s: uint256 = staticcall door.IVault(VAULT).word(ledger.MARKET_S | market)
    assert s >> ledger.S_OPEN_INTEREST & units.U64 != 0, "exit: nobody is in it"
    oracle: address = self._contracts()[2]
    for lane: uint8 in range(2):
        round: uint256 = staticcall IPriceOracle(oracle).last_round(lane)
        if round == 0:
            continue
        words: DynArray[uint256, 33] = staticcall IPriceOracle(oracle).round_words(lane, round)
        if (market >> 1) + 1 >= len(words):
            continue  # from before it was listed
        at: uint256 = words[(market >> 1) + 1] >> ((market & 1) << 7) >> 64 & units.U40
        assert block.timestamp > at + DEAD_S, "exit: not a week without a price"
    self._freeze(oracle, 0)


@internal
def _freeze(oracle: address, entry: uint256):
    counters: uint256 = staticcall door.IVault(VAULT).word(ledger.COUNTERS)
    self.frozen_at = block.timestamp
    self.last_batch = counters & units.U48
    self.accounts = counters >> 112 & units.U32
    self.cursor = 1
    extcall door.IVault(VAULT).write(ledger.COUNTERS, counters | FROZEN)
    self._pin(oracle)
    log IExit.Frozen(entry=entry, last_batch=self.last_batch, accounts=self.accounts)


@external
def push(count: uint256):
    self._only_frozen()
    first: uint256 = self.cursor
    end: uint256 = min(first + min(count, MOST), self.accounts + 1)
    assert first < end, "exit: nothing to count"
    positive: uint256 = self.positive_equity
    pot: int256 = self.pot
    for i: uint256 in range(end - first, bound=MOST):
        account: uint256 = first + i
        collateral: int256 = 0
        equity: int256 = 0
        collateral, equity = self._equity(account)
        pot += collateral
        if account >= ledger.FIRST_USER_ACCOUNT:
            positive += convert(max(equity, 0), uint256)
    if end > self.accounts:
        pot += units.signed((staticcall door.IVault(VAULT).word(ledger.POOL)) & units.U128, 128)
    self.cursor = end
    self.positive_equity = positive
    self.pot = pot
    log IExit.Counted(accounts=end - 1, positive_equity=positive, pot=pot)


@external
def take(account: uint256) -> uint256:
    amount: uint256 = self._payout(account)
    assert amount != 0, "exit: nothing to take"
    self.taken[account] = True
    a: uint256 = staticcall door.IVault(VAULT).word(account)
    extcall door.IVault(VAULT).write(
        account, ledger.with_collateral(a, ledger.collateral_of(a) - convert(amount, int256))
    )
    owner: uint256 = (staticcall door.IVault(VAULT).word(ledger.B | account)) & units.U160
    claim: uint256 = self._claim(account, owner, amount)
    log IExit.Taken(account=account, claim=claim, amount=amount)
    return claim


@external
def reclaim(entry_id: uint256) -> uint256:
    self._only_frozen()
    owner: address = empty(address)
    amount: uint256 = 0
    owner, amount = extcall IQueue(self._contracts()[1]).release(entry_id)
    claim: uint256 = 0
    if amount != 0:
        credited: uint256 = staticcall door.IVault(VAULT).word(ledger.CREDITED)
        extcall door.IVault(VAULT).write(ledger.CREDITED, credited + amount)
        claim = self._claim(0, convert(owner, uint256), amount)
    log IExit.Reclaimed(entry=entry_id, claim=claim, amount=amount)
    return claim


# ------------------------------------------------------------------------------------------------------------------ views


@view
@external
def inbox() -> address:
    return self._contracts()[1]


@view
@external
def complete() -> bool:
    return self._complete()


@view
@external
def equity(account: uint256) -> int256:
    self._only_frozen()
    return self._equity(account)[1]


@view
@external
def payout(account: uint256) -> uint256:
    return self._payout(account)


# --------------------------------------------------------------------------------------------------------------- internals


@view
@internal
def _only_frozen():
    assert self.frozen_at != 0, "exit: not frozen"


@view
@internal
def _complete() -> bool:
    return self.frozen_at != 0 and self.cursor > self.accounts


@view
@internal
def _contracts() -> (uint256, address, address):
    """
    @dev The vault's inbox and oracle, behind a word that means nothing outside a batch.
    """
    return staticcall door.IVault(VAULT).clerk_task()


@internal
def _pin(oracle: address):
    """
    @dev Of each market the newer price of the two lanes' newest rounds.
    """
    updated: uint256[64] = empty(uint256[64])
    for lane: uint8 in range(2):
        round: uint256 = staticcall IPriceOracle(oracle).last_round(lane)
        if round == 0:
            continue
        words: DynArray[uint256, 33] = staticcall IPriceOracle(oracle).round_words(lane, round)
        for market: uint256 in range(2 * (len(words) - 1), bound=64):
            price: uint256 = words[(market >> 1) + 1] >> ((market & 1) << 7)
            at: uint256 = price >> 64 & units.U40
            if at > updated[market]:
                updated[market] = at
                self.marks[market] = price >> 32 & units.U32


@view
@internal
def _equity(account: uint256) -> (int256, int256):
    """
    @dev Collateral, and equity at the pinned marks with the funding owed; `margin.equity` of evermark/protocol.
    """
    a: uint256 = staticcall door.IVault(VAULT).word(account)
    collateral: int256 = ledger.collateral_of(a)
    equity: int256 = collateral
    unseen: uint256 = a >> ledger.A_OPEN_POSITIONS & units.U8
    for market: uint256 in range(64):
        if unseen == 0:
            break
        word: uint256 = staticcall door.IVault(VAULT).word(ledger.POSITIONS | account << 6 | market)
        size: int256 = units.signed(word, 192)
        if size == 0:
            continue
        unseen -= 1
        value: uint256 = (staticcall door.IVault(VAULT).word(ledger.MARKET_P | market)) & units.U32
        funding: int256 = units.signed(staticcall door.IVault(VAULT).word(ledger.MARKET_S | market), 128)
        equity += size * convert(self.marks[market] * value, int256)
        equity -= units.ceil_div(size * (funding - units.signed(word >> 64, 128)), units.FUNDING_SCALE)
    return collateral, equity


@view
@internal
def _payout(account: uint256) -> uint256:
    """
    @dev equity x min(1, pot / positive equity), rounded down; nothing for the fund, the fee account, and who has taken.
    """
    assert self._complete(), "exit: not counted yet"
    if account < ledger.FIRST_USER_ACCOUNT or account > self.accounts or self.taken[account]:
        return 0
    equity: uint256 = convert(max(self._equity(account)[1], 0), uint256)
    pot: uint256 = convert(max(self.pot, 0), uint256)
    if pot >= self.positive_equity:
        return equity
    return equity * pot // self.positive_equity


@internal
def _claim(account: uint256, owner: uint256, amount: uint256) -> uint256:
    counters: uint256 = staticcall door.IVault(VAULT).word(ledger.COUNTERS)
    claim: uint256 = (counters >> 144) + 1
    extcall door.IVault(VAULT).write(ledger.COUNTERS, counters + (1 << 144))
    extcall door.IVault(VAULT).write(ledger.CLAIMS | claim, owner | amount << 160)
    extcall door.IVault(VAULT).relay(
        [CLAIM_CREATED, convert(claim, bytes32), convert(account, bytes32), convert(owner, bytes32)],
        abi_encode(amount, empty(uint256)),  # not limited: payable at once
    )
    return claim
