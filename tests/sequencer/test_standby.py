"""The hot standby: it follows, stays quiet while the leader lives, and takes over in order when it does not."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psycopg
import pytest
from aiohttp.test_utils import TestClient, TestServer
from postgres_cluster import PostgresCluster
from sequencer_world import World
from small_core import TAKER, SmallCore

from evermark.protocol.orders import Signature, Transfer
from evermark.protocol.units import USDC
from sequencer.core import Core
from sequencer.engine.commands import PlaceOrder, ReversalCause, TransferRequest, TriggerLiquidation
from sequencer.engine.events import CommandRejected
from sequencer.engine.snapshot import state_hash
from sequencer.journal import JournalRefused, decode_command
from sequencer.journal.postgres import PostgresJournal
from sequencer.opening import LONG_STOP_S, WITHDRAWALS_HELD_S, Opening
from sequencer.outside import create_outside
from sequencer.settlement.reversal import ReversalPlan
from sequencer.standby import wait_for_turn

pytestmark = pytest.mark.timeout(120)

HELD = "withdrawals are held for 300 s after a fail-over or a long stop"


@pytest.fixture(scope="module")
def cluster(postgres_bin: Path) -> Iterator[PostgresCluster]:
    with PostgresCluster(postgres_bin) as running:
        yield running


LEADER = """
import asyncio, sys
from pathlib import Path
from small_core import SmallCore
from sequencer.engine.commands import PlaceOrder
import random
import structlog

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    async with SmallCore(Path(sys.argv[1]), journal=sys.argv[2]) as small:
        await small.fund()
        chance = random.Random(3)
        while not small.running.done():
            command = small._next(chance)
            await small.submit(command)
            if isinstance(command, PlaceOrder):
                print(command.order_hash.hex(), flush=True)

