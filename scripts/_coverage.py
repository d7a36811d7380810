"""Reads coverage.py's report of the contracts and holds its gaps against tests/coverage_gaps.toml; see scripts/coverage."""

import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GAPS = ROOT / "tests" / "coverage_gaps.toml"


def gaps_of(path: str, report: dict, coded: set[int]) -> list[dict]:
    """Lines that code belongs to and that never ran, each with its source text."""
    source = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [{"line": line} for line in report["missing_lines"] if line in coded]
    for gap in found:
        gap["file"], gap["text"] = path, source[gap["line"] - 1].strip()
        gap["behind"] = source[gap["line"] - 2].strip()
    return found


def explanation(gap: dict, explained: list[dict]) -> str | None:
    """Why a gap is there, when the list says so for this text in this file, and behind this line where it names one."""
    for entry in explained:
        behind = entry.get("behind", "") in gap.get("behind", "")
        if entry["file"] == gap["file"] and entry["text"] in gap["text"] and behind:
            return entry["why"]
    return None


def branch_gaps(branches: dict) -> list[dict]:
    """Ways that a decision never went, each with its source text."""
    found = []
    for missing in branches["missing"]:
        text = (ROOT / missing["file"]).read_text(encoding="utf-8").splitlines()[missing["line"] - 1].strip()
        found.append(
            {"file": missing["file"], "line": missing["line"], "text": f"{missing['never']}: {text}"}
        )
    return found


def main() -> int:
    report, branches = (json.loads(Path(path).read_text()) for path in sys.argv[1:3])
    explained = tomllib.loads(GAPS.read_text(encoding="utf-8"))["gap"]
    contracts, unexplained = {}, []
    for path, of in sorted(report["files"].items()):
        if not path.endswith(".vy"):
            continue
        coded = set(branches["coded"].get(path, ()))
        found = gaps_of(path, of, coded)
        for gap in found:
            gap["why"] = explanation(gap, explained)
        unexplained += [gap for gap in found if gap["why"] is None]
        ran = len(set(of["executed_lines"]) & coded)
        contracts[path] = {
            "lines": f"{ran}/{ran + len(found)}",
            "gaps": found,
        }
    ways = branch_gaps(branches)
    for gap in ways:
        gap["why"] = explanation(gap, explained)
    unexplained += [gap for gap in ways if gap["why"] is None]
    told = f"{branches['of'] - len(ways)}/{branches['of']}"
    if "--json" in sys.argv:
        print(json.dumps({"contracts": contracts, "branches": told, "unexplained": unexplained}, indent=1))
    else:
        for path, of in contracts.items():
            print(f"{path:40} lines {of['lines']:>9}")
            for gap in of["gaps"]:
                print(f"    {gap['line']:4} {gap['text'][:80]}  -- {gap['why'] or 'NOT EXPLAINED'}")
        print(f"{'ways of all decisions':40} {told:>15}")
        for gap in ways:
            print(f"    {gap['file']}:{gap['line']} {gap['text'][:90]}  -- {gap['why'] or 'NOT EXPLAINED'}")
    if unexplained:
        print(f"{len(unexplained)} gaps are not explained in {GAPS.relative_to(ROOT)}", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
