"""Counts which safety cases a test run has shown; `scripts/test` loads it, `scripts/safety-cases` reads its report.

A case is covered when a test marked `safety(id, layer)` passed for every layer that `cases.toml` names.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CASES_FILE = Path(__file__).with_name("cases.toml")
MARK = "safety"


def load_cases() -> dict[str, dict[str, Any]]:
    """Case id -> layers, level (MUST or SHOULD), rule and, for some, not_applicable."""
    return tomllib.loads(CASES_FILE.read_text(encoding="utf-8"))


def judge(cases: dict[str, dict[str, Any]], shown: set[tuple[str, str]]) -> dict[str, Any]:
    """What (id, layer) pairs that passed say of all cases: covered, missing, not_applicable and partly covered ones."""
    covered, missing, partly, spared = [], [], {}, {}
    for case_id, case in cases.items():
        layers = {layer for shown_id, layer in shown if shown_id == case_id}
        if "not_applicable" in case and (layers or case["level"] == "SHOULD"):
            spared[case_id] = case["not_applicable"]
        elif layers.issuperset(case["layers"]):
            covered.append(case_id)
        else:
            missing.append(case_id)
            if layers:
                partly[case_id] = sorted(set(case["layers"]) - layers)
    return {"covered": covered, "missing": missing, "not_applicable": spared, "missing_layers": partly}


def unknown_marks(cases: dict[str, dict[str, Any]], marks: set[tuple[str, str]]) -> list[str]:
    """Ids that tests name and the list does not have."""
    return sorted({case_id for case_id, _ in marks} - set(cases))


def marks_of(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """The (id, layer) pairs that a test claims to show."""
    for mark in item.iter_markers(MARK):
        yield str(mark.args[0]), str(mark.args[1])


class SafetyRecorder:
    """Collects over one run what was claimed and what passed."""

    def __init__(self) -> None:
        self.passed: dict[tuple[str, str], bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One failed test is enough to deny a case."""
        if report.when != "call" and report.passed:
            return
        for name, value in report.user_properties:
            if name == MARK and not report.skipped:
                key = (str(value[0]), str(value[1]))
                self.passed[key] = self.passed.get(key, True) and bool(report.passed)

    def shown(self) -> set[tuple[str, str]]:
        """Every pair for which all marked tests passed."""
        return {key for key, passed in self.passed.items() if passed}


def pytest_addoption(parser: pytest.Parser) -> None:
    """--safety-only runs the marked tests alone; --safety-report writes what they show as JSON."""
    parser.addoption("--safety-only", action="store_true", help="run only tests that show a safety case")
    parser.addoption("--safety-report", metavar="FILE", help="write covered and missing safety cases as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """The recorder lives as long as the run."""
    config.pluginmanager.register(SafetyRecorder(), "safety-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks travel as user properties, which reach the recorder from worker processes too."""
    for item in items:
        for pair in marks_of(item):
            item.user_properties.append((MARK, pair))
    claimed = {pair for item in items for pair in marks_of(item)}
    unknown = unknown_marks(load_cases(), claimed)
    if unknown:
        raise pytest.UsageError(
            f"tests name safety cases that tests/safety/cases.toml does not have: {unknown}"
        )
    if config.getoption("--safety-only"):
        marked = [item for item in items if any(marks_of(item))]
        config.hook.pytest_deselected(items=[item for item in items if item not in marked])
        items[:] = marked


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for people; the whole report where it was asked for."""
    recorder = config.pluginmanager.get_plugin("safety-recorder")
    if recorder is None or not recorder.passed:
        return
    cases = load_cases()
    report = judge(cases, recorder.shown())
    spared = len(report["not_applicable"])
    terminalreporter.write_line(
        f"safety cases shown in this run: {len(report['covered'])} of {len(cases)} ({spared} not applicable)"
    )
    if config.getoption("--safety-report"):
        Path(config.getoption("--safety-report")).write_text(json.dumps(report, indent=1) + "\n")
