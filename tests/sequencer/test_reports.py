"""The collector of keepers' reports: one command per round or hour, late and foreign reports refused."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from sequencer_world import ROUND_SECONDS, World, key

from evermark.protocol.oracle import Round, SignedFundingReport, SignedPriceReport
from evermark.protocol.reject import Reject, RejectCode
from sequencer.engine.commands import AnyCommand, FundingHour, OracleRound
from sequencer.engine.events import CommandRejected, Event, FundingApplied, RoundApplied
from sequencer.replay import Applied
from sequencer.reports import Received, ReportCollector


class Sink:
    """Takes the collector's commands; `refuse` answers with a rejection."""

    def __init__(self, world: World) -> None:
        self.commands: list[AnyCommand] = []
        self.refuse = 0
        self.collector = ReportCollector(world.genesis, self.submit, lambda: world.now_s, grace_s=0.05)

    async def submit(self, command: AnyCommand) -> list[Event]:
        self.commands.append(command)
        events: list[Event] = []
        if self.refuse:
            self.refuse -= 1
            reject = Reject(code=RejectCode.STALE_PRICE, message="stale")
            events = [CommandRejected(account=0, reject=reject)]
        elif isinstance(command, FundingHour):
            hour = command.reports[0].report.hour
            events = [FundingApplied(market_id=0, hour=hour, rate_ppb=1, index_ticks=1, cumulative=1)]
        elif isinstance(command, OracleRound):
            report = command.reports[0].report
            events = [RoundApplied(round=Round(report.round, report.timestamp, ()))]
        self.collector.observe(Applied(len(self.commands), 0, command, events, b""))
        return events


@pytest.fixture
def world() -> World:
    return World(keepers=[key(1), key(2), key(3)])


@pytest.fixture
def sink(world: World) -> Sink:
    return Sink(world)


async def test_complete_round_is_submitted_once_with_signers_ascending(world: World, sink: Sink) -> None:
    """All keepers' reports make one OracleRound at once; repeating them changes nothing."""
    reports = world.price_reports()
    answers = [sink.collector.add_price(report) for report in reversed(reports)]
    assert answers == [Received(True, 1, 3), Received(True, 2, 3), Received(True, 3, 3)]
    await asyncio.sleep(0.01)
    assert sink.commands == [OracleRound(reports=reports)]
    assert sink.collector.add_price(reports[0]) == Received(False, 3, 3)
    await asyncio.sleep(0.1)
    assert len(sink.commands) == 1


async def test_quorum_waits_a_moment_for_the_last_keeper(world: World) -> None:
    """With three of four reports the round goes after the grace; the fourth, in time, travels with it."""
    four = World(keepers=[key(1), key(2), key(3), key(4)])
    sink = Sink(four)
    reports = four.price_reports()
    for report in reports[:3]:
        sink.collector.add_price(report)
    await asyncio.sleep(0.02)
    assert sink.commands == []
    await asyncio.sleep(0.08)
    assert sink.commands == [OracleRound(reports=reports[:3])]
    four.now_s += ROUND_SECONDS
    later = four.price_reports()
    for report in later:
        sink.collector.add_price(report)
    await asyncio.sleep(0.01)
    assert sink.commands[1:] == [OracleRound(reports=later)]


async def test_older_rounds_are_late(world: World, sink: Sink) -> None:
    """After a newer round was submitted the missing report of an older one is dropped."""
    old = world.price_reports()
    for report in old[:2]:
        sink.collector.add_price(report)
    world.now_s += ROUND_SECONDS
    for report in world.price_reports():
        sink.collector.add_price(report)
    await asyncio.sleep(0.01)
    assert sink.collector.add_price(old[2]) == Received(False, 3, 3)
    await asyncio.sleep(0.1)
    assert len(sink.commands) == 1


async def test_rounds_are_spaced_while_the_chain_lags(world: World) -> None:
    """With settlement behind, rounds that come too soon are dropped and a later one goes through."""
    sink = Sink(world)
    spacing = 0
    sink.collector = ReportCollector(
        world.genesis, sink.submit, lambda: world.now_s, spacing_s=lambda: spacing, grace_s=0.01
    )
    for spacing in (0, 10, 10, 10, 10):  # noqa: B007  the collector reads it
        for report in world.price_reports():
            sink.collector.add_price(report)
        await asyncio.sleep(0.02)
        world.now_s += ROUND_SECONDS
    assert len(sink.commands) == 2


def altered(world: World, **changes: object) -> SignedPriceReport:
    signed = world.price_reports()[0]
    return msgspec.structs.replace(signed, report=msgspec.structs.replace(signed.report, **changes))


