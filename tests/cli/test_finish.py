"""The verdict of `evermark up --for`: zero only when all of it holds, else the first reason."""

from typing import Any

from evermark.cli.audit import describe_disagreement
from evermark.cli.finish import verdict


def result(matched: int = 10, settled: int = 10, **report: Any) -> dict[str, Any]:
    verify = {"ok": True, "problem": "", "invariants": {"1": True}, "differences": []} | report
    return {"fills_matched": matched, "fills_settled": settled, "verify": verify}


def test_all_settled_and_verified_is_silence() -> None:
    """No reason, so exit code 0; exactly enough fills are enough."""
    assert verdict(result(), 10) == ""


def test_each_failure_has_its_reason() -> None:
    """Unsettled fills, too few fills, and a verification that failed or did not run."""
    assert verdict(result(settled=9), 0) == "10 fills were matched, 9 are settled"
    assert verdict(result(), 11) == "10 fills settled, fewer than 11"
    assert verdict(result(ok=False, problem="journal: broken"), 0) == "verify: journal: broken"


def test_a_disagreement_names_the_first_place_and_counts_the_rest() -> None:
    """Broken invariants come before differing figures."""
    difference = {"where": "account 3 collateral", "expected": "5", "found": "6"}
    report = {"problem": "", "invariants": {"1 x": False, "2 y": True}, "differences": [difference]}
    assert describe_disagreement(report) == "verify: invariant '1 x' is broken (and 1 more)"
    report["invariants"] = {}
    assert describe_disagreement(report) == "verify: account 3 collateral: journal 5, chain 6"
