"""The open batch: what the engine has done since the last sealing, and how that becomes a settlement batch.

Fees round up once per order row and batch, so where batches end is part of the engine's state.
"""

from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from evermark.protocol.batch import (
    FILL_LIQUIDATION,
    FILL_TAKEOVER,
    NO_INDEX,
    AgentApproval,
    Batch,
    CollateralTransfer,
    Fill,
    InboxUse,
    OrderRow,
    TriggerBit,
    Withdrawal,
    WriteOff,
)
from evermark.protocol.margin import AccountMargin
from evermark.protocol.markets import MAX_MARKETS, Market
from evermark.protocol.merkle import Path
from evermark.protocol.oracle import Round, prices_hash
from evermark.protocol.orders import ApproveAgent, Order, Signature, Transfer, Withdraw

if TYPE_CHECKING:
    from sequencer.engine.state import Account

# Sections in the order in which the vault works through them.
STAGE_EMPTY: Final = 0
STAGE_INBOX: Final = 1
STAGE_ACTIONS: Final = 2
STAGE_FUNDING: Final = 3
STAGE_FILLS: Final = 4
STAGE_WITHDRAWALS: Final = 5

# Bounds of a batch: the embedded chain settles one within a second, and each stays far below the gas cap.
MAX_ROWS: Final = 120
MAX_FILLS: Final = 128
MAX_ACCOUNTS: Final = 96
MAX_PAIRS: Final = 256
MAX_INBOX: Final = 32  # the Inbox contract hands out no more at once
MAX_ACTIONS: Final = 32
MAX_WITHDRAWALS: Final = 32
MAX_FUNDING_HOURS: Final = 24

FILL_CAP: Final = 32  # fills of one command: all of them lie in one batch
ROOM_ROWS: Final = FILL_CAP + 1
ROOM_ACCOUNTS: Final = FILL_CAP + 4  # taker, fund, fee account and keeper beside the makers
ROOM_PAIRS: Final = 128  # a command that needs more pairs stops early instead

# The vault takes 32,768 bytes. What one entry of each kind takes at most; paths are counted as they come.
MAX_BYTES: Final = 32_000
ROW_BYTES: Final = 144
FILL_BYTES: Final = 15
ACTION_BYTES: Final = 113
WITHDRAWAL_BYTES: Final = 115
ROOM_BYTES: Final = ROOM_ROWS * (ROW_BYTES + 2 + 32 * 6) + FILL_CAP * FILL_BYTES

RowKey = tuple[int, int, int]  # account, slot, sequence
PairKey = int  # see `pair_key`


def pair_key(account_id: int, market_id: int) -> PairKey:
    """An account's position in a market as one number; pairs sort by account, then market."""
    return account_id * MAX_MARKETS + market_id


def pair_of(key: PairKey) -> tuple[int, int]:
    """The account and the market of a pair."""
    return divmod(key, MAX_MARKETS)


def path_bytes(path: Path | None) -> int:
    """Bytes of a row's evidence beyond those of a plain signature."""
    return 0 if path is None else 4 + 32 * len(path)


@mypyc_attr(acyclic=True)
class Row:
    """An order that traded in the open batch `number`, and its fee and its builder's so far as numerators in ppm."""

    __slots__ = (
        "builder",
        "builder_numerator",
        "index",
        "key",
        "market_id",
        "number",
        "numerator",
        "order",
        "path",
        "signature",
    )

    def __init__(
        self,
        number: int,
        key: RowKey,
        market_id: int,
        order: Order,
        signature: Signature,
        path: Path | None = None,
        numerator: int = 0,
    ) -> None:
        self.number = number
        self.key = key
        self.index = 0  # in the table of the batch, once it is built
        self.path = path
        self.market_id = market_id
        self.order = order
        self.signature = signature
        self.numerator = numerator
        self.builder = 0  # account of the builder that gets a fee, 0: none
        self.builder_numerator = 0


