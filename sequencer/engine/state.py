"""The engine's state: everything that the journal determines, and caches that can be recomputed from it.

Only `apply` changes it. A gateway may read it between two commands (see `views.py`).
"""

from typing import Final

from mypy_extensions import mypyc_attr

from evermark.protocol.oracle import Round
from evermark.protocol.outflow import Outflow
from evermark.protocol.units import USDC, check
from sequencer.engine.batch_builder import Baseline, OpenBatch
from sequencer.engine.commands import Genesis
from sequencer.engine.expiry_index import ExpiryIndex
from sequencer.engine.market_state import MarketState
from sequencer.engine.order_book import RestingOrder

# Of the oldest batch that waits: beyond the first only reducing orders, so that settlement catches up; beyond the second
# nothing trades, for what is matched must settle within the vault's 120 s.
MAX_UNSETTLED_AGE_S: Final = 30
STOP_UNSETTLED_AGE_S: Final = 60
MAX_UNSETTLED_BATCHES = 200  # sealed and not confirmed; at the bound only reducing orders are taken
MAX_UNSETTLED_NOTIONAL: Final = 50_000_000 * USDC  # quote units traded in them
# A round older than this carries no new effects: its batch could miss the 120 s window.
MAX_ROUND_AGE_MS: Final = 60_000
# Without new rounds a batch is sealed after this, so that it still settles in time.
MAX_OPEN_BATCH_AGE_MS: Final = 20_000


class SlotState:
    """A slot's nonce: the highest sequence seen, and what the last order that traded left on the chain; and its order."""

    __slots__ = ("filled", "live", "sequence", "used_sequence")

    def __init__(self, sequence: int = 0, used_sequence: int = 0, filled: int = 0) -> None:
        self.sequence = sequence
        self.used_sequence = used_sequence
        self.filled = filled  # of the order with `used_sequence`; an amend carries it over
        self.live: RestingOrder | None = None  # the order that waits, in the book or for its trigger


@mypyc_attr(acyclic=True)
class Position:
    """An account's position in one market, with its open orders there summed up.

    Its value, margins, notional and worst case are a cache at the account's epoch (see `risk.py`).
    """

    __slots__ = (
        "buy_lots",
        "entry_cumulative",
        "entry_mark",
        "entry_notional",
        "highest_buy",
        "initial",
        "lowest_sell",
        "maintenance",
        "mark_before",
        "market_id",
        "noted_in",
        "notional",
        "reduce_orders",
        "sell_lots",
        "size",
        "size_before",
        "value",
        "worst",
    )

    def __init__(self, market_id: int) -> None:
        # What a price round reads and writes comes first: compiled, it then lies together.
        self.size = 0
        self.entry_cumulative = 0
        self.buy_lots = 0  # waiting orders that may grow the position
        self.sell_lots = 0
        self.highest_buy = 0  # no waiting one of them is dearer, while there are any; else 0
        self.lowest_sell = 0  # nor cheaper
        self.value = 0
        self.initial = 0
        self.maintenance = 0
        self.notional = 0
        self.worst = 0
        self.market_id = market_id
        self.entry_mark = 0
        self.entry_notional = 0  # signed cost of the open size, for display
        self.reduce_orders = 0  # waiting reduce-only orders
        self.noted_in = -1  # the last batch whose fills changed it, and what it was before them
        self.size_before = 0
        self.mark_before = 0

    @property
    def in_use(self) -> bool:
        """It is open, or waiting orders may open it."""
        return self.size != 0 or self.buy_lots != 0 or self.sell_lots != 0

    def note(self, batch_number: int) -> None:
        """Remember what it is before that batch's fills change it."""
        self.noted_in = batch_number
        self.size_before = self.size
        self.mark_before = self.entry_mark

    def opposes(self, sign: int) -> bool:
        """A buy (`sign` +1), or a sell, would reduce it."""
        return self.size < 0 if sign > 0 else self.size > 0


class Account:
    """A margin pool. `epoch` says for which prices the sums of its positions are cached."""

    __slots__ = (
        "account_id",
        "action_sequence",
        "collateral",
        "epoch",
        "initial",
        "maintenance",
        "min_sequence",
        "noted",
        "notional",
        "open_positions",
        "order_fees",
        "order_loss",
        "orders",
        "owner",
        "positions",
        "slots",
        "sub_account",
        "taker_sequence",
        "trigger_hour",
        "trigger_placed",
        "untriggered",
        "used_taker_sequence",
        "value",
        "worst",
    )

    def __init__(self, account_id: int, owner: bytes, sub_account: int) -> None:
        self.account_id = account_id
        self.owner = owner
        self.sub_account = sub_account
        self.collateral = 0
        self.action_sequence = 0
        self.min_sequence = 0  # orders at or below are void
        self.taker_sequence = 0  # highest slot-0 sequence seen
        self.used_taker_sequence = 0  # highest slot-0 sequence that traded, as the vault stores it
        self.open_positions = 0
        self.positions: dict[int, Position] = {}
        self.slots: dict[int, SlotState] = {}
        self.orders: dict[int, RestingOrder] = {}  # in the book, by slot
        self.untriggered: dict[int, RestingOrder] = {}  # waiting for their trigger, by slot
        self.trigger_hour = 0  # the last hour in which it placed mark-trigger orders, and how many
        self.trigger_placed = 0
        self.noted: Baseline | None = None  # of the batch whose fills touched it last
        self.order_fees = 0  # fees that the waiting orders may cost
        self.epoch = -1
        self.value = 0  # signed value of the positions at the mark, less funding owed
        self.initial = 0
        self.maintenance = 0
        self.notional = 0
        self.worst = 0  # initial margin with the worst case of open orders
        self.order_loss = 0  # what the waiting orders would lose against the mark


