"""The chain: blocks at intervals, a mempool, and reorganisations. What everybody but the sequencer does on it.

`node.py` is the sequencer's sight of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from naive_vault import NaiveVault

from evermark.protocol.markets import Market
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from sequencer.settlement.chain import Receipt
from sequencer.settlement.errors import Refused, Unreachable
from tests.simulation import contracts
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.strangers import overdue_batch

BLOCK_S = 2
KEPT_BLOCKS = 10  # many more than are ever taken back
STRANGERS_LOOK_S = 20
LATEST_OTHER_S = 8  # after its end somebody may post an hour before the sequencer

Run = Callable[[Ledger, int, int], None]  # ledger, block number, block time


class Transaction:
    """One call that waits to be mined: `run` raises Refused, or changes the ledger."""

    def __init__(self, run: Run, numbered: bool = False, settles: bool = False) -> None:
        self.run = run
        self.numbered = numbered  # of the sequencer's key: nothing with a higher nonce is mined before it
        self.settles = settles
        self.stuck_until = 0.0  # virtual time until which nobody mines it
        self.mined: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()


class Blocks:
    """The chain itself."""

    def __init__(
        self, rng: Random, markets: tuple[Market, ...], now_s: Callable[[], int], confirmations: int
    ) -> None:
        self.rng = rng
        self.now_s = now_s
        self.confirmations = confirmations
        genesis = Ledger(NaiveVault(markets), [market.jump_ppm_per_s for market in markets])
        self.blocks: list[tuple[Ledger, list[Transaction]]] = [(genesis, [])]
        self._height = 0
        self.times = {0: 0}  # of each block
        self.mempool: list[Transaction] = []
        self.faults = Faults(until_s=0)
        self.reorgs = self.refused = self.strangers_batches = self.strangers_fills = self.other_hours = 0
        self.late = self.stuck = 0
        self.pool_rng = Random(0)  # of its own, so that runs in which nothing is stuck are what they were

    @property
    def head(self) -> Ledger:
        """State after the newest block."""
        return self.blocks[-1][0]

    @property
    def final(self) -> Ledger:
        """State after the newest block that is deep enough."""
        return self.blocks[max(0, len(self.blocks) - 1 - self.confirmations)][0]

    async def mine_forever(self) -> None:
        """A block every two seconds; now and then the last ones are taken back first."""
        while True:
            await asyncio.sleep(BLOCK_S)
            depth = self.rng.randint(1, self.confirmations)
            if len(self.blocks) > depth and self.happens(self.faults.reorg):
                self._reorganise(depth)
                for _ in range(depth):  # the branch that wins is the longer one
                    self._mine()
            self._mine()

    def send(self, run: Callable[[Ledger, int], Any]) -> None:
        """Anybody's transaction: `run` is given the ledger and the block's time."""
        self.mempool.append(Transaction(lambda ledger, _, time: run(ledger, time)))

    async def strangers(self, prices: Callable[[], Sequence[SignedPriceReport]]) -> None:
        """Whoever likes bonds executes what is overdue."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / STRANGERS_LOOK_S))
            if asyncio.get_running_loop().time() < self.faults.until_s:
                signed = list(prices())
                self.mempool.append(Transaction(lambda *about, signed=signed: self._overdue(signed, *about)))

    async def other_funding(self, reports: Callable[[int, bool], Sequence[SignedFundingReport]]) -> None:
        """Now and then somebody posts an hour that has just ended, from other reports than the sequencer has. `reports` makes
        them, and hands them to the sequencer too where the transaction does not show them."""
        while True:
            hour = self.now_s() // 3_600
            await asyncio.sleep((hour + 1) * 3_600 - self.now_s() + self.rng.uniform(0, LATEST_OTHER_S))
            if self.happens(self.faults.other_funding):
                hidden = self.rng.random() > self.faults.shown
                self._post_hour(reports(hour, hidden), hidden)

    def _post_hour(self, reports: Sequence[SignedFundingReport], hidden: bool) -> None:
        def run(ledger: Ledger, _time: int) -> None:
            contracts.post_funding(ledger, reports, hidden=hidden)
            self.other_hours += 1

        if reports:
            self.send(run)

    def _overdue(self, reports: Sequence[SignedPriceReport], ledger: Ledger, number: int, time: int) -> None:
        """One stranger's transaction."""
        data = overdue_batch(self.rng, reports, ledger, time)
        if data:
            contracts.settle(data, ledger, number, time)
            self.strangers_batches += 1
            self.strangers_fills += len(contracts.decode_outline(data).fills)

    def settle(self, data: bytes, ledger: Ledger, number: int, time: int) -> None:
        """The sequencer's."""
        contracts.settle(data, ledger, number, time, self.faults.poisoned)

    # ---------------------------------------------------------------------------------------------------- blocks

    def _mine(self) -> None:
        self._height += 1
        ledger, number, time = self.head.clone(), self._height, self.now_s()
        ledger.time_s = self.times[number] = time
        mined, waiting, now = list[Transaction](), list[Transaction](), asyncio.get_running_loop().time()
        for transaction in self.mempool:
            if transaction.numbered and (waiting or transaction.stuck_until > now):
                waiting.append(transaction)
                continue
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
        self.mempool = waiting
        self.blocks.append((ledger, mined))
        del self.blocks[:-KEPT_BLOCKS]

    def _reorganise(self, depth: int) -> None:
        """Take back the last blocks; most of their transactions wait again.

        Where one of the sequencer's is lost, those with higher nonces are worth nothing either.
        """
        self.reorgs += 1
        self._height -= depth
        for _ in range(depth):
            _, transactions = self.blocks.pop()
            self.mempool[:0] = transactions
        waiting, self.mempool, gap = self.mempool, [], False
        for transaction in waiting:
            gap = gap or (transaction.numbered and self.happens(self.faults.dropped))
            if not (gap and transaction.numbered):
                self.mempool.append(transaction)
            elif not transaction.mined.done():
                transaction.mined.set_exception(Unreachable("the transaction is gone"))
                transaction.mined.exception()  # nobody may be listening

    def happens(self, chance: float) -> bool:
        """By chance, while there are faults."""
        return asyncio.get_running_loop().time() < self.faults.until_s and self.rng.random() < chance
