# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize codesize
"""
@title Clerk
@license Apache-2.0
@notice Works through the rare parts of a batch for the vault: 1 inbox, 2 actions, 3 funding, 5 withdrawals.
@dev Exists because the vault's code would not fit 24,576 bytes with them. It has no storage and no privilege but the vault's
     trust by immutable address: the vault forwards it the calldata of `settle()`, it reads and writes the vault's words
     (modules/ledger.vy has their numbers), and the vault emits the events. Whoever else calls it only has it call themselves.
"""

from .interfaces import IInbox
from .interfaces import IPriceOracle
from .modules import codec
from .modules import door
from .modules import forced
from .modules import governance
from .modules import signed_actions
from .modules import ledger
from .modules import outflow
from .modules import row_layout
from .modules import trigger_bits
from .modules import units


# What the clerk calls of IGovernor.
interface IGovernor:
    def words(kind: uint8, topic: uint16, data: uint256) -> DynArray[uint256, 16]: view


DEPOSIT: constant(uint8) = 1
DONATION: constant(uint8) = 2
WITHDRAWAL: constant(uint8) = 3
CANCEL_ENTRY: constant(uint8) = 5
APPROVE_ENTRY: constant(uint8) = 6
REVOKE_ENTRY: constant(uint8) = 7
GOVERNOR_ENTRY: constant(uint8) = 9
GUARDIAN_ENTRY: constant(uint8) = 10
APPROVE_AGENT: constant(uint256) = 1
CANCEL: constant(uint256) = 2
TRANSFER: constant(uint256) = 3
WRITE_OFF: constant(uint256) = 4
MIN_FIRST_DEPOSIT: constant(uint256) = 10 * units.USDC  # as in the inbox: no dust accounts
FUNDING_HOUR: constant(uint256) = 1
TRIGGER_BIT: constant(uint256) = 2
TAKEOVER: constant(uint256) = 2
DELEVERAGING: constant(uint256) = 3
FORCED_FILL: constant(uint256) = 6

# Why an entry can never apply; 2 was a stale price, on which an entry now waits. More are in modules/forced.vy.
SKIPPED_UNKNOWN_ACCOUNT: constant(uint256) = 1
SKIPPED_NOTHING_WITHDRAWABLE: constant(uint256) = 3
SKIPPED_UNKNOWN_KIND: constant(uint256) = 4
SKIPPED_PRICE_LONG_STALE: constant(uint256) = 10
SKIPPED_NO_LONGER_APPLIES: constant(uint256) = 9

HOUR_S: constant(uint256) = 3_600
AGENT_DAYS: constant(uint256) = 365  # longest life of a session key
ALL_SLOTS: constant(uint256) = 65535
PRICES: constant(uint256) = 1 << 64  # key of the batch's price of market 0
FEES_END: constant(uint256) = 86

DEPOSITED: constant(bytes32) = keccak256("Deposited(uint256,uint256,uint256)")
ACCOUNT_REGISTERED: constant(bytes32) = keccak256("AccountRegistered(uint256,address,uint256)")
ENTRY_SKIPPED: constant(bytes32) = keccak256("EntrySkipped(uint256,uint256)")
CLAIM_CREATED: constant(bytes32) = keccak256("ClaimCreated(uint256,uint256,address,uint256,uint256)")
AGENT_APPROVED: constant(bytes32) = keccak256("AgentApproved(uint256,address,uint256,uint256)")
TRANSFERRED: constant(bytes32) = keccak256("Transferred(uint256,uint256,address,uint256)")
WRITTEN_OFF: constant(bytes32) = keccak256("WrittenOff(uint256,uint256)")
ORDERS_VOIDED: constant(bytes32) = keccak256("OrdersVoided(uint256,uint256,uint256)")
FUNDING_APPLIED: constant(bytes32) = keccak256("FundingApplied(uint256,uint256,int256,int256)")


struct Task:
    vault: door.IVault
    oracle: IPriceOracle
    now: uint256
    separator: bytes32
    markets_at: uint256  # where the batch's table of markets ends its count
    accounts_at: uint256
    accounts: uint256