@pytest.mark.parametrize(
    ("make", "code", "field"),
    [
        (lambda w: World(keepers=[key(9)]).price_reports()[0], RejectCode.NOT_AUTHORISED, "signature"),
        (lambda w: altered(w, prices=(1 << 32 | 1,) * 5), RejectCode.OUT_OF_RANGE, "prices"),
        (lambda w: altered(w, prices=(1 << 32, 0, 0, 0)), RejectCode.OUT_OF_RANGE, "prices"),
        (lambda w: altered(w, prices=(1 << 70 | 1, 0, 0, 0)), RejectCode.OUT_OF_RANGE, "prices"),
        (lambda w: altered(w, timestamp=w.now_s + ROUND_SECONDS), RejectCode.OUT_OF_RANGE, "timestamp"),
        (lambda w: w.price_reports(at_s=w.now_s + 9)[0], RejectCode.OUT_OF_RANGE, "timestamp"),
    ],
)
async def test_bad_price_reports_are_refused(
    world: World, sink: Sink, make: Callable[[World], SignedPriceReport], code: RejectCode, field: str
) -> None:
    """Unregistered signer, wrong shape, wrong round, future time: refused with the field, not kept."""
    answer = sink.collector.add_price(make(world))
    assert isinstance(answer, Reject)
    assert (answer.code, answer.field) == (code, field)


async def test_funding_hour_is_submitted_once(world: World, sink: Sink) -> None:
    """The quorum of an ended hour makes one FundingHour; an unfinished hour is refused."""
    hour = world.now_s // 3600 - 1
    for report in world.funding_reports(hour):
        assert isinstance(sink.collector.add_funding(report), Received)
    await asyncio.sleep(0.01)
    assert [type(command) for command in sink.commands] == [FundingHour]
    assert sink.collector.add_funding(world.funding_reports(hour)[0]) == Received(False, 3, 3)
    early = sink.collector.add_funding(world.funding_reports(hour + 2)[0])
    assert isinstance(early, Reject)
    assert early.field == "hour"


async def test_refused_funding_hour_is_tried_again(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour that the engine refuses for a stale price is submitted again after each round until it passes; without a round
    it would fill the journal with refusals."""
    monkeypatch.setattr("sequencer.reports.HOUR_LOOK_S", 0.001)
    sink.refuse = 2
    for report in world.funding_reports(world.now_s // 3600 - 1):
        sink.collector.add_funding(report)
    for attempts in (1, 2, 3):
        for _ in range(5_000):
            if len(sink.commands) == attempts:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # many looks later
        assert [type(command) for command in sink.commands] == [FundingHour] * attempts
        applied = RoundApplied(round=Round(attempts, attempts * ROUND_SECONDS, ()))
        sink.collector.observe(Applied(9, 0, OracleRound(reports=()), [applied], b""))


async def test_what_the_chain_has_is_submitted(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reports that somebody posted go to the engine instead of those held; while nobody knows them the hour waits."""
    monkeypatch.setattr("sequencer.reports.HOUR_LOOK_S", 0.01)
    hour = world.now_s // 3600 - 1
    posted, asked = world.funding_reports(hour, [7] * len(world.markets)), []

    async def on_the_chain(
        hour: int, held: tuple[SignedFundingReport, ...]
    ) -> tuple[SignedFundingReport, ...]:
        asked.append((hour, held, list(sink.commands)))
        return posted if len(asked) == 3 else ()

    sink.collector.ask_first(on_the_chain)
    held = world.funding_reports(hour)
    for report in held:
        sink.collector.add_funding(report)
    for _ in range(1_000):
        if sink.commands:
            break
        await asyncio.sleep(0.01)
    assert sink.commands == [FundingHour(reports=posted)]
    assert asked == [(hour, held, [])] * 3


async def test_reports_that_came_too_late_are_remembered(world: World, sink: Sink) -> None:
    """Every report of the last hours, the decided ones too, one a keeper; the oldest hours go."""
    hour = world.now_s // 3600 - 1
    for number in range(60):
        for report in world.funding_reports(hour - number):
            sink.collector.add_funding(report)
    late = world.funding_reports(hour - 40, [9] * len(world.markets))
    assert sink.collector.add_funding(late[0]) == Received(False, 3, 3)
    assert sink.collector.funding_reports(hour - 40) == world.funding_reports(hour - 40)
    assert sink.collector.funding_reports(hour - 59) == ()
    unknown = World(keepers=[key(5)]).funding_reports(hour)[0]
    assert isinstance(sink.collector.add_funding(unknown), Reject)
    assert unknown not in sink.collector.funding_reports(hour)
    await sink.collector.close()


@pytest.mark.safety("C04", "sequencer")
async def test_missed_hour_pays_nothing(world: World, sink: Sink) -> None:
    """An hour without a quorum an hour after its end is dropped."""
    hour = world.now_s // 3600 - 3
    assert [sink.collector.add_funding(report).accepted for report in world.funding_reports(hour)] == [
        False
    ] * 3
    await asyncio.sleep(0.1)
    assert sink.commands == []


async def test_replayed_rounds_are_not_collected_again(world: World, sink: Sink) -> None:
    """What the journal already holds is late after a restart too."""
    reports = world.price_reports()
    applied = RoundApplied(round=Round(world.now_s // ROUND_SECONDS, world.now_s, ()))
    sink.collector.observe(Applied(1, 0, OracleRound(reports=reports), [applied], b""))
    assert sink.collector.add_price(reports[0]) == Received(False, 3, 3)
