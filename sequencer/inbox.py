"""Confirmed inbox entries -> commands, in queue order and exactly once.

The queue itself is asked, as of a block that is deep enough, for the entries after the last one that the
engine holds. Ids are dense, so nothing can be skipped, and a restart needs no memory but the engine's
count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from evermark.protocol.reject import RejectCode
from evermark.protocol.units import check
from sequencer import metrics
from sequencer.engine.commands import AnyCommand, DepositWaits, InboxEntry, InboxEntryKind
from sequencer.engine.events import CommandRejected, Event
from sequencer.settlement.errors import Unreachable

POLL_S = 0.3  # wall time between looks at the queue
LAST_RETRY_S = 10.0
WAIT_S = 1.0  # wall time after which an entry that could not apply yet is offered again; doubles each time
LAST_WAIT_S = 15.0  # each offer is journaled, and a price can be stale for long
PAGE = 64  # entries asked for at once

# What the engine may say of an entry that it will take later; the entry stays the next one.
TEMPORARY = (
    RejectCode.STALE_PRICE,
    RejectCode.NOT_READY,
    RejectCode.OVERLOADED,
    RejectCode.CHAIN_RESTARTED,
)

log = structlog.get_logger("inbox")


class EntrySource(Protocol):
    """Where entries come from; `settlement.chain.ExchangeChain` on a real chain."""

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        """Confirmed entries from `first_id` on, in order, at most `limit`. Raises Unreachable."""
        ...


class InboxWatcher:
    """Feeds the pipeline until cancelled."""

    def __init__(
        self,
        source: EntrySource,
        submit: Callable[[AnyCommand], Awaitable[list[Event]]],
        next_entry_id: Callable[[], int],
    ) -> None:
        """`next_entry_id` is the engine's: what it has is never asked for again."""
        self._source = source
        self._submit = submit
        self._next_entry_id = next_entry_id
        self._wait_s = WAIT_S
        self._told = 0  # the newest entry of which the engine knows that it waits

    async def run(self) -> None:
        """Work until cancelled. Ends by itself only through a bug, and then with its error."""
        delay = POLL_S
        while True:
            try:
                moved = await self.step()
            except Unreachable as error:
                log.warning("inbox will be read again", reason=str(error), delay_s=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_S)
                continue
            delay = POLL_S
            if not moved:
                await asyncio.sleep(POLL_S)

    async def step(self) -> bool:
        """Take one page of entries. Returns False when there was none. Raises Unreachable."""
        first = self._next_entry_id()
        entries = await self._source.inbox_entries(first, PAGE)
        for offset, entry in enumerate(entries):
            at = entry.entry_id
            check(at == first + offset, f"inbox: entry {at} where {first + offset} belongs")
            refusal = next(
                (event.reject for event in await self._submit(entry) if isinstance(event, CommandRejected)),
                None,
            )
            if refusal is None and self._next_entry_id() == at:
                # A close or a liquidation goes on in parts; it is offered again until it leaves the queue.
                await self._tell_waiting(entries[offset:], complete=len(entries) < PAGE)
                return True
            if refusal is not None and self._next_entry_id() != at:
                return True  # a reversal has come between; what is next is asked again
            if refusal is not None:
                check(refusal.code in TEMPORARY, f"inbox: the engine refused entry {at}: {refusal.message}")
                log.info("inbox entry waits", entry=at, reason=refusal.message)
                await self._tell_waiting(entries[offset:], complete=len(entries) < PAGE)
                await asyncio.sleep(self._wait_s)
                self._wait_s = min(2 * self._wait_s, LAST_WAIT_S)
                return True
            self._wait_s = WAIT_S
            metrics.ENTRIES_READ.set(at)
        return bool(entries)

    async def _tell_waiting(self, entries: list[InboxEntry], *, complete: bool) -> None:
        """Name the deposits from an entry on that waits, each once: their owners are not liquidated meanwhile."""
        while entries:
            for entry in entries:
                if entry.entry_id > self._told and entry.entry_kind is InboxEntryKind.DEPOSIT:
                    await self._submit(
                        DepositWaits(
                            entry_id=entry.entry_id,
                            owner=entry.owner,
                            sub_account=entry.sub_account,
                            created=entry.created,
                        )
                    )
            self._told = max(self._told, entries[-1].entry_id)
            if complete:
                return
            page = await self._source.inbox_entries(self._told + 1, PAGE)
            entries, complete = page, len(page) < PAGE
