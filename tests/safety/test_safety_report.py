"""The report on safety cases tells covered, partly shown, spared and missing apart, and never flatters."""

import pytest

from tests.safety.plugin import SafetyRecorder, judge, load_cases, unknown_marks

CASES = {
    "X01": {"layers": ["contract", "sequencer"], "level": "MUST", "rule": ""},
    "X02": {"layers": ["ops"], "level": "MUST", "rule": "", "not_applicable": "no such thing"},
    "X03": {"layers": ["ops"], "level": "SHOULD", "rule": "", "not_applicable": "no such thing"},
}


def test_every_layer_has_to_be_shown():
    """One of two layers leaves the case missing, and the report names the other."""
    report = judge(CASES, {("X01", "contract")})
    assert "X01" in report["missing"]
    assert report["missing_layers"] == {"X01": ["sequencer"]}
    assert judge(CASES, {("X01", "contract"), ("X01", "sequencer")})["covered"] == ["X01"]


def test_a_must_case_without_object_needs_a_test_of_what_replaces_it():
    """A SHOULD case is spared by its reason alone, a MUST case only with a passing test."""
    assert judge(CASES, set())["missing"] == ["X01", "X02"]
    assert set(judge(CASES, {("X02", "contract")})["not_applicable"]) == {"X02", "X03"}


def test_one_failed_test_denies_the_case():
    """A pass before or after a failure does not cover it up; a skipped test shows nothing."""

    def told(when: str, outcome: str, case: str = "X02") -> pytest.TestReport:
        properties = [("safety", (case, "ops"))]
        return pytest.TestReport("n", ("f", 0, "n"), {}, outcome, None, when, user_properties=properties)  # type: ignore[arg-type]

    recorder = SafetyRecorder()
    recorder.pytest_runtest_logreport(told("call", "passed"))
    assert recorder.shown() == {("X02", "ops")}
    recorder.pytest_runtest_logreport(told("call", "failed"))
    recorder.pytest_runtest_logreport(told("call", "passed"))
    recorder.pytest_runtest_logreport(told("setup", "passed", "X01"))
    recorder.pytest_runtest_logreport(told("setup", "skipped", "X03"))
    assert recorder.shown() == set()
    recorder.pytest_runtest_logreport(told("setup", "failed", "X01"))
    assert recorder.passed == {("X02", "ops"): False, ("X01", "ops"): False}


def test_the_list_is_whole():
    """140 cases in eight groups, each with known layers, a level and its rule."""
    cases = load_cases()
    assert len(cases) == 140
    assert {case_id[0] for case_id in cases} == set("ABCDEFGH")
    for case in cases.values():
        assert set(case["layers"]) <= {"contract", "sequencer", "keeper", "api", "ops"}
        assert case["level"] in ("MUST", "SHOULD")
        assert case["rule"]
    assert unknown_marks(cases, {("Z99", "contract"), ("A01", "contract")}) == ["Z99"]