@external
def settle() -> uint256:
    """
    @dev Same selector as the vault's, whose calldata this is. Returns where the worked sections end.
    """
    vault: door.IVault = door.IVault(msg.sender)
    packed: uint256 = 0
    inbox: address = empty(address)
    oracle: address = empty(address)
    packed, inbox, oracle = staticcall vault.clerk_task()
    at: uint256 = packed & units.U32
    markets_at: uint256 = FEES_END + 4 * (codec.word(FEES_END) & units.U8) + 1
    accounts_at: uint256 = markets_at + (codec.word(markets_at) & units.U8) + 2
    task: Task = Task(
        vault=vault,
        oracle=IPriceOracle(oracle),
        now=packed >> 32 & units.U40,
        separator=signed_actions.separator(msg.sender),
        markets_at=markets_at,
        accounts_at=accounts_at,
        accounts=codec.word(accounts_at) & units.U16,
    )
    at += 2
    count: uint256 = codec.word(at) & units.U16
    if packed >> 176 & 1 == 1:
        return self._withdrawals(task, at, count)
    first: uint256 = door.word(vault, ledger.COUNTERS) >> 48 & units.U63
    overdue: bool = packed >> 177 & 1 == 1
    if overdue:
        self._only_overdue(task, inbox, first, at, count, packed >> 152 & units.U16)
    self._inbox(task, inbox, first, at, count)
    return self._prices(task, oracle, self._actions(task, at + 2 * count + 2) + 1, overdue)


# ------------------------------------------------------------------------------------------------- batches of anybody


@view
@external
def newest_lane(oracle: address, round: uint256) -> uint8:
    """
    @dev The lane that holds this round, which must be the newest of both: what a batch of anybody pins.
    """
    sequencer_round: uint256 = staticcall IPriceOracle(oracle).last_round(0)
    public_round: uint256 = staticcall IPriceOracle(oracle).last_round(1)
    if round != max(sequencer_round, public_round):
        units.fail("vault: not the newest round")
    if public_round > sequencer_round:
        return 1
    return 0


@view
@internal
def _only_overdue(task: Task, inbox: address, first: uint256, start: uint256, count: uint256, rows: uint256):
    """
    @dev A batch that is not the sequencer's holds overdue inbox entries, overdue funding hours, fills that the entry behind those asks for,
         and nothing else; it speaks for no journal. Entries are due in their order, so the last one decides.
    """
    at: uint256 = start + 2 * count + 2
    actions: uint256 = codec.word(at) & units.U16
    hours: uint256 = codec.word(at + 1) & units.U8
    end: uint256 = at + 5 * hours + 3
    if rows != 0 or actions != 0 or end > len(msg.data):
        units.fail("vault: not only overdue work")
    fills: uint256 = codec.word(end) & units.U16
    if count | hours | fills == 0:
        units.fail("vault: not the sequencer")
    last: uint256 = first + count - 1
    if fills != 0:
        last += 1
        end = self._overdue_fills(task, staticcall IInbox(inbox).entry(last), end, fills)
    if end + 2 != len(msg.data) or codec.word(end + 2) & units.U16 != 0:
        units.fail("vault: not only overdue work")
    if codec.word(53) & units.U48 != 0 or codec.word(85) != 0:
        units.fail("vault: speaks for a journal")
    if last >= first and block.timestamp <= convert((staticcall IInbox(inbox).entry(last)).due, uint256):
        units.fail("vault: entry is not overdue")


@view
@internal
def _overdue_fills(task: Task, entry: IInbox.Entry, start: uint256, count: uint256) -> uint256:
    """
    @dev Of a close: its fills against fund and counterparties, which the backstop holds to the entry. Of a liquidation: take-over and
         deleveraging of the account that the entry names. Returns where the section ends.
    """
    at: uint256 = start
    pairs_at: uint256 = task.accounts_at + 4 * task.accounts + 2
    for _: uint256 in range(count, bound=256):
        head: uint256 = codec.word(at + 3)
        kind: uint256 = head >> 16 & 15
        at += 6 + (head >> 20 & 15)
        if entry.kind == forced.CLOSE and kind == FORCED_FILL:
            continue
        if kind == TAKEOVER:
            at += 2
        elif kind != DELEVERAGING:
            units.fail("vault: not only overdue work")
        pair: uint256 = codec.word(pairs_at + 3 * (head & units.U16) + 3)
        if entry.kind != forced.LIQUIDATE or self._account_at(task, pair >> 8 & units.U16) != entry.data:
            units.fail("vault: not only overdue work")
    return at


