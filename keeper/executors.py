"""Signs what a strategy decided and sends it to the gateway, retrying for as long as the message is of use.

Sending straight to the chain is no fallback for one operator: a round or a funding hour needs a quorum of
different keepers' reports, which only the gateway (or whoever collects them) has.
"""

from collections.abc import Sequence

import msgspec
import stamina

from evermark.client.errors import EvermarkError, Refused
from evermark.protocol.markets import Market
from evermark.protocol.ranges import beyond
from evermark.protocol.signing import FundingReport, Liquidate, PriceReport, Signer, digest, domain_separator
from evermark.status import RoleStatus
from keeper.actions import Outcome
from keeper.exchange import Exchange, Report
from keeper.funding import CloseHour, KeepSample
from keeper.oracle import PostRound
from keeper.samples import SampleStore
from keeper.shown import OwnReports

ORACLE_DOMAIN = "Evermark Oracle"
VAULT_DOMAIN = "Evermark"
TEMPORARY_STATUS = (429, 500, 502, 503, 504)
HOUR_USEFUL_S = 20.0  # wall seconds of retrying; the strategy sends again after that
TRIGGER_USEFUL_S = 3.0  # the next look decides afresh


class Domains(msgspec.Struct, frozen=True):
    """Separators of the two contracts that keepers sign for."""

    oracle: bytes
    vault: bytes

    def of(self, report: Report) -> bytes:
        """Prices and funding are the oracle's, liquidation triggers the vault's."""
        return self.vault if isinstance(report, Liquidate) else self.oracle


def make_domains(chain_id: int, oracle: bytes, vault: bytes) -> Domains:
    """Separators from the chain id and the contracts' 20-byte addresses."""
    return Domains(
        domain_separator(chain_id, oracle, ORACLE_DOMAIN), domain_separator(chain_id, vault, VAULT_DOMAIN)
    )


class ReportSender:
    """One role's key and its way to the exchange."""

    def __init__(
        self, exchange: Exchange, signer: Signer, domains: Domains, shown: OwnReports | None = None
    ) -> None:
        """`shown` keeps price reports for whoever asks, whether or not the gateway takes them."""
        self._exchange, self._shown = exchange, shown
        self._signer = signer
        self._domains = domains

    @property
    def address(self) -> str:
        """The role's address, 0x-hex."""
        return "0x" + self._signer.address.hex()

    async def send(self, report: Report, useful_s: float) -> Outcome:
        """Sign and send; temporary failures are retried for `useful_s` wall seconds. What a field cannot hold is not signed."""
        found = beyond(report)
        if found is not None:
            return Outcome(False, f"{describe(report)}: not signed: {found}", "OUT_OF_RANGE")
        signature = self._signer.sign(digest(self._domains.of(report), report))
        if self._shown is not None and isinstance(report, PriceReport):
            self._shown.add(report, signature)
        try:
            answer = None
            async for attempt in stamina.retry_context(
                on=is_temporary,
                attempts=None,
                timeout=useful_s,
                wait_initial=0.05,
                wait_max=2.0,
                wait_jitter=0.1,
            ):
                with attempt:
                    answer = await self._exchange.send(report, signature)
        except Refused as refused:
            return Outcome(False, f"{describe(report)}: {refused}", refused.name)
        except EvermarkError as error:
            return Outcome(False, f"{describe(report)}: {error}", reached=False)
        return read_answer(report, answer or {})


class OracleExecutor:
    """Sends a round's report while the round is still the newest, and shows what it was made of."""

    def __init__(
        self, sender: ReportSender, markets: Sequence[Market], useful_s: float, status: RoleStatus
    ) -> None:
        self._sender, self._useful_s, self._status = sender, useful_s, status
        self._symbols = {market.market_id: market.symbol for market in markets}

    async def execute(self, action: PostRound) -> Outcome:
        """A round without a single price is not worth a report."""
        facts = self._status.facts
        facts["round"] = action.report.round
        facts["markets"] = {
            self._symbols[one.market_id]: {
                "index": one.index_ticks,
                "mark": one.mark_ticks,
                "used": one.used,
                "dropped": one.dropped,
                "abstained": one.abstained,
            }
            for one in action.decisions
        }
        if not any(action.report.prices):
            reasons = ", ".join(
                f"{self._symbols[one.market_id]}: {one.abstained}" for one in action.decisions
            )
            return Outcome(False, f"round {action.report.round} not reported: {reasons}")
        return await self._sender.send(action.report, self._useful_s)


class FundingExecutor:
    """Keeps samples on disk and sends the hour's report."""

    def __init__(self, sender: ReportSender, store: SampleStore, status: RoleStatus) -> None:
        self._sender, self._store, self._status = sender, store, status

    async def execute(self, action: KeepSample | CloseHour) -> Outcome:
        """A sample is written before anything rests on it; an hour without enough of them is only noted."""
        if isinstance(action, KeepSample):
            self._store.append(action.sample)
            self._status.facts["last_sample"] = action.sample.time_s
            self._status.facts["premiums_ppb"] = action.sample.premiums_ppb
            return Outcome(True, f"sample at {action.sample.time_s}")
        decision = action.decision
        self._status.facts["last_hour"] = {
            "hour": decision.hour,
            "samples": decision.samples,
            "expected": decision.expected,
            "rates_ppb": decision.report.rates_ppb if decision.report else None,
        }
        if decision.report is None:
            return Outcome(
                False, f"funding hour {decision.hour} skipped: {decision.reason}", "TOO_FEW_SAMPLES"
            )
        return await self._sender.send(decision.report, HOUR_USEFUL_S)


class TriggerExecutor:
    """Sends liquidation triggers."""

    def __init__(self, sender: ReportSender) -> None:
        self._sender = sender

    async def execute(self, action: Liquidate) -> Outcome:
        """A refusal (healthy, stale, halted) is an outcome that the strategy backs off from."""
        return await self._sender.send(action, TRIGGER_USEFUL_S)


def is_temporary(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds when the exchange said so."""
    if isinstance(error, Refused):
        if error.http_status not in TEMPORARY_STATUS:
            return False
        return True if error.retry_after_s is None else error.retry_after_s
    return isinstance(error, EvermarkError)


def read_answer(report: Report, answer: dict[str, object]) -> Outcome:
    """The gateway's answer as an outcome; a late report is not accepted, and nothing is wrong."""
    if isinstance(report, Liquidate):
        return Outcome(True, f"{describe(report)}: {answer.get('liquidated')}")
    if answer.get("accepted") is True:
        return Outcome(True, f"{describe(report)}: {answer.get('have')} of {answer.get('need')}")
    return Outcome(False, "", name="LATE")


def describe(report: Report) -> str:
    """A report in a few words, for status and log."""
    if isinstance(report, PriceReport):
        return f"round {report.round}"
    if isinstance(report, FundingReport):
        return f"funding hour {report.hour}"
    return f"account {report.account} {report.market}"
