"""A whole exchange as its own processes, started and watched as a person would."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

UP_S = 90.0
END_S = 150.0
COMMAND_S = 90.0

Result = TypeVar("Result")


def command(*arguments: str) -> list[str]:
    """`evermark ARGUMENTS` as a process."""
    return [sys.executable, "-m", "evermark.cli.main", *arguments]


def eventually(look: Callable[[], Result], timeout_s: float, what: str) -> Result:
    """The first true answer of `look`; fails naming `what` when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} not within {timeout_s:.0f} s"
        time.sleep(0.2)


class RunningExchange:
    """`evermark up ...`: its processes, its addresses, its result."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.errors = directory.with_suffix(".stderr")
        arguments = ("up", "--port", "0", "--chain-port", "0", "--state", str(directory), *options)
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command(*arguments), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )

    def wait_until_up(self) -> "RunningExchange":
        """Learn the addresses from the line that says that the exchange is up."""
        pattern = re.compile(r"the exchange is up at (\S+), its chain at (\S+)")

        def look() -> re.Match[str] | None:
            text = self.errors.read_text()
            assert self.process.poll() is None, text
            return pattern.search(text)

        found = eventually(look, UP_S, "exchange up")
        self.url, self.rpc_url = found.groups()
        return self

    def evermark(self, *arguments: str) -> Any:
        """Run a client command against this exchange; its JSON."""
        environment = {**os.environ, "EVERMARK_URL": self.url, "EVERMARK_RPC_URL": self.rpc_url}
        done = subprocess.run(
            command(*arguments, "--json"),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr + self.errors.read_text()[-2000:]
        return json.loads(done.stdout)

    def status(self) -> dict[str, Any]:
        """GET /v1/status; empty while nobody answers."""
        return self.read("/v1/status") or {}

    def read(self, path: str) -> Any:
        """GET any path; None while nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def children(self) -> dict[str, int]:
        """Process ids of the supervised parts, by the word that names each part's command."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
                words = (stat.parent / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and "evermark.cli.main" in words:
                config = next((Path(word).stem for word in words if word.endswith(".json")), "chain")
                found[config] = int(stat.parent.name)
        return found

    def kill(self, name: str) -> None:
        """kill -9 of a part, and wait until the supervisor has another one."""
        pid = self.children()[name]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.children().get(name, pid) != pid, 60, f"another {name}")

    def result(self) -> dict[str, Any]:
        """Wait for the end; the JSON line. Fails with what stderr says when the exit code is not 0."""
        out, _ = self.process.communicate(timeout=END_S)
        lines = out.splitlines()
        assert self.process.returncode == 0, f"{self.errors.read_text()}\n{out}"
        assert len(lines) == 1, f"stdout has more than the result: {out}"
        result: dict[str, Any] = json.loads(lines[0])
        return result

    def stop(self) -> None:
        """End it, politely first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
