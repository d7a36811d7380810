"""The simulator runs whole exchanges under faults, repeats itself exactly, and notices broken promises."""

import asyncio
import dataclasses

import pytest
from naive_forced import FUND, Forced

from evermark.protocol.units import BrokenInvariant
from sequencer.engine.state import MAX_UNSETTLED_AGE_S
from sequencer.gateway.desk import Desk
from sequencer.gateway.placing import _UnderWay
from sequencer.journal import Appended
from tests.simulation.chain import Blocks
from tests.simulation.disk import Disk, SimulatedJournal
from tests.simulation.exchange import Violated
from tests.simulation.node import LONGEST_OUTAGE_S
from tests.simulation.run import main, simulate
from tests.simulation.virtual_time import Stalled, run_simulated

MINUTES = 4


@pytest.fixture(scope="module")
def reports():
    """What a few exchanges did; each has come to rest, or this raises."""
    return [simulate(seed, MINUTES * 60) for seed in (6, 7, 9)]


@pytest.mark.safety("G13", "sequencer")
@pytest.mark.safety("G11", "sequencer")
@pytest.mark.safety("G14", "sequencer")
@pytest.mark.safety("G16", "sequencer")
@pytest.mark.safety("E08", "sequencer")
def test_whole_exchanges_survive_their_faults(reports):
    """Deaths, lost and late answers, zombies, standbys, outages, reorganisations, strangers: at rest, engine, journal, history
    and vault agree."""
    for report in reports:
        assert report.deaths >= 2
        assert report.batches >= 20
        assert report.trades >= 50
        assert report.acknowledged > 300
    for fault in ("failovers", "late_appends", "reorgs", "reversals"):
        assert sum(getattr(report, fault) for report in reports), fault
    assert sum(report.strangers + report.other_hours + report.governed for report in reports)


def comes_to_light(what, seeds=range(1, 12), minutes=MINUTES):
    """One of a few exchanges raises Violated, or what a broken invariant raises, and says `what`."""

    def run():
        for seed in seeds:
            simulate(seed, minutes * 60)

    with pytest.raises((Violated, BrokenInvariant), match=what):
        run()


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


@pytest.mark.parametrize("kind, told", [(b"PlaceOrder", "an order"), (b"CancelOrder", "CancelOrder")])
def test_an_acknowledgement_before_durability_is_noticed(monkeypatch, kind, told):
    """A journal that forgets what it has confirmed breaks a promise within one run, whichever way the command came."""
    honest = SimulatedJournal.append

    def forgets(self, entries, expected_sequence, epoch):
        outcome = honest(self, entries, expected_sequence, epoch)
        of_kind = all(payload.startswith(b'{"kind":"%s"' % kind) for _, payload in entries)
        if isinstance(outcome, Appended) and of_kind and len(self.disk.records) > 150:
            del self.disk.records[-len(entries) :]
        return outcome

    monkeypatch.setattr(SimulatedJournal, "append", forgets)
    comes_to_light(f"acknowledged implies durable: {told}", minutes=2)


@pytest.mark.safety("G11", "sequencer")
def test_a_late_append_that_is_not_fenced_is_noticed(monkeypatch):
    """A database that takes a write which comes after its owner has written it again, or was succeeded."""
    monkeypatch.setattr(Disk, "_arrive", _arrives_anyhow)
    comes_to_light("stamps never fall|applied twice", minutes=2)


def _arrives_anyhow(disk, item):
    if item in disk._on_the_way:
        disk._on_the_way.remove(item)
        disk.write(item[0], disk.head().sequence + 1, disk.epoch)


def test_a_desk_that_forgets_orders_is_noticed(monkeypatch):
    """What is sent again while it is under way is journaled once."""

    def forgets(self, command, reply):
        def applied(outcome):
            order = self._under_way[command.order_hash] = _UnderWay(self, command.order_hash, reply)
            order(outcome)

        self._services.submit(command, applied)

    monkeypatch.setattr(Desk, "_submit_order", forgets)
    comes_to_light("applied twice|first answer", minutes=2)


def test_a_vault_that_pays_one_unit_too_much_is_noticed(monkeypatch):
    """The comparison at rest is to the last unit."""
    honest = Blocks.settle

    def generous(self, data, ledger, number, time):
        honest(self, data, ledger, number, time)
        ledger.vault.collaterals[3] += len(ledger.batches) == 5

    monkeypatch.setattr(Blocks, "settle", generous)
    with pytest.raises((Violated, AssertionError)):
        simulate(1, 120)


def test_a_close_that_costs_one_unit_more_is_noticed(monkeypatch):
    """Closes by the inbox happen, and are compared."""
    honest = Forced.forced_part

    def dear(self, fill):
        part = honest(self, fill)
        self.vault.collaterals[part[0]] -= 1
        self.vault.collaterals[FUND] += 1
        return part

    monkeypatch.setattr(Forced, "forced_part", dear)
    comes_to_light(r"collateral of \d+ agrees", range(5, 12))


def test_an_hour_with_other_rates_on_the_chain_that_nobody_compares_is_noticed(monkeypatch):
    """A stranger posted it from other reports; settlement goes on with its own."""

    async def no_others(_chain, _backlog, _batch):
        return []

    monkeypatch.setattr("sequencer.settlement.line.other_hours", no_others)
    comes_to_light("funding|collateral", range(6, 14))


def test_candles_that_keep_void_trades_are_noticed(monkeypatch):
    """The history is compared with the trades that stand."""
    monkeypatch.setattr("sequencer.history.projection.recount", lambda *_: [])
    comes_to_light("candles", range(10, 16))


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
