"""Account ids that a reversal took back: who registers again may get another id, and what is told of the void account follows its
owner there.

Until then it has an id that nobody has, made of the record that registered it.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select

from sequencer.engine.events import AccountRegistered
from sequencer.history import tables
from sequencer.history.records import OrderRecord
from sequencer.history.store import Moved, fetch

Owner = tuple[bytes, int]  # address, sub-account


class Owners:
    """What has to move in the store, and in memory at once."""

    def __init__(self) -> None:
        self.moved: list[Moved] = []  # what the next write has to do
        self._void: dict[Owner, int] = {}  # the id that nobody has

    def load(self, connection: Connection) -> None:
        """Void accounts, as the last run left them."""
        waiting = select(tables.accounts).where(tables.accounts.c.account < 0)
        self._void = {_owner(row): row["account"] for row in fetch(connection, waiting)}

    def reverse(self, connection: Connection, after: int, orders: Iterable[OrderRecord]) -> None:
        """Nobody is registered any more who was after record `after`; everything counted is stored."""
        known = tables.accounts.c
        void = select(tables.accounts).where(known.account > 0, known.journal_sequence > after)
        for row in fetch(connection, void.order_by(known.account)):
            self._void[_owner(row)] = -row["journal_sequence"]
            self._move(row["account"], -row["journal_sequence"], orders)

    def register(self, event: AccountRegistered, orders: Iterable[OrderRecord]) -> bool:
        """Whether somebody registers again."""
        void = self._void.pop((event.owner, event.sub_account), None)
        if void is not None:
            self._move(void, event.account, orders)
        return void is not None

    def _move(self, account: int, to: int, orders: Iterable[OrderRecord]) -> None:
        self.moved.append(Moved(account, to))
        for record in orders:
            if record.account == account:
                record.account = to


def _owner(row: dict[str, Any]) -> Owner:
    return row["owner"], row["sub_account"]