@mypyc_attr(acyclic=True)
class Baseline:
    """An account's margin when section 4 of batch `number` first touched it, and how many of its positions changed there, each
    of which knows what it was. Once there are some, the batch names all of the account's open positions. An account has one, of
    the batch that touched it last."""

    __slots__ = ("changed", "equity", "maintenance", "number")

    def __init__(self) -> None:
        self.number = -1
        self.equity = 0
        self.maintenance = 0
        self.changed = 0

    def begin(self, number: int, equity: int, maintenance: int) -> None:
        """Forget the batch before."""
        self.number = number
        self.equity = equity
        self.maintenance = maintenance
        self.changed = 0

    def margin(self) -> AccountMargin:
        """As the closing check wants it; the initial margin before does not matter there."""
        before = AccountMargin(self.equity)
        before.maintenance = self.maintenance
        return before


@mypyc_attr(acyclic=True)
class OpenFill:
    """A fill before its rows and pairs have an index. `first` and `second` as in `batch.Fill`."""

    __slots__ = ("first", "keeper", "kind", "second", "size")

    def __init__(
        self, kind: int, first: Row | PairKey, second: Row | PairKey, size: int, keeper: int = 0
    ) -> None:
        self.kind = kind
        self.first = first
        self.second = second
        self.size = size
        self.keeper = keeper  # account id, 0: none


@mypyc_attr(acyclic=True)
class OpenAction:
    """An action of section 2 before its accounts have an index; `target` receives a transfer, else 0.

    `signed` None is a write-off, whose signature means nothing.
    """

    __slots__ = ("account", "signature", "signed", "target")

    def __init__(
        self, account: int, signed: ApproveAgent | Transfer | None, signature: Signature, target: int = 0
    ) -> None:
        self.account = account
        self.signed = signed
        self.signature = signature
        self.target = target


class OpenBatch:
    """Everything that waits to be sealed. `number` is the id that the batch will have, 0 of one that is only looked at."""

    __slots__ = (
        "accounts",
        "actions",
        "deleveraged",
        "fills",
        "funding_hours",
        "funding_markets",
        "inbox",
        "noted",
        "notional",
        "number",
        "opened_ms",
        "pairs",
        "path_bytes",
        "priced",
        "row_accounts",
        "rows",
        "stage",
        "targets",
        "triggers",
        "withdrawals",
    )

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.stage = STAGE_EMPTY
        self.opened_ms = 0
        self.priced = False  # something in it depends on the round
        self.inbox: list[int] = []  # account of each entry, 0: none
        self.actions: list[OpenAction] = []
        self.funding_hours: list[int] = []
        self.funding_markets: set[int] = set()
        self.rows: dict[RowKey, Row] = {}
        self.triggers: list[RowKey] = []  # rows whose slots are marked triggered
        self.fills: list[OpenFill] = []
        self.withdrawals: list[tuple[int, Withdraw, int, Signature]] = []
        self.accounts: set[int] = set()
        self.pairs: set[PairKey] = set()
        self.noted: list[Account] = []  # who has a baseline in it
        self.row_accounts: set[int] = set()
        self.targets: set[int] = set()
        self.deleveraged = False  # some target's orders may still wait in the book
        self.notional = 0
        self.path_bytes = 0  # of rows that came in order batches

    @property
    def most_bytes(self) -> int:
        """What the batch takes when it is encoded, at most, but for a kilobyte of header and small counts."""
        return (
            len(self.rows) * ROW_BYTES
            + self.path_bytes
            + len(self.fills) * FILL_BYTES
            + len(self.actions) * ACTION_BYTES
            + len(self.withdrawals) * WITHDRAWAL_BYTES
            + len(self.pairs) * 3
            + len(self.accounts) * 4
            + 1_000
        )

    @property
    def is_empty(self) -> bool:
        """Nothing to settle."""
        return self.stage == STAGE_EMPTY

    def has_room_for_fills(self) -> bool:
        """One more command's worth of fills fits."""
        return (
            len(self.rows) + ROOM_ROWS <= MAX_ROWS
            and len(self.fills) + FILL_CAP <= MAX_FILLS
            and len(self.accounts) + ROOM_ACCOUNTS <= MAX_ACCOUNTS
            and len(self.pairs) + ROOM_PAIRS <= MAX_PAIRS
            and self.most_bytes + ROOM_BYTES <= MAX_BYTES
        )

    def has_room_for_account(self, pairs: int) -> bool:
        """One more account with `pairs` positions fits, the fund and the fee account included."""
        return (
            len(self.accounts) + 3 <= MAX_ACCOUNTS
            and len(self.pairs) + pairs <= MAX_PAIRS
            and self.most_bytes + WITHDRAWAL_BYTES + 3 * pairs <= MAX_BYTES
        )

    def markets(self) -> set[int]:
        """Markets that the market table will name."""
        return {key % MAX_MARKETS for key in self.pairs} | self.funding_markets


