"""Runs the attackers of tests/invariants outside of pytest, group by group; see scripts/hunt."""

import argparse
import collections
import random
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/contracts/vault"), str(ROOT / "tests/invariants")]

import hypothesis  # noqa: E402
from _report import commit, done_before, tell  # noqa: E402
from hunting import NIGHTLY_DEPTH, NIGHTLY_RUNS, limits, machines  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402

GROUP = 32  # games under one seed: short enough to repeat at once


def hunt(actor: str, machine: type, seed: int, runs: int, depth: int, at: str) -> dict:
    """One group of games under one seed. Prints what was found and how it is repeated."""
    counts: collections.Counter = collections.Counter()
    machine.tally = counts
    settings = limits(runs, depth, shrinks=True)
    started, passed = time.monotonic(), True
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        passed = False
        traceback.print_exc()
        print(
            f"\nfound by {actor}; repeat with: scripts/hunt --seed {seed} --actor {actor} --runs {runs} --depth {depth}"
        )
    row = {"actor": actor, "seed": seed, "runs": runs, "depth": depth, "passed": passed, "commit": at}
    row |= {"games": counts.pop("games", 0), "steps": counts.pop("steps", 0)}
    row |= {
        "seconds": round(time.monotonic() - started, 1),
        "settled": counts["settled"],
        "refused": counts["refused"],
    }
    return row


def main() -> int:
    actors = machines()
    parser = argparse.ArgumentParser(prog="scripts/hunt", description=__doc__)
    parser.add_argument("--actor", choices=sorted(actors), action="append", help="attacker; default: all")
    parser.add_argument("--seed", type=int, help="seed of the first group; default: any")
    parser.add_argument("--runs", type=int, default=NIGHTLY_RUNS, help="games for each attacker")
    parser.add_argument("--depth", type=int, default=NIGHTLY_DEPTH, help="steps of a game")
    parser.add_argument("--report", type=Path, help="file of JSON lines to add to")
    given = parser.parse_args()
    first = given.seed if given.seed is not None else random.SystemRandom().randrange(2**32)
    at, found = commit(), 0
    skip = done_before(given.report, at, ("actor", "seed", "runs", "depth"), "passed")
    for group in range(0, given.runs, GROUP):
        for actor in given.actor or sorted(actors):
            runs = min(GROUP, given.runs - group)
            seed = first + group // GROUP
            if (actor, seed, runs, given.depth) in skip:
                continue
            row = hunt(actor, actors[actor], seed, runs, given.depth, at)
            found += not row["passed"]
            tell(row, given.report)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