@view
@internal
def _check_hour(task: Task, oracle: address, hour: uint256):
    """
    @dev Anybody applies an hour that was posted within an hour of its end, an hour after its end, to all markets at once, and
         after every such hour before it.
    """
    if not self._posted_in_time(oracle, hour):
        units.fail("vault: funding hour was missed")
    if block.timestamp <= (hour + 2) * HOUR_S:
        units.fail("vault: hour is not overdue")
    markets: uint256 = codec.word(task.markets_at) & units.U8
    if markets != staticcall task.vault.market_count():
        units.fail("vault: hour of some markets only")
    for market: uint256 in range(markets, bound=64):
        last: uint256 = door.word(task.vault, ledger.MARKET_S | market) >> ledger.S_LAST_HOUR & units.U32
        for back: uint256 in range(1, 25):
            if hour <= last + back:
                break
            if self._posted_in_time(oracle, hour - back):
                units.fail("vault: funding hour not next")


@view
@internal
def _posted_in_time(oracle: address, hour: uint256) -> bool:
    at: uint256 = staticcall IPriceOracle(oracle).funding_posted_at(hour)
    return at != 0 and at <= (hour + 2) * HOUR_S


# ---------------------------------------------------------------------------------------------------------- section 1, inbox


@internal
def _inbox(task: Task, inbox: address, first: uint256, start: uint256, count: uint256):
    """
    @dev The vault has consumed the entries; each names the table index of its account.
    """
    counters: uint256 = door.word(task.vault, ledger.COUNTERS)
    door.write(task.vault, ledger.COUNTERS, counters + (count << 48))
    for i: uint256 in range(count, bound=32):
        id: uint256 = first + i
        entry: IInbox.Entry = staticcall IInbox(inbox).entry(id)
        index: uint256 = codec.word(start + 2 * i + 2) & units.U16
        if entry.kind == DEPOSIT:
            self._deposit(task, id, entry, index)
        elif entry.kind == DONATION:
            self._credit(task, id, ledger.INSURANCE_FUND, convert(entry.amount, uint256))
        elif entry.kind == WITHDRAWAL or entry.kind == CANCEL_ENTRY or entry.kind == APPROVE_ENTRY or entry.kind == REVOKE_ENTRY:
            self._request(task, id, entry, index)
        elif entry.kind == forced.CLOSE:
            self._close(task, id, entry, index)
        elif entry.kind == forced.LIQUIDATE:
            self._liquidate(task, inbox, id, entry.data, index)
        elif entry.kind == GOVERNOR_ENTRY or entry.kind == GUARDIAN_ENTRY:
            # The inbox takes these kinds from the governor alone, which is therefore the entry's owner.
            words: DynArray[uint256, 16] = staticcall IGovernor(entry.owner).words(
                entry.kind, entry.sub_account, entry.data
            )
            if len(words) == 0:
                self._skip(task, id, SKIPPED_NO_LONGER_APPLIES)
            governance.write(task.vault, words)
        else:
            self._skip(task, id, SKIPPED_UNKNOWN_KIND)


@internal
def _skip(task: Task, entry_id: uint256, reason: uint256):
    extcall task.vault.relay([ENTRY_SKIPPED, convert(entry_id, bytes32)], abi_encode(reason))


@view
@internal
def _account_at(task: Task, index: uint256) -> uint256:
    if index >= task.accounts:
        units.fail("vault: no such account index")
    return codec.word(task.accounts_at + 4 * index + 4) & units.U32


@internal
def _credit(task: Task, entry_id: uint256, account: uint256, amount: uint256):
    door.add_to(task.vault, account, convert(amount, int256))
    credited: uint256 = door.word(task.vault, ledger.CREDITED)
    door.write(task.vault, ledger.CREDITED, credited + amount)
    deposits: uint256 = door.word(task.vault, ledger.DEPOSITS)
    door.write(task.vault, ledger.DEPOSITS, deposits + amount & units.U128)
    extcall task.vault.relay(
        [DEPOSITED, convert(entry_id, bytes32), convert(account, bytes32)], abi_encode(amount)
    )


