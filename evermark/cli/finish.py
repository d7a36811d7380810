"""The end of `evermark up --for`: settle, verify, count, and say in one line whether all of it held."""

from pathlib import Path
from typing import Any

import msgspec

from evermark.cli import output
from evermark.cli.errors import CliError
from evermark.cli.exchange import Exchange
from evermark.cli.plan import UpPlan


class Tally(msgspec.Struct):
    """What a journal contains, counted."""

    fills_matched: int = 0
    batches: int = 0
    funding_hours: int = 0
    liquidations: int = 0
    withdrawals: int = 0


async def finish(exchange: Exchange, plan: UpPlan) -> None:
    """Stop trading, settle, verify, print. Raises CliError with the first thing that does not hold."""
    output.say("the time is over: traders stop, the last batch settles")
    failure = ""
    try:
        await exchange.settle()
    except CliError as error:
        failure = str(error)
    await exchange.stop_trading_parts()
    journal = exchange.run.journal / "journal.db"
    report = await verify_run(journal, exchange.run.manifest, plan.rpc_url)
    counts = tally(journal)
    result = {
        "fills_matched": counts.fills_matched,
        "fills_settled": report["fills_settled"],
        "batches": report["batches_settled"],
        "funding_hours": counts.funding_hours,
        "liquidations": counts.liquidations,
        "withdrawals": counts.withdrawals,
        "verify": report,
    }
    if plan.as_json:
        output.print_json(result)
    else:
        output.print_fields({name: str(value) for name, value in result.items() if name != "verify"})
    reason = failure or verdict(result, plan.min_fills)
    if reason:
        raise CliError(reason)
    output.say("everything matched is settled, and journal and chain agree to the last unit")


def verdict(result: dict[str, Any], min_fills: int) -> str:
    """Why the run failed; empty when it did not."""
    matched, settled = result["fills_matched"], result["fills_settled"]
    if not result["verify"]["ok"]:
        return describe_disagreement(result["verify"])
    if settled != matched:
        return f"{matched} fills were matched, {settled} are settled"
    if settled < min_fills:
        return f"{settled} fills settled, fewer than {min_fills}"
    return ""


def describe_disagreement(report: dict[str, Any]) -> str:
    """The first thing that a verification found wrong, and how many more there are."""
    if report["problem"]:
        return f"verify: {report['problem']}"
    broken = [f"invariant {name!r} is broken" for name, holds in report["invariants"].items() if not holds]
    broken += [
        f"{difference['where']}: journal {difference['expected']}, chain {difference['found']}"
        for difference in report["differences"]
    ]
    more = len(broken) - 1
    return f"verify: {broken[0] if broken else 'failed'}" + (f" (and {more} more)" if more > 0 else "")


async def verify_run(journal: Path, manifest: Path, rpc_url: str) -> dict[str, Any]:
    """Compare a journal with the chain; the report as plain values."""
    from evermark.chain import ManifestRefused, load_manifest
    from sequencer.verify import verify

    try:
        report = await verify(journal, load_manifest(manifest), rpc_url)
    except ManifestRefused as error:
        raise CliError(str(error)) from None
    return dict(msgspec.to_builtins(report))


def tally(journal_path: Path) -> Tally:
    """Replay a journal and count what its commands did."""
    from sequencer.engine.events import (
        BatchSealed,
        FundingApplied,
        Liquidated,
        Trade,
        WithdrawalClaimed,
    )
    from sequencer.engine.state import EngineState
    from sequencer.journal import SqliteJournal
    from sequencer.replay import Applied, replay

    counts, hours = Tally(), set[int]()

    def observe(applied: Applied) -> None:
        for event in applied.events:
            counts.fills_matched += isinstance(event, Trade)
            counts.batches += isinstance(event, BatchSealed)
            counts.liquidations += isinstance(event, Liquidated)
            counts.withdrawals += isinstance(event, WithdrawalClaimed)
            if isinstance(event, FundingApplied):
                hours.add(event.hour)

    journal = SqliteJournal(journal_path, read_only=True)
    try:
        replay(journal, EngineState(), [observe])
    finally:
        journal.close()
    counts.funding_hours = len(hours)
    return counts
