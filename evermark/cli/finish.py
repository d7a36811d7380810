"""The end of `evermark up --for`: settle, verify, count, and say in one line whether all of it held."""

from typing import Any

from evermark.cli import output
from evermark.cli.audit import describe_disagreement, tally, verify_run
from evermark.cli.errors import CliError
from evermark.cli.exchange import Exchange
from evermark.cli.plan import UpPlan


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
