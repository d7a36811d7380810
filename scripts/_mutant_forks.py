"""Mutants of contracts, each tried in a fork of a process that has compiled every contract and collected the tests: what is left
is to compile what the mutant changes, and to run tests until one fails."""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from _mutant_groups import LEFT_OUT, PYTEST, ROOT, TIMEOUT_S, limit_resources, tests_of
from _mutant_results import Results
from _mutants import Mutant, apply
from _pytest.main import pytest_runtestloop as run_tests
from vyper.exceptions import CompilerPanic, VyperException

sys.path.insert(0, str(ROOT))

from tests import compiled_contracts

IMPORTED = re.compile(r"^from (?:\.|\.modules|contracts\.modules) import (\w+)$", re.MULTILINE)
FAVOURITES = 6  # tests that are run before the others
QUIET = ["-o", "addopts=", "-p", "no:terminal", "--capture=no", f"--ignore={LEFT_OUT}"]


def try_contracts(group: str, mutants: list[Mutant], results: Results) -> None:
    """Tries each while there is time."""
    warm()
    made = pytest.main([*PYTEST, *QUIET, *tests_of(group)], plugins=[_TryEach(group, mutants, results)])
    assert made == pytest.ExitCode.OK, f"tests of {group} were not collected: {made!r}"


def warm() -> None:
    """Compiles every contract and assembles it for its deployment, so that the forks need not."""
    for path in sorted((ROOT / "contracts").glob("*.vy")):
        compiled_contracts.deployment_source_map(compiled_contracts.deployer(path.stem).compiler_data)


class _TryEach:
    """In place of running the tests that were collected: a fork for each mutant, which runs them."""

    def __init__(self, group: str, mutants: list[Mutant], results: Results) -> None:
        self._group = group
        self._mutants = mutants
        self._results = results
        self._failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        gc.freeze()
        for mutant in self._mutants:
            started = time.monotonic()
            verdict = self._judge(session, mutant)
            verdict["seconds"] = round(time.monotonic() - started, 1)
            if not self._results.tell(self._group, mutant, verdict):
                break
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed = self._failed or report.nodeid

    def _favourites(self, mutant: Mutant) -> list[str]:
        """Tests that noticed something in the same file, the nearest first."""
        noticed = self._results.noticed()
        near = [(abs(line - mutant.line), by) for file, line, by in noticed if file == mutant.file]
        return list(dict.fromkeys(by for _, by in sorted(near)))[:FAVOURITES]

    def _judge(self, session: pytest.Session, mutant: Mutant) -> dict:
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            said = Path(folder) / "verdict"
            child = os.fork()
            if child == 0:
                try:
                    said.write_bytes(msgspec.json.encode(self._verdict(session, mutant, Path(folder))))
                finally:
                    os._exit(0)
            status = _end_of(child)
            if said.exists():
                return dict(msgspec.json.decode(said.read_bytes()))
            return {"verdict": "timeout" if os.WIFSIGNALED(status) else "crashed"}

    def _verdict(self, session: pytest.Session, mutant: Mutant, folder: Path) -> dict:
        """In the fork."""
        os.setpgid(0, 0)
        limit_resources()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        found = plant(mutant, folder)
        if found:
            return {"verdict": found}
        session.items = in_order(session.items, self._favourites(mutant))
        try:
            run_tests(session)
        except session.Failed:
            pass  # stopped at the first one
        return {"verdict": "killed", "by": self._failed} if session.testsfailed else {"verdict": "survived"}


def in_order(items: list[pytest.Item], favourites: list[str]) -> list[pytest.Item]:
    """The favourites first."""
    found = {item.nodeid: item for item in items}
    first = [found[name] for name in favourites if name in found]
    return first + [item for item in items if item not in first]


def plant(mutant: Mutant, folder: Path) -> str:
    """Makes the tests of this process take contracts with the error in them; why not, where there is none."""
    shutil.copytree(ROOT / "contracts", folder / "contracts", ignore=shutil.ignore_patterns("artifacts"))
    apply(folder, mutant)
    changed = False
    for name in contracts_with(mutant.file):
        path = folder / "contracts" / f"{name}.vy"
        # An import by the full path would find this tree's modules, not the copy's with the error in them.
        text = path.read_text(encoding="utf-8").replace("from contracts.", "from .")
        path.write_text(text, encoding="utf-8")
        try:
            code = compiled_contracts.compiled(path).compiler_data.bytecode
        except (VyperException, CompilerPanic, ZeroDivisionError):
            # The compiler divides by the logarithm of what a power is of, 0 for 1, and panics where a module has it.
            return "not compiled"
        changed = changed or code != compiled_contracts.deployer(name).compiler_data.bytecode
        compiled_contracts.replaced[name] = path
    return "" if changed else "same code"


def _end_of(child: int) -> int:
    """Waits for a child, and returns its status; kills it when it takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.02)


def contracts_with(file: str) -> list[str]:
    """Names of the contracts that the file is part of."""
    paths = sorted((ROOT / "contracts").glob("*.vy"))
    return [
        path.stem for path in paths if path.relative_to(ROOT).as_posix() == file or file in imported(path)
    ]


def imported(path: Path) -> set[str]:
    """The modules that a contract imports, themselves or through others."""
    seen: set[str] = set()
    queue = [path]
    while queue:
        for name in IMPORTED.findall(queue.pop().read_text(encoding="utf-8")):
            module = ROOT / "contracts" / "modules" / f"{name}.vy"
            file = module.relative_to(ROOT).as_posix()
            if module.exists() and file not in seen:
                seen.add(file)
                queue.append(module)
    return seen
