"""The replicated journal on three real PostgreSQL nodes: lost quorum, lost answers, fail-over, stale leaders."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path

import psycopg
import pytest
from postgres_cluster import PostgresCluster, wait_until
from small_core import SmallCore

from evermark.protocol.reject import RejectCode
from sequencer.engine.events import CommandRejected, Event
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState
from sequencer.journal import Appended, JournalRefused, JournalWriter, Unknown
from sequencer.journal.postgres import PostgresJournal
from sequencer.pipeline import PipelineStopped
from sequencer.replay import replay

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def shared(postgres_bin: Path) -> Iterator[PostgresCluster]:
    with PostgresCluster(postgres_bin) as running:
        yield running


@pytest.fixture
def cluster(shared: PostgresCluster, request: pytest.FixtureRequest) -> str:
    """The address of an empty database on the shared nodes; every node runs and follows again at the end."""
    name = f"db{abs(hash(request.node.name))}"
    with psycopg.connect(shared.url("n1", "postgres"), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    yield shared.url(database=name)
    shared.resume("n2")
    shared.resume("n3")
    shared.wait_for_standbys("n1", 2)


def test_settings_of_a_bad_database_are_refused(shared: PostgresCluster) -> None:
    """A database that is not there, and an address that is none, are one line without a password in it."""
    with pytest.raises(JournalRefused, match='database "nowhere" does not exist') as refusal:
        PostgresJournal(shared.url(database="nowhere") + "&password=hunter2", patience_s=0)
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(JournalRefused, match="invalid"):
        PostgresJournal("postgresql://host?nonsense=1")


@pytest.mark.safety("G13", "sequencer")
def test_commit_waits_for_the_quorum(shared: PostgresCluster, cluster: str) -> None:
    """Without an answer of any standby an append is Unknown, not done; when one is back the head tells, and the
    record exists once."""
    journal = PostgresJournal(cluster, answer_s=1.0)
    writer = JournalWriter(journal, journal.take_epoch())
    asyncio.run(writer.append([(1, b"before")]))
    shared.freeze("n2")
    shared.freeze("n3")
    threading.Timer(3.0, lambda: (shared.resume("n2"), shared.resume("n3"))).start()
    asyncio.run(writer.append([(2, b"without a quorum at first")]))
    assert [record.payload for record in journal.read()] == [b"before", b"without a quorum at first"]
    writer.close()
    journal.close()


def test_one_standby_is_enough(shared: PostgresCluster, cluster: str) -> None:
    """ANY 1: the loss of one node of three stops nothing."""
    journal = PostgresJournal(cluster)
    epoch = journal.take_epoch()
    shared.freeze("n2")
    assert isinstance(journal.append([(1, b"a")], 1, epoch), Appended)
    journal.close()


@pytest.mark.safety("G11", "sequencer")
def test_minority_never_serves(shared: PostgresCluster, cluster: str) -> None:
    """A primary without standbys lets nobody take the journal over, and shows it to nobody."""
    PostgresJournal(cluster).close()
    shared.freeze("n2")
    shared.freeze("n3")
    with pytest.raises(JournalRefused, match="does not answer, or has no quorum"):
        PostgresJournal(cluster, answer_s=0.5, patience_s=1.0)


@pytest.mark.safety("G13", "sequencer")
def test_cancelled_wait_is_no_commit(shared: PostgresCluster, cluster: str) -> None:
    """PostgreSQL answers a commit whose wait was cancelled with success and a warning: that is Unknown here."""
    journal = PostgresJournal(cluster, answer_s=30.0)
    epoch = journal.take_epoch()
    shared.freeze("n2")
    shared.freeze("n3")
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(journal.append([(1, b"a")], 1, epoch)))
    thread.start()
    with psycopg.connect(shared.url("n1", "postgres"), autocommit=True) as db:
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: bool(db.execute(waiting).fetchall()), "the commit waits for the quorum")
        thread.join(30)
    (outcome,) = outcomes
    assert isinstance(outcome, Unknown)
    assert "cancel" in outcome.reason
    journal.close()


LEADER = """
import sys
from sequencer.journal.postgres import PostgresJournal
from sequencer.journal import Appended
journal = PostgresJournal(sys.argv[1])
epoch = journal.take_epoch()
at = journal.head().sequence
while True:
    outcome = journal.append([(at + 1, b"leader")], at + 1, epoch)
    if not isinstance(outcome, Appended):
        sys.exit(f"{outcome}")
    at += 1
    print(at, flush=True)
