"""`evermark status`: is the exchange well, and what do the markets look like."""

from typing import Any

from evermark.cli import options, output, session
from evermark.cli.gateway import DEFAULT_URL
from evermark.cli.units import find_market, format_price, format_rate, format_size, format_time, format_usdc
from evermark.client.reads import PublicReads
from evermark.protocol.markets import Market
from evermark.protocol.orders import NO_ADDRESS

MARKET_COLUMNS = ("<market", "<mode", "index", "mark", "age", "open interest", "funding")


def status(url: options.Url = "", as_json: options.AsJson = False) -> None:
    """The exchange's clock, batches, settlement lag and markets."""
    session.run(_status(url or DEFAULT_URL, as_json))


async def _status(url: str, as_json: bool) -> None:
    reads = PublicReads(url, NO_ADDRESS, 0)
    try:
        await session.check_reachable(reads)
        info, facts = await reads.exchange(), await reads.status()
    finally:
        await reads.transport.close()
    if as_json:
        output.print_json(facts)
        return
    output.print_fields(describe_status(facts))
    output.print_table("", MARKET_COLUMNS, market_rows(facts, info.markets))


def describe_status(facts: dict[str, Any]) -> dict[str, str]:
    """The exchange as a whole, line by line."""
    return {
        "ready": "yes" if facts["ready"] is True else "no",
        "chain time": f"{format_time(int(facts['chain_time']))} UTC, oracle round {facts['round']}",
        "batches": f"{facts['batch_settled']} settled, {facts['batch_open']} open",
        "fills": f"{facts['fills_settled']:,} settled of {facts['fills_matched']:,} matched",
        "settlement lag": f"{facts['settlement_lag_s']} s",
        "unsettled notional": f"{format_usdc(facts['unsettled_notional'])} USDC",
        "journal": f"{facts['journal_sequence']:,} commands",
    }


def market_rows(facts: dict[str, Any], markets: tuple[Market, ...]) -> list[tuple[str, ...]]:
    """One line a market, as MARKET_COLUMNS names them."""
    return [market_row(symbol, row, find_market(symbol, markets)) for symbol, row in facts["markets"].items()]


def market_row(symbol: str, row: dict[str, Any], market: Market) -> tuple[str, ...]:
    """Index, mark, their age, open interest and the funding rate of one market."""
    index, mark, age = row.get("index"), row.get("mark"), row.get("price_age_s")
    return (
        symbol,
        str(row.get("mode", "")).lower(),
        format_price(int(index), market) if index else "none",
        format_price(int(mark), market) if mark else "none",
        "-" if age is None else f"{age} s",
        f"{format_size(int(row.get('open_interest') or 0), market)} {market.base}",
        format_rate(int(row.get("funding_rate_ppb") or 0)),
    )
