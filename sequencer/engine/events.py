"""Events: everything that a command did, in order. Frozen; receipts, market data, history and settlement read
them."""

from evermark.protocol.batch import Batch
from evermark.protocol.markets import Market
from evermark.protocol.oracle import Round
from evermark.protocol.orders import Side
from evermark.protocol.reject import Reject
from sequencer.engine.commands import MarketMode, ReversalCause
from sequencer.engine.event_base import CancelReason as CancelReason
from sequencer.engine.event_base import Event as Event


class CommandRejected(Event, frozen=True):
    """The command changed nothing; `reject` says why. `order_hash` is empty for anything but orders."""

    account: int
    reject: Reject
    order_hash: bytes = b""
    client_id: str = ""


class OrderAccepted(Event, frozen=True):
    """The order passed every check; fills, resting or a cancel follow in the same command."""

    account: int
    order_hash: bytes
    client_id: str
    market_id: int
    side: Side
    size: int
    limit_price: int
    slot: int
    order_sequence: int
    filled: int  # carried over by an amend, else 0


class OrderWaits(Event, frozen=True):
    """The order waits outside the book for its trigger price, which a trailing one moves."""

    account: int
    order_hash: bytes
    market_id: int
    trigger_price: int


class OrderTriggered(Event, frozen=True):
    """The order's condition is met at `price`; fills, resting or a cancel follow in the same command."""

    account: int
    order_hash: bytes
    market_id: int
    price: int


class TwapStarted(Event, frozen=True):
    """The order will be sent in `slices` parts, the first one at once and then one each `interval_s`."""

    account: int
    order_hash: bytes
    market_id: int
    slices: int
    interval_s: int


class TwapSliced(Event, frozen=True):
    """Slice `number` of a TWAP asked for `size` lots at `price` or better and got `filled`; its trades came before. `reason` is
    what kept it from more."""

    account: int
    order_hash: bytes
    market_id: int
    number: int
    size: int
    price: int
    filled: int
    reason: str


class OrderRested(Event, frozen=True):
    """`remaining` lots now wait in the book at the limit price."""

    account: int
    order_hash: bytes
    market_id: int
    side: Side
    price: int
    remaining: int


class OrderFilled(Event, frozen=True):
    """The order's whole size is traded."""

    account: int
    order_hash: bytes
    market_id: int
    slot: int
    filled: int


class OrderCancelled(Event, frozen=True):
    """The order left without being filled to the end; `filled` lots had traded."""

    account: int
    order_hash: bytes
    market_id: int
    slot: int
    filled: int
    remaining: int
    reason: CancelReason


class Trade(Event, frozen=True):
    """One fill. Fees in quote units (a rebate is negative); accounts 1 and 2 are the fund and the fee
    account.

    `maker_hash` or `taker_hash` is empty when that side is a liquidation or the fund. `liquidated` is the
    account whose position a liquidation closed (0 otherwise).
    """

    trade_id: int
    market_id: int
    price: int
    size: int
    taker_side: Side
    maker: int
    taker: int
    maker_hash: bytes
    taker_hash: bytes
    maker_fee: int
    taker_fee: int
    liquidated: int = 0
    maker_builder_fee: int = 0  # paid beside the fee, to the builder that the order names
    taker_builder_fee: int = 0


class OrderRestored(Event, frozen=True):
    """A reversal took back what happened to the order: it waits again, in the book or (`triggered` False) for its trigger,
    with `filled` lots traded."""

    account: int
    order_hash: bytes
    market_id: int
    filled: int
    remaining: int
    triggered: bool


class LevelChanged(Event, frozen=True):
    """The total size waiting at one price of one side; 0 removes the level."""

    market_id: int
    side: Side
    price: int
    size: int


class AccountRegistered(Event, frozen=True):
    """A new account."""

    account: int
    owner: bytes
    sub_account: int


class CollateralChanged(Event, frozen=True):
    """Collateral after a change, with the change and its cause (trade, fee, funding, deposit, ...)."""

    account: int
    delta: int
    collateral: int
    cause: str


class PositionChanged(Event, frozen=True):
    """A position after a change. `entry_notional` is the signed cost of the open size, for display and
    PnL."""

    account: int
    market_id: int
    size: int
    entry_notional: int
    realized_pnl: int


class FundingApplied(Event, frozen=True):
    """An hour's rate entered a market's cumulative index."""

    market_id: int
    hour: int
    rate_ppb: int
    index_ticks: int
    cumulative: int


class RoundApplied(Event, frozen=True):
    """New prices are in force; `jumps_ppm` are the bands, by market, that held them back."""

    round: Round
    jumps_ppm: tuple[int, ...] = ()


class MarketModeChanged(Event, frozen=True):
    """A market's effective mode changed: by command, or because its price went stale or fresh again."""

    market_id: int
    mode: MarketMode
    reason: str


class MarketListed(Event, frozen=True):
    """A further market; it trades from its first price on."""

    market: Market


