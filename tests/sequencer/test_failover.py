"""Fail-over of whole processes: a leader and a standby on one PostgreSQL journal and the real contracts."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from postgres_cluster import PostgresCluster
from real_exchange import RealExchange, free_port, hexed, withdraw_body
from test_settlement import registered, trade

from evermark.protocol.orders import Side
from evermark.protocol.units import USDC
from sequencer.verify import verify

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]


@pytest.mark.safety("G14", "sequencer")
@pytest.mark.safety("G20", "ops")
async def test_standby_process_takes_the_exchange_over(tmp_path: Path, postgres_bin: Path) -> None:
    """kill -9 of the leader: the standby serves within seconds, takes cancels only until there are prices, holds
    withdrawals, lost nothing that was acknowledged, tells the same history, and settles on; journal and chain agree in the
    end."""
    with PostgresCluster(postgres_bin) as cluster:
        with psycopg.connect(cluster.url("n1", "postgres"), autocommit=True) as db:
            db.execute("CREATE DATABASE exchange")
        url = cluster.url(database="exchange")
        async with RealExchange(tmp_path, speed=2.0) as running:
            path = tmp_path / "sequencer.json"
            config = json.loads(path.read_text()) | {"journal": url}
            path.write_text(json.dumps(config))
            for trader in (0, 1):
                await running.deposit(trader, 100_000)
            await running.spawn()
            await running.post_round()
            await running.eventually(lambda: registered(running), "both accounts exist")
            await trade(running, 1)
            resting = running.world.sign_order(running.traders[0], 3, Side.BUY, 900, 1_000_000, slot=9)
            assert (await running.place(resting))[0] == 200

            metrics_port = free_port()
            own = {"directory": "standby", "port": free_port(), "standby": True, "silence_s": 2.0}
            second = tmp_path / "standby.json"
            second.write_text(json.dumps(config | own | {"metrics_port": metrics_port}))
            command = [sys.executable, "-m", "sequencer", "--config", str(second)]
            standby = await asyncio.create_subprocess_exec(*command, stdout=running.log, stderr=running.log)
            try:
                await running.eventually(lambda: in_phase(running, metrics_port, "standby"), "it stands by")
                await trade(running, 2)
                told = await history(running)
                assert len(told[f"{account(running, 0)}/fills"]) == 2
                await running.kill()
                died_at = time.monotonic()
                running.process, running.url = standby, f"http://127.0.0.1:{own['port']}"
                await running.eventually(running._alive, "the standby serves")
                assert time.monotonic() - died_at < 40  # 3 s on an idle machine

                answer = await running.get("/ready")
                assert "prices since the start" in answer["missing"]
                refused = running.world.sign_order(running.traders[0], 3, Side.BUY, 900, 1_000_000, slot=8)
                status, body = await running.place(refused)
                assert (status, body["error"]["name"]) == (503, "NOT_READY")
                found = await running.get(f"/v1/orders/{hexed(resting.order_hash)}")
                assert found["status"] == "open"
                assert await history(running) == told

                await running.clock.sleep(3)
                await running.post_round()
                await running.eventually(lambda: ready(running), "it is ready")
                await trade(running, 3)
                withdrawal = running.world.withdraw(running.traders[1], 4, 1_000 * USDC)
                status, body = await running.post("/v1/withdrawals", withdraw_body(withdrawal))
                assert status == 503, body
                assert "after a fail-over" in body["error"]["message"]
                await running.settled()
                report = await verify(url, running.manifest, running.devnet.url)
                assert report.ok, report
                assert report.fills_settled == 3
                assert await running.stop() == 0
            finally:
                if standby.returncode is None:
                    standby.kill()
                    await standby.wait()


async def history(running: RealExchange) -> dict[str, Any]:
    """What people ask of the past. Each sequencer makes its own from the journal."""
    markets = ("trades", "candles?interval=1m", "funding")
    paths = [f"/v1/markets/BTC-PERP/{part}" for part in markets]
    for trader in (0, 1):
        paths += [f"{account(running, trader)}/{part}" for part in ("orders", "fills", "ledger", "funding")]
    return {path: await running.get(path) for path in paths}


def account(running: RealExchange, trader: int) -> str:
    return f"/v1/accounts/{hexed(running.traders[trader].address)}/0"


async def ready(running: RealExchange) -> bool:
    return bool((await running.get("/ready"))["ready"])


async def in_phase(running: RealExchange, port: int, phase: str) -> bool:
    try:
        async with running.http.get(f"http://127.0.0.1:{port}/health") as answer:
            return bool((await answer.json())["phase"] == phase)
    except aiohttp.ClientError:
        return False
