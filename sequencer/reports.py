"""Collects the keepers' signed price and funding reports until a quorum makes one command of them.

The gateway has recovered each report's signer; here it is held against the registered keepers and the clock.
The newest complete round wins: once a round is submitted, older ones are late and dropped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from evermark.protocol.funding import HOUR_S
from evermark.protocol.oracle import SignedFundingReport, SignedPriceReport
from evermark.protocol.reject import Reject, RejectCode
from evermark.protocol.signing import FundingReport, PriceReport
from sequencer import metrics
from sequencer.constitutions import Constitutions, ConstitutionsMemory
from sequencer.engine.commands import AnyCommand, FundingHour, Genesis, OracleRound
from sequencer.engine.events import (
    CommandRejected,
    Event,
    FundingApplied,
    Reversed,
    RoundApplied,
)
from sequencer.pipeline import PipelineStopped
from sequencer.replay import Applied

FUTURE_S = 5  # how far ahead of chain time a report may be; the oracle contract allows the same
GRACE_S = 0.1  # wall time between the quorum and the command, for the keepers that are a little slower
HOUR_LOOK_S = 2.0  # wall time between two looks whether a funding hour that waits may pass
HOUR_MISSED_S = 3_600  # chain time after an hour's end from which it pays nothing
KNOWN_HOURS = 48  # hours whose reports are remembered, also those that came too late
HELD_ROUNDS = 64  # incomplete rounds kept; the oldest goes first
HEARD = frozenset({RoundApplied, FundingApplied, Reversed})

Submit = Callable[[AnyCommand], Awaitable[list[Event]]]
Posted = Callable[[int, tuple[SignedFundingReport, ...]], Awaitable[tuple[SignedFundingReport, ...]]]
Signed = TypeVar("Signed", SignedPriceReport, SignedFundingReport)

log = structlog.get_logger("reports")


class ReportsMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a collector knows of the past."""

    last_round: int
    last_round_s: int
    last_hour: int
    constitutions: ConstitutionsMemory | None = None


class Received(msgspec.Struct, frozen=True):
    """What a keeper is told: reports held for this round or hour, and how many make a quorum."""

    accepted: bool  # False: late, the round or hour is decided
    have: int
    need: int