"""


@pytest.mark.safety("G11", "sequencer")
@pytest.mark.safety("G12", "sequencer")
def test_leader_that_slept_is_fenced(shared: PostgresCluster, cluster: str) -> None:
    """SIGSTOP, somebody else takes over, SIGCONT: the old one's next append is refused by the database, and what it
    acknowledged last lies before the take-over."""
    command = [sys.executable, "-c", LEADER, cluster]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as old:
        assert old.stdout is not None
        for _ in range(20):
            acknowledged = int(old.stdout.readline())
        os.kill(old.pid, signal.SIGSTOP)
        journal = PostgresJournal(cluster)
        epoch = journal.take_epoch()
        taken_over_at = journal.head().sequence
        assert isinstance(journal.append([(10**6, b"new")], taken_over_at + 1, epoch), Appended)
        os.kill(old.pid, signal.SIGCONT)
        output, complaint = old.communicate(timeout=30)
    assert old.returncode != 0
    assert f"Fenced(epoch={epoch}, head_sequence={taken_over_at + 1})" in complaint
    rest = [int(line) for line in output.split()]
    assert max([acknowledged, *rest]) <= taken_over_at
    payloads = [record.payload for record in journal.read()]
    assert payloads == [b"leader"] * taken_over_at + [b"new"]
    journal.close()


@pytest.mark.safety("G12", "sequencer")
async def test_exchange_runs_on_it_and_yields_to_a_successor(cluster: str, tmp_path: Path) -> None:
    """A whole core journals to the cluster; a second one takes over while the first still runs, with the same state;
    the first one ends with the fence, at its next command or before, and acknowledges nothing more."""
    first = SmallCore(tmp_path / "first", journal=cluster)
    async with first:
        await first.fund()
        await first.trade(60)
        before = state_hash(first.core.state)
        async with SmallCore(tmp_path / "second", first.world, journal=cluster) as second:
            assert state_hash(second.core.state) == before
            await second.trade(5)
            late = first.core.pipeline.submit(first.world.round())
            with pytest.raises(JournalRefused, match="fenced: epoch"):
                await asyncio.wait_for(asyncio.shield(first.running), 30)
            assert await is_unacknowledged(late)
            first.running = asyncio.ensure_future(asyncio.sleep(0))
            after = state_hash(second.core.state)
    state, journal = EngineState(), PostgresJournal(cluster, read_only=True)
    replay(journal, state)
    journal.close()
    assert state_hash(state) == after


async def is_unacknowledged(answer: Awaitable[list[Event]]) -> bool:
    """Whether the loop ended before a command's outcome was known, or took the command no more."""
    try:
        events = await answer
    except PipelineStopped:
        return True
    return isinstance(events[0], CommandRejected) and events[0].reject.code == RejectCode.NOT_READY


@pytest.mark.safety("G14", "sequencer")
@pytest.mark.safety("G13", "sequencer")
def test_database_fails_over_in_mid_flow(postgres_bin: Path) -> None:
    """kill -9 of the primary while a sequencer appends: after the promotion of the standby that has most, the same
    sequencer goes on, everything acknowledged is there once, and the old primary, back alone, serves nobody."""
    with PostgresCluster(postgres_bin) as cluster:
        journal = PostgresJournal(cluster.url(), answer_s=2.0)
        writer = JournalWriter(journal, journal.take_epoch())
        acknowledged: list[int] = []
        done = threading.Event()

        async def work() -> None:
            while not done.is_set():
                at = writer.head.sequence + 1
                await writer.append([(at, b"%d" % at)])
                acknowledged.append(at)

        thread = threading.Thread(target=lambda: asyncio.run(work()))
        thread.start()
        wait_until(lambda: len(acknowledged) > 50, "it appends")
        cluster.kill("n1")
        died_with = len(acknowledged)
        best = cluster.promote(("n2", "n3"))
        wait_until(lambda: len(acknowledged) > died_with + 50, "it appends again")
        cluster.start("n1")
        with pytest.raises(JournalRefused, match="does not answer, or has no quorum"):
            PostgresJournal(cluster.url("n1"), answer_s=0.5, patience_s=1.0)
        done.set()
        thread.join(60)
        assert acknowledged == list(range(1, len(acknowledged) + 1))
        again = PostgresJournal(cluster.url(best))
        payloads = [record.payload for record in again.read()]
        assert payloads == [b"%d" % at for at in acknowledged]
        for one in (again, journal):
            one.close()
        writer.close()
