"""Judgements of mutants that no test noticed (tests/surviving_mutants.toml), and which to try again; see scripts/mutate."""

import tomllib
from pathlib import Path

JUDGED = Path(__file__).resolve().parents[1] / "tests" / "surviving_mutants.toml"


def judgements() -> dict[str, dict]:
    """By the mutant's name: its verdict ("equivalent", or "killed since" by tests that came later) and why."""
    return {entry["name"]: entry for entry in tomllib.loads(JUDGED.read_text(encoding="utf-8"))["mutant"]}


def newest(rows: list[dict]) -> list[dict]:
    """Of each mutant the last try."""
    return list({row["name"]: row for row in rows}.values())


def survivors(rows: list[dict]) -> list[dict]:
    return [row for row in newest(rows) if row["verdict"] == "survived"]


def to_try_again(rows: list[dict]) -> list[dict]:
    """Survivors but those that no test can ever tell apart."""
    known = judgements()
    return [row for row in survivors(rows) if known.get(row["name"], {}).get("verdict") != "equivalent"]


def told(rows: list[dict]) -> list[str]:
    """Each survivor with what it was, and its judgement."""
    known, lines = judgements(), []
    for row in survivors(rows):
        judged = known.get(row["name"])
        verdict = f"{judged['verdict']}: {judged['why']}" if judged else "NOT JUDGED"
        lines.append(f"{row['name']}\n    was: {row['before']}\n    {verdict}")
    return lines
