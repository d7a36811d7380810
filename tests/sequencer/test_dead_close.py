"""Invariant 8 for whoever holds a position: with every operator gone but the price keepers, an owner closes it and withdraws,
by the command line alone and without a freeze; and a sequencer that comes back follows, fill by fill."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from real_exchange import TRADERS, RealExchange, hexed
from test_dead_sequencer import DEPOSIT, HOUR_S, STRANGER, Aftermath, trade_until_killed

from evermark.chain.exit import ExitContracts
from evermark.protocol.units import USDC

pytestmark = pytest.mark.timeout(240)


class CommandLine:
    """`evermark exit`, for the wallets of the development keys."""

    def __init__(self, exchange: RealExchange) -> None:
        self.exit, self.rpc_url = exchange.manifest.addresses["exit"], exchange.devnet.url

    async def __call__(self, command: str, *arguments: str, dev: int) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evermark.cli.main", "exit", command, *arguments),
            *("--exit", self.exit, "--rpc-url", self.rpc_url, "--dev", str(dev)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200"},
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()


@pytest.mark.safety("E11", "contract")
async def test_an_owner_closes_and_leaves_a_dead_exchange(tmp_path: Path) -> None:
    """Asks, waits its hour, has a stranger execute: closed against the other trader. The same for
    a withdrawal."""
    async with RealExchange(tmp_path, speed=2.0) as exchange:
        await trade_until_killed(exchange)
        after, evermark = Aftermath(exchange), CommandLine(exchange)
        owner, leaver = TRADERS[1], after.owners[1]
        account = await after.contracts.account_of(leaver.address, 0)
        size = (await after.contracts.position(account, 0)).size
        assert size < 0

        assert f"{-size} lots of BTC" in await evermark("close", "btc", dev=owner)
        assert "nothing is overdue" in await evermark("execute", dev=STRANGER)
        await after.pass_time(HOUR_S + 1)
        await after.post_public_round()
        assert "1 entries" in await evermark("execute", dev=STRANGER)
        closed = await after.contracts.account(account)
        assert closed.open_positions == 0

        await evermark("request", "10000", dev=owner)
        await after.pass_time(HOUR_S + 1)
        await after.post_public_round()
        assert "1 entries" in await evermark("execute", dev=STRANGER)
        door = await ExitContracts.open(after.w3, exchange.manifest.addresses["exit"])
        await door.pay(after.stranger, (await after.contracts.totals()).claims)
        assert await after.wallet(leaver) == 10_000 * USDC
        assert DEPOSIT * 99 // 100 < closed.collateral < DEPOSIT

        await exchange.spawn()
        await exchange.post_round()

        async def followed() -> bool:
            return bool((await exchange.get("/v1/status"))["reversals"] == 1)

        await exchange.eventually(followed, "the reversal")
        await exchange.settled()
        report = await exchange.verify()
        assert report.ok, report
        assert (report.foreign_batches, report.reversals) == (3, 1)
        here = await exchange.get(f"/v1/accounts/{hexed(exchange.traders[1].address)}/0")
        assert here["positions"] == []