class MarketTuned(Event, frozen=True):
    """A market's parameters, all of them, after a change."""

    market: Market


class KeepersChanged(Event, frozen=True):
    """Who reports from now on, and how many reports it takes."""

    oracle_keepers: tuple[bytes, ...]
    funding_keepers: tuple[bytes, ...]
    oracle_quorum: int
    funding_quorum: int


class AgentChanged(Event, frozen=True):
    """An agent was approved (expiry > 0) or revoked."""

    account: int
    agent: bytes
    expiry: int


class Liquidated(Event, frozen=True):
    """A step of a liquidation: on the book, taken over by the fund, or against a deleveraged position. `loss`
    is against the mark."""

    account: int
    market_id: int
    size: int
    price: int
    loss: int
    fee: int
    taken_over: bool
    deleveraged: bool = False


class Deleveraged(Event, frozen=True):
    """An account's position shrank against a liquidated one, at the mark or at the target's bankruptcy amount.

    It stood at `place` of `of` in its market's queue on its side, with this score.
    """

    account: int
    market_id: int
    size: int
    price: int
    target: int
    place: int
    of: int
    score_ppm: int


class CashSettled(Event, frozen=True):
    """Two opposite positions of a delisted market ended against each other at its settlement price."""

    market_id: int
    account: int
    counterparty: int
    size: int
    price: int


class ForcedClose(Event, frozen=True):
    """A part of what an inbox entry asked to close, at a `loss` against the mark: against a waiting order at its price, or at
    the mark less the loss against the insurance fund or an account of the deleveraging queue."""

    entry_id: int
    account: int
    market_id: int
    size: int
    price: int
    loss: int
    counterparty: int


class WrittenOff(Event, frozen=True):
    """The insurance fund paid `amount` of the debt of an account without positions."""

    account: int
    amount: int


class EntryApplied(Event, frozen=True):
    """An inbox entry took effect on an account; `amount` credited or claimed."""

    entry_id: int
    account: int
    amount: int


class EntrySkipped(Event, frozen=True):
    """An inbox entry could not apply and was consumed without effect."""

    entry_id: int
    reason: str


class ChainRestartNoted(Event, frozen=True):
    """An outage of the chain is known, or the hour after it is over."""

    restarted: bool


class WithdrawalClaimed(Event, frozen=True):
    """A withdrawal became a claim in the open batch. The chain pays it once settled and, where the outflow limits
    delay it, not before `payable_at` (unix seconds; 0: at once)."""

    account: int
    owner: bytes
    amount: int
    fee: int
    claim: int = 0
    payable_at: int = 0


class Transferred(Event, frozen=True):
    """Collateral moved between two accounts of one owner; `signer` is the owner or an agent."""

    account: int
    target: int
    amount: int
    signer: bytes


class BatchSealed(Event, frozen=True):
    """The open batch is complete. `batch.journal_sequence` is the last command in it; the hash is zero here
    and filled in by settlement from the journal. `round` is what must be posted before the batch settles."""

    batch: Batch
    round: Round


class Reversed(Event, frozen=True):
    """Everything that records after `after` did is void, the trades `first_trade` to `last_trade` among it (none when the first
    is above the last). What the exchange is like now, where that differs, follows in the same command."""

    after: int
    batch_id: int  # the last batch that stands
    cause: ReversalCause
    first_trade: int
    last_trade: int
    funding_hour: int  # the last one that stands applied
    markets: int = 0  # how many stand listed (0 in old snapshots: all)
    round: int = 0  # the one that is in force again, where prices are taken back too

    def trades_voided(self, before: "Reversed | None") -> int:
        """How many trades it voids that the reversal before it had not: one to the same point goes over them again."""
        return self.last_trade - max(self.first_trade - 1, before.last_trade if before is not None else 0)


class ForeignBatchApplied(Event, frozen=True):
    """Somebody else's batch took effect, as it has on the chain."""

    batch_id: int
    entries: int
    funding_hours: int
    fills: int = 0  # of a close or a liquidation that the inbox asks for


class AccountHalted(Event, frozen=True):
    """An account may only cancel now, or trades again."""

    account: int
    halted: bool
    reason: str


AnyEvent = (
    CommandRejected
    | OrderAccepted
    | OrderWaits
    | OrderTriggered
    | TwapStarted
    | TwapSliced
    | OrderRested
    | OrderFilled
    | OrderCancelled
    | OrderRestored
    | Trade
    | LevelChanged
    | AccountRegistered
    | CollateralChanged
    | PositionChanged
    | FundingApplied
    | RoundApplied
    | MarketModeChanged
    | MarketListed
    | MarketTuned
    | KeepersChanged
    | AgentChanged
    | Liquidated
    | Deleveraged
    | CashSettled
    | ForcedClose
    | WrittenOff
    | EntryApplied
    | EntrySkipped
    | ChainRestartNoted
    | WithdrawalClaimed
    | Transferred
    | BatchSealed
    | Reversed
    | ForeignBatchApplied
    | AccountHalted
)