def build(
    open_: OpenBatch, batch_id: int, round_: Round, journal_sequence: int, markets: list[Market]
) -> Batch:
    """The settlement batch of an open batch; indices follow from the sorted tables. The journal hash stays
    zero."""
    accounts = tuple(sorted(open_.accounts))
    account_at = {account: index for index, account in enumerate(accounts)}
    pair_keys = sorted(open_.pairs)
    pair_at = {key: index for index, key in enumerate(pair_keys)}
    fee_classes: dict[tuple[int, int], int] = {}
    class_of: dict[int, int] = {}  # by market
    rows = []
    for index, key in enumerate(sorted(open_.rows)):
        row = open_.rows[key]
        row.index = index
        fee_class = class_of.get(row.market_id, -1)
        if fee_class < 0:
            market = markets[row.market_id]
            rates = (market.maker_fee_ppm, market.taker_fee_ppm)
            class_of[row.market_id] = fee_class = fee_classes.setdefault(rates, len(fee_classes))
        builder = account_at[row.builder] if row.builder else NO_INDEX
        pair = pair_at[pair_key(key[0], row.market_id)]
        rows.append(OrderRow(pair, fee_class, row.order, row.signature, row.path, builder))
    return Batch(
        batch_id=batch_id,
        round=round_.round,
        prices_hash=prices_hash(round_),
        journal_sequence=journal_sequence,
        journal_hash=bytes(32),
        fee_classes=tuple(fee_classes),
        markets=tuple(sorted(open_.markets())),
        accounts=accounts,
        pairs=tuple([(account_at[key // MAX_MARKETS], key % MAX_MARKETS) for key in pair_keys]),
        orders=tuple(rows),
        inbox=tuple(InboxUse(account_at[account] if account else NO_INDEX) for account in open_.inbox),
        actions=tuple(_action(action, account_at) for action in open_.actions),
        funding_hours=tuple(open_.funding_hours),
        triggers=tuple(TriggerBit(row) for row in sorted(open_.rows[key].index for key in open_.triggers)),
        fills=tuple([_fill(fill, pair_at, account_at) for fill in open_.fills]),
        withdrawals=tuple(
            Withdrawal(account_at[account], withdraw, fee, signature)
            for account, withdraw, fee, signature in open_.withdrawals
        ),
    )


def _action(action: OpenAction, account_at: dict[int, int]) -> AgentApproval | CollateralTransfer | WriteOff:
    index, signed = account_at[action.account], action.signed
    if signed is None:
        return WriteOff(index)
    if isinstance(signed, Transfer):
        return CollateralTransfer(index, account_at[action.target], signed, action.signature)
    return AgentApproval(index, signed, action.signature)


def _fill(fill: OpenFill, pair_at: dict[PairKey, int], account_at: dict[int, int]) -> Fill:
    first, second, keeper = fill.first, fill.second, NO_INDEX
    if fill.keeper and fill.kind in (FILL_LIQUIDATION, FILL_TAKEOVER):
        keeper = account_at[fill.keeper]
    return Fill(
        fill.kind,
        first.index if isinstance(first, Row) else pair_at[first],
        second.index if isinstance(second, Row) else pair_at[second],
        fill.size,
        keeper,
    )