@internal
def _deposit(task: Task, entry_id: uint256, entry: IInbox.Entry, index: uint256):
    """
    @dev Registers (owner, sub-account) under the next id when it is new, and credits it.
    """
    named: uint256 = convert(entry.owner, uint256) | convert(entry.sub_account, uint256) << ledger.B_SUB_ACCOUNT
    account: uint256 = door.word(task.vault, named)
    if account == 0:
        account = self._register(task, named)
    if self._account_at(task, index) != account:
        units.fail("vault: entry of another account")
    self._credit(task, entry_id, account, convert(entry.amount, uint256))


@internal
def _register(task: Task, named: uint256) -> uint256:
    """
    @dev Gives (owner, sub-account), packed as in word B, the next id.
    """
    counters: uint256 = door.word(task.vault, ledger.COUNTERS)
    account: uint256 = (counters >> 112 & units.U32) + 1
    door.write(task.vault, ledger.COUNTERS, counters + (1 << 112))
    door.write(task.vault, ledger.B | account, named | 1 << ledger.B_REGISTERED)
    door.write(task.vault, named, account)
    extcall task.vault.relay(
        [ACCOUNT_REGISTERED, convert(account, bytes32), convert(named & units.U160, bytes32)],
        abi_encode(named >> ledger.B_SUB_ACCOUNT),
    )
    return account


@internal
def _request(task: Task, entry_id: uint256, entry: IInbox.Entry, index: uint256):
    """
    @dev What an owner asked for a registered account, checked when it was queued.
    """
    account: uint256 = door.word(task.vault,
        convert(entry.owner, uint256) | convert(entry.sub_account, uint256) << ledger.B_SUB_ACCOUNT
    )
    if account == 0:
        self._skip(task, entry_id, SKIPPED_UNKNOWN_ACCOUNT)
        return
    if self._account_at(task, index) != account:
        units.fail("vault: entry of another account")
    if entry.kind == WITHDRAWAL:
        self._forced_withdrawal(task, entry_id, entry, account, index)
    elif entry.kind == CANCEL_ENTRY:
        slot: uint256 = entry.data & units.U16
        self._void(task, account, slot == ALL_SLOTS, slot, entry.data >> 16)
        if slot == ALL_SLOTS:
            self._void_actions(task, account, entry.data >> 16)
    elif entry.kind == APPROVE_ENTRY:
        self._set_agent(
            task, account, entry.data & units.U160, entry.data >> 160, convert(entry.amount, uint256)
        )
    else:
        self._set_agent(task, account, entry.data & units.U160, 0, 0)
        self._void_actions(task, account, convert(entry.created, uint256) * 1000)


@internal
def _close(task: Task, entry_id: uint256, entry: IInbox.Entry, index: uint256):
    """
    @dev The fills of earlier batches have closed what was asked for, or nothing can: else it is not consumable.
    """
    account: uint256 = door.word(task.vault,
        convert(entry.owner, uint256) | convert(entry.sub_account, uint256) << ledger.B_SUB_ACCOUNT
    )
    if self._account_at(task, index) != account:
        units.fail("vault: entry of another account")
    reason: uint256 = staticcall task.vault.close_outcome(task.now, entry_id, entry.data, account, index)
    if reason != 0:
        self._skip(task, entry_id, reason)


@internal
def _liquidate(task: Task, inbox: address, entry_id: uint256, account: uint256, index: uint256):
    """
    @dev The account was closed out by earlier fills, or needs it no more: else it is not consumable.
    """
    if self._account_at(task, index) != account:
        units.fail("vault: entry of another account")
    self._skip(task, entry_id, staticcall task.vault.liquidation_outcome(inbox, account, index))


@internal
def _forced_withdrawal(task: Task, entry_id: uint256, entry: IInbox.Entry, account: uint256, index: uint256):
    """
    @dev A claim of min(requested, withdrawable). On a stale price it is not consumable: it waits, and its clock runs. An hour after
         it was due it is skipped, so that one dead market holds up nobody else; its owner may ask again.
    """
    withdrawable: uint256 = 0
    fresh: bool = False
    withdrawable, fresh = self._withdrawable(task, index)
    if not fresh:
        if task.now <= convert(entry.due, uint256) + HOUR_S:
            units.fail("vault: stale price")
        self._skip(task, entry_id, SKIPPED_PRICE_LONG_STALE)
        return
    amount: uint256 = min(convert(entry.amount, uint256), withdrawable)
    if amount == 0:
        self._skip(task, entry_id, SKIPPED_NOTHING_WITHDRAWABLE)
    else:
        self._claim(task, account, amount)