# Names of everything in the state; compiled classes do not tell theirs.
STATE_FIELDS: Final = (
    "_by_id",
    "_round",
    "account_ids",
    "accounts",
    "agents",
    "batch",
    "chain_restarted",
    "claim_count",
    "claimed",
    "closed_lots",
    "closing_entry",
    "confirmed_batch",
    "credited",
    "debtors",
    "delayed_claims",
    "dust",
    "entry_count",
    "epoch",
    "expiries",
    "funding_hour",
    "funding_pool",
    "genesis",
    "halted",
    "hold_began",
    "market_ids",
    "markets",
    "negatives",
    "now",
    "now_ms",
    "outflow",
    "sealed_batch",
    "sequence",
    "stale_markets",
    "stamp_ms",
    "stirred",
    "trade_count",
    "twaps",
    "unsettled",
    "unsettled_sealed",
    "waiting_deposits",
)


class EngineState:
    """Everything. A new one accepts nothing but Genesis."""

    __slots__ = STATE_FIELDS

    def __init__(self) -> None:
        self.genesis: Genesis | None = None  # with the markets, keepers and quorums that are in force now
        self.sequence = 0  # last applied command
        self.stamp_ms = 0
        self.accounts: dict[int, Account] = {}  # ids count up from 1 without gaps
        self._by_id: list[Account] = []  # the same; a list finds one among many faster
        self.account_ids: dict[tuple[bytes, int], int] = {}
        self.agents: dict[tuple[int, bytes], tuple[int, int]] = {}  # (expiry, transfer cap)
        self.markets: list[MarketState] = []
        self.market_ids: dict[str, int] = {}
        self.now = 0  # engine time in unix seconds: the last round's; and in milliseconds
        self.now_ms = 0
        self.round = Round(0, 0, ())
        self.funding_hour = 0  # last applied
        self.funding_pool = 0
        self.dust = 0  # 1e-12 quote units, below one unit
        self.credited = 0  # deposits and donations consumed
        self.claimed = 0  # withdrawals, paid or not
        self.claim_count = 0
        self.chain_restarted = False  # the chain was down within the last hour, as far as it is known
        self.hold_began = 0  # engine time at which an account below zero last began to hold withdrawals
        self.negatives: set[int] = set()  # accounts that were seen below zero
        self.outflow = Outflow()
        # claims that are not payable yet: heap of (due, claim, account, amount)
        self.delayed_claims: list[tuple[int, int, int, int]] = []
        self.entry_count = 0  # inbox entries consumed
        self.closing_entry = 0  # the inbox entry that was last closed for, and its lots so far
        self.closed_lots = 0
        self.trade_count = 0
        self.stirred: set[int] = set()  # markets with a new mark or trade, until all triggers are looked at
        # deposits behind an entry that cannot apply yet: id -> owner, sub-account, created
        self.waiting_deposits: dict[int, tuple[bytes, int, int]] = {}
        self.halted: dict[int, bool] = {}  # accounts that may only cancel; True: and are not liquidated
        self.batch = OpenBatch(1)
        self.sealed_batch = 0
        self.confirmed_batch = 0
        # (round time, notional) of each batch after `confirmed_batch`
        self.unsettled: list[tuple[int, int]] = []
        self.unsettled_sealed = 0  # sum of their notional
        self.epoch = 0  # counts changes of prices and funding; a cache key, not part of the hash
        self.expiries = ExpiryIndex()  # a cache: of every order that waits
        # a cache: a heap of (due, account, slot, sequence) of the next slice of each TWAP; those of ended orders mean nothing
        self.twaps: list[tuple[int, int, int, int]] = []
        self.stale_markets = 0
        # a cache: users whose last position closed and whose debts, if any, were not looked at since
        self.debtors: set[int] = set()

    def add_account(self, account: Account) -> None:
        """The next account."""
        check(account.account_id == len(self._by_id) + 1, "accounts: an id was left out")
        self.accounts[account.account_id] = account
        self._by_id.append(account)

    def account(self, account_id: int) -> Account | None:
        """The account of that id, None when there is none."""
        return self._by_id[account_id - 1] if 0 < account_id <= len(self._by_id) else None

    def become(self, other: "EngineState") -> None:
        """Take over everything of `other`, which is used up. Whoever reads this state goes on with it."""
        for name in STATE_FIELDS:
            setattr(self, name, getattr(other, name))

    def price_by(self, round_: Round) -> None:
        """Put a round's prices in force, with all that is kept about them; a market that the round does not know keeps its
        own."""
        self.round = round_
        self.epoch += 1
        for at, price in zip(self.markets, round_.prices, strict=False):
            at.price = price
        for at in self.markets:
            at.stale = not at.price.is_fresh(self.now, at.market.max_price_age_s)
        self.stale_markets = sum(at.stale for at in self.markets)

    @property
    def round(self) -> Round:
        """The prices in force."""
        return self._round

    @round.setter
    def round(self, round_: Round) -> None:
        self._round = round_
        self.now = round_.timestamp
        self.now_ms = round_.timestamp * 1000

    @property
    def next_entry_id(self) -> int:
        """Id of the inbox entry that must come next."""
        return self.entry_count + 1

    @property
    def unsettled_notional(self) -> int:
        """Traded and not confirmed on the chain, the open batch included, quote units."""
        return self.unsettled_sealed + self.batch.notional

    @property
    def unsettled_age_s(self) -> int:
        """How far the oldest batch that waits for the chain is behind engine time; 0 when none waits."""
        return self.now - self.unsettled[0][0] if self.unsettled else 0
