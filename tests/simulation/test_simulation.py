"""The simulator runs whole exchanges under faults, repeats itself exactly, and notices broken promises."""

import asyncio
import dataclasses

import pytest

from sequencer.engine.state import MAX_UNSETTLED_AGE_S
from sequencer.journal import Appended
from tests.simulation.chain import LONGEST_OUTAGE_S, SimulatedChain
from tests.simulation.disk import SimulatedJournal
from tests.simulation.exchange import Violated
from tests.simulation.run import main, simulate
from tests.simulation.virtual_time import Stalled, run_simulated

MINUTES = 4


@pytest.mark.safety("G13", "sequencer")
@pytest.mark.safety("G11", "sequencer")
@pytest.mark.safety("G16", "sequencer")
@pytest.mark.safety("E08", "sequencer")
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_whole_exchange_survives_its_faults(seed):
    """Deaths, lost answers, zombies, outages, reorganisations: at rest, engine, journal and vault agree."""
    report = simulate(seed, MINUTES * 60)
    assert report.deaths >= 2
    assert report.batches >= 20
    assert report.trades >= 50
    assert report.acknowledged > 300


@pytest.mark.safety("G24", "sequencer")
def test_a_seed_repeats_itself():
    """The same seed gives the same exchange, to the last number: a failure can be looked at again."""
    first, second = simulate(7, 120), simulate(7, 120)
    assert dataclasses.asdict(first) == dataclasses.asdict(second)
    assert first.state != simulate(8, 120).state


@pytest.mark.safety("G24", "sequencer")
def test_a_failure_names_its_seed_and_the_command_that_replays_it(monkeypatch, capsys):
    """What a person needs stands in the last two lines."""

    def fails(_seed, _duration_s):
        raise Violated("batches settle once, in order")

    monkeypatch.setattr("tests.simulation.run.simulate", fails)
    assert main(["--seeds", "3", "--first", "41", "--minutes", "2"]) == 1
    told = capsys.readouterr().err
    assert "seed 41 at " in told
    assert "Violated: batches settle once, in order" in told
    assert "again: scripts/simulate --seed 41 --minutes 2" in told


def test_an_acknowledgement_before_durability_is_noticed(monkeypatch):
    """A journal that forgets what it has confirmed breaks a promise within one run."""
    honest = SimulatedJournal.append

    def forgets(self, entries, expected_sequence, epoch):
        outcome = honest(self, entries, expected_sequence, epoch)
        if isinstance(outcome, Appended) and len(self.disk.records) > 150:
            del self.disk.records[-len(entries) :]
        return outcome

    monkeypatch.setattr(SimulatedJournal, "append", forgets)
    with pytest.raises(Violated, match="durable"):
        simulate(1, 120)


def test_a_vault_that_pays_one_unit_too_much_is_noticed(monkeypatch):
    """The comparison at rest is to the last unit."""
    honest = SimulatedChain._settle

    def generous(self, data, ledger, number, time):
        honest(self, data, ledger, number, time)
        ledger.vault.collaterals[3] += len(ledger.batches) == 5

    monkeypatch.setattr(SimulatedChain, "_settle", generous)
    with pytest.raises((Violated, AssertionError)):
        simulate(1, 120)


def test_virtual_time_costs_no_wall_time_and_stalls_loudly():
    """A day passes at once; waiting for nothing is an error, not a hang."""

    async def sleeps():
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run_simulated(sleeps(), lambda: 0.0) == pytest.approx(86_400)

    async def waits_for_nothing():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stalled):
        run_simulated(waits_for_nothing(), lambda: 0.0)


def test_outages_reach_into_the_bounds_of_unsettled_time():
    """The longest outage is longer than the age at which the engine takes reducing orders only."""
    assert LONGEST_OUTAGE_S > MAX_UNSETTLED_AGE_S
