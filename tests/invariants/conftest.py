"""The attackers' tests share the vault tests' exchange, and say how a failure is repeated."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts" / "vault"))


@pytest.fixture(scope="session", autouse=True)
def worlds() -> None:
    """Deployed before the first test: titanoboa undoes what happens within one."""
    from hostile_world import deployed

    deployed()
    deployed(token="HostileToken")
    deployed(leveraged=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[Any]:
    """A failure names the one command that repeats it."""
    report = yield
    machine = getattr(getattr(item, "cls", None), "__qualname__", "").partition(".")[0]
    if report.failed and machine:
        seed = getattr(item.config.option, "hypothesis_seed", None)
        command = f"scripts/test '{item.nodeid}'"
        if seed is not None:
            command = f"scripts/hunt --seed {seed} --actor {machine}"
        report.sections.append(("repeat", f"this search is repeated by: {command}"))
    return report
