"""The chain: blocks at intervals, a mempool, reorganisations, and the exchange's contracts as the reference models say.

Every answer passes an unreliable node: it may come late, not at all, or from an older block, and a transaction
whose answer was lost may still be mined.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from naive_actions import Reverted
from naive_vault import NaiveVault

from evermark.chain.batches import decode_outline
from evermark.protocol.batch import AccountOwner, decode_batch
from evermark.protocol.markets import Market
from evermark.protocol.oracle import (
    MAX_BATCH_AGE_S,
    MAX_LATE_S,
    NO_PRICE,
    Round,
    aggregate,
    median_rates,
)
from sequencer.engine.commands import ForeignBatch, InboxEntry, InboxEntryKind
from sequencer.settlement.chain import LaneRound, Receipt, outline_of
from sequencer.settlement.errors import Refused, Unreachable
from sequencer.settlement.witness import Settled
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.strangers import overdue_batch

BLOCK_S = 2
LONGEST_OUTAGE_S = 40
LONG_OUTAGE = 0.2  # chance that one lasts longer than a batch's window
LONGEST_OF_ALL_S = 320
BETWEEN_OUTAGES_S = 60
DUE_S = 170  # how long an entry waits in the inbox before anybody may execute it; an hour in reality
STRANGERS_LOOK_S = 20
HOUR_OVERDUE_S = 60  # how long after its end anybody may apply a funding hour; an hour in reality


class Transaction:
    """One call that waits to be mined: `run` raises Refused, or changes the ledger."""

    def __init__(
        self, run: Callable[[Ledger, int, int], None], numbered: bool = False, settles: bool = False
    ) -> None:
        self.run = run
        self.numbered = numbered  # of the sequencer's key: nothing with a higher nonce is mined before it
        self.settles = settles
        self.mined: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()


class SimulatedChain:
    """What `ExchangeChain` is to settlement and to the inbox watcher."""

    def __init__(
        self,
        rng: Random,
        markets: tuple[Market, ...],
        now_s: Callable[[], int],
        round_seconds: int,
        confirmations: int,
    ) -> None:
        self._rng = rng
        self._markets = markets
        self.now_s = now_s
        self.round_seconds = round_seconds
        self.confirmations = confirmations
        self._unpriced = Round(0, 0, (NO_PRICE,) * len(markets))
        genesis = Ledger(NaiveVault(markets), self._unpriced)
        self.blocks: list[tuple[Ledger, list[Transaction]]] = [(genesis, [])]
        self.mempool: list[Transaction] = []
        self.faults = Faults(until_s=0)
        self.away_until_s = 0.0
        self.reorgs = self.outages = self.lost_answers = self.refused = self.strangers_batches = 0

    @property
    def head(self) -> Ledger:
        """State after the newest block."""
        return self.blocks[-1][0]

    async def mine_forever(self) -> None:
        """A block every two seconds; now and then the last ones are taken back first."""
        while True:
            await asyncio.sleep(BLOCK_S)
            depth = self._rng.randint(1, self.confirmations)
            if len(self.blocks) > depth and self._happens(self.faults.reorg):
                self._reorganise(depth)
                for _ in range(depth):  # the branch that wins is the longer one
                    self._mine()
            self._mine()

    async def fail_at_times(self) -> None:
        """Now and then the node is away for longer than a retry, and sometimes for longer than batches have to settle."""
        while True:
            await asyncio.sleep(LONGEST_OUTAGE_S + BETWEEN_OUTAGES_S + self._rng.expovariate(1 / 60))
            now = asyncio.get_running_loop().time()
            if now < self.faults.until_s:
                self.outages += 1
                longest = LONGEST_OF_ALL_S if self._rng.random() < LONG_OUTAGE else LONGEST_OUTAGE_S
                ends = now + self._rng.uniform(2, longest)
                self.away_until_s = min(ends, self.faults.until_s + LONGEST_OUTAGE_S)

    def enter(self, kind: InboxEntryKind, owner: bytes, sub_account: int, amount: int) -> None:
        """A user's own transaction to the Inbox."""

        def run(ledger: Ledger, _number: int, time: int) -> None:
            ledger.entries.append(
                InboxEntry(
                    entry_id=len(ledger.entries) + 1,
                    entry_kind=kind,
                    owner=owner,
                    sub_account=sub_account,
                    amount=amount,
                    created=time,
                )
            )

        self.mempool.append(Transaction(run))

    async def strangers(self, reports: Callable[[], Any]) -> None:
        """Whoever likes bonds executes what is overdue, with a round of its own if the sequencer's is old; `reports` are the
        keepers' of now."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / STRANGERS_LOOK_S))
            if asyncio.get_running_loop().time() < self.faults.until_s:
                signed = [item.report for item in reports()]
                self.mempool.append(Transaction(lambda *about, signed=signed: self._overdue(signed, *about)))

    def _overdue(self, reports: list[Any], ledger: Ledger, number: int, time: int) -> None:
        """One stranger's transaction: everything overdue at the head of the inbox, and the last funding hour."""
        vault = ledger.vault
        due = [entry for entry in ledger.entries[vault.entries :][:32] if entry.created + DUE_S < time]
        hour = max(ledger.hours, default=0)
        hours = (hour,) if vault.hours[0] < hour and (hour + 1) * 3_600 + HOUR_OVERDUE_S < time else ()
        if not due and not hours:
            return
        if time > ledger.lane.timestamp + MAX_BATCH_AGE_S:
            made = self._aggregate(reports, ledger.public if ledger.public.round else self._unpriced)
            if made.round > ledger.public.round:
                ledger.public = ledger.public_ring[made.round] = made
        pinned = ledger.public if ledger.public.round > ledger.lane.round else ledger.lane
        data = overdue_batch(vault, len(ledger.batches) + 1, pinned, due, hours)
        if data:
            self._settle(data, ledger, number, time)
            self.strangers_batches += 1

    # ----------------------------------------------------------------------- what the sequencer asks of its node

    async def last_batch_ids(self) -> tuple[int, int]:
        """Settled batches in the newest block and in the confirmed one."""
        await self._ask()
        return len(self._seen().batches), len(self._final().batches)

    async def newest_settled(self) -> Settled | None:
        """The newest batch, with the journal position in its header."""
        await self._ask()
        batches = self._seen().batches
        if not batches:
            return None
        return Settled(len(batches), int.from_bytes(batches[-1][43:49], "big"), batches[-1][49:81])

    async def settled_batch(self, batch_id: int) -> Settled:
        """Any settled one."""
        await self._ask()
        seen = self._seen()
        batches = seen.batches
        if batch_id > len(batches):
            raise Unreachable(f"batch {batch_id} is settled, but the node shows no log of it")
        return outline_of(batches[batch_id - 1], seen.settled_blocks[batch_id - 1])

    async def foreign_batch(self, batch_id: int, first_entry: int) -> ForeignBatch:
        """Somebody else's batch with all that it refers to."""
        await self._ask()
        ledger = self._final()
        data = ledger.batches[batch_id - 1]
        batch = decode_outline(data)
        return ForeignBatch(
            batch_id=batch_id,
            calldata=data,
            round=ledger.pinned(batch.round, batch.prices_hash),
            entries=tuple(ledger.entries[first_entry - 1 : first_entry - 1 + len(batch.inbox)]),
            rates=tuple(ledger.hours[hour] for hour in batch.funding_hours),
            block_number=ledger.settled_blocks[batch_id - 1],
        )

    async def overdue_from_s(self, now_s: int) -> int:
        """When a stranger may come, at the earliest."""
        await self._ask()
        ledger = self._seen()
        waiting = ledger.entries[ledger.vault.entries :]
        earliest = min([now_s, *(entry.created for entry in waiting)]) + DUE_S
        hour = max(ledger.hours, default=0)
        if ledger.vault.hours[0] < hour:
            earliest = min(earliest, (hour + 1) * 3_600 + HOUR_OVERDUE_S)
        return earliest

    async def nothing_in_flight(self) -> bool:
        """Outbids batches that wait; True once no reorganisation brings any back."""
        await self._ask()
        for transaction in [one for one in self.mempool if one.settles]:
            self.mempool.remove(transaction)
            if not transaction.mined.done():
                transaction.mined.set_exception(Unreachable("outbid"))
                transaction.mined.exception()  # nobody may be listening
        newest = self.blocks[len(self.blocks) - self.confirmations :] if self.confirmations else []
        return not any(one.settles for _, transactions in newest for one in transactions)

    async def past_time_s(self, now_s: int) -> int:
        """Time of the block that is deep enough."""
        await self._ask()
        return self._final().time_s

    async def time_of(self, block_number: int) -> int:
        """Time of a block of this history."""
        await self._ask()
        return self.blocks[block_number][0].time_s

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
        """The chain's medians; nobody but the sequencer posts hours here."""
        await self._ask()
        if hour not in self._seen().hours:
            raise Unreachable("oracle: hour not posted")
        return self._seen().hours[hour]

    async def inbox_entries(self, first_id: int, limit: int) -> list[InboxEntry]:
        """Confirmed entries."""
        await self._ask()
        return self._final().entries[first_id - 1 : first_id - 1 + limit]

    async def claim_count(self) -> int:
        """Claims are the real contracts' business (tests/contracts); here nobody has to pay any."""
        await self._ask()
        return 0

    async def start_round(self, reports: Any) -> "asyncio.Future[Receipt]":
        """PriceOracle.post_round."""

        def run(ledger: Ledger, _number: int, _time: int) -> None:
            made = self._aggregate([item.report for item in reports], ledger.lane)
            if made.round <= ledger.lane.round:
                raise Unreachable("oracle: round not newer")
            ledger.lane = made
            ledger.ring[made.round] = made

        return await self._start(run)

    async def post_funding(self, reports: Any) -> Receipt:
        """PriceOracle.post_funding."""

        def run(ledger: Ledger, _number: int, _time: int) -> None:
            hour = reports[0].report.hour
            if hour in ledger.hours:
                raise Unreachable("oracle: hour already posted")
            ledger.hours[hour] = median_rates([item.report for item in reports], len(self._markets))

        return await (await self._start(run))

    async def simulate_settle(self, batch: bytes) -> None:
        """eth_call of settle on the newest block that the node shows."""
        await self._ask()
        self._settle(batch, self._seen().clone(), 0, self.now_s())

    async def start_settle(self, batch: bytes) -> "asyncio.Future[Receipt]":
        """MarginVault.settle."""
        return await self._start(
            lambda ledger, number, time: self._settle(batch, ledger, number, time), settles=True
        )

    # ------------------------------------------------------------------------------------------------- contracts

    def _aggregate(self, reports: list[Any], lane: Round) -> Round:
        return aggregate(reports, 3, lane.prices, [market.jump_ppm_per_s for market in self._markets])

    def _settle(self, data: bytes, ledger: Ledger, number: int, time: int) -> None:
        batch_id = int.from_bytes(data[:6], "big")
        if batch_id != len(ledger.batches) + 1:
            raise Unreachable("vault: batch id not next")
        owners = self._owners(ledger)
        batch = decode_batch(data, owners, [market.symbol for market in self._markets])
        pinned = ledger.pinned(batch.round, batch.prices_hash)
        traders = {batch.accounts[batch.pairs[row.pair][0]] for row in batch.orders}
        if traders & self.faults.poisoned:
            raise Refused("vault: signature")
        late = time > pinned.timestamp + MAX_BATCH_AGE_S
        newest = max(ledger.lane, ledger.public, key=lambda round_: round_.round)
        if time > pinned.timestamp + MAX_LATE_S:
            raise Refused("vault: round too old")
        if late and time > newest.timestamp + MAX_BATCH_AGE_S:
            raise Refused("vault: no recent round")
        if any(hour not in ledger.hours for hour in batch.funding_hours):
            raise Refused("oracle: hour not posted")
        try:
            ledger.vault.settle(batch, pinned, ledger.entries, ledger.hours, newest if late else None)
        except Reverted as refusal:
            if not late:
                raise
            raise Refused(f"vault: {refusal}") from refusal
        ledger.batches.append(data)
        ledger.settled_blocks.append(number)

    def _owners(self, ledger: Ledger) -> dict[int, AccountOwner]:
        """Accounts by id, those included that waiting deposits will register, in queue order."""
        ids = dict(ledger.vault.ids)
        for entry in ledger.entries:
            if entry.entry_kind == InboxEntryKind.DEPOSIT:
                ids.setdefault((entry.owner, entry.sub_account), len(ids) + 3)
        owners = {number: AccountOwner(*key) for key, number in ids.items()}
        return owners | {1: AccountOwner(bytes(20), 0), 2: AccountOwner(bytes(20), 0)}

    # ---------------------------------------------------------------------------------------------------- blocks

    def _mine(self) -> None:
        ledger, number, time = self.head.clone(), len(self.blocks), self.now_s()
        ledger.time_s = time
        mined = []
        for transaction in self.mempool:
            kept = ledger.clone()
            try:
                transaction.run(ledger, number, time)
            except (Refused, Unreachable) as error:
                ledger = kept
                self.refused += 1
                if not transaction.mined.done():
                    transaction.mined.set_exception(error)
                    transaction.mined.exception()  # nobody may be listening
                continue
            mined.append(transaction)
            if not transaction.mined.done():
                transaction.mined.set_result(Receipt(number, 1))
        self.mempool.clear()
        self.blocks.append((ledger, mined))

    def _reorganise(self, depth: int) -> None:
        """Take back the last blocks; most of their transactions wait again.

        Where one of the sequencer's is lost, those with higher nonces are worth nothing either.
        """
        self.reorgs += 1
        for _ in range(depth):
            _, transactions = self.blocks.pop()
            self.mempool[:0] = transactions
        waiting, self.mempool, gap = self.mempool, [], False
        for transaction in waiting:
            gap = gap or (transaction.numbered and self._happens(self.faults.dropped))
            if not (gap and transaction.numbered):
                self.mempool.append(transaction)
            elif not transaction.mined.done():
                transaction.mined.set_exception(Unreachable("the transaction is gone"))
                transaction.mined.exception()  # nobody may be listening

    def _seen(self) -> Ledger:
        """What the node shows as newest: now and then a block behind."""
        if len(self.blocks) > 1 and self._happens(self.faults.stale):
            return self.blocks[-2][0]
        return self.head

    def _final(self) -> Ledger:
        return self.blocks[max(0, len(self.blocks) - 1 - self.confirmations)][0]

    async def _ask(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, 0.05))
        away = asyncio.get_running_loop().time() < self.away_until_s
        if away or self._happens(self.faults.unreachable):
            raise Unreachable("node is away")

    async def _start(
        self, run: Callable[[Ledger, int, int], None], settles: bool = False
    ) -> "asyncio.Future[Receipt]":
        await self._ask()
        transaction = Transaction(run, numbered=True, settles=settles)
        self.mempool.append(transaction)
        lost = self._happens(self.faults.lost_answer)

        async def mined() -> Receipt:
            if not lost:
                return await asyncio.shield(transaction.mined)
            self.lost_answers += 1
            await asyncio.sleep(self._rng.uniform(0.0, 3 * BLOCK_S))
            raise Unreachable("connection reset before the receipt")

        return asyncio.ensure_future(mined())

    def _happens(self, chance: float) -> bool:
        return asyncio.get_running_loop().time() < self.faults.until_s and self._rng.random() < chance
