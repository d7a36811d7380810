"""Real PostgreSQL nodes, each with Patroni beside it, which vote among themselves by Raft: who has a majority promotes.

Patroni's configuration is the one of docs/operations.md, but for places and waits; these are shortened below what it takes
from operators, so that a test sees a fail-over within seconds.
"""

import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import yaml
from fast_directory import memory_directory
from postgres_cluster import processes_in, send_signal, wait_until

NODES = ("n1", "n2", "n3")
CREDENTIALS = {"username": "evermark"}
TTL_S = 5
SHORT = {"ttl": TTL_S, "loop_wait": 1, "retry_timeout": 2}
PARAMETERS = {
    "shared_buffers": "16MB",
    "max_connections": 40,
    "wal_sender_timeout": "2s",
    "wal_receiver_timeout": "2s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
}
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SHORT_WAITS = """
import sys
from patroni import config
config.Config._Config__get_and_maybe_adjust_int_value = lambda self, given, name, least: int(given[name])
from patroni.__main__ import main
sys.argv[0] = "patroni"
main()
"""


class PatroniCluster:
    """`with PatroniCluster(bin) as cluster`: three nodes, one of them the primary."""

    def __init__(self, binaries: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="evermark-patroni-", dir=memory_directory()))
        self._bin = binaries
        self._ports = {name: _free_ports(3) for name in NODES}  # PostgreSQL, Raft, REST
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "PatroniCluster":
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.kill(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, names: str = "n1,n2,n3", database: str = "evermark") -> str:
        """The address of some nodes; libpq looks for the one that accepts writes."""
        ports = ",".join(str(self._ports[name][0]) for name in names.split(","))
        hosts = ",".join("127.0.0.1" for _ in names.split(","))
        return f"postgresql:///{database}?host={hosts}&port={ports}&user=evermark"

    def start(self, name: str) -> None:
        """Start a node's Patroni, which starts PostgreSQL."""
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(self._settings(name)))
        command = [sys.executable, "-c", SHORT_WAITS, str(path)]
        if os.geteuid() == 0:
            # The interpreter may lie where only root looks, so that much of root's rights stays.
            command = [
                *("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"),
                *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", *command),
            ]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """kill -9 of everything that the node runs."""
        self._signal(name, signal.SIGKILL)
        supervisor = self._running.pop(name, None)
        if supervisor is not None:
            supervisor.wait()
        wait_until(lambda: not self._processes(name), "the node is dead")

    def cut_off(self, name: str, *, supervisor_only: bool = False) -> None:
        """The node hears nobody and answers nobody any more, or only what decides there about PostgreSQL."""
        if supervisor_only:
            os.kill(self._running[name].pid, signal.SIGSTOP)
        else:
            self._signal(name, signal.SIGSTOP)

    def reconnect(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def primary(self, *among: str) -> str:
        """Who says to be the primary with a majority behind it, of these or of all; "" for nobody."""
        found = [name for name in among or NODES if self.role(name) == "primary"]
        return found[0] if len(found) == 1 else ""

    def role(self, name: str) -> str:
        """What a node says of itself; "" when it does not answer."""
        return str(self._ask(name).get("role", ""))

    def voters(self, primary: str) -> int:
        """Standbys that follow this primary, of which one is enough for a commit and for a vote, as far as it has made that
        known to all."""
        since_promotion = self.log(primary).rsplit("promoted self to leader", 1)[-1]
        if f"I am ({primary}), the leader with the lock" not in since_promotion:
            return 0
        members = self._ask(primary, "cluster").get("members", [])
        return sum(1 for one in members if one["role"] == "quorum_standby" and one["state"] == "streaming")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def _begin(self) -> None:
        for name in NODES:
            self.start(name)
        wait_until(lambda: bool(self.primary()), "one of them is the primary")
        first = self.primary()
        wait_until(lambda: self.voters(first) == 2, "two standbys follow it")
        with psycopg.connect(self.url(first, "postgres"), autocommit=True) as db:
            db.execute("CREATE DATABASE evermark")

    def _settings(self, name: str) -> dict[str, Any]:
        port, raft, rest = self._ports[name]
        others = [other for other in NODES if other != name]
        documented = documented_settings()
        dynamic = documented["bootstrap"]["dcs"] | SHORT
        dynamic["postgresql"]["parameters"] |= PARAMETERS
        guard = shlex.split(documented["postgresql"]["pre_promote"])
        for word, node in zip(("db1", "db2", "db3"), (name, *others), strict=True):
            place = f"host=127.0.0.1 port={self._ports[node][0]} user=evermark"
            guard = [place if f"host={word} " in part else part for part in guard]
        guard[:1] = [sys.executable, "-m", "evermark.cli.main"]
        return {
            "scope": "evermark",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
            "raft": {
                "data_dir": str(self.directory / f"{name}-raft"),
                "self_addr": f"127.0.0.1:{raft}",
                "partner_addrs": [f"127.0.0.1:{self._ports[other][1]}" for other in others],
            },
            "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "no-sync"]},
            "postgresql": {
                "listen": f"127.0.0.1:{port}",
                "connect_address": f"127.0.0.1:{port}",
                "data_dir": str(self.directory / name),
                "bin_dir": str(self._bin),
                "pgpass": str(self.directory / f"{name}.pgpass"),
                "authentication": dict.fromkeys(("superuser", "replication", "rewind"), CREDENTIALS),
                "parameters": {"unix_socket_directories": str(self.directory)},
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "pre_promote": shlex.join(guard),
            },
        }

    def _ask(self, name: str, about: str = "patroni") -> dict[str, Any]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._ports[name][2]}/{about}", timeout=2
            ) as answer:
                found = answer.read()
        except urllib.error.HTTPError as error:  # not in order, which it tells as well
            found = error.read()
        except OSError:
            return {}
        return dict(json.loads(found))

    def _signal(self, name: str, number: signal.Signals) -> None:
        pids = self._processes(name)
        if name in self._running:
            pids.append(self._running[name].pid)
        send_signal(pids, number)

    def _processes(self, name: str) -> list[int]:
        """PostgreSQL's, which have the node's data directory as their working directory."""
        return processes_in(self.directory / name)


def documented_settings() -> dict[str, Any]:
    """The configuration that operators are told to use."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(yaml.safe_load(block))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
