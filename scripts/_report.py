"""Reports of long searches: JSON lines, each with the commit that was searched, and a search goes on where its report ends."""

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """What is being searched; a dirty tree says so."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def done_before(report: Path | None, at: str, keys: tuple[str, ...], held: str) -> set[tuple[Any, ...]]:
    """Values under `keys` of the rows that the report has from this commit and whose field `held` is true."""
    if report is None or not report.exists() or at.endswith("-dirty"):
        return set()
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    return {tuple(row[key] for key in keys) for row in rows if row["commit"] == at and row[held]}


def tell(row: dict[str, Any], report: Path | None) -> None:
    """Prints a row, and adds it to the report when there is one."""
    print(json.dumps(row), flush=True)
    if report:
        with report.open("a") as file:
            file.write(json.dumps(row) + "\n")
