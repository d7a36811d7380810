"""What the simulated contracts store."""

import copy
from dataclasses import dataclass, field

from naive_vault import NaiveVault

from evermark.protocol.oracle import NO_PRICE, MarketPrice, Round, SignedFundingReport, prices_hash
from sequencer.engine.commands import InboxEntry
from sequencer.settlement.errors import Refused

NO_ROUND = Round(0, 0, ())


@dataclass
class Ledger:
    """Everything that the contracts store; a block is a copy of it."""

    vault: NaiveVault
    jumps_ppm: list[int]  # of each market, as PriceOracle has them
    lane: Round = NO_ROUND
    ring: dict[int, Round] = field(default_factory=dict)
    public: Round = NO_ROUND
    public_ring: dict[int, Round] = field(default_factory=dict)
    hours: dict[int, tuple[int, ...]] = field(default_factory=dict)
    postings: dict[int, tuple[SignedFundingReport, ...]] = field(default_factory=dict)
    posted_at: dict[int, int] = field(default_factory=dict)  # block time of each hour's posting
    hidden: set[int] = field(
        default_factory=set
    )  # hours whose reports are not to be seen in their transaction
    entries: list[InboxEntry] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    settled_blocks: list[int] = field(default_factory=list)
    time_s: int = 0

    def clone(self) -> "Ledger":
        """A copy that shares only what never changes: a market's parameters, prices, entries, bytes."""
        return Ledger(
            copied(self.vault),
            list(self.jumps_ppm),
            self.lane,
            dict(self.ring),
            self.public,
            dict(self.public_ring),
            dict(self.hours),
            dict(self.postings),
            dict(self.posted_at),
            set(self.hidden),
            list(self.entries),
            list(self.batches),
            list(self.settled_blocks),
            self.time_s,
        )

    @property
    def newest(self) -> Round:
        """Of both lanes; the sequencer's where they are equal."""
        return max(self.lane, self.public, key=lambda round_: round_.round)

    @property
    def last_hour(self) -> int:
        """The newest funding hour that any market has: one with a stale price was left out."""
        return max(self.vault.hours[key] for key in self.vault.markets)

    def mark(self, market_id: int) -> int:
        """The market's newest price of both lanes, in ticks."""
        prices = [price_in(lane, market_id) for lane in (self.lane, self.public)]
        return max(prices, key=lambda price: price.updated_at).mark_ticks

    def pinned(self, round_: int, hash_: bytes) -> Round:
        """The round of either lane with these prices. Raises Refused."""
        found = [ring[round_] for ring in (self.ring, self.public_ring) if round_ in ring]
        if not found:
            raise Refused("oracle: no such round")
        for one in found:
            if prices_hash(one) == hash_:
                return one
        raise Refused("vault: prices hash differs")


def price_in(round_: Round, market_id: int) -> MarketPrice:
    """A market's price in a round that may be from before its listing."""
    return round_.prices[market_id] if market_id < len(round_.prices) else NO_PRICE


def copied(vault: NaiveVault) -> NaiveVault:
    """To try something on. What its tables hold never changes."""
    made = copy.copy(vault)
    for name, table in vars(vault).items():
        if isinstance(table, (dict, list)):
            setattr(made, name, table.copy())
    return made
