"""A reversal takes registrations back, and who registers again may get another id: what the history tells of the void account
follows its owner there."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from sequencer.engine.commands import AnyCommand, InboxEntry, InboxEntryKind, ReversalCause, Reverse
from sequencer.engine.events import AccountRegistered, CollateralChanged, Event, Reversed
from sequencer.history import History, Store, tables
from sequencer.history.store import fetch
from sequencer.replay import Applied

ANNE, BEN, CLEO = (bytes([number]) * 20 for number in (1, 2, 3))
ENTRY = InboxEntry(entry_id=1, entry_kind=InboxEntryKind.DEPOSIT, owner=ANNE, sub_account=0, amount=5)


class Feed:
    """Deposits and reversals as a history hears of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History(Store(path))
        self.records: list[Applied] = []

    def hear(self, command: AnyCommand, events: Sequence[Event]) -> int:
        sequence = len(self.records) + 1
        self.records.append(Applied(sequence, 1_000 * sequence, command, events, bytes([sequence])))
        self.history.observe(self.records[-1])
        return sequence

    def register(self, account: int, owner: bytes) -> int:
        told = AccountRegistered(account=account, owner=owner, sub_account=0)
        return self.hear(ENTRY, [told, *self.paid(account)])

    def paid(self, account: int) -> list[Event]:
        return [CollateralChanged(account=account, delta=5, collateral=5, cause="deposit")]

    def reverse(self, after: int) -> None:
        command = Reverse(after=after, batch_id=0, cause=ReversalCause.FOREIGN_BATCH)
        told = Reversed(
            after=after, batch_id=0, cause=command.cause, first_trade=1, last_trade=0, funding_hour=0
        )
        self.hear(command, [told])

    def restart(self) -> None:
        self.history.store.close()
        self.history = History(Store(self.path))
        for record in self.records:
            self.history.observe(record)

    def ledger(self) -> dict[int, list[tuple[int, bool]]]:
        """By account: record and whether it is void."""
        self.history.flush().result()
        rows = self.history.store.read_now(lambda connection: fetch(connection, select(tables.ledger)))
        found: dict[int, list[tuple[int, bool]]] = {}
        for row in sorted(rows, key=lambda row: int(row["journal_sequence"])):
            found.setdefault(row["account"], []).append((row["journal_sequence"], row["voided"]))
        return found


@pytest.mark.parametrize("restarts", [False, True])
def test_void_rows_follow_their_owner(tmp_path: Path, restarts: bool) -> None:
    """Anne was 4; a stranger's batch registers Cleo first. Nobody sees anybody else's rows, not even while their owner has no
    account, and not after a second reversal."""
    feed = Feed(tmp_path / "history.db")

    def go_on() -> None:
        if restarts:
            feed.restart()

    feed.hear(ENTRY, [])
    stays = feed.register(3, BEN)
    anne, more = feed.register(4, ANNE), feed.hear(ENTRY, feed.paid(4))
    go_on()
    feed.reverse(after=stays)
    go_on()
    cleo = feed.register(4, CLEO)
    assert feed.ledger() == {
        3: [(stays, False)],
        -anne: [(anne, True), (more, True)],
        4: [(cleo, False)],
    }
    go_on()
    feed.reverse(after=stays)  # Cleo's is void too; Anne is first again, and Cleo behind her
    again, last = feed.register(4, ANNE), 0
    go_on()
    last = feed.register(5, CLEO)
    assert feed.ledger() == {
        3: [(stays, False)],
        4: [(anne, True), (more, True), (again, False)],
        5: [(cleo, True), (last, False)],
    }
    feed.history.store.close()
