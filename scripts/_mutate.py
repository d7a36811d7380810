"""Runs a seeded sample of mutants against the tests nearest to them; see scripts/mutate."""

import argparse
import collections
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from _mutants import Mutant, apply, mutants_of
from _report import commit, tell
from _survivors import newest, to_try_again, told

ROOT = Path(__file__).resolve().parents[1]
os.environ["HYPOTHESIS_PROFILE"] = "mutants"
sys.path.insert(0, str(ROOT))

from tests import compiled_contracts  # noqa: E402

VAULT = "tests/contracts/vault/test_"
# When the nearest tests notice nothing: both models, and then everybody who attacks.
LAST = ("tests/agreement", "tests/invariants/test_invariants_hostile")


def near(*names: str) -> list[str]:
    return [*(VAULT + name for name in names), *LAST]


# group -> its files, and its tests in the order in which they are tried
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "MarginVault": (
        [
            "MarginVault",
            *[
                "modules/tables",
                "modules/fills",
                "modules/orders",
                "modules/ledger",
                "modules/units",
                "modules/codec",
                "modules/eip712",
            ],
            *["modules/listing", "modules/closing", "modules/builder_fees"],
        ],
        near(
            *[
                "order_fills",
                "slots",
                "closing_check",
                "signatures",
                "settle",
                "deploy",
                "liquidation",
                "withdraw_and_pay",
                "inbox_and_funding",
                "fill_refusals",
                "reasons",
            ],
            *["builder_fees", "market_modes", "clamped", "model", "model_closes", "model_cash"],
        ),
    ),
    "Clerk": (
        [
            "Clerk",
            *[
                "modules/signed_actions",
                "modules/door",
                "modules/trigger_bits",
                "modules/outflow",
                "modules/row_layout",
            ],
            "modules/governance",
        ],
        near(
            *[
                "actions",
                "withdraw_and_pay",
                "inbox_and_funding",
                "transfers",
                "requests_in_batches",
                "triggers",
                "overdue",
                "forced_by_anybody",
                "outflow",
            ],
            *["write_off", "governor", "guardian", "outage", "model", "model_closes"],
        ),
    ),
    "Backstop": (
        ["Backstop", *["modules/liquidation", "modules/forced", "modules/lateness", "modules/running"]],
        near(
            *[
                "liquidation",
                "deleveraging",
                "closing_check",
                "forced_close",
                "late_batches",
                "forced_by_anybody",
                "forced_requests",
                "fill_refusals",
                "cash_settlement",
            ],
            *["outage", "model", "model_closes", "model_cash"],
        ),
    ),
    "Exit": (["Exit"], near("exit", "exit_prices", "guardian", "forced_close", "lying_reference")),
    "OrderVerifier": (
        ["OrderVerifier", "modules/order_hash"],
        near("order_batches", "signatures", "order_fills"),
    ),
    "Governor": (
        ["Governor", "modules/market_bounds", "modules/market_terms"],
        near(
            *["governor", "governor_markets", "guardian", "lying_reference"],
            *["governor_bonds", "cash_settlement"],
        ),
    ),
    "Lens": (["Lens"], near("lens", "deploy")),
    "Inbox": (
        ["Inbox"],
        [
            "tests/contracts/test_inbox",
            "tests/contracts/test_inbox_requests",
            *near("requests_in_batches", "forced_by_anybody", "forced_close", "governor_bonds", "exit"),
        ],
    ),
    "PriceOracle": (
        ["PriceOracle", "modules/medians", "modules/oracle_roles", "modules/feeds"],
        [f"tests/contracts/test_oracle{part}" for part in ("", "_funding", "_jumps", "_governor", "_ending")]
        + near("cash_settlement", "outage"),
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
CPU_LIMIT_S = 600  # of one mutant: a busy machine must not end it
TIMEOUT_S = 3_600
PYTEST = ["-x", "-q", "-p", "tests.safety.plugin", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
IMPORTED = re.compile(r"^from (?:\.|\.modules|contracts\.modules) import (\w+)$", re.MULTILINE)


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


def contracts_with(file: str) -> list[str]:
    """Names of the contracts that the file is part of."""
    paths = sorted((ROOT / "contracts").glob("*.vy"))
    return [
        path.stem for path in paths if path.relative_to(ROOT).as_posix() == file or file in imported(path)
    ]


def imported(path: Path) -> set[str]:
    """The modules that a contract imports, themselves or through others."""
    seen: set[str] = set()
    queue = [path]
    while queue:
        for name in IMPORTED.findall(queue.pop().read_text(encoding="utf-8")):
            module = ROOT / "contracts" / "modules" / f"{name}.vy"
            file = module.relative_to(ROOT).as_posix()
            if module.exists() and file not in seen:
                seen.add(file)
                queue.append(module)
    return seen


def judge(group: str, mutant: Mutant) -> dict:
    """Runs the nearest tests with the mutant in place, until one fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        run = run_python if mutant.file.endswith(".py") else run_contracts
        verdict = run(group, mutant, Path(folder))
    row = {"group": group, "name": mutant.name, "before": mutant.before, **verdict}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def run_contracts(group: str, mutant: Mutant, folder: Path) -> dict:
    """In a fork of this process, which has compiled every contract already: only what the mutant changes is compiled again."""
    said = folder / "said"
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        limit_cpu()
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        verdict = "crashed"
        try:
            verdict = try_contracts(group, mutant, folder)
        finally:
            (folder / "verdict").write_text(verdict)
            sys.stdout.flush()
            os._exit(0)
    if not ended(child):
        return {"verdict": "timeout"}
    if not (folder / "verdict").exists():
        return {"verdict": "timeout"}  # killed at its limit
    return {
        "verdict": (folder / "verdict").read_text(),
        "by": first_failure(said.read_text(errors="replace")),
    }


def limit_cpu() -> None:
    """This process and those that it starts each end after so much processor time."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))


def ended(child: int) -> bool:
    """Waits for a child; kills it, and says False, when it takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.05)
    return True


def try_contracts(group: str, mutant: Mutant, folder: Path) -> str:
    from vyper.exceptions import VyperException

    shutil.copytree(ROOT / "contracts", folder / "contracts", ignore=shutil.ignore_patterns("artifacts"))
    apply(folder, mutant)
    changed = False
    for name in contracts_with(mutant.file):
        path = folder / "contracts" / f"{name}.vy"
        # An import by the full path would find this tree's modules, not the copy's with the error in them.
        path.write_text(
            path.read_text(encoding="utf-8").replace("from contracts.", "from ."), encoding="utf-8"
        )
        try:
            code = compiled_contracts.compiled(path).compiler_data.bytecode
        except VyperException:
            return "not compiled"
        changed = changed or code != compiled_contracts.deployer(name).compiler_data.bytecode
        compiled_contracts.replaced[name] = path
    if not changed:
        return "same code"
    return "killed" if pytest.main([*PYTEST, *tests_of(group)]) else "survived"


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
            preexec_fn=limit_cpu,
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


def warm(groups: list[str]) -> None:
    """Compiles every contract, so that the forks need not; loads what the tests load."""
    if groups == ["protocol"]:
        return
    for path in sorted((ROOT / "contracts").glob("*.vy")):
        compiled_contracts.deployer(path.stem)


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
    rows = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results and given.results.exists()
        else []
    )
    if given.survivors:
        print("\n".join(told(rows)))
        return 0
    at = commit()
    done, end = {row["name"] for row in rows}, time.monotonic() + 60 * (given.minutes or 10**9)
    groups = given.group or list(GROUPS)
    samples = {group: sample(group, given.sample, given.seed) for group in groups}
    if given.again:
        names, done = {row["name"] for row in to_try_again(rows)}, set()
        samples = {group: [one for one in found if one.name in names] for group, found in samples.items()}
    warm(groups)
    # Group by group in turn, so that a run that is stopped early has seen something of each.
    for index in range(given.sample):
        for group in groups:
            if index >= len(samples[group]) or samples[group][index].name in done or time.monotonic() > end:
                continue
            row = judge(group, samples[group][index]) | {"commit": at, "seed": given.seed}
            rows.append(row)
            tell(row, given.results)
    print(json.dumps(summary(rows), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
