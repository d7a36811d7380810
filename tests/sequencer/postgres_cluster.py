"""Real PostgreSQL nodes on this machine, one primary and its standbys, talking over sockets in a directory."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from fast_directory import memory_directory

NODES = ("n1", "n2", "n3")
SETTINGS = """
listen_addresses = ''
synchronous_standby_names = 'ANY 1 (n1, n2, n3)'
wal_level = replica
max_wal_senders = 10
hot_standby = on
shared_buffers = 16MB
max_connections = 40
wal_sender_timeout = 2s
wal_receiver_timeout = 2s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
"""


class PostgresCluster:
    """`with PostgresCluster(bin) as cluster`: three nodes, n1 the primary, commits acknowledged by any one more."""

    def __init__(self, binaries: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="evermark-pg-", dir=memory_directory()))
        self._bin = binaries
        self._user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root

    def __enter__(self) -> "PostgresCluster":
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        for name in NODES:
            self.sockets(name).mkdir(mode=0o700)
            if self._user is not None:
                os.chown(self.sockets(name), owner.pw_uid, owner.pw_gid)
        primary = self.data("n1")
        self._run("initdb", "-D", primary, "-U", "evermark", "--auth=trust", "--no-sync", "--encoding=UTF8")
        (primary / "postgresql.auto.conf").write_text(SETTINGS)
        self._start("n1", "-c", "synchronous_standby_names=")  # alone it could not commit yet
        with psycopg.connect(self.url("n1", "postgres"), autocommit=True) as db:
            db.execute("CREATE DATABASE evermark")
        for name in NODES[1:]:
            self.follow(name, "n1")
        with psycopg.connect(self.url("n1", "postgres"), autocommit=True) as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (n1, n2, n3)'")
        self.stop("n1")
        self.start("n1")
        self.wait_for_standbys("n1", 2)
        return self

    def __exit__(self, *_: object) -> None:
        for name in NODES:
            self.resume(name)
            self.stop(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def data(self, name: str) -> Path:
        return self.directory / name

    def sockets(self, name: str) -> Path:
        return self.directory / f"{name}-sockets"

    def url(self, names: str = "n1,n2,n3", database: str = "evermark") -> str:
        """The address of some nodes; libpq looks for the one that accepts writes."""
        hosts = ",".join(str(self.sockets(name)) for name in names.split(","))
        return f"postgresql:///{database}?host={hosts}&user=evermark"

    def follow(self, name: str, primary: str) -> None:
        """Make `name` anew as a standby of `primary` and start it."""
        shutil.rmtree(self.data(name), ignore_errors=True)
        source = f"host={self.sockets(primary)} user=evermark application_name={name}"
        self._run(
            "pg_basebackup", "-D", self.data(name), "-R", "-d", source, "--checkpoint=fast", "--no-sync"
        )
        self.start(name)

    def start(self, name: str) -> None:
        self._start(name)

    def stop(self, name: str) -> None:
        if (self.data(name) / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.data(name), "-m", "immediate", "-w", "stop", check=False)

    def kill(self, name: str) -> None:
        """kill -9 of every process of the node."""
        self._signal(name, signal.SIGKILL)
        wait_until(lambda: not processes_in(self.data(name)), "the node is dead")
        (self.data(name) / "postmaster.pid").unlink(missing_ok=True)
        for left_over in self.sockets(name).glob(".s.*"):
            left_over.unlink()

    def freeze(self, name: str) -> None:
        """The node answers nobody any more, as behind a cut cable."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def promote(self, candidates: tuple[str, ...]) -> str:
        """Promote the candidate that has most of the log, and let the others follow it. For a majority only."""
        assert len(candidates) * 2 > len(NODES)
        best = max(candidates, key=self._received)
        self._run("pg_ctl", "-D", self.data(best), "-w", "promote")
        for name in candidates:
            if name != best:
                with psycopg.connect(self.url(name, "postgres"), autocommit=True) as db:
                    source = f"host={self.sockets(best)} user=evermark application_name={name}"
                    db.execute(f"ALTER SYSTEM SET primary_conninfo = '{source}'")
                    db.execute("SELECT pg_reload_conf()")
        self.wait_for_standbys(best, len(candidates) - 1)
        return best

    def wait_for_standbys(self, primary: str, count: int) -> None:
        def connected() -> bool:
            with psycopg.connect(self.url(primary, "postgres"), autocommit=True) as db:
                query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'"
                return bool(db.execute(query).fetchall()[0][0] >= count)

        wait_until(connected, f"{count} standbys follow {primary}")

    def _received(self, name: str) -> int:
        with psycopg.connect(self.url(name, "postgres"), autocommit=True) as db:
            query = "SELECT (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint"
            return int(db.execute(query).fetchall()[0][0] or 0)

    def _signal(self, name: str, number: signal.Signals) -> None:
        """To the postmaster and its children, which have its directory as their working directory."""
        send_signal(processes_in(self.data(name)), number)

    def _start(self, name: str, *options: str) -> None:
        sockets = " ".join(
            ("-c", f"unix_socket_directories={self.sockets(name)}", "-c", f"cluster_name={name}", *options)
        )
        log = self.directory / f"{name}.log"
        self._run("pg_ctl", "-D", self.data(name), "-o", sockets, "-l", log, "-w", "-t", "60", "start")

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd="/",
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
            text=True,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{self._logs()}"

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-2_000:] for log in self.directory.glob("*.log"))


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Poll until true."""
    give_up = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.05)


def processes_in(directory: Path) -> list[int]:
    """Those whose working directory it is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == directory:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended, or it is somebody else's
    return found


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """To those that are still there: the first one's end may be that of others."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