@view
@internal
def _withdrawable(task: Task, index: uint256) -> (uint256, bool):
    """
    @dev Equity above max(initial margin, 20 % of notional), not below zero; and whether all prices are fresh. Nothing of an account
         with positions in the hour after an outage of the chain: its owner may add margin first.
    """
    sum: door.Margin = staticcall task.vault.running_margin(index)
    if sum.open_positions != 0 and staticcall task.oracle.restarted():
        units.fail("vault: chain was down")
    kept: uint256 = max(sum.initial, (sum.notional + 4) // 5)
    return convert(max(sum.equity - convert(kept, int256), 0), uint256), sum.fresh


@internal
def _claim(task: Task, account: uint256, amount: uint256):
    """
    @dev Moves `amount` out of the account's collateral into a new claim of its owner, payable when the outflow limits allow.
    """
    door.add_to(task.vault, account, -convert(amount, int256))
    counters: uint256 = door.word(task.vault, ledger.COUNTERS)
    claim: uint256 = (counters >> 144) + 1
    owner: uint256 = door.word(task.vault, ledger.B | account) & units.U160
    door.write(task.vault, ledger.COUNTERS, counters + (1 << 144))
    door.write(task.vault, ledger.CLAIMS | claim, owner | amount << 160)
    due: uint256 = outflow.payable_at(task.vault, amount, task.now)
    if due != 0:
        door.write(task.vault, ledger.CLAIM_DUES | claim, due)
    extcall task.vault.relay(
        [CLAIM_CREATED, convert(claim, bytes32), convert(account, bytes32), convert(owner, bytes32)],
        abi_encode(amount, due),
    )


# -------------------------------------------------------------------------------------------------------- section 2, actions


@internal
def _actions(task: Task, start: uint256) -> uint256:
    """
    @dev Agent approvals, cancels, transfers and write-offs; `start` is where their count ends. Returns where the section ends.
    """
    at: uint256 = start
    for i: uint256 in range(codec.word(start) & units.U16, bound=256):
        at += signed_actions.HEAD_BYTES
        head: uint256 = codec.word(at)
        account: uint256 = self._account_at(task, head & units.U16)
        tag: uint256 = head >> 16 & units.U8
        if tag == CANCEL:
            at += signed_actions.CANCEL_BYTES
            self._cancel(task, at, account)
        elif tag == APPROVE_AGENT:
            at += signed_actions.APPROVAL_BYTES
            self._approve_agent(task, at, account)
        elif tag == TRANSFER:
            at += signed_actions.TRANSFER_BYTES
            self._transfer(task, at, account, head & units.U16)
        elif tag == WRITE_OFF:
            self._write_off(task, account)
            continue  # nobody signs it
        else:
            units.fail("vault: action reserved")
        at += signed_actions.SIGNATURE_BYTES
    return at


@internal
def _write_off(task: Task, account: uint256):
    """
    @dev The insurance fund pays the debt of a user without positions, as far as its equity exceeds its own initial margin.
    """
    a: uint256 = door.word(task.vault, account)
    debt: int256 = -ledger.collateral_of(a)
    if account < ledger.FIRST_USER_ACCOUNT or a >> ledger.A_OPEN_POSITIONS & units.U8 != 0 or debt <= 0:
        units.fail("vault: nothing to write off")
    if self._account_at(task, 0) != ledger.INSURANCE_FUND:
        units.fail("vault: positions not named")
    sum: door.Margin = staticcall task.vault.running_margin(0)
    if not sum.fresh:
        units.fail("vault: stale price")
    amount: int256 = min(debt, sum.equity - convert(sum.initial, int256))
    if amount <= 0:
        units.fail("vault: the fund cannot pay")
    door.add_to(task.vault, ledger.INSURANCE_FUND, -amount)
    door.add_to(task.vault, account, amount)
    extcall task.vault.relay([WRITTEN_OFF, convert(account, bytes32)], abi_encode(amount))


@view
@internal
def _named(task: Task, account: uint256) -> uint256:
    b: uint256 = door.word(task.vault, ledger.B | account)
    if b == 0:
        units.fail("vault: unknown account")
    return b


@internal
def _raise_action_sequence(task: Task, account: uint256, b: uint256, sequence: uint256, signer: uint256):
    """
    @dev By the owner, each action under a higher sequence than the last.
    """
    if signer != b & units.U160:
        units.fail("vault: not signed by owner")
    stored: uint256 = b >> ledger.B_ACTION_SEQUENCE & units.U48
    if sequence <= stored:
        units.fail("vault: action sequence too low")
    door.write(task.vault, ledger.B | account, b ^ (stored ^ sequence) << ledger.B_ACTION_SEQUENCE)


@internal
def _cancel(task: Task, at: uint256, account: uint256):
    """
    @dev By the owner or a live agent: nothing of the slot, or of the account, up to the signed sequence fills again.
    """
    cancel: signed_actions.Cancel = signed_actions.read_cancel(at, task.now)
    if cancel.sequence > (task.now + units.DAY_S) * 1000:
        units.fail("vault: sequence too far ahead")
    b: uint256 = self._named(task, account)
    signer: uint256 = convert(signed_actions.cancel_signer(cancel, b, task.separator, at), uint256)
    if signer != b & units.U160:
        agent: uint256 = door.word(task.vault, ledger.AGENTS | account << 160 | signer)
        if agent & units.U64 < task.now:
            units.fail("vault: not owner nor live agent")
    self._void(task, account, cancel.all_slots == 1, cancel.slot, cancel.sequence)


@internal
def _void(task: Task, account: uint256, all_slots: bool, slot: uint256, sequence: uint256):
    """
    @dev No order of the slot, or of the account, fills again up to this sequence.
    """
    key: uint256 = account
    offset: uint256 = ledger.A_TAKER_SEQUENCE
    width: uint256 = units.U48
    voided: uint256 = sequence
    named: uint256 = slot
    if all_slots:
        offset = ledger.A_MIN_SEQUENCE
        named = ALL_SLOTS
    elif slot != 0:
        # A voided slot counts as wholly filled.
        key = ledger.SLOTS | account << 15 | slot >> 1
        offset = (slot & 1) << 7
        width = units.U128
        voided = sequence | units.U62 << 48
    word: uint256 = door.word(task.vault, key)
    stored: uint256 = word >> offset & width
    if sequence >= stored & units.U48:
        door.write(task.vault, key, word ^ (stored ^ voided) << offset)
    extcall task.vault.relay([ORDERS_VOIDED, convert(account, bytes32)], abi_encode(named, sequence))


@internal
def _void_actions(task: Task, account: uint256, sequence: uint256):
    """
    @dev No withdrawal, transfer or approval signed up to this action sequence is taken any more.
    """
    b: uint256 = door.word(task.vault, ledger.B | account)
    stored: uint256 = b >> ledger.B_ACTION_SEQUENCE & units.U48
    if sequence > stored:
        door.write(task.vault, ledger.B | account, b ^ (stored ^ sequence) << ledger.B_ACTION_SEQUENCE)


@internal
def _approve_agent(task: Task, at: uint256, account: uint256):
    """
    @dev By the owner alone; an expiry in the past revokes.
    """
    approval: signed_actions.Approval = signed_actions.read_approval(at, task.now)
    if approval.expiry > task.now + AGENT_DAYS * units.DAY_S:
        units.fail("vault: agent expiry too far")
    b: uint256 = self._named(task, account)
    signer: address = signed_actions.approval_signer(approval, b, task.separator, at)
    self._raise_action_sequence(task, account, b, approval.sequence, convert(signer, uint256))
    self._set_agent(task, account, approval.agent, approval.expiry, approval.transfer_cap)


@internal
def _set_agent(task: Task, account: uint256, agent: uint256, expiry: uint256, transfer_cap: uint256):
    door.write(task.vault, ledger.AGENTS | account << 160 | agent, expiry | transfer_cap << 64)
    extcall task.vault.relay(
        [AGENT_APPROVED, convert(account, bytes32), convert(agent, bytes32)], abi_encode(expiry, transfer_cap)
    )


@internal
def _transfer(task: Task, at: uint256, account: uint256, index: uint256):
    """
    @dev Between sub-accounts of one owner, by the owner or by a live agent within its cap. What stays must be as safe as after
         a withdrawal; what arrives may register its account, from the smallest first deposit on.
    """
    transfer: signed_actions.Transfer = signed_actions.read_transfer(at, task.now)
    b: uint256 = self._named(task, account)
    owner: uint256 = b & units.U160
    signer: uint256 = convert(signed_actions.transfer_signer(transfer, b, task.separator, at), uint256)
    if transfer.amount == 0 or transfer.to_sub_account == b >> ledger.B_SUB_ACCOUNT & units.U16:
        units.fail("vault: nothing to transfer")
    if signer != owner:
        self._spend_cap(task, account, b, signer, transfer)
    self._raise_action_sequence(task, account, b, transfer.sequence, owner)
    named: uint256 = owner | transfer.to_sub_account << ledger.B_SUB_ACCOUNT
    target: uint256 = door.word(task.vault, named)
    if target == 0:
        if transfer.amount < MIN_FIRST_DEPOSIT:
            units.fail("vault: too small to register")
        target = self._register(task, named)
    if self._account_at(task, codec.word(at - 24) & units.U16) != target:
        units.fail("vault: transfer elsewhere")
    withdrawable: uint256 = 0
    fresh: bool = False
    withdrawable, fresh = self._withdrawable(task, index)
    if not fresh:
        units.fail("vault: stale price")
    if transfer.amount > withdrawable:
        units.fail("vault: not withdrawable")
    amount: int256 = convert(transfer.amount, int256)
    door.add_to(task.vault, account, -amount)
    door.add_to(task.vault, target, amount)
    extcall task.vault.relay(
        [TRANSFERRED, convert(account, bytes32), convert(target, bytes32), convert(signer, bytes32)],
        abi_encode(transfer.amount),
    )


@internal
def _spend_cap(task: Task, account: uint256, b: uint256, agent: uint256, transfer: signed_actions.Transfer):
    """
    @dev A live agent's cap counts down. Its transfers take the sequence that is next, so that a stolen key cannot use up the
         sequences with which the owner would revoke it.
    """
    key: uint256 = ledger.AGENTS | account << 160 | agent
    word: uint256 = door.word(task.vault, key)
    if word & units.U64 < task.now:
        units.fail("vault: not owner nor live agent")
    if transfer.amount > word >> 64:
        units.fail("vault: above transfer cap")
    if transfer.sequence != (b >> ledger.B_ACTION_SEQUENCE & units.U48) + 1:
        units.fail("vault: action sequence not next")
    door.write(task.vault, key, word - (transfer.amount << 64))


# --------------------------------------------------------------------------------------------------------- section 3, prices


@internal
def _prices(task: Task, oracle: address, start: uint256, overdue: bool) -> uint256:
    """
    @dev What the pinned prices decide: funding hours and trigger bits, whose rows ascend strictly, so that one walk over the rows finds
         them. `start` is where their count ends. Returns where the section ends.
    """
    at: uint256 = start
    pairs_at: uint256 = task.accounts_at + 4 * task.accounts + 2
    row_at: uint256 = pairs_at + 3 * (codec.word(pairs_at) & units.U16) + 4
    row_count: uint256 = codec.word(row_at) & units.U16
    next: uint256 = 0  # the row that begins at `row_at`
    for i: uint256 in range(codec.word(start) & units.U8, bound=255):
        at += 1
        tag: uint256 = codec.word(at) & units.U8
        if tag == FUNDING_HOUR:
            at += 4
            if overdue:
                self._check_hour(task, oracle, codec.word(at) & units.U32)
            self._funding(task, oracle, codec.word(at) & units.U32)
        elif tag == TRIGGER_BIT:
            at += 2
            row: uint256 = codec.word(at) & units.U16
            if row >= row_count or row < next:
                units.fail("vault: trigger rows out of order")
            for k: uint256 in range(row - next, bound=1024):
                row_at = row_layout.end(row_at, codec.word(row_at + 2) & units.U16)
            trigger_bits.set_bit(task.vault, task.now, task.accounts_at, pairs_at, row_at)
            row_at = row_layout.end(row_at, codec.word(row_at + 2) & units.U16)
            next = row + 1
        else:
            units.fail("vault: funding tag reserved")
    return at


@internal
def _funding(task: Task, oracle: address, hour: uint256):
    """
    @dev A funding hour moves the cumulative index of every market of the batch's market table.
    """
    rates: DynArray[int256, 64] = staticcall IPriceOracle(oracle).funding_rates(hour)
    for k: uint256 in range(codec.word(task.markets_at) & units.U8, bound=64):
        market: uint256 = codec.word(task.markets_at + k + 1) & units.U8
        rate: int256 = 0
        if market < len(rates):
            rate = rates[market]
        self._apply_hour(task, market, hour, rate)


@internal
def _apply_hour(task: Task, market: uint256, hour: uint256, rate: int256):
    """
    @dev cumulative += index * lot_tick_value * clamped rate * 1000, once per hour, at a fresh index.
    """
    s: uint256 = door.word(task.vault, ledger.MARKET_S | market)
    if hour <= s >> ledger.S_LAST_HOUR & units.U32:
        units.fail("vault: funding hour not next")
    price: uint256 = door.word(task.vault, PRICES | market)
    p: uint256 = door.word(task.vault, ledger.MARKET_P | market)
    if (price >> 64 & units.U40) + (p >> ledger.P_MAX_PRICE_AGE & units.U16) < task.now:
        units.fail("vault: stale price")
    # min(4 %, half the first maintenance fraction) per hour
    fraction: uint256 = door.word(task.vault, ledger.MARKET_T0 | market) >> 48 & units.U24
    cap: int256 = convert(min(40_000_000, fraction * 250), int256)
    clamped: int256 = max(-cap, min(cap, rate))
    step: int256 = convert((price & units.U32) * (p & units.U32) * 1000, int256) * clamped
    cumulative: int256 = units.signed(s, 128) + step
    kept: uint256 = s >> 128 << 128 & ~(units.U32 << ledger.S_LAST_HOUR)
    door.write(task.vault, ledger.MARKET_S | market, kept | units.bits(convert(convert(cumulative, int128), int256)) & units.U128 | hour << ledger.S_LAST_HOUR
    )
    extcall task.vault.relay(
        [FUNDING_APPLIED, convert(market, bytes32)], abi_encode(hour, clamped, cumulative)
    )


# ---------------------------------------------------------------------------------------------------- section 5, withdrawals


@internal
def _withdrawals(task: Task, start: uint256, count: uint256) -> uint256:
    """
    @dev Signed by the owner; the operator's fee comes out of the amount and is at most the signed maximum.
    """
    at: uint256 = start
    for i: uint256 in range(count, bound=256):
        at += signed_actions.WITHDRAWAL_BYTES
        index: uint256 = codec.word(at - signed_actions.WITHDRAWAL_BYTES + 2) & units.U16
        account: uint256 = self._account_at(task, index)
        withdrawal: signed_actions.Withdrawal = signed_actions.read_withdrawal(at, task.now)
        if withdrawal.fee > withdrawal.max_fee or withdrawal.fee > withdrawal.amount:
            units.fail("vault: withdrawal fee too high")
        b: uint256 = self._named(task, account)
        signer: address = signed_actions.withdrawal_signer(withdrawal, b, task.separator, at)
        self._raise_action_sequence(task, account, b, withdrawal.sequence, convert(signer, uint256))
        withdrawable: uint256 = 0
        fresh: bool = False
        withdrawable, fresh = self._withdrawable(task, index)
        if not fresh:
            units.fail("vault: stale price")
        if withdrawal.amount > withdrawable:
            units.fail("vault: not withdrawable")
        if withdrawal.fee != 0:
            door.add_to(task.vault, account, -convert(withdrawal.fee, int256))
            door.add_to(task.vault, ledger.FEE_ACCOUNT, convert(withdrawal.fee, int256))
        self._claim(task, account, withdrawal.amount - withdrawal.fee)
        at += signed_actions.SIGNATURE_BYTES
    return at
