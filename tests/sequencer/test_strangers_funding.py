"""Funding hours that a stranger posted from another quorum of five keepers' reports, against the real contracts."""

from pathlib import Path

import pytest
from real_exchange import RealExchange, hexed
from test_settlement import registered, trade

from evermark.chain import ExchangeContracts, TransactionSender
from evermark.chain.rpc import rpc
from evermark.devnet import dev_key
from evermark.protocol.oracle import SignedFundingReport
from evermark.protocol.signing import FundingReport, Signer, digest

FIVE = (2, 3, 4, 10, 11)
STRANGER = 12
HOUR_S = 3_600

pytestmark = pytest.mark.timeout(180)


def reports_of(running: RealExchange, hour: int) -> list[SignedFundingReport]:
    """Five keepers, each with a higher rate than the one before."""
    made = []
    for number, index in enumerate(FIVE):
        signer, rates = Signer(dev_key(index)), (10_000 * (number + 1),) * len(running.world.markets)
        report = FundingReport(hour=hour, rates_ppb=rates, samples=b"s" * 32)
        signature = signer.sign(digest(running.world.oracle_domain, report))
        made.append(SignedFundingReport(report, signer.address, signature))
    return made


async def an_hour_ends(running: RealExchange) -> int:
    """kill -9, the end of the hour, and a new start with new prices; the hour."""
    await running.kill()
    hour = running.clock.now_s() // HOUR_S
    await rpc(running.w3, "evm_increaseTime", (hour + 1) * HOUR_S + 30 - running.clock.now_s())
    await rpc(running.w3, "evm_mine")
    await running.spawn()

    async def over() -> bool:
        return running.clock.now_s() > (hour + 1) * HOUR_S

    await running.eventually(over, "the clock has seen the end of the hour")
    await running.post_round()
    return hour


async def report(running: RealExchange, reports: list[SignedFundingReport]) -> None:
    """Keepers report until the engine has the hour."""

    async def decided() -> bool:
        answers = []
        for signed in reports:
            made = signed.report
            body = {
                "report": {
                    "hour": made.hour,
                    "ratesPpb": list(made.rates_ppb),
                    "samples": hexed(made.samples),
                },
                "signature": hexed(signed.signature.to_bytes()),
            }
            answers.append(await running.post("/v1/oracle/funding", body))
        assert all(status == 200 for status, _ in answers), answers
        return not answers[-1][1]["accepted"]

    await running.eventually(decided, "the hour is journaled")


async def post(running: RealExchange, reports: list[SignedFundingReport]) -> None:
    """A stranger posts these: whoever comes first decides the hour."""
    contracts, sender = (
        ExchangeContracts(running.w3, running.manifest),
        TransactionSender(running.w3, dev_key(STRANGER)),
    )
    ascending = sorted(reports, key=lambda one: one.signer)
    await sender.send(contracts.oracle.address, contracts.post_funding_calldata(ascending))


@pytest.mark.safety("C04", "sequencer")
async def test_the_engine_applies_what_the_stranger_posted(tmp_path: Path) -> None:
    """Once after the engine had applied other reports, which are void then; once before, and nothing is. Engine and vault agree
    to the unit after both."""
    async with RealExchange(tmp_path, speed=2.0, funding_keepers=FIVE) as running:
        for trader in (0, 1):
            await running.deposit(trader, 100_000)
        await running.spawn()
        await running.post_round()
        await running.eventually(lambda: registered(running), "both accounts exist")
        await trade(running, 1)
        await running.settled()

        first = await an_hour_ends(running)
        await report(running, reports_of(running, first)[:3])
        await post(running, reports_of(running, first)[2:])
        await trade(running, 2)
        await running.settled()
        status = await running.get("/v1/status")
        assert (status["reversals"], status["last_reversal"]["cause"]) == (1, "other_funding")

        second = await an_hour_ends(running)
        await post(running, reports_of(running, second)[1:4])
        await report(running, reports_of(running, second)[:3])
        await trade(running, 3)
        await running.settled()
        assert (await running.get("/v1/status"))["reversals"] == 1

        contracts = ExchangeContracts(running.w3, running.manifest)
        assert [(await contracts.funding_rates(hour))[0] for hour in (first, second)] == [40_000, 30_000]
        assert (await contracts.market(0)).last_funding_hour == second
        verified = await running.verify()
        assert verified.ok, verified
        assert verified.reversals == 1
