"""A core that settles into a model of the vault's and the oracle's rules.

The model keeps what matters here: only batch last + 1 settles, a batch's round must be in the lane with exactly the engine's
prices, blocks may be taken back, and somebody else may settle. `die_at` counts the points before and after every effect.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from eth_hash.auto import keccak
from sequencer_world import PRICES, ROUND_SECONDS, World, key

from evermark.chain.batches import decode_outline
from evermark.chain.postings import reports_that_make
from evermark.protocol.batch import Batch, encode_batch
from evermark.protocol.oracle import (
    NO_PRICE,
    Round,
    SignedFundingReport,
    SignedPriceReport,
    aggregate,
    median_rates,
    prices_hash,
)
from evermark.protocol.orders import Side
from sequencer.core import Core
from sequencer.engine.commands import AnyCommand, ForeignBatch
from sequencer.engine.events import Event
from sequencer.settlement.chain import LaneRound, Receipt, outline_of
from sequencer.settlement.errors import Refused, Unreachable
from sequencer.settlement.line import SettlementLine
from sequencer.settlement.standstill import Standstill
from sequencer.settlement.way_out import WayOut
from sequencer.settlement.witness import Settled

MAKER, TAKER = key(11), key(12)


class Died(BaseException):
    """The process was killed here. Not an Exception, so that nothing handles it."""


def mined() -> "asyncio.Future[Receipt]":
    """This chain mines each transaction at once."""
    done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    done.set_result(Receipt(1, 1))
    return done


class ChainModel:
    """Blocks of effects. `die_at` counts the points before and after every effect; `outages` fail as a
    node does."""

    def __init__(self, markets: int) -> None:
        self.markets = markets
        self.settled: list[bytes] = []
        self.lane = Round(0, 0, (NO_PRICE,) * markets)
        self.jumps = [0] * markets  # what its oracle judges prices by
        self.posted: list[int] = []
        self.ring: dict[int, Round] = {}
        self.hours: dict[int, tuple[SignedFundingReport, ...]] = {}
        self.hidden: set[int] = set()  # hours that somebody posted from reports that nobody sees
        self.claims: dict[int, int] = {}
        self.die_at = -1
        self.points = 0
        self.outages = 0
        self.refusal = ""
        self.overdue_in_s = 600
        self.hour_overdue_in_s = 600  # of hours that the line is about to post
        self.foreign: dict[int, ForeignBatch] = {}
        self.now_s: Callable[[], int] | None = None  # where ages are checked
        self.poisoned: set[int] = set()  # accounts of which the vault takes no order
        self.mined_after_all = b""  # a batch in flight, which is mined before it can be outbid
        self.clearings = 0  # how often what is in flight is asked for until it is outbid for good
        self.block_times: dict[int, int] = {}  # of strangers' batches with changes
        self.depth_lag = 0  # batches that are mined but not yet deep enough

    def point(self) -> None:
        self.points += 1
        if self.points == self.die_at:
            raise Died
        if self.outages:
            self.outages -= 1
            raise Unreachable("node is away")

    async def last_batch_ids(self) -> tuple[int, int]:
        self.point()
        return len(self.settled), max(0, len(self.settled) - self.depth_lag)

    async def newest_settled(self) -> Settled | None:
        if not self.settled:
            return None
        newest = self.settled[-1]
        return Settled(len(self.settled), int.from_bytes(newest[43:49], "big"), newest[49:81])

    async def settled_batch(self, batch_id: int) -> Settled:
        found = outline_of(self.settled[batch_id - 1], 100 + batch_id)
        return msgspec.structs.replace(found, batch_id=batch_id)

    async def foreign_batch(self, batch_id: int, first_entry: int) -> ForeignBatch:
        """As the test made it; the entries are those that the line asks for."""
        batch = self.foreign[batch_id]
        assert [entry.entry_id for entry in batch.entries] == list(
            range(first_entry, first_entry + len(batch.entries))
        )
        return batch

    async def nothing_in_flight(self) -> bool:
        """A stuck batch is mined first, where the test lets it; then it is outbid."""
        self.point()
        if self.mined_after_all:
            self.settled.append(self.mined_after_all)
            self.mined_after_all = b""
        self.clearings -= self.clearings > 0
        return not self.clearings

    async def past_time_s(self, now_s: int) -> int:
        return now_s

    async def time_of(self, block_number: int) -> int:
        return self.block_times[block_number]

    async def overdue_from_s(self, now_s: int, hours: Sequence[int] = ()) -> int:
        return now_s + min(self.overdue_in_s, self.hour_overdue_in_s if hours else 600)

    async def last_round(self) -> LaneRound:
        return LaneRound(self.lane.round, self.lane.timestamp)

    async def start_round(self, reports: Sequence[SignedPriceReport]) -> "asyncio.Future[Receipt]":
        self.point()
        assert reports[0].report.round > self.lane.round, "oracle: round not newer"
        self.lane = aggregate([item.report for item in reports], 3, self.lane.prices, self.jumps)
        self.posted.append(self.lane.round)
        self.ring[self.lane.round] = self.lane
        self.point()
        return mined()

    async def has_funding(self, hour: int) -> bool:
        return hour in self.hours

    async def funding_rates(self, hour: int) -> tuple[int, ...]:
        return median_rates([signed.report for signed in self.hours[hour]], self.markets)

    async def posted_funding(
        self, hour: int, known: Sequence[SignedFundingReport]
    ) -> tuple[SignedFundingReport, ...]:
        self.point()
        if hour in self.hidden:
            found = reports_that_make(await self.funding_rates(hour), known, 3)
            if not found:
                raise Refused(f"oracle: hour {hour} was posted from reports that nobody sees")
            return found
        return self.hours[hour]

    async def post_funding(self, reports: Sequence[SignedFundingReport]) -> Receipt:
        self.point()
        assert reports[0].report.hour not in self.hours, "oracle: hour already posted"
        self.hours[reports[0].report.hour] = tuple(reports)
        self.point()
        return Receipt(1, 1)

    async def simulate_settle(self, batch: bytes) -> None:
        if self.refusal:
            raise Refused(self.refusal)
        outline = decode_outline(batch)
        traders = {outline.accounts[outline.pairs[row.pair][0]] for row in outline.orders}
        if traders & self.poisoned:
            raise Refused("vault: signature")
        if int.from_bytes(batch[:6], "big") != len(self.settled) + 1:
            raise Unreachable("vault: batch id not next")
        if self.now_s is not None:
            self._check_age(outline)
        pinned = self.ring[int.from_bytes(batch[6:11], "big")]
        assert batch[11:43] == prices_hash(pinned), "vault: prices hash differs"

    def _check_age(self, batch: Batch) -> None:
        assert self.now_s is not None
        age_s = self.now_s() - batch.round * ROUND_SECONDS
        late = age_s > 120 + ROUND_SECONDS
        if late and (batch.inbox or age_s > 3_600 or self.now_s() > self.lane.timestamp + 120):
            raise Refused("vault: round too old")

    async def start_settle(self, batch: bytes) -> "asyncio.Future[Receipt]":
        self.point()
        await self.simulate_settle(batch)
        self.settled.append(batch)
        self.point()
        return mined()

    async def claim_count(self) -> int:
        return len(self.claims)

    async def open_claim(self, claim_id: int) -> tuple[int, int]:
        return self.claims[claim_id], 0

    async def pay(self, claim_id: int) -> Receipt:
        self.point()
        self.claims[claim_id] = 0
        return Receipt(1, 1)


def nothing_is_mined(chain: ChainModel) -> "list[asyncio.Future[Receipt]]":
    """From now on batches wait in the pool until `mine`."""
    waiting: list[asyncio.Future[Receipt]] = []
    settle = chain.start_settle

    async def start_settle(batch: bytes) -> "asyncio.Future[Receipt]":
        await settle(batch)
        waiting.append(asyncio.get_running_loop().create_future())
        return waiting[-1]

    chain.start_settle = start_settle  # type: ignore[method-assign]
    return waiting


def mine(waiting: "list[asyncio.Future[Receipt]]") -> None:
    """All of them at once."""
    for sent in waiting:
        sent.set_result(Receipt(1, 1))


async def trade(core: Core, world: World, rounds: int) -> None:
    """Rounds with a trade each: every one seals a batch. Every third lets one market abstain."""
    for number in range(rounds):
        world.now_s += 3
        prices = [*PRICES[:3], (0, 0) if number % 3 else PRICES[3]]
        await core.pipeline.submit(world.round(prices))
        await core.pipeline.submit(world.sign_order(MAKER, 3, Side.BUY, 500, 1_100_000, slot=1 + number))
        await core.pipeline.submit(world.taker(TAKER, 4, Side.SELL, 500, 1_100_000))


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not come true within 10 s")


class House:
    """A core on a directory and a line to the model; `restart` is a new process."""

    def __init__(self, directory: Path, world: World, chain: ChainModel) -> None:
        self.directory, self.world, self.chain = directory, world, chain

    async def __aenter__(self) -> "House":
        self.core = Core(self.directory, self.world.genesis, lambda: self.world.now_s * 1000)
        self.running = asyncio.ensure_future(self.core.run())
        self.confirmed: list[AnyCommand] = []
        core, now_s = self.core, lambda: self.world.now_s
        way_out = WayOut(
            self.chain, core.backlog, now_s, core.reverse, core.bisection, core.reports.funding_reports
        )
        self.line = SettlementLine(
            self.chain, core.backlog, self.submit, now_s, way_out, Standstill(core.pipeline)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.core.pipeline.stop()
        await self.running
        await self.core.close()

    async def submit(self, command: AnyCommand) -> list[Event]:
        self.chain.point()
        events = await self.core.pipeline.submit(command)
        self.confirmed.append(command)
        self.chain.point()
        return events

    async def fund_and_trade(self, rounds: int) -> None:
        await self.core.pipeline.submit(self.world.round())
        await self.core.pipeline.submit(self.world.deposit(MAKER, 100_000))
        await self.core.pipeline.submit(self.world.deposit(TAKER, 100_000))
        await trade(self.core, self.world, rounds)

    async def settle_all(self) -> None:
        while await self.line.step():
            pass

    def all_confirmed(self) -> bool:
        return self.core.state.confirmed_batch == self.core.backlog.last_sealed

    def expected(self) -> Iterator[bytes]:
        for batch_id in range(1, self.core.backlog.last_sealed + 1):
            sealed = self.core.backlog.sealed(batch_id)
            assert sealed is not None
            yield keccak(encode_batch(sealed.batch))
