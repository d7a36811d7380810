"""What every test may use: the lanes that need a tool from outside, and the hypothesis profiles."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import Phase, settings

os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")

ROOT = Path(__file__).resolve().parent.parent

# "ci" repeats itself exactly; "nightly" looks elsewhere every time, and longer.
settings.register_profile("ci", derandomize=True, max_examples=50, stateful_step_count=40, deadline=None)
settings.register_profile(
    "nightly", max_examples=2_000, stateful_step_count=100, deadline=None, print_blob=True
)
# For scripts/mutate: a failure says enough, its smallest example would take minutes to find.
settings.register_profile(
    "mutants", parent=settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def find_anvil() -> Path | None:
    """The real node: from PATH, else from the npm package of package.json."""
    return _first(shutil.which("anvil"), ROOT / "node_modules" / ".bin" / "anvil")


def find_chromium() -> Path | None:
    return _first("/usr/bin/chromium", shutil.which("chromium"))


def find_postgres() -> Path | None:
    """The directory of initdb and pg_ctl; the newest one where Debian keeps several versions side by side."""
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates = sorted(debian, key=lambda bin: _as_number(bin.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        candidates.append(Path(on_path).parent)
    return next((bin for bin in candidates if _runs(bin / "initdb") and _runs(bin / "pg_ctl")), None)


# Lane -> (how its tool is found, what to say when it is not).
LANES = {
    "anvil": (find_anvil, "no anvil on PATH or in node_modules (npm ci installs it)"),
    "chromium": (find_chromium, "no chromium on PATH (Debian's package chromium)"),
    "postgres": (find_postgres, "no initdb and pg_ctl (Debian's package postgresql)"),
}


def missing_lanes() -> dict[str, str]:
    return {lane: why for lane, (find, why) in LANES.items() if find() is None}


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("EVERMARK_REQUIRE_LANES") == "1" and missing_lanes():
        told = "; ".join(f"{lane}: {why}" for lane, why in missing_lanes().items())
        raise pytest.UsageError(f"EVERMARK_REQUIRE_LANES=1, but lanes are missing: {told}")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A test that sets the logs up, as a program's start does, leaves that to no other: they may look for a line."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_lanes()
    for item in items:
        for lane, why in missing.items():
            if item.get_closest_marker(lane):
                item.add_marker(pytest.mark.skip(reason=f"lane {lane}: {why}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for lane, why in missing_lanes().items():
        terminalreporter.write_line(f"lanes skipped: {lane} ({why})", yellow=True)


@pytest.fixture(scope="session")
def anvil_path() -> Path:
    """Path of the anvil binary; for tests marked `anvil`."""
    return _tool("anvil")


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """Path of the browser; for tests marked `chromium`."""
    return _tool("chromium")


@pytest.fixture(scope="session")
def postgres_bin() -> Path:
    """Directory of initdb and pg_ctl; for tests marked `postgres`."""
    return _tool("postgres")


def _tool(lane: str) -> Path:
    find, why = LANES[lane]
    path = find()
    if path is None:
        pytest.skip(f"lane {lane}: {why}")
    return path


def _first(*candidates: str | Path | None) -> Path | None:
    return next((Path(path) for path in candidates if path and _runs(Path(path))), None)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _as_number(version: str) -> int:
    return int(version) if version.isdigit() else 0
