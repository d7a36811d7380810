"""The sequencer process against the real contracts on the embedded chain: settle, restart, kill, verify."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from real_exchange import RealExchange, hexed, withdraw_body

from evermark.protocol.orders import Side
from evermark.protocol.units import USDC

SPEED = 2.0  # chain seconds in a second: a restart has to fit well into the two minutes that a batch has

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[RealExchange]:
    async with RealExchange(tmp_path, speed=SPEED) as running:
        for trader in (0, 1):
            await running.deposit(trader, 100_000)
        await running.spawn()
        await running.post_round()
        await running.eventually(lambda: registered(running), "both accounts exist")
        yield running


async def registered(running: RealExchange) -> bool:
    accounts = [
        await running.get(f"/v1/accounts/{hexed(trader.address)}/0") for trader in running.traders[:2]
    ]
    return all("collateral" in account for account in accounts)


async def trade(running: RealExchange, slot: int) -> list[bytes]:
    """A resting order and one that takes it; the acknowledged order hashes."""
    maker = running.world.sign_order(running.traders[0], 3, Side.BUY, 900, 1_100_000, slot=slot)
    taker = running.world.taker(running.traders[1], 4, Side.SELL, 900, 1_100_000)
    acknowledged = []
    for command in (maker, taker):
        status, answer = await running.place(command)
        assert status == 200, answer
        acknowledged.append(command.order_hash)
    return acknowledged


async def test_deposits_trades_and_withdrawals_settle(exchange: RealExchange) -> None:
    """Deposit, trades, withdrawals, one of them above an hour's outflow limit: matched, settled, paid out, and every number equal
    on both sides."""
    for slot in range(1, 6):
        await exchange.post_round()
        await trade(exchange, slot)
        await exchange.clock.sleep(3)
    delays = []
    for trader, account, usdc in ((0, 3, 98_000), (1, 4, 2_050)):
        withdrawal = exchange.world.withdraw(exchange.traders[trader], account, usdc * USDC)
        status, answer = await exchange.post("/v1/withdrawals", withdraw_body(withdrawal))
        assert status == 200, answer
        delays.append(answer["payable_at"])
    assert delays[0] == 0 < delays[1]
    await exchange.settled()

    async def paid() -> bool:
        return [await exchange.tokens_of(trader) for trader in (0, 1)] == [98_000 * USDC, 2_050 * USDC]

    await exchange.eventually(paid, "the withdrawals are paid, each when it is due")
    assert (await exchange.get("/v1/status"))["reconciled_batch"] > 0
    assert (await exchange.get("/v1/status"))["reconciliation_alarm"] == ""
    report = await exchange.verify()
    assert report.ok, report
    assert report.fills_settled == 5
    assert report.accounts_compared == 4
    assert report.positions_compared == 2
    assert await exchange.stop() == 0


@pytest.mark.safety("G02", "sequencer")
@pytest.mark.safety("E04", "sequencer")
@pytest.mark.safety("G08", "sequencer")
async def test_killed_sequencer_loses_nothing_and_settles_nothing_twice(exchange: RealExchange) -> None:
    """kill -9 in mid-flow, again and again: every acknowledged order is there, every batch settled exactly
    once."""
    acknowledged: list[bytes] = []
    slot = 0
    for life in range(3):
        enough, death = len(acknowledged) + 6, None
        try:
            while True:
                slot += 1
                await exchange.post_round()
                acknowledged += await trade(exchange, slot)
                if death is None and len(acknowledged) >= enough:
                    assert exchange.process is not None
                    death = asyncio.get_running_loop().call_later(0.05 + 0.23 * life, exchange.process.kill)
        except aiohttp.ClientError:
            pass  # it is dead; what it acknowledged until now counts
        await exchange.kill()
        await exchange.spawn()
    await exchange.settled()
    for order_hash in acknowledged:
        answer = await exchange.get(f"/v1/orders/{hexed(order_hash)}")
        assert answer["status"] in ("filled", "open"), answer
    report = await exchange.verify()
    assert report.ok, report
    assert report.fills_settled >= len(acknowledged) // 2 > 6
    assert report.invariants["batches settle once, in order"]


@pytest.mark.safety("G05", "sequencer")
async def test_changed_journal_refuses_to_start(exchange: RealExchange) -> None:
    """One changed byte: the process ends with one line that names the record, and verify says the same."""
    await exchange.post_round()
    await trade(exchange, 1)
    assert await exchange.stop() == 0
    db = sqlite3.connect(exchange.directory / "journal" / "journal.db")
    db.execute("DROP TRIGGER record_is_final")
    db.execute("UPDATE record SET stamp_ms = stamp_ms + 1 WHERE sequence = 2")
    db.commit()
    db.close()
    with pytest.raises(AssertionError, match="journal: record 2 does not match its hash"):
        await exchange.spawn()
    report = await exchange.verify()
    assert not report.ok
    assert report.problem.startswith("journal: record 2 does not match its hash")


async def test_foreign_manifest_refuses_to_start(exchange: RealExchange) -> None:
    """A journal of another exchange is refused with the field that differs."""
    assert await exchange.stop() == 0
    path = exchange.directory / "manifest.json"
    path.write_text(path.read_text().replace('"round_seconds": 3', '"round_seconds": 4'))
    with pytest.raises(AssertionError, match="its round_seconds is 3, the manifest's is 4"):
        await exchange.spawn()


async def test_verify_names_what_differs(exchange: RealExchange) -> None:
    """Journal and chain that disagree by one batch are told apart, with the numbers of both."""
    await exchange.post_round()
    await trade(exchange, 1)
    await exchange.settled()
    assert await exchange.stop() == 0
    other = exchange.directory / "journal" / "journal.db"
    db = sqlite3.connect(other)
    db.execute("DROP TRIGGER record_stays")
    db.execute("DELETE FROM record WHERE sequence > 3")
    db.commit()
    db.close()
    report = await exchange.verify()
    assert not report.ok
    assert report.difference_count > 3
    assert any(item.expected == "never sealed by this journal" for item in report.differences)
