"""The chain as a witness of the journal: whoever starts on the wrong chain, or with a journal that is not the one
that settled there, is stopped before it answers anybody.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from sequencer.engine.state import EngineState
from sequencer.journal import JournalRefused, Record


class Settled(msgspec.Struct, frozen=True):
    """A batch that the vault has settled, and the journal position that it was made at; zeros where somebody else made it, who
    has no journal."""

    batch_id: int
    journal_sequence: int
    journal_hash: bytes
    block_number: int = 0

    @property
    def is_foreign(self) -> bool:
        """Somebody else executed overdue work."""
        return self.journal_sequence == 0


class Witness(Protocol):
    """Where settled batches are seen; `settlement.chain.ExchangeChain` on a real chain."""

    async def newest_settled(self) -> Settled | None:
        """The newest one, None before the first. Raises Unreachable."""
        ...

    async def settled_batch(self, batch_id: int) -> Settled:
        """Any settled one. Raises Unreachable."""
        ...


async def check_witness(
    chain: Witness, state: EngineState, record: Callable[[int], Record], head_sequence: int
) -> None:
    """Raises JournalRefused with one line when the vault tells another story than the journal, Ended when it is frozen.

    Batches of somebody else that are newer than the journal's knowledge are none of that: settlement follows them.
    """
    settled = await chain.newest_settled()
    last = settled.batch_id if settled is not None else 0
    if last < state.confirmed_batch:
        raise JournalRefused(
            f"chain: its vault has settled batch {last}, but the journal knows batch {state.confirmed_batch} as "
            f"confirmed: it is another chain, or a node that is behind. Check rpc_url and the node"
        )
    if settled is None:
        return
    while settled.is_foreign:
        if settled.batch_id <= max(state.confirmed_batch, 1):
            return  # the journal knows it, or nothing of the journal's was settled
        settled = await chain.settled_batch(settled.batch_id - 1)
    last = settled.batch_id
    if last > state.sealed_batch or settled.journal_sequence > head_sequence:
        raise JournalRefused(
            f"chain: its vault has settled batch {last} at record {settled.journal_sequence}, but this journal "
            f"ends at batch {state.sealed_batch} and record {head_sequence}: records are lost, or another journal "
            f"settles there. Restore the newest journal"
        )
    if record(settled.journal_sequence).hash != settled.journal_hash:
        raise JournalRefused(
            f"chain: batch {last} was settled by another journal: its record {settled.journal_sequence} has "
            f"another hash. Start with the journal that settles there"
        )
