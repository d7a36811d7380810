"""Commands: the only way into the engine. Frozen, journaled before they are applied, replayed after a crash.

Signatures and signers were checked at the gate; a command carries them because the vault checks them again.
"""

import enum

import msgspec

from evermark.protocol.governance import AnyChange
from evermark.protocol.markets import Market
from evermark.protocol.merkle import Path
from evermark.protocol.oracle import Round, SignedFundingReport, SignedPriceReport
from evermark.protocol.orders import (
    NO_ADDRESS,
    ApproveAgent,
    Cancel,
    Order,
    Signature,
    Transfer,
    Withdraw,
)


class MarketMode(enum.IntEnum):
    """What a market accepts; each change is a command."""

    NORMAL = 0
    POST_ONLY = 1
    REDUCE_ONLY = 2
    CANCEL_ONLY = 3
    HALTED = 4
    SETTLED = 5  # a delisted market, for good; never by command


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind", gc=False):
    """Base of all commands; the tag is the class name."""


class Genesis(Command, frozen=True):
    """Journal record 1: everything that the rest of the journal depends on."""

    chain_id: int
    vault: bytes
    oracle: bytes
    round_seconds: int
    oracle_quorum: int
    funding_quorum: int
    oracle_keepers: tuple[bytes, ...]
    funding_keepers: tuple[bytes, ...]
    markets: tuple[Market, ...]


class OracleRound(Command, frozen=True):
    """A quorum of price reports for one round, signers ascending."""

    reports: tuple[SignedPriceReport, ...]


class FundingHour(Command, frozen=True):
    """A quorum of funding reports for one hour, signers ascending; applies the hour to every market."""

    reports: tuple[SignedFundingReport, ...]


class InboxEntryKind(enum.IntEnum):
    """Kinds of on-chain inbox entries, as the Inbox contract numbers them."""

    DEPOSIT = 1
    DONATION = 2
    WITHDRAWAL = 3
    CLOSE = 4
    CANCEL = 5
    APPROVE_AGENT = 6
    REVOKE_AGENT = 7
    LIQUIDATE = 8
    GOVERNOR = 9
    GUARDIAN = 10


class InboxEntry(Command, frozen=True):
    """The next confirmed inbox entry, in queue order. The fields from `created` on are what its kind needs."""

    entry_id: int
    entry_kind: InboxEntryKind
    owner: bytes
    sub_account: int
    amount: int  # quote units; of an approval the agent's transfer cap
    created: int = 0  # unix seconds
    slot: int = 0  # of a cancel; ALL_SLOTS: every slot
    order_sequence: int = 0  # of a cancel: everything up to it
    agent: bytes = NO_ADDRESS
    agent_expiry: int = 0
    market_id: int = 0  # of a close
    size: int = 0  # of a close: lots to close, with the position's sign
    mark: int = 0  # of a close: the mark when it was made, in ticks
    target: int = 0  # of a liquidation: the account
    due: int = 0  # unix seconds; anybody may execute it after that
    change: AnyChange | None = None  # of governor and guardian


class DepositWaits(Command, frozen=True):
    """A deposit that waits in the inbox, itself or behind an entry that cannot apply yet."""

    entry_id: int
    owner: bytes
    sub_account: int
    created: int  # unix seconds


class ChainRestarted(Command, frozen=True):
    """PriceOracle.restarted() as read on the chain: True from an outage of the chain until an hour after it."""

    restarted: bool
    block_number: int


class PlaceOrder(Command, frozen=True):
    """A signed order whose signature and signer the gate has verified.

    With a `path` it came in an `OrderBatch`: the signature is of the root that the path leads to.
    """

    account: int
    order: Order
    order_hash: bytes  # struct hash
    signature: Signature
    signer: bytes
    client_id: str = ""
    path: Path | None = None


class CancelOrder(Command, frozen=True):
    """A signed cancel: of one slot up to a sequence, or of the whole account."""

    account: int
    cancel: Cancel
    signature: Signature
    signer: bytes


class AgentApproval(Command, frozen=True):
    """A signed agent approval or revocation (expiry 0)."""

    account: int
    approval: ApproveAgent
    signature: Signature


class WithdrawRequest(Command, frozen=True):
    """A signed withdrawal; `fee` is what the operator takes, at most the signed maximum."""

    account: int
    withdraw: Withdraw
    fee: int
    signature: Signature


class TransferRequest(Command, frozen=True):
    """A signed transfer between sub-accounts of one owner, by the owner or an agent within its cap."""

    account: int
    transfer: Transfer
    signature: Signature
    signer: bytes


class TriggerLiquidation(Command, frozen=True):
    """A liquidation keeper points at a position; `keeper_account` gets its share (0: none)."""

    account: int
    market_id: int
    keeper: bytes
    keeper_account: int = 0


class SetMarketMode(Command, frozen=True):
    """The operator changes what a market accepts."""

    market_id: int
    mode: MarketMode
    reason: str


class BatchConfirmed(Command, frozen=True):
    """The chain has confirmed a settlement batch; frees unsettled exposure."""

    batch_id: int
    block_number: int


class ReversalCause(enum.StrEnum):
    """Why what was matched can never settle."""

    FOREIGN_BATCH = "foreign_batch"  # somebody else's batch took the id
    MISSED_WINDOW = "missed_window"  # its round is too old for the vault
    REVERTING_BATCH = "reverting_batch"  # the vault refuses it
    OTHER_FUNDING = "other_funding"  # the chain holds other rates for a funding hour of it


class Reverse(Command, frozen=True):
    """Everything after record `after`, the last command of batch `batch_id`, is void: the chain has confirmed that batch,
    and nothing that follows it will ever settle. Batch 0: nothing was settled, and `after` is the genesis.

    Prices stay, unless `with_prices`: then the rules that made them are void too, and the newest round comes again behind this.
    """

    after: int
    batch_id: int
    cause: ReversalCause
    with_prices: bool = False


class ForeignBatch(Command, frozen=True):
    """Somebody else's batch, settled and confirmed: overdue work that anybody may do.

    `calldata` is the batch; the rest is what it refers to on the chain: the round that it pins, whose lane may be the public
    one, the inbox entries that it consumed, and each of its funding hours' median rates by market.
    """

    batch_id: int
    calldata: bytes
    round: Round
    entries: tuple[InboxEntry, ...]
    rates: tuple[tuple[int, ...], ...]
    block_number: int
    head: InboxEntry | None = (
        None  # of a batch with fills: the entry that asks for them, which it did not consume
    )


class HaltAccount(Command, frozen=True):
    """From now on the account may only cancel, and, with `liquidation`, is not liquidated either; or (`halted` False) it trades
    again. What the vault would not take of it was taken back."""

    account: int
    halted: bool
    reason: str
    liquidation: bool = False


AnyCommand = (
    Genesis
    | OracleRound
    | FundingHour
    | InboxEntry
    | DepositWaits
    | ChainRestarted
    | PlaceOrder
    | CancelOrder
    | AgentApproval
    | WithdrawRequest
    | TransferRequest
    | TriggerLiquidation
    | SetMarketMode
    | BatchConfirmed
    | Reverse
    | ForeignBatch
    | HaltAccount
)
