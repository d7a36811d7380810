"""Who promotes PostgreSQL: Patroni's majority, and the guard that it asks before it does. Real nodes, real supervisors."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from patroni_cluster import NODES, TTL_S, PatroniCluster
from postgres_cluster import PostgresCluster, wait_until

from sequencer.journal import Appended, JournalRefused, JournalWriter
from sequencer.journal.postgres import PostgresJournal
from sequencer.journal.promotion import PromotionRefused, check_promotion

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

PATIENCE_S = 60.0  # of a sequencer, so that a busy machine makes no difference


class Appender:
    """A sequencer's journal at work, and what was acknowledged to it."""

    def __init__(self, url: str) -> None:
        self.journal = PostgresJournal(url, answer_s=2.0, patience_s=PATIENCE_S)
        self.writer = JournalWriter(self.journal, self.journal.take_epoch())
        self.acknowledged = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))

    def __enter__(self) -> "Appender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(2 * PATIENCE_S)
        self.writer.close()
        self.journal.close()

    async def _work(self) -> None:
        while not self._done.is_set():
            at = self.writer.head.sequence + 1
            await self.writer.append([(at, b"%d" % at)])
            self.acknowledged = at

    def goes_on(self) -> None:
        """Wait for more acknowledgements."""
        before = self.acknowledged
        wait_until(lambda: self.acknowledged > before + 20, "it appends", PATIENCE_S)


def refused(url: str) -> bool:
    """Whether nobody is served there."""
    with pytest.raises(JournalRefused, match="does not answer, or has no quorum"):
        PostgresJournal(url, answer_s=0.5, patience_s=1.0)
    return True


@pytest.fixture(scope="module")
def supervised(postgres_bin: Path) -> Iterator[PatroniCluster]:
    with PatroniCluster(postgres_bin) as running:
        yield running


@pytest.mark.safety("G11", "sequencer")
@pytest.mark.safety("G14", "sequencer")
def test_majority_promotes_and_minority_never_serves(supervised: PatroniCluster) -> None:
    """The supervisor of the primary hangs while PostgreSQL works on: the majority promotes, nothing acknowledged is lost, and
    the old primary acknowledges nothing. Then its successor dies at once. Then one node is left: it serves nobody, until
    there is a second one."""
    with Appender(supervised.url()) as appender:
        appender.goes_on()
        old = supervised.primary()
        rest = [name for name in NODES if name != old]
        supervised.cut_off(old, supervisor_only=True)
        wait_until(lambda: bool(supervised.primary(*rest)), "the majority promotes", PATIENCE_S)
        appender.goes_on()
        with psycopg.connect(supervised.url(old)) as db:
            assert db.execute("SELECT pg_is_in_recovery()").fetchall() == [(False,)]  # it still believes
        assert refused(supervised.url(old))

        second = supervised.primary(*rest)
        supervised.reconnect(old)
        wait_until(lambda: supervised.voters(second) == 2, "the old primary follows", PATIENCE_S)
        appender.goes_on()
        supervised.kill(second)
        rest = [name for name in NODES if name != second]
        wait_until(lambda: bool(supervised.primary(*rest)), "the majority promotes again", PATIENCE_S)
        appender.goes_on()
        third = supervised.primary(*rest)
        wait_until(lambda: supervised.voters(third) == 1, "the other one follows", PATIENCE_S)
    supervised.kill(third)
    (last,) = (name for name in NODES if name not in (second, third))
    alone_until = time.monotonic() + 1.5 * TTL_S  # long enough for a promotion, were there one
    while time.monotonic() < alone_until:
        assert supervised.role(last) != "primary"
        time.sleep(0.5)
    assert refused(supervised.url(last))

    supervised.start(second)
    wait_until(lambda: bool(supervised.primary(last, second)), "two are a majority", PATIENCE_S)
    journal = PostgresJournal(supervised.url(), patience_s=PATIENCE_S)
    payloads = [record.payload for record in journal.read()]
    assert payloads[: appender.acknowledged] == [b"%d" % at for at in range(1, appender.acknowledged + 1)]
    assert len(payloads) <= appender.acknowledged + 1
    journal.close()


@pytest.mark.safety("G13", "sequencer")
def test_guard_wants_a_majority_behind_the_node(postgres_bin: Path) -> None:
    """While the others may still confirm commits of the old primary a node is not promoted, nor when one of them has more than
    it; the one that has most is, once another follows it."""
    with PostgresCluster(postgres_bin) as cluster:
        where = {name: f"host={cluster.sockets(name)} port=5432 user=evermark" for name in NODES}

        def check(name: str, wait_s: float = 0) -> None:
            check_promotion(where[name], [where[other] for other in NODES if other != name], wait_s)

        journal = PostgresJournal(cluster.url())
        epoch = journal.take_epoch()
        with pytest.raises(PromotionRefused, match=r"no other node receives the log from .*n2"):
            check("n2")
        follow(cluster, "n3", "n2")
        check("n2", 60)
        follow(cluster, "n3", "n1")
        cluster.wait_for_standbys("n1", 2)

        follow(cluster, "n2", "")
        wait_until(lambda: not receives(cluster, "n2"), "n2 hears nobody")
        assert isinstance(journal.append([(1, b"on n1 and n3 alone")], 1, epoch), Appended)
        journal.close()
        cluster.kill("n1")
        follow(cluster, "n3", "n2")
        with pytest.raises(PromotionRefused, match=r"n3.* has more of the log than"):
            check("n2", 2)
        follow(cluster, "n2", "n3")
        follow(cluster, "n3", "")
        check("n3", 60)


def test_guard_refuses_what_it_cannot_rely_on() -> None:
    """Another number of nodes, for commits are on two of three, and a node that does not answer."""
    with pytest.raises(PromotionRefused, match="takes 2 other nodes, not 4"):
        check_promotion("host=/n1", ["host=/n2", "host=/n3", "host=/n4", "host=/n5"], 0)
    with pytest.raises(PromotionRefused, match="/n1:5432 does not answer"):
        check_promotion("host=/n1", ["host=/n2", "host=/n3"], 0)


def follow(cluster: PostgresCluster, name: str, primary: str) -> None:
    """Let a standby receive the log from another node, or from nobody."""
    source = f"host={cluster.sockets(primary)} user=evermark application_name={name}" if primary else ""
    with psycopg.connect(cluster.url(name, "postgres"), autocommit=True) as db:
        db.execute(f"ALTER SYSTEM SET primary_conninfo = '{source}'")
        db.execute("SELECT pg_reload_conf()")


def receives(cluster: PostgresCluster, name: str) -> bool:
    with psycopg.connect(cluster.url(name, "postgres")) as db:
        return db.execute("SELECT count(*) FROM pg_stat_wal_receiver").fetchall() != [(0,)]
