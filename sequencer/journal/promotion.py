"""Whether a standby of PostgreSQL may become the primary: the guard that a supervisor runs after it has won the vote and before
it promotes.

Of three nodes a commit is acknowledged when two have it. So a standby may be promoted once another node receives the log from it
and from nobody else, and has no more of it than it has: those two are a majority, hence whatever was acknowledged is on the
standby, and whoever still is a primary elsewhere finds nobody who confirms. No clock and no belief about the old primary's
death goes into that.

A later timeline is more than any length of an earlier one, as terms are in votes: it was begun by a node that had everything
acknowledged, and what its predecessor wrote beyond that was never acknowledged.
"""

import time
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

OTHERS = 2  # of three nodes
AGAIN_S = 0.02  # a node that cannot follow shows only for moments from whom it tries to receive
ANSWER_S = 2  # a node that takes longer counts as away

# A receiver is there only when everything that the node has already is replayed, and then all of it is told. Timelines are told
# by segments of the log, for the control file lags behind.
POSITION = """
SELECT pg_is_in_recovery(),
       (SELECT sender_host || ':' || sender_port FROM pg_stat_wal_receiver),
       greatest(
           (SELECT timeline_id FROM pg_control_checkpoint()),
           (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
           (SELECT received_tli FROM pg_stat_wal_receiver),
           (SELECT max(('x' || left(name, 8))::bit(32)::integer) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$')
       ),
       coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0', 0)::bigint
"""


class PromotionRefused(RuntimeError):
    """Why the node stays a standby; one line."""


class Standby(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself."""

    in_recovery: bool
    source: str | None  # host:port that it receives the log from, or tries to
    timeline: int
    received: int  # bytes of log

    @property
    def position(self) -> tuple[int, int]:
        """How much of the log it has."""
        return self.timeline, self.received


def check_promotion(node: str, others: Sequence[str], wait_s: float) -> None:
    """Return once `node` may be promoted; the arguments are connection strings of all three nodes, with the host and port by
    which standbys find their primary.

    Raises PromotionRefused when that is not so within `wait_s`, or never can be.
    """
    if len(others) != OTHERS:
        raise PromotionRefused(
            f"promotion: it takes {OTHERS} other nodes, not {len(others)}: a commit is on two of three"
        )
    own, rest, give_up = _Node(node), [_Node(other) for other in others], time.monotonic() + wait_s
    try:
        while True:
            standbys = {other.address: other.ask() for other in rest}
            mine = own.ask()  # after the others: the log only grows, so whoever is ahead now is ahead
            if mine is None:
                raise PromotionRefused(f"promotion: {own.address} does not answer")
            reason = _reason(own.address, mine, standbys)
            if not reason:
                return
            if time.monotonic() > give_up:
                raise PromotionRefused(f"promotion: {reason}")
            time.sleep(AGAIN_S)
    finally:
        for one in (own, *rest):
            one.close()


def _reason(address: str, mine: Standby, standbys: dict[str, Standby | None]) -> str:
    """Why not; empty when there is nothing against it."""
    behind, ahead = list[str](), list[str]()
    for other, standby in standbys.items():
        if standby is not None and standby.in_recovery and standby.source == address:
            (ahead if standby.position > mine.position else behind).append(other)
    if ahead:
        return f"{ahead[0]} has more of the log than {address}"
    return "" if behind else f"no other node receives the log from {address}"


class _Node:
    """A node, asked again and again over one connection."""

    def __init__(self, conninfo: str) -> None:
        given = conninfo_to_dict(conninfo)
        self.address = f"{given.get('host', '')}:{given.get('port', 5432)}"
        options = f"-c statement_timeout={ANSWER_S}s"
        self._conninfo = make_conninfo(conninfo, connect_timeout=ANSWER_S, dbname="postgres", options=options)
        self._db: psycopg.Connection[tuple[object, ...]] | None = None

    def ask(self) -> Standby | None:
        """What it says of itself; None when it does not answer."""
        try:
            if self._db is None:
                self._db = psycopg.connect(self._conninfo, autocommit=True)
            return msgspec.convert(self._db.execute(POSITION).fetchall()[0], Standby)
        except psycopg.Error:
            self.close()
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._db is not None:
            self._db.close()
            self._db = None
