"""Runs a seeded sample of mutants against the tests nearest to them; see scripts/mutate."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from _mutant_forks import try_contracts
from _mutant_groups import GROUPS, PYTEST, ROOT, TIMEOUT_S, files_of, limit_resources, tests_of
from _mutant_results import Results, summary
from _mutants import Mutant, apply, mutants_of
from _survivors import to_try_again, told

COPIED = ("contracts", "evermark", "tests", "sequencer", "keeper", "pyproject.toml")
ROUND = 20  # mutants of a group before the next one's turn


def sample(group: str, size: int, seed: int) -> list[Mutant]:
    """The first `size` of a shuffled list: a larger sample contains the smaller ones."""
    found = [mutant for file in files_of(group) for mutant in mutants_of(ROOT, file)]
    random.Random(f"{group} {seed}").shuffle(found)
    return found[:size]


def judge(group: str, mutants: list[Mutant], results: Results) -> None:
    """Tries each while there is time."""
    if group != "protocol":
        try_contracts(group, mutants, results)
        return
    for mutant in mutants:
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            if not results.tell(group, mutant, run_python(group, mutant, Path(folder))):
                return


def run_python(group: str, mutant: Mutant, folder: Path) -> dict:
    """In a copied tree and a process of its own."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "tapes", ".hypothesis")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    apply(folder, mutant)
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *PYTEST, *tests_of(group)]
    try:
        made = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            preexec_fn=limit_resources,
        )
    except subprocess.TimeoutExpired:
        return {"verdict": "timeout"}
    if made.returncode == -signal.SIGKILL:
        return {"verdict": "timeout"}
    if "SyntaxError" in made.stdout:
        return {"verdict": "not compiled"}
    verdict = "killed" if made.returncode else "survived"
    return {"verdict": verdict, "by": first_failure(made.stdout)}


def first_failure(said: str) -> str:
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0][:160] if failed else ""


def to_try(given: argparse.Namespace, rows: list[dict]) -> dict[str, list[Mutant]]:
    """By group: of its sample what no run has tried yet, or what the last one did not notice."""
    tried = {row["name"] for row in rows}
    unnoticed = {row["name"] for row in to_try_again(rows)}
    groups = given.group or list(GROUPS)
    samples = {group: sample(group, given.sample, given.seed) for group in groups}
    return {
        group: [one for one in found if (one.name in unnoticed if given.again else one.name not in tried)]
        for group, found in samples.items()
    }


def try_all(found: dict[str, list[Mutant]], results: Results) -> None:
    """Some of each group in turn, so that a run that is stopped early has seen something of each."""
    for start in range(0, max(map(len, found.values())), ROUND):
        for group, mutants in found.items():
            if mutants[start:] and results.in_time:
                judge(group, mutants[start : start + ROUND], results)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="mutants of each group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", choices=sorted(GROUPS), action="append")
    parser.add_argument("--results", type=Path, help="JSON lines; what is there is not run again")
    parser.add_argument("--survivors", action="store_true", help="only list the survivors of --results")
    parser.add_argument("--again", action="store_true", help="try the survivors of --results once more")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    given = parser.parse_args()
    results = Results(given.results, given.seed, given.minutes)
    if given.survivors:
        print("\n".join(told(results.rows)))
        return 0
    try_all(to_try(given, results.rows), results)
    print(json.dumps(summary(results.rows), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
