"""The live screen and its plain stand-in, from a state as the parts report it."""

import asyncio
from pathlib import Path
from typing import Any

from rich.console import Console

from evermark.cli.children import Child, Service
from evermark.cli.overview import Overview, read_roles
from evermark.cli.plan import UpPlan
from evermark.cli.rundir import RunDirectory
from evermark.cli.screen import plain_line, render

STATUS: dict[str, Any] = {
    "chain_time": 1_760_129_460,
    "round": 586_709_820,
    "batch_open": 8,
    "batch_settled": 7,
    "journal_sequence": 1234,
    "settlement_lag_s": 4,
    "unsettled_notional": "12500000",
    "fills_matched": 31,
    "fills_settled": 29,
    "ready": True,
    "markets": {
        "BTC-PERP": {
            "mode": "NORMAL",
            "index": 1_217_587,
            "mark": 1_217_600,
            "price_age_s": 3,
            "open_interest": 150_000,
            "funding_rate_ppb": -12_500,
        },
        "ETH-PERP": {"mode": "REDUCE_ONLY", "index": None, "mark": None, "price_age_s": None},
    },
}
SOURCES = [
    {"venue": "gemini", "market": 0, "kind": "spot", "origin": "recorded", "ticks": 1, "age_s": 0.4},
    {"venue": "made-1", "market": 0, "kind": "spot", "origin": "synthetic", "ticks": 1, "age_s": 2.0},
]
ROLES: dict[str, Any] = {
    "keeper-1": {
        "health": "degraded",
        "roles": {
            "oracle": {
                "sources": SOURCES,
                "last_action": "round 1",
                "last_action_at": 5.0,
                "last_error": "",
                "last_error_at": 0,
            },
            "funding": {
                "last_action": "",
                "last_action_at": 0,
                "last_error": "gateway away",
                "last_error_at": 9.0,
            },
        },
    },
    "takers": {"health": "ok", "roles": {"takers": {"sampled_ppm": 36_700}}},
}
PLAN = UpPlan(
    prices="tape",
    tapes="",
    speed=5.0,
    start_s=0,
    seed=1,
    state=None,
    gateway_port=8645,
    chain_port=8545,
    actors=True,
    synthetic=True,
    seconds=0.0,
    as_json=False,
    min_fills=0,
)


def look(status: dict[str, Any] | None = STATUS) -> Overview:
    return Overview(block=150, chain_time_s=1_760_129_460, status=status, commands_per_s=17.3, roles=ROLES)


def drawn(overview: Overview, tmp_path: Path) -> str:
    service = Service(name="keeper-1", arguments=(), log=tmp_path / "log")
    child = Child(service, lambda text: None)
    child.state, child.restarts = "running", 2
    console = Console(width=160, record=True, file=(tmp_path / "screen").open("w"))
    run = RunDirectory(tmp_path, temporary=True)
    console.print(render(overview, {"keeper-1": child}, ["12:00:00 keeper-1 ended"], PLAN, run))
    return console.export_text()


def test_the_plain_line_has_block_time_batch_fills_lag_and_rate() -> None:
    """What a log of a run needs, in one line."""
    assert plain_line(look()) == (
        "block 150, chain time 2025-10-10 20:51:00, batch 7, fills 29/31 settled, lag 4 s, 17.3 commands/s"
    )
    assert plain_line(look(None)).endswith("gateway does not answer")


async def test_the_screen_shows_prices_with_age_and_labels_made_up_sources(tmp_path: Path) -> None:
    """Prices, funding, open interest, sources, sampled share, restarts, the newest error and notices."""
    text = await asyncio.to_thread(drawn, look(), tmp_path)
    for words in (
        "121,758.7",
        "121,760.0",
        "3 s",
        "-0.00125 %/h",
        "1.5 BTC",
        "reduce_only",
        "1 recorded, 1 synthetic",
        "made-1 (2 s synthetic)",
        "3.67 % of the trade flow sampled",
        "12.50 USDC",
        "degraded",
        "gateway away",
        "keeper-1 ended",
        "http://127.0.0.1:8645",
    ):
        assert words in text, f"{words!r} is not in\n{text}"


async def test_the_screen_stands_without_a_gateway(tmp_path: Path) -> None:
    """While the sequencer restarts there are still processes and notices to see."""
    text = await asyncio.to_thread(drawn, look(None), tmp_path)
    assert "gateway does not answer" in text
    assert "keeper-1 ended" in text


def test_a_torn_status_file_is_left_out(tmp_path: Path) -> None:
    """Status files are read while they are written; nothing of that reaches the screen."""
    (tmp_path / "good.json").write_text('{"health": "ok"}')
    (tmp_path / "torn.json").write_text('{"heal')
    (tmp_path / "odd.json").write_text("[]")
    assert read_roles(tmp_path) == {"good": {"health": "ok"}}
