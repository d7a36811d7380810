"""The sequencer's node: what `ExchangeChain` is to settlement and to the inbox watcher.

Every answer may come late, not at all, or from an older block, and a transaction whose answer was lost may still be mined.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from evermark.chain.batches import decode_outline
from evermark.chain.postings import reports_that_make
from evermark.protocol.markets import Market
from evermark.protocol.oracle import MAX_BATCH_AGE_S, SignedFundingReport, SignedPriceReport
from sequencer.engine.commands import ForeignBatch, InboxEntry
from sequencer.settlement.chain import LaneRound, Receipt, outline_of
from sequencer.settlement.errors import Refused, Unreachable
from sequencer.settlement.reconciliation import MarketSums, Sums, VaultSums
from sequencer.settlement.witness import Settled
from tests.simulation import contracts
from tests.simulation.chain import BLOCK_S, Blocks, Run, Transaction
from tests.simulation.contracts import DUE_S, QUORUM
from tests.simulation.ledger import Ledger
from tests.simulation.strangers import overdue_from_s

LONGEST_OUTAGE_S = 40
LONG_OUTAGE = 0.2  # chance that one lasts longer than a batch's window
LONGER_S = 320
HOURS = 0.03  # chance that it lasts for ten minutes to more than an hour, by which the run is longer
LONGEST_OF_ALL_S = 4_000
BETWEEN_OUTAGES_S = 60
LONGEST_STUCK_S = 300
INBOX_AWAY_S = 400  # for how long the node may not show the inbox
BETWEEN_INBOX_S = 250  # how long that does not happen, on average


class SimulatedChain(Blocks):
    """The chain, seen through one unreliable node."""

    def __init__(
        self, rng: Random, markets: tuple[Market, ...], now_s: Callable[[], int], confirmations: int
    ) -> None:
        super().__init__(rng, markets, now_s, confirmations)
        self.away_until_s = self.inbox_away_until_s = 0.0
        self.outages = self.lost_answers = 0

    async def fail_at_times(self) -> None:
        """Now and then the node is away for longer than a retry, sometimes for longer than batches have to settle, and rarely for
        longer than the vault waits for late ones."""
        while True:
            await asyncio.sleep(LONGEST_OUTAGE_S + BETWEEN_OUTAGES_S + self.rng.expovariate(1 / 60))
            now, pick = asyncio.get_running_loop().time(), self.rng.random()
            if now >= self.faults.until_s:
                continue
            self.outages += 1
            if pick < HOURS:
                lasts_s = self.rng.uniform(2 * LONGER_S, LONGEST_OF_ALL_S)
                self.faults.until_s += lasts_s
            else:
                lasts_s = self.rng.uniform(2, LONGER_S if pick < HOURS + LONG_OUTAGE else LONGEST_OUTAGE_S)
            self.away_until_s = min(now + lasts_s, self.faults.until_s + LONGEST_OUTAGE_S)

    async def hide_the_inbox(self) -> None:
        """Now and then the node tells everything but the inbox, for longer than entries wait for the sequencer."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / BETWEEN_INBOX_S))
            now, lasts_s = asyncio.get_running_loop().time(), self.rng.uniform(0, INBOX_AWAY_S)
            self.inbox_away_until_s = min(now + lasts_s, self.faults.until_s)
            await asyncio.sleep(lasts_s)

    async def last_batch_ids(self) -> tuple[int, int]:
        """Settled batches in the newest block and in the confirmed one."""
        await self._ask()
        return len(self._seen().batches), len(self.final.batches)

    async def newest_settled(self) -> Settled | None:
        """The newest batch, with the journal position in its header."""
        await self._ask()
        seen = self._seen()
        if not seen.batches:
            return None
        return outline_of(seen.batches[-1], seen.settled_blocks[-1])

    async def settled_batch(self, batch_id: int) -> Settled:
        """Any settled one."""
        await self._ask()
        seen = self._seen()
        if batch_id > len(seen.batches):
            raise Unreachable(f"batch {batch_id} is settled, but the node shows no log of it")
        return outline_of(seen.batches[batch_id - 1], seen.settled_blocks[batch_id - 1])

    async def foreign_batch(self, batch_id: int, first_entry: int) -> ForeignBatch:
        """Somebody else's batch with all that it refers to."""
        await self._ask()
        ledger = self.final
        data = ledger.batches[batch_id - 1]
        batch = decode_outline(data)
        last = first_entry + len(batch.inbox)
        return ForeignBatch(
            batch_id=batch_id,
            calldata=data,
            round=ledger.pinned(batch.round, batch.prices_hash),
            entries=tuple(ledger.entries[first_entry - 1 : last - 1]),
            rates=tuple(ledger.hours[hour] for hour in batch.funding_hours),
            block_number=ledger.settled_blocks[batch_id - 1],
            head=ledger.entries[last - 1] if batch.fills else None,
        )

    async def overdue_from_s(self, now_s: int, hours: Sequence[int] = ()) -> int:
        """When a stranger may come, at the earliest."""
        await self._ask()
        ledger = self.final
        waiting = ledger.entries[ledger.vault.entries :]
        earliest = min([now_s + DUE_S, *(entry.due for entry in waiting)])
        unapplied = [hour for hour in (*self._seen().hours, *hours) if hour > ledger.last_hour]
        return min([earliest, *map(overdue_from_s, unapplied)])

    async def nothing_in_flight(self) -> bool:
        """Outbids batches that wait; True once no reorganisation brings any back."""
        await self._ask()
        for transaction in [one for one in self.mempool if one.settles]:
            self.mempool.remove(transaction)
            if not transaction.mined.done():
                transaction.mined.set_exception(Unreachable("outbid"))
                transaction.mined.exception()  # nobody may be listening
        for transaction in self.mempool:
            transaction.stuck_until = 0.0  # what takes the nonces before it pays enough
        newest = self.blocks[len(self.blocks) - self.confirmations :] if self.confirmations else []
        return not any(one.settles for _, transactions in newest for one in transactions)

    async def past_time_s(self, now_s: int) -> int:
        """Time of the block that is deep enough."""
        await self._ask()
        return self.final.time_s

    async def time_of(self, block_number: int) -> int:
        """Time of a block."""
        await self._ask()
        return self.times[block_number]

    async def vault_sums(self) -> VaultSums:
        """What reconciliation compares. Tokens are the real contracts' business."""
        await self._ask()
        vault = self.final.vault
        sums = Sums(
            sum(vault.collaterals.values()) + vault.pool,
            vault.pool,
            vault.dust,
            len(vault.ids) + 2,
            vault.entries,
            len(vault.dues),
            tuple(
                MarketSums(vault.open_interest[key], vault.cumulative[key], vault.hours[key])
                for key in vault.markets
            ),
        )
        return VaultSums(len(self.final.batches), sums, 0)

    async def last_round(self) -> LaneRound:
        """The lane's newest round."""
        await self._ask()
        lane = self._seen().lane
        return LaneRound(lane.round, lane.timestamp)

    async def has_funding(self, hour: int) -> bool:
        """Whether an hour is posted."""
        await self._ask()
        return hour in self._seen().hours

    async def funding_rates(self, hour: int) -> tuple[int, ...]:
        """The chain's medians."""
        await self._ask()
        seen = self._seen()
        if hour not in seen.hours:
            raise Refused("oracle: hour not posted")
        return seen.hours[hour]

    async def posted_funding(
        self, hour: int, known: Sequence[SignedFundingReport]
    ) -> tuple[SignedFundingReport, ...]:
        """The reports behind an hour, from the transaction that posted it or among known ones."""
        await self._ask()
        seen = self._seen()
        if hour not in seen.postings:
            raise Unreachable(f"hour {hour} is posted, but the node shows no log of it")
        shown = [] if hour in seen.hidden else list(seen.postings[hour])
        found = reports_that_make(seen.hours[hour], [*shown, *known], QUORUM)
        if not found:
            raise Refused(f"oracle: hour {hour} was posted from reports that nobody sees")
        return found

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        """Confirmed entries."""
        await self._ask()
        if asyncio.get_running_loop().time() < self.inbox_away_until_s:
            raise Unreachable("node has lost the state of the inbox")
        return self.final.entries[first_id - 1 : first_id - 1 + limit]

    async def claim_count(self) -> int:
        """Claims are the real contracts' business (tests/contracts); here nobody has to pay any."""
        await self._ask()
        return 0

    async def start_round(self, reports: Sequence[SignedPriceReport]) -> "asyncio.Future[Receipt]":
        """PriceOracle.post_round."""
        return await self._start(lambda ledger, *_: contracts.post_round(ledger, reports))

    async def post_funding(self, reports: Sequence[SignedFundingReport]) -> Receipt:
        """PriceOracle.post_funding."""
        return await (await self._start(lambda ledger, *_: contracts.post_funding(ledger, reports)))

    async def simulate_settle(self, batch: bytes) -> None:
        """eth_call of settle on the newest block that the node shows."""
        await self._ask()
        self.settle(batch, self._seen().clone(), 0, self.now_s())

    async def start_settle(self, batch: bytes) -> "asyncio.Future[Receipt]":
        """MarginVault.settle."""

        def run(ledger: Ledger, number: int, time: int) -> None:
            self.settle(batch, ledger, number, time)
            pinned = decode_outline(batch)
            age_s = time - ledger.pinned(pinned.round, pinned.prices_hash).timestamp
            self.late += age_s > MAX_BATCH_AGE_S

        return await self._start(run, settles=True)

    def _stick(self, transaction: Transaction) -> None:
        """Now and then its fee is too low for a while, sometimes for longer than a batch's window."""
        now, until_s = asyncio.get_running_loop().time(), self.faults.until_s
        if now < until_s and self.pool_rng.random() < self.faults.stuck:
            self.stuck += 1
            transaction.stuck_until = min(now + self.pool_rng.uniform(BLOCK_S, LONGEST_STUCK_S), until_s)

    def _seen(self) -> Ledger:
        """What the node shows as newest: now and then a block behind."""
        if len(self.blocks) > 1 and self.happens(self.faults.stale):
            return self.blocks[-2][0]
        return self.head

    async def _ask(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.001, 0.05))
        away = asyncio.get_running_loop().time() < self.away_until_s
        if away or self.happens(self.faults.unreachable):
            raise Unreachable("node is away")

    async def _start(self, run: Run, settles: bool = False) -> "asyncio.Future[Receipt]":
        await self._ask()
        transaction = Transaction(run, numbered=True, settles=settles)
        self._stick(transaction)
        self.mempool.append(transaction)
        lost = self.happens(self.faults.lost_answer)

        async def mined() -> Receipt:
            if not lost:
                return await asyncio.shield(transaction.mined)
            self.lost_answers += 1
            await asyncio.sleep(self.rng.uniform(0.0, 3 * BLOCK_S))
            raise Unreachable("connection reset before the receipt")

        return asyncio.ensure_future(mined())
