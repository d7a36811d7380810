"""What the simulated contracts store."""

import copy
from dataclasses import dataclass, field

from naive_vault import NaiveVault

from evermark.protocol.oracle import Round, prices_hash
from sequencer.engine.commands import InboxEntry
from sequencer.settlement.errors import Refused

NO_ROUND = Round(0, 0, ())


@dataclass
class Ledger:
    """Everything that the contracts store; a block is a copy of it."""

    vault: NaiveVault
    lane: Round
    ring: dict[int, Round] = field(default_factory=dict)
    public: Round = NO_ROUND
    public_ring: dict[int, Round] = field(default_factory=dict)
    hours: dict[int, tuple[int, ...]] = field(default_factory=dict)
    entries: list[InboxEntry] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    settled_blocks: list[int] = field(default_factory=list)
    time_s: int = 0

    def clone(self) -> "Ledger":
        """A copy that shares only what never changes: markets, prices, entries, bytes."""
        vault = copy.deepcopy(self.vault, {id(self.vault.markets): self.vault.markets})
        lists = list(self.entries), list(self.batches), list(self.settled_blocks)
        rings = self.lane, dict(self.ring), self.public, dict(self.public_ring)
        return Ledger(vault, *rings, dict(self.hours), *lists, self.time_s)

    def pinned(self, round_: int, hash_: bytes) -> Round:
        """The round of either lane with these prices. Raises Refused."""
        found = [ring[round_] for ring in (self.ring, self.public_ring) if round_ in ring]
        if not found:
            raise Refused("oracle: no such round")
        for one in found:
            if prices_hash(one) == hash_:
                return one
        raise Refused("vault: prices hash differs")
