"""A sequencer that was away for longer than the vault's two minutes, against the real contracts: fills settle late, what cannot
is reversed, and a stranger's audit follows both."""

import asyncio
from pathlib import Path

import pytest
from real_exchange import RealExchange
from test_settlement import registered, trade

from evermark.chain.rpc import rpc
from evermark.cli import audit
from evermark.protocol.units import USDC
from sequencer.verify import verify

AWAY_S = 400

pytestmark = pytest.mark.timeout(180)


def silent(_what: str, _done: int, _total: int) -> None:
    """Nobody looks."""


async def come_back_late(running: RealExchange) -> None:
    """kill -9 with a batch open, seven minutes of the chain's time, and a new start with new prices."""
    await running.kill()
    await rpc(running.w3, "evm_increaseTime", AWAY_S)
    await rpc(running.w3, "evm_mine")
    await running.spawn()
    await running.post_round()
    await running.settled()


async def credited(running: RealExchange) -> bool:
    """The second deposit counts once."""
    account = await running.get(f"/v1/accounts/{owner_of(running)}/0")
    entries = await running.get(f"/v1/accounts/{owner_of(running)}/0/ledger")
    deposits = [
        int(entry["amount"]) for entry in entries if entry["cause"] == "deposit" and not entry["voided"]
    ]
    return sorted(deposits) == [70 * USDC, 100_000 * USDC] and int(account["collateral"]) > 0


def owner_of(running: RealExchange) -> str:
    return "0x" + running.traders[0].address.hex()


async def test_fills_settle_late_and_what_cannot_is_reversed(tmp_path: Path) -> None:
    """First a batch of fills alone: the vault takes it at its own round and the newest one. Then one with a deposit in it: its
    fill is void and happens again, the deposit counts once, and history says which fill counts."""
    async with RealExchange(tmp_path, speed=2.0) as running:
        for trader in (0, 1):
            await running.deposit(trader, 100_000)
        await running.spawn()
        await running.post_round()
        await running.eventually(lambda: registered(running), "both accounts exist")
        await running.settled()
        await trade(running, 1)
        await come_back_late(running)
        status = await running.get("/v1/status")
        assert (status["reversals"], status["fills_settled"], status["fills_voided"]) == (0, 1, 0)

        await running.post_round()
        await running.deposit(0, 70)
        await running.eventually(lambda: credited(running), "the deposit is in the open batch")
        await trade(running, 2)
        await come_back_late(running)
        status = await running.get("/v1/status")
        assert status["reversals"] == 1
        assert status["last_reversal"]["cause"] == "missed_window"
        assert status["fills_voided"] == 1
        fills = await running.get(f"/v1/accounts/{owner_of(running)}/0/fills")
        assert [fill["voided"] for fill in fills] == [False, True, False]
        assert await credited(running)

        report = await running.verify()
        assert report.ok, report
        assert (report.reversals, report.fills_voided, report.foreign_batches) == (1, 1, 0)
        url, cache = running.url + "/v1/journal", tmp_path / "stranger"
        journal, last = await asyncio.to_thread(audit.download, url, cache, silent)
        audited = await verify(journal, running.manifest, running.devnet.url, until_record=last)
        assert audited.ok, audited
        assert audited.reversals == 1
