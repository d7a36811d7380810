"""Runs seeds of the simulated exchange: `scripts/simulate --seeds N [--first S] [--minutes M]`, or one seed again with
`--seed S`. Prints one line a seed and JSON at the end; a failure prints the seed, the commit and the command that
replays it.
"""

import argparse
import dataclasses
import json
import logging
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import structlog

from tests.simulation.exchange import Exchange, Report
from tests.simulation.virtual_time import run_simulated

DEFAULT_MINUTES = 8
SLOW = 0.005  # share of the journal's calls, or their answers, that take up to three seconds


def simulate(seed: int, duration_s: int) -> Report:
    """One seed. Raises Violated, or whatever a bug raises."""
    rng = Random(seed)

    def latency_s() -> float:
        return rng.uniform(0.0001, 3.0 if rng.random() < SLOW else 0.01)

    with TemporaryDirectory(prefix="evermark-simulation-") as directory:
        report: Report = run_simulated(Exchange(rng, seed, duration_s, Path(directory)).run(), latency_s)
    return report


def main(arguments: list[str]) -> int:
    """Exit code 1 as soon as a seed fails."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help="simulated minutes under faults, each"
    )
    chosen = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seeds = (
        [chosen.seed] if chosen.seed is not None else list(range(chosen.first, chosen.first + chosen.seeds))
    )
    duration_s, began, reports = int(chosen.minutes * 60), time.perf_counter(), []
    for seed in seeds:
        try:
            reports.append(simulate(seed, duration_s))
        except BaseException as error:
            traceback.print_exc()
            print(f"seed {seed} at {commit()}: {type(error).__name__}: {error}", file=sys.stderr)
            print(f"again: scripts/simulate --seed {seed} --minutes {chosen.minutes:g}", file=sys.stderr)
            return 1
        print(json.dumps(dataclasses.asdict(reports[-1])), file=sys.stderr)
    seconds = time.perf_counter() - began
    print(json.dumps(summary(reports, seconds)))
    return 0


def summary(reports: list[Report], seconds: float) -> dict[str, float | int | str]:
    """Sums over all seeds, and how much faster than real time they ran."""
    names = [field.name for field in dataclasses.fields(Report) if field.name not in ("seed", "state")]
    sums = {name: sum(getattr(report, name) for report in reports) for name in names}
    return {
        "seeds": len(reports),
        "commit": commit(),
        **sums,
        "seconds": round(seconds, 1),
        "times_real_time": round(sums["simulated_s"] / seconds, 1),
    }


def commit() -> str:
    """The short hash of what runs, with a plus when files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
