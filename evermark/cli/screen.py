"""The live screen of `evermark up`, and the plain line that stands in for it without a terminal."""

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from evermark.cli.children import Child
from evermark.cli.output import table
from evermark.cli.overview import Overview
from evermark.cli.plan import UpPlan
from evermark.cli.rundir import RunDirectory
from evermark.cli.status import MARKET_COLUMNS, market_rows
from evermark.cli.units import format_scaled, format_time, format_usdc
from evermark.protocol.markets import load_markets

MARKETS = load_markets()
HEALTH_STYLES = {"ok": "green", "degraded": "yellow", "starting": "yellow", "stuck": "red"}
MADE_UP = ("synthetic", "simulated")


def plain_line(look: Overview) -> str:
    """The state of the exchange in one line."""
    block = "-" if look.block is None else str(look.block)
    when = "-" if look.chain_time_s is None else format_time(look.chain_time_s)
    parts = [f"block {block}", f"chain time {when}"]
    if look.status is None:
        return ", ".join([*parts, "gateway does not answer"])
    status = look.status
    parts += [
        f"batch {status['batch_settled']}",
        f"fills {status['fills_settled']}/{status['fills_matched']} settled",
        f"lag {status['settlement_lag_s']} s",
        f"{look.commands_per_s:.1f} commands/s",
    ]
    return ", ".join(parts)


def render(
    look: Overview, children: dict[str, Child], notices: list[str], plan: UpPlan, run: RunDirectory
) -> RenderableType:
    """The whole screen."""
    parts: list[RenderableType] = [_head(look, plan, run)]
    if look.status is not None:
        counts = source_counts(look.roles)
        rows = [(*row, counts.get(row[0], "-")) for row in market_rows(look.status, MARKETS)]
        parts.append(table("", (*MARKET_COLUMNS, "<price sources"), rows))
    parts.append(_processes(look, children))
    if notices:
        parts.append(Text("\n".join(notices), style="yellow"))
    sources = price_sources(look.roles)
    if sources:
        parts.append(table("", ("<market", "<venues as keeper-1 reads them, with their ages"), sources))
    return Group(*parts)


def _head(look: Overview, plan: UpPlan, run: RunDirectory) -> Panel:
    status = look.status
    lines = [
        f"gateway {plan.gateway_url}   chain {plan.rpc_url}   prices {plan.prices} at speed {plan.speed:g}",
        f"logs    {run.path / 'logs'}   Ctrl-C stops everything",
        plain_line(look),
    ]
    if status is not None:
        lines.append(
            f"unsettled {format_usdc(status['unsettled_notional'])} USDC, round {status['round']},"
            f" journal {status['journal_sequence']:,}" + _sampled(look.roles)
        )
    return Panel("\n".join(lines), title="Evermark", title_align="left")


def _sampled(roles: dict[str, dict[str, Any]]) -> str:
    facts = role_facts(roles, "takers")
    if "sampled_ppm" not in facts:
        return ""
    return f", {format_scaled(int(facts['sampled_ppm']), 4, least=2)} % of the trade flow sampled"


def source_counts(roles: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By market, how many sources of which origin the first keeper reads, e.g. `2 recorded, 1 synthetic`."""
    by_market: dict[str, Counter[str]] = {}
    for source in _sources(roles):
        by_market.setdefault(_symbol(source), Counter())[str(source["origin"])] += 1
    return {
        symbol: ", ".join(f"{count} {origin}" for origin, count in sorted(counts.items()))
        for symbol, counts in by_market.items()
    }


def price_sources(roles: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """By market, the venues that the first keeper reads with their ages; made-up ones say that they are."""
    by_market: dict[str, list[str]] = {}
    for source in _sources(roles):
        label = f" {source['origin']}" if source["origin"] in MADE_UP else ""
        kind = " perpetual" if source["kind"] == "perpetual" else ""
        text = f"{source['venue']}{kind} ({source['age_s']:g} s{label})"
        by_market.setdefault(_symbol(source), []).append(text)
    return [(symbol, ", ".join(venues)) for symbol, venues in by_market.items()]


def _sources(roles: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return list(role_facts(roles, "keeper-1", "oracle").get("sources", []))


def _symbol(source: dict[str, Any]) -> str:
    known = [market.symbol for market in MARKETS if market.market_id == source["market"]]
    return known[0] if known else "?"


def role_facts(roles: dict[str, dict[str, Any]], name: str, role: str = "") -> dict[str, Any]:
    """What one role of one process says about itself; empty when it has not said anything."""
    facts = roles.get(name, {}).get("roles", {}).get(role or name, {})
    return facts if isinstance(facts, dict) else {}


def _processes(look: Overview, children: dict[str, Child]) -> Table:
    made = table("", ("<process", "<state", "restarts", "<last action", "<last error"), [])
    for name, child in children.items():
        health = str(look.roles.get(name, {}).get("health", "")) if child.state == "running" else ""
        state = Text(health or child.state, style=HEALTH_STYLES.get(health, ""))
        done, failed = _last_words(look.roles.get(name, {}))
        made.add_row(name, state, str(child.restarts), done[:60], failed[:60])
    return made


def _last_words(status: dict[str, Any]) -> tuple[str, str]:
    """The newest action and the newest error of any role of a process."""
    roles = list(status.get("roles", {}).values())
    nothing: dict[str, Any] = {}
    done = max(roles, key=lambda role: role.get("last_action_at", 0), default=nothing)
    failed = max(roles, key=lambda role: role.get("last_error_at", 0), default=nothing)
    if failed.get("last_error_at", 0) < done.get("last_action_at", 0):
        failed = {}
    return str(done.get("last_action", "")), str(failed.get("last_error", ""))
