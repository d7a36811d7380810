"""What the exchange answers, as frozen structs. Integers are lots, ticks and quote units unless a name says
otherwise.
"""

from decimal import Decimal
from typing import Any

import msgspec

from evermark.protocol.markets import Market


class ExchangeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The fixed facts of one exchange. Addresses are 0x-hex."""

    chain_id: int
    vault: str
    oracle: str
    inbox: str
    token: str
    round_seconds: int
    markets: tuple[Market, ...]
    fee_schedule: dict[str, Any] = {}

    def market(self, symbol: str) -> Market | None:
        """The market of this symbol, or None."""
        return next((market for market in self.markets if market.symbol == symbol), None)


class OrderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the exchange knows it; `status` is open, untriggered, triggered, filled, cancelled, rejected or
    never_seen."""

    status: str
    order_hash: str = ""
    client_id: str = ""
    account: int = 0
    market: str = ""
    side: str = ""
    size: int = 0
    limit_price: int = 0
    slot: int = 0
    sequence: int = 0
    filled: int = 0
    remaining: int = 0
    average_price: str | None = None  # decimal ticks
    reason: str = ""
    fee: int = 0
    time_ms: int = 0
    journal_sequence: int = 0
    time_in_force: str = ""
    post_only: bool = False
    reduce_only: bool = False
    expiry: int = 0
    trigger: str = "none"
    trigger_price: int = 0
    trailing_offset: int = 0
    bracket_link: int = 0
    display_size: int = 0
    twap_interval: int = 0
    builder: str = ""
    max_builder_fee_ppm: int = 0
    builder_fee: int = 0  # paid so far, beside `fee`

    @property
    def is_open(self) -> bool:
        """True while the order waits, in the book or for its trigger."""
        return self.status in ("open", "untriggered", "triggered")

    @property
    def average_price_ticks(self) -> Decimal | None:
        """Average execution price in ticks, None before the first fill."""
        return None if self.average_price is None else Decimal(self.average_price)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One open position; `size` is signed lots, `entry_price` decimal ticks."""

    market: str
    size: int
    entry_price: str
    mark: int
    notional: int
    unrealized_pnl: int
    funding_owed: int
    liquidation_price: int | None = None


class QueuePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a position stands in its market's queue of auto-deleveraging: `place` of `of` (None: in no queue), `lights` 1 to 5
    (5: of the fifth that goes first), its score in ppm."""

    market: str
    place: int | None
    of: int
    lights: int
    score_ppm: int | None


class DelayedWithdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that the outflow limits delay: `amount` quote units, payable from `payable_at` (unix seconds) on."""

    claim: int
    amount: int
    payable_at: int


class AccountInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Balance, margin and positions of one account in quote units."""

    account: int
    owner: str
    sub_account: int
    collateral: int
    equity: int
    initial_margin: int
    maintenance_margin: int
    withdrawable: int
    action_sequence: int
    positions: tuple[Position, ...] = ()
    open_orders: int = 0
    delayed_withdrawals: tuple[DelayedWithdrawal, ...] = ()


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of this account; `fee` in quote units, negative for a rebate; `builder_fee` was paid beside it."""

    trade_id: int
    market: str
    side: str
    price: int
    size: int
    fee: int
    role: str  # maker or taker
    order_hash: str
    liquidation: bool
    time_ms: int
    builder_fee: int = 0


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Price levels, best first, as (price ticks, lots, orders)."""

    market: str
    sequence: int
    bids: tuple[tuple[int, int, int], ...]
    asks: tuple[tuple[int, int, int], ...]


class WithdrawReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted withdrawal: the claim over `amount - fee` travels in settlement batch `batch`. The chain pays it once
    settled, and not before `payable_at` (unix seconds; 0: at once), until when the outflow limits delay it."""

    account: int
    amount: int
    fee: int
    batch: int
    claim: int = 0
    payable_at: int = 0


class TransferReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer that took effect: `amount` quote units went from `account` to `target`."""

    account: int
    target: int
    amount: int


class AgentReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """An agent approval in force; `expiry` 0 means revoked."""

    account: int
    agent: str
    expiry: int


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """Hashes of the orders that a cancel removed."""

    cancelled: tuple[str, ...]
