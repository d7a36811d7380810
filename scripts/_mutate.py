"""Runs a seeded sample of mutants against the tests nearest to them; see scripts/mutate."""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _mutants import Mutant, apply, mutants_of

ROOT = Path(__file__).resolve().parents[1]
VAULT = "tests/contracts/vault/test_"
# group -> its files, and its tests in the order in which they are tried
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "MarginVault": (
        [
            "MarginVault",
            *(
                f"modules/{name}"
                for name in ("tables", "fills", "orders", "ledger", "units", "codec", "eip712", "listing")
            ),
        ],
        [
            VAULT + name
            for name in (
                "order_fills",
                "slots",
                "closing_check",
                "signatures",
                "settle",
                "deploy",
                "liquidation",
                "withdraw_and_pay",
                "inbox_and_funding",
                "model",
            )
        ],
    ),
    "Clerk": (
        ["Clerk", "modules/signed_actions", "modules/door"],
        [
            VAULT + name
            for name in (
                "actions",
                "withdraw_and_pay",
                "inbox_and_funding",
                "transfers",
                "requests_in_batches",
                "model",
            )
        ],
    ),
    "Backstop": (
        ["Backstop", "modules/liquidation"],
        [VAULT + name for name in ("liquidation", "deleveraging", "model")],
    ),
    "Inbox": (
        ["Inbox"],
        ["tests/contracts/test_inbox", "tests/contracts/test_inbox_requests", VAULT + "requests_in_batches"],
    ),
    "PriceOracle": (
        ["PriceOracle"],
        [
            "tests/contracts/test_oracle",
            "tests/contracts/test_oracle_funding",
            "tests/invariants/test_invariants_hostile.py::TestHostileKeepers",
        ],
    ),
    "protocol": (
        [
            "margin",
            "liquidation",
            "funding",
            "units",
            "oracle",
            "orders",
            "markets",
            "merkle",
            "signing",
            "batch_encode",
            "batch_decode",
        ],
        ["tests/protocol"],
    ),
}
COPIED = ("contracts", "evermark", "tests", "sequencer", "keeper", "pyproject.toml")
TIMEOUT_S = 600


def files_of(group: str) -> list[str]:
    folder, suffix = ("evermark/protocol", ".py") if group == "protocol" else ("contracts", ".vy")
    names = [f"{folder}/{name}{suffix}" for name in GROUPS[group][0]]
    return [name for name in names if (ROOT / name).exists()]


def tests_of(group: str) -> list[str]:
    return [name if "::" in name or (ROOT / name).is_dir() else f"{name}.py" for name in GROUPS[group][1]]


def sample(group: str, size: int, seed: int) -> list[Mutant]:
    """The first `size` of a shuffled list: a larger sample contains the smaller ones."""
    found = [mutant for file in files_of(group) for mutant in mutants_of(ROOT, file)]
    random.Random(f"{group} {seed}").shuffle(found)
    return found[:size]


def is_same_code(tree: Path, mutant: Mutant) -> bool:
    """Whether every contract that the file is part of compiles to the bytecode that it had: then nothing was changed."""
    if mutant.file.endswith(".py"):
        return False
    for path in sorted((tree / "contracts").glob("*.vy")):
        if not uses(path, mutant.file, tree):
            continue
        vyper = str(Path(sys.executable).parent / "vyper")
        made = subprocess.run(
            [vyper, "-p", str(tree), "-f", "bytecode", str(path)], cwd=tree, capture_output=True, text=True
        )
        artifact = json.loads((ROOT / "contracts" / "artifacts" / f"{path.stem}.json").read_text())
        if made.stdout.strip() != artifact["bytecode"]:
            return False
    return True


def uses(path: Path, file: str, tree: Path) -> bool:
    """Whether a contract is the file, or imports the module, itself or through another one."""
    if path.relative_to(tree).as_posix() == file:
        return True
    module, seen, queue = Path(file).stem, set(), [path]
    while queue:
        text = queue.pop().read_text()
        for line in text.splitlines():
            name = (
                line.rpartition(" import ")[2].strip()
                if (line.startswith("from ") and "modules" in line) or line.startswith("from . import")
                else ""
            )
            if name == module:
                return True
            if name and name not in seen:
                seen.add(name)
                queue.append(tree / "contracts" / "modules" / f"{name}.vy")
    return False


def judge(group: str, mutant: Mutant) -> dict:
    """Copies the tree, plants the mutant, runs the tests until one fails."""
    started = time.monotonic()
    row = {"group": group, "name": mutant.name, "before": mutant.before}
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        copy(tree)
        apply(tree, mutant)
        row["verdict"] = run_tests(group, tree, row)
        if row["verdict"] == "survived" and is_same_code(tree, mutant):
            row["verdict"] = "same code"
    return row | {"seconds": round(time.monotonic() - started, 1)}


def copy(tree: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "tapes", ".hypothesis")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            shutil.copy(source, tree / name)


def run_tests(group: str, tree: Path, row: dict) -> str:
    """One pytest for each file of tests, nearest first: what kills a mutant is mostly the first one."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "EVERMARK_PURE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "tests.safety.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-p", "no:schemathesis", *tests_of(group)]
    try:
        made = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    failed = [line for line in made.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    row["by"] = failed[0][:160] if failed else ""
    if "vyper.exceptions" in made.stdout or "SyntaxError" in made.stdout:
        return "not compiled"
    return "killed" if made.returncode else "survived"


def summary(rows: list[dict]) -> dict:
    """Per group: killed of those that are mutants at all."""
    result = {}
    for group in GROUPS:
        counts = collections.Counter(row["verdict"] for row in rows if row["group"] == group)
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="mutants of each group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", choices=sorted(GROUPS), action="append")
    parser.add_argument("--results", type=Path, help="JSON lines; what is there is not run again")
    parser.add_argument("--survivors", action="store_true", help="only list the survivors of --results")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    given = parser.parse_args()
    rows = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results and given.results.exists()
        else []
    )
    if given.survivors:
        for row in rows:
            if row["verdict"] == "survived":
                print(f"{row['name']}\n    was: {row['before']}")
        return 0
    at = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    done, end = {row["name"] for row in rows}, time.monotonic() + 60 * (given.minutes or 10**9)
    groups = given.group or list(GROUPS)
    samples = {group: sample(group, given.sample, given.seed) for group in groups}
    # Group by group in turn, so that a run that is stopped early has seen something of each.
    for index in range(given.sample):
        for group in groups:
            if index >= len(samples[group]) or samples[group][index].name in done or time.monotonic() > end:
                continue
            row = judge(group, samples[group][index]) | {"commit": at, "seed": given.seed}
            rows.append(row)
            print(json.dumps(row), flush=True)
            if given.results:
                with given.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(json.dumps(summary(rows), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