class _Gathering(Generic[Signed]):
    """The reports of one round or hour, one a keeper, and the task that submits them."""

    def __init__(self) -> None:
        self.reports: dict[bytes, Signed] = {}
        self.all_in = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def ascending(self) -> tuple[Signed, ...]:
        """By signer, as the contract wants them."""
        return tuple(self.reports[signer] for signer in sorted(self.reports))

    async def settle(self, grace_s: float) -> None:
        """Wait for the last keepers, a short while at most."""
        try:
            await asyncio.wait_for(self.all_in.wait(), grace_s)
        except TimeoutError:
            pass  # the quorum is enough

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` once; an error in it is logged, for nobody awaits it."""
        self.task = asyncio.ensure_future(work)
        self.task.add_done_callback(_log_failure)


class ReportCollector:
    """Reports in, OracleRound and FundingHour commands out. Lives on the event loop."""

    def __init__(
        self,
        genesis: Genesis,
        submit: Submit,
        now_s: Callable[[], int],
        *,
        spacing_s: Callable[[], int] = lambda: 0,
        grace_s: float = GRACE_S,
    ) -> None:
        """`now_s` is chain time; `spacing_s` says how many chain seconds lie between two rounds, at least."""
        self._round_seconds = genesis.round_seconds
        self._rules = Constitutions(genesis)
        self._submit = submit
        self._now_s = now_s
        self._spacing_s = spacing_s
        self._grace_s = grace_s
        self._rounds: dict[int, _Gathering[SignedPriceReport]] = {}
        self._hours: dict[int, _Gathering[SignedFundingReport]] = {}
        self.last_round = 0  # newest round handed to the engine; reports of older ones are late
        self._applied_round = 0  # newest round applied; `last_round` may be ahead of it
        self.last_hour = 0  # newest hour applied
        self._last_round_s = 0
        self._posted: Posted | None = None
        self._known_hours: dict[int, dict[bytes, SignedFundingReport]] = {}

    def ask_first(self, posted: Posted) -> None:
        """Have every hour's reports pass `posted` before they are journaled: it takes an hour and the reports held, and gives
        those to submit, none while the hour has to wait."""
        self._posted = posted

    def observe(self, applied: Applied) -> None:
        """Learn from the journal, in replay and live, what is decided."""
        self._rules.observe(applied)
        if HEARD.isdisjoint(map(type, applied.events)):
            return
        for event in applied.events:
            if isinstance(event, RoundApplied):
                self._applied_round = max(self._applied_round, event.round.round)
                self.last_round = max(self.last_round, event.round.round)
                self._last_round_s = event.round.timestamp
                self._rounds = {key: held for key, held in self._rounds.items() if key > self.last_round}
            elif isinstance(event, FundingApplied):
                self.last_hour = max(self.last_hour, event.hour)
                self._hours = {key: held for key, held in self._hours.items() if key > self.last_hour}
            elif isinstance(event, Reversed):
                self.last_hour = event.funding_hour

    @property
    def markets(self) -> int:
        """How many markets reports may have: those whose listing the chain has confirmed."""
        return self._rules.markets

    def memory(self) -> ReportsMemory:
        """For a snapshot: what `observe` has learned."""
        return ReportsMemory(self._applied_round, self._last_round_s, self.last_hour, self._rules.memory())

    def recall(self, memory: ReportsMemory, genesis: Genesis) -> None:
        """Go on from a snapshot; `genesis` is what was in force there."""
        self._rules.recall(memory.constitutions, genesis)
        self.last_round = self._applied_round = memory.last_round
        self._last_round_s, self.last_hour = memory.last_round_s, memory.last_hour

    def add_price(self, signed: SignedPriceReport) -> Received | Reject:
        """Take one verified price report. A second one of the same keeper for a round changes nothing."""
        report, need = signed.report, self._rules.oracle_quorum
        refusal = self._check_price(report, signed.signer)
        if refusal is not None:
            return refusal
        if report.round <= self.last_round:
            return Received(False, need, need)
        held = self._rounds.setdefault(report.round, _Gathering())
        held.reports.setdefault(signed.signer, signed)
        if len(held.reports) >= need and held.task is None:
            held.begin(self._submit_round(report.round, held))
        if len(held.reports) == len(self._rules.oracle_keepers):
            held.all_in.set()
        while len(self._rounds) > HELD_ROUNDS:
            del self._rounds[min(self._rounds)]
        return Received(True, len(held.reports), need)

    def add_funding(self, signed: SignedFundingReport) -> Received | Reject:
        """Take one verified funding report, as `add_price` does."""
        report, need = signed.report, self._rules.funding_quorum
        refusal = self._check_funding(report, signed.signer)
        if refusal is not None:
            return refusal
        self._known_hours.setdefault(report.hour, {}).setdefault(signed.signer, signed)
        if len(self._known_hours) > KNOWN_HOURS:
            del self._known_hours[min(self._known_hours)]
        if report.hour <= self.last_hour or self._missed(report.hour):
            return Received(False, need, need)
        held = self._hours.setdefault(report.hour, _Gathering())
        held.reports.setdefault(signed.signer, signed)
        if len(held.reports) >= need and held.task is None:
            held.begin(self._submit_hour(report.hour, held))
        if len(held.reports) == len(self._rules.funding_keepers):
            held.all_in.set()
        return Received(True, len(held.reports), need)

    def funding_reports(self, hour: int) -> tuple[SignedFundingReport, ...]:
        """Everything that came for an hour, one report a keeper: somebody may have posted what came here too late."""
        return tuple(self._known_hours.get(hour, {}).values())

    async def close(self) -> None:
        """Drop what waits; the keepers will report again."""
        rounds = [held.task for held in self._rounds.values()]
        hours = [held.task for held in self._hours.values()]
        tasks = [task for task in (*rounds, *hours) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _submit_round(self, round_: int, held: _Gathering[SignedPriceReport]) -> None:
        await held.settle(self._grace_s)
        timestamp = round_ * self._round_seconds
        if round_ > self.last_round and timestamp >= self._last_round_s + self._spacing_s():
            self.last_round = round_
            metrics.ROUNDS_COLLECTED.inc()
            await self._submit(OracleRound(reports=held.ascending()))

    async def _submit_hour(self, hour: int, held: _Gathering[SignedFundingReport]) -> None:
        """A refused hour is tried again when there are other prices, not before: each attempt is a record of the journal."""
        await held.settle(self._grace_s)
        refused_at = -1  # the round that was in force
        while hour > self.last_hour and not self._missed(hour):
            reports = held.ascending() if self._applied_round != refused_at else ()
            if reports and self._posted is not None:
                reports = await self._posted(hour, reports)
            if reports:
                refused_at = self._applied_round
                events = await self._submit(FundingHour(reports=reports))
                refused = [event.reject for event in events if isinstance(event, CommandRejected)]
                if not refused:
                    return
                log.warning("funding hour refused", hour=hour, reason=refused[0].message)
            await asyncio.sleep(HOUR_LOOK_S)

    def _missed(self, hour: int) -> bool:
        return self._now_s() > (hour + 1) * HOUR_S + HOUR_MISSED_S

    def _check_price(self, report: PriceReport, signer: bytes) -> Reject | None:
        if signer not in self._rules.oracle_keepers:
            return _unregistered("oracle")
        halves = [(price >> 32, price & 0xFFFFFFFF) for price in report.prices]
        if not 0 < len(halves) <= self._rules.markets:  # a keeper may not know the newest market yet
            return _refuse(
                "at most one price per market", "prices", have=len(halves), need=self._rules.markets
            )
        if any((index == 0) != (mark == 0) or not 0 <= index < 2**32 for index, mark in halves):
            return _refuse("index and mark are 32 bits each, both or neither", "prices")
        if report.timestamp // self._round_seconds != report.round:
            return _refuse("timestamp lies outside the round", "timestamp", seconds=self._round_seconds)
        return self._check_future(report.timestamp, "timestamp")

    def _check_funding(self, report: FundingReport, signer: bytes) -> Reject | None:
        if signer not in self._rules.funding_keepers:
            return _unregistered("funding")
        need = self._rules.markets
        if len(report.rates_ppb) > need or any(abs(rate) >= 2**31 for rate in report.rates_ppb):
            return _refuse(
                "at most one 32-bit rate per market", "ratesPpb", have=len(report.rates_ppb), need=need
            )
        return self._check_future((report.hour + 1) * HOUR_S, "hour")

    def _check_future(self, time_s: int, field: str) -> Reject | None:
        now = self._now_s()
        if time_s > now + FUTURE_S:
            return _refuse("lies in the future of the chain", field, time=time_s, chain_time=now)
        return None


def _log_failure(task: asyncio.Task[None]) -> None:
    if (
        not task.cancelled()
        and task.exception() is not None
        and not isinstance(task.exception(), PipelineStopped)
    ):
        log.error("reports were not submitted", exc_info=task.exception())


def _unregistered(role: str) -> Reject:
    message = f"the signer is no registered {role} keeper"
    return Reject(code=RejectCode.NOT_AUTHORISED, message=message, field="signature")


def _refuse(message: str, field: str, **details: int | str) -> Reject:
    return Reject(code=RejectCode.OUT_OF_RANGE, message=message, field=field, details=details)
