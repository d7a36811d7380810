"""Supervised processes: restarted with backoff, stopped in time, never orphaned."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evermark.cli import children
from evermark.cli.children import Child, Service

ROOT = Path(__file__).parents[2]
LOOP = "import evermark.cli.children as c, time\nc.watch_supervisor()\ntime.sleep(60)\n"


def write_runner(runner: Path, script: Path) -> None:
    """A stand-in for the interpreter that runs `script` whatever it is asked to run."""
    runner.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {script}\n")
    runner.chmod(0o755)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run Python text in place of an `evermark` subcommand, through the same spawning code."""

    def make(text: str, lasting: bool = True) -> Child:
        script = tmp_path / "program.py"
        script.write_text(text)
        runner = tmp_path / "python"
        write_runner(runner, script)
        monkeypatch.setattr(children.sys, "executable", str(runner))
        service = Service(name="program", arguments=("x",), log=tmp_path / "program.log", lasting=lasting)
        return Child(service, notices.append)

    notices: list[str] = []
    make.notices = notices  # type: ignore[attr-defined]
    return make


async def until(condition, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition never held"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def test_a_killed_child_comes_back_and_says_so(program) -> None:
    """After kill -9 a new process runs, the restart is counted and the notice names the signal."""
    child = program(LOOP)
    child.start()
    await until(lambda: child.pid)
    first = child.pid
    child.kill()
    await until(lambda: child.pid not in (None, first))
    assert child.restarts == 1
    assert child.last_exit == "SIGKILL"
    assert "program ended (SIGKILL), restart in 0.5 s" in program.notices
    await child.stop()
    assert child.state == "stopped"


async def test_a_one_shot_that_succeeds_is_not_restarted(program) -> None:
    """Exit 0 of a service that is not lasting ends it; the log keeps what it printed."""
    child = program("print('done')", lasting=False)
    child.start()
    await until(lambda: child.state == "finished")
    assert child.restarts == 0
    assert child.log_tail() == "done"
    await child.stop()
    assert child.state == "finished"


async def test_a_child_that_ignores_the_signal_is_killed(program) -> None:
    """Stopping takes no longer than its timeout."""
    child = program(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1)\ntime.sleep(60)"
    )
    child.start()
    await until(lambda: child.log_tail() == "1")
    pid = child.pid
    await child.stop(timeout_s=0.2)
    assert not alive(pid)
    assert "did not stop within" in program.notices[-1]


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from evermark.cli import children
children.sys.executable = {runner!r}
async def main():
    child = children.Child(children.Service(name="c", arguments=("x",), log=Path({log!r})), print)
    child.start()
    while not child.pid:
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves no process behind."""
    script, runner = tmp_path / "program.py", tmp_path / "python"
    script.write_text(LOOP)
    write_runner(runner, script)
    text = SUPERVISOR.format(runner=str(runner), log=str(tmp_path / "log"))
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        time.sleep(1.0)  # the child installs its watch as its first act
        assert alive(pid)
        supervisor.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 8
    while alive(pid):
        assert time.monotonic() < deadline, "the child is an orphan"
        time.sleep(0.05)