asyncio.run(main())
"""


@pytest.mark.postgres
@pytest.mark.safety("G11", "sequencer")
@pytest.mark.safety("G14", "sequencer")
@pytest.mark.safety("G25", "sequencer")
async def test_standby_takes_over_from_a_leader_that_stops(cluster: PostgresCluster, tmp_path: Path) -> None:
    """A leader under load is followed and left alone; stopped by SIGSTOP it is replaced, with everything that it
    acknowledged; woken again it acknowledges nothing and ends at the fence."""
    with psycopg.connect(cluster.url("n1", "postgres"), autocommit=True) as db:
        db.execute("CREATE DATABASE standby")
    url, world = cluster.url(database="standby"), World()
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parents[1])])}
    leader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEADER, str(tmp_path / "leader"), url),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert leader.stdout is not None
    acknowledged = [(await leader.stdout.readline()).strip() for _ in range(20)]
    core = Core(tmp_path / "standby", world.genesis, lambda: world.now_s * 1000, journal=url, standby=True)
    watching = PostgresJournal(url)
    stop = asyncio.Event()
    turn = asyncio.ensure_future(wait_for_turn(core, watching, stop, silence_s=2.0))
    seen = core.state.sequence
    acknowledged += [(await leader.stdout.readline()).strip() for _ in range(60)]
    for _ in range(600):
        if core.state.sequence >= seen + 60:
            break
        await asyncio.sleep(0.05)
    assert core.state.sequence >= seen + 60
    assert not turn.done()
    os.kill(leader.pid, signal.SIGSTOP)
    assert await asyncio.wait_for(turn, 30)
    taken_over_at = core.state.sequence
    os.kill(leader.pid, signal.SIGCONT)
    output, complaint = await asyncio.wait_for(leader.communicate(), 30)
    acknowledged += output.split()
    assert leader.returncode != 0
    assert b"fenced" in complaint
    running = asyncio.ensure_future(core.run())
    world.now_s = core.state.now + 3
    await core.pipeline.submit(world.round())
    before = state_hash(core.state)
    core.pipeline.stop()
    await running
    journaled = [decode_command(record.payload, record.sequence) for record in core.journal.read()]
    mine = [one.order_hash.hex() for one in journaled[:taken_over_at] if isinstance(one, PlaceOrder)]
    assert {one.decode() for one in acknowledged} <= set(mine)
    await core.close()
    watching.close()
    async with SmallCore(tmp_path / "third", world, journal=url) as third:
        assert state_hash(third.core.state) == before


@pytest.mark.postgres
async def test_standby_stops_without_taking_over(cluster: PostgresCluster, tmp_path: Path) -> None:
    """Told to stop while it stands by, it leaves the leader alone; an empty journal has nobody to follow."""
    with psycopg.connect(cluster.url("n1", "postgres"), autocommit=True) as db:
        db.execute("CREATE DATABASE calm")
    url, world = cluster.url(database="calm"), World()
    with pytest.raises(JournalRefused, match="is empty: a standby has nobody to follow"):
        Core(tmp_path / "early", world.genesis, lambda: 0, journal=url, standby=True)
    async with SmallCore(tmp_path / "leader", world, journal=url) as small:
        await small.fund()
        core = Core(tmp_path / "standby", world.genesis, lambda: 0, journal=url, standby=True)
        watching, stop = PostgresJournal(url), asyncio.Event()
        turn = asyncio.ensure_future(wait_for_turn(core, watching, stop, silence_s=2.0))
        await asyncio.sleep(3)  # longer than the silence: the idle leader's beats alone keep it in office
        assert not turn.done()
        stop.set()
        assert await turn is False
        assert state_hash(core.state) == state_hash(small.core.state)
        await core.close()
        watching.close()
        await small.submit(world.round())


@pytest.mark.postgres
@pytest.mark.safety("G26", "sequencer")
async def test_standby_follows_a_reversal(cluster: PostgresCluster, tmp_path: Path) -> None:
    """It goes back as the leader does, from a snapshot of its own or from nothing, and goes on to the same state."""
    with psycopg.connect(cluster.url("n1", "postgres"), autocommit=True) as db:
        db.execute("CREATE DATABASE reversal")
    url, world = cluster.url(database="reversal"), World()
    async with SmallCore(tmp_path / "leader", world, journal=url) as small:
        await small.fund()
        now_ms = lambda: world.now_s * 1000  # noqa: E731
        core = Core(
            tmp_path / "standby", world.genesis, now_ms, journal=url, standby=True, snapshot_every=100
        )
        for seed in (1, 2):
            await small.trade(160, seed=seed)
            await core.follow()
            backlog = small.core.backlog
            plan = ReversalPlan(
                backlog.last_confirmed, backlog.confirmed_sequence, ReversalCause.MISSED_WINDOW
            )
            await small.core.reverse(plan)
            assert backlog.reversals == seed
            await core.follow()
            assert state_hash(core.state) == state_hash(small.core.state)
            assert core._followers.encode_memory() == small.core._followers.encode_memory()
        assert list((tmp_path / "standby" / "snapshots").iterdir())
        await core.close()


@pytest.mark.safety("G14", "sequencer")
@pytest.mark.safety("G20", "ops")
async def test_opening_waits_for_prices_and_holds_withdrawals(tmp_path: Path) -> None:
    """After a take-over no liquidation is journaled before a round that is newer than it, and no withdrawal for five
    minutes of chain time; after an ordinary start withdrawals go at once."""
    async with SmallCore(tmp_path) as small:
        await small.fund()
        world, core = small.world, small.core
        opening = Opening(core.pipeline, lambda: world.now_s, taken_over=True)
        trigger = TriggerLiquidation(account=4, market_id=0, keeper=b"k" * 20)

        async def refusal(command: object) -> str:
            events = await core.pipeline.submit(command)  # type: ignore[arg-type]
            return next((one.reject.message for one in events if isinstance(one, CommandRejected)), "")

        def withdrawal() -> object:
            return world.withdraw(TAKER, 4, USDC, core.state.accounts[4].action_sequence + 1)

        head = core.journal.head().sequence
        assert await refusal(trigger) == "no prices since the start yet"
        assert await refusal(withdrawal()) == HELD
        assert core.journal.head().sequence == head
        assert not opening.has_prices
        world.now_s += 3
        await core.pipeline.submit(world.round())
        assert opening.has_prices
        assert await refusal(trigger) not in (
            "",
            "no prices since the start yet",
        )  # the engine's own: it is healthy
        assert "after a fail-over" in await refusal(withdrawal())
        world.now_s += WITHDRAWALS_HELD_S
        await core.pipeline.submit(world.round())
        assert await refusal(withdrawal()) == ""
        Opening(core.pipeline, lambda: world.now_s, taken_over=False)
        assert await refusal(withdrawal()) == ""


@pytest.mark.safety("B17", "sequencer")
async def test_after_a_long_stop_nothing_leaves_for_five_minutes(tmp_path: Path) -> None:
    """Neither withdrawals nor transfers, when more than five minutes lie between the last command and the start."""
    async with SmallCore(tmp_path) as small:
        await small.fund()
        world, core = small.world, small.core
        signed = Transfer(
            owner=b"o" * 20, sub_account=0, to_sub_account=1, amount=1, action_sequence=1, deadline=1
        )
        transfer = TransferRequest(account=4, transfer=signed, signature=Signature(1, 1, 0), signer=b"o" * 20)

        async def refusals() -> set[str]:
            number = core.state.accounts[4].action_sequence + 1
            commands = (world.withdraw(TAKER, 4, USDC, number), transfer)
            answers = [await core.pipeline.submit(command) for command in commands]
            return {
                one.reject.message for events in answers for one in events if isinstance(one, CommandRejected)
            }

        world.now_s += LONG_STOP_S
        Opening(core.pipeline, lambda: world.now_s, taken_over=False)
        assert HELD not in await refusals()
        world.now_s += LONG_STOP_S + 1
        Opening(core.pipeline, lambda: world.now_s, taken_over=False)
        assert await refusals() == {HELD}
        world.now_s += WITHDRAWALS_HELD_S
        await core.pipeline.submit(world.round())
        assert HELD not in await refusals()


@pytest.mark.safety("G20", "ops")
async def test_outside_tells_phase_and_readiness() -> None:
    """/health from the first moment, /ready with what is missing, /metrics for Prometheus."""
    missing = ["prices since the start"]
    async with TestClient(TestServer(create_outside(lambda: "standby", lambda: missing))) as client:
        assert await (await client.get("/health")).json() == {
            "status": "alive",
            "phase": "standby",
            "alarms": [],
        }
        answer: aiohttp.ClientResponse = await client.get("/ready")
        assert (answer.status, await answer.json()) == (503, {"ready": False, "missing": missing})
        missing.clear()
        assert (await client.get("/ready")).status == 200
        assert "evermark_journal_sequence" in await (await client.get("/metrics")).text()
