"""Errors that are planted into take-overs, late batches, what is in flight and listings: the simulator finds each within a few
seeds."""

import asyncio

import pytest
from msgspec.structs import replace
from naive_governance import Governance

from evermark.protocol.oracle import MAX_BATCH_AGE_S
from evermark.protocol.units import BrokenInvariant
from sequencer.core import Core
from sequencer.history.store import HistoryGap
from sequencer.opening import PRICES, Opening
from sequencer.settlement.under_way import UnderWay
from tests.simulation.chain import Blocks
from tests.simulation.contracts import decode_outline
from tests.simulation.exchange import Violated
from tests.simulation.faults import Faults
from tests.simulation.run import simulate

OPENING = "tests.simulation.process.Opening"


def comes_to_light(what, seeds, minutes, raised=(Violated, BrokenInvariant)):
    """One of a few exchanges raises one of these, and says `what`."""

    def run():
        for seed in seeds:
            simulate(seed, minutes * 60)

    with pytest.raises(raised, match=what):
        run()


# ---------------------------------------------------------------------------------------------------------- take-overs


@pytest.mark.safety("G14", "sequencer")
def test_a_standby_that_misses_what_its_leader_wrote_last_is_noticed(monkeypatch):
    """It owns the journal and goes on from where it looked last, not from where the journal ends."""

    async def does_not_follow(self):
        epoch = await asyncio.to_thread(self.journal.take_epoch)
        self.state.sequence = self.reader.head().sequence  # or the journal's head would tell it
        self._own(epoch)

    monkeypatch.setattr(Core, "take_over", does_not_follow)
    comes_to_light("follows on", range(22, 32), 2, HistoryGap)


@pytest.mark.safety("G14", "sequencer")
def test_a_successor_that_lets_money_go_at_once_is_noticed(monkeypatch):
    """Withdrawals and transfers are held for five minutes after a take-over."""
    monkeypatch.setattr(
        OPENING, lambda pipeline, now_s, taken_over: Opening(pipeline, now_s, taken_over=False)
    )
    comes_to_light("no money leaves at once", range(1, 12), 2)


@pytest.mark.safety("G14", "sequencer")
def test_a_start_that_liquidates_at_old_prices_is_noticed(monkeypatch):
    """Nobody is liquidated before a round has come."""

    def hasty(pipeline, now_s, taken_over):
        opening = Opening(pipeline, now_s, taken_over=taken_over)
        pipeline.release(PRICES)
        return opening

    monkeypatch.setattr(OPENING, hasty)
    comes_to_light("nothing is liquidated before", range(1, 12), 2)


# -------------------------------------------------------------------------------------------------------- late batches


@pytest.fixture
def long_outages(monkeypatch):
    """Each outage may be longer than a batch's window."""
    monkeypatch.setattr("tests.simulation.node.LONG_OUTAGE", 1.0)


def test_a_late_batch_that_moves_a_unit_is_noticed(monkeypatch, long_outages):
    """Late batches settle, and what they leave is compared like all else."""
    honest = Blocks.settle

    def moves_one(self, data, ledger, number, time):
        honest(self, data, ledger, number, time)
        batch = decode_outline(data)
        if time > ledger.pinned(batch.round, batch.prices_hash).timestamp + MAX_BATCH_AGE_S:
            ledger.vault.collaterals[3] -= 1
            ledger.vault.collaterals[4] += 1

    monkeypatch.setattr(Blocks, "settle", moves_one)
    comes_to_light(r"collateral of \d+ agrees", range(20, 32), 4)


# ----------------------------------------------------------------------------------------------------------- in flight


@pytest.fixture
def crowded_pool(monkeypatch):
    """In every run one transaction of ten is stuck, some for longer than a window, and receipts are often lost."""
    monkeypatch.setattr("tests.simulation.exchange.STUCK", 1.0)
    monkeypatch.setattr("tests.simulation.exchange.STUCK_CHANCE", 0.1)
    monkeypatch.setattr("tests.simulation.node.LONGEST_STUCK_S", 400)
    monkeypatch.setattr("tests.simulation.exchange.Faults", lambda **given: Faults(**given, lost_answer=0.4))


@pytest.mark.safety("E05", "sequencer")
def test_what_follows_on_a_stuck_batch_and_is_not_outbid_is_noticed(monkeypatch, crowded_pool):
    """Somebody else's batch takes the place of the stuck one, and what follows settles on top of it."""

    async def forgets(self, oldest, hours):
        """What was sent before is nobody's affair."""

    async def waits(self, sent):
        await asyncio.gather(*(settling for _, settling in sent), return_exceptions=True)

    monkeypatch.setattr(UnderWay, "outbid_strays", forgets)
    monkeypatch.setattr(UnderWay, "wait", waits)
    comes_to_light("is somebody else's, and batches of this journal settled on top", range(9, 12), 4)


# ------------------------------------------------------------------------------------------------------------ listings


@pytest.fixture
def governed(monkeypatch):
    """The governor does something in every run."""
    monkeypatch.setattr("tests.simulation.people.GOVERNED", 1.0)


def test_a_listing_with_another_fee_is_noticed(monkeypatch, governed):
    """A market that was listed while everything runs is compared like the others."""
    honest = Governance.on_ListMarket

    def dear(self, change):
        market = replace(change.market, taker_fee_ppm=change.market.taker_fee_ppm + 1)
        return honest(self, replace(change, market=market))

    monkeypatch.setattr(Governance, "on_ListMarket", dear)
    comes_to_light("market 4: parameters agree", range(2, 12), 3)
