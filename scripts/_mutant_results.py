"""What was found of mutants: lines of a file, and the table made of them."""

import collections
import json
import time
from pathlib import Path

from _mutant_groups import GROUPS
from _mutants import Mutant
from _report import commit, tell
from _survivors import newest


class Results:
    """What was found, by earlier runs too, in memory and as lines of a file."""

    def __init__(self, path: Path | None, seed: int, minutes: float | None) -> None:
        self.rows = (
            [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
        )
        self._path = path
        self._common = {"commit": commit(), "seed": seed}
        self._until = time.monotonic() + 60 * minutes if minutes else float("inf")

    def tell(self, group: str, mutant: Mutant, verdict: dict) -> bool:
        """Adds a row; whether there is time for another one."""
        row = {"group": group, "name": mutant.name, "before": mutant.before, **verdict, **self._common}
        self.rows.append(row)
        tell(row, self._path)
        return self.in_time

    def noticed(self) -> list[tuple[str, int, str]]:
        """File and line of each mutant that a test noticed, and that test."""
        found = []
        for row in self.rows:
            file, line, *_ = row["name"].split(":")
            found.append((file, int(line), row.get("by", "").removeprefix("FAILED ").split(" - ")[0]))
        return [one for one in found if one[2]]

    @property
    def in_time(self) -> bool:
        return time.monotonic() < self._until


def summary(rows: list[dict]) -> dict:
    """Per group: killed of those that are mutants at all."""
    result = {}
    for group in GROUPS:
        counts = collections.Counter(row["verdict"] for row in newest(rows) if row["group"] == group)
        dead = counts["killed"] + counts["timeout"]
        real = dead + counts["survived"]
        if counts:
            result[group] = {
                "killed": dead,
                "of": real,
                "share": round(dead / real, 3) if real else None,
                "all": dict(counts),
            }
    return result
