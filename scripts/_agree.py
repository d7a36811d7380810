"""Runs the random streams of tests/agreement under many seeds; see scripts/agree."""

import argparse
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "scripts"),
    str(ROOT / "tests/contracts/vault"),
    str(ROOT / "tests/reference"),
]

from _report import commit, done_before, tell  # noqa: E402

from tests.agreement.streams import STREAMS  # noqa: E402


def run(stream: str, seed: int, at: str) -> dict:
    """One stream under one seed."""
    started, row = time.monotonic(), {"stream": stream, "seed": seed, "commit": at}
    try:
        seen = STREAMS[stream](seed)
    except Exception:
        traceback.print_exc()
        print(
            f"\nthey differ; repeat with: scripts/agree --stream {stream} --first {seed} --seeds 1",
            flush=True,
        )
        return row | {"agreed": False, "seconds": round(time.monotonic() - started, 1)}
    counted = {name: seen[name] for name in sorted(seen) if seen[name] and name == name.lower()}
    return row | {"agreed": True, "seconds": round(time.monotonic() - started, 1), **counted}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/agree", description=__doc__)
    parser.add_argument("--stream", choices=sorted(STREAMS), action="append", help="default: all")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=64, help="of each stream")
    parser.add_argument("--report", type=Path, help="file of JSON lines to add to")
    given = parser.parse_args()
    at, differing = commit(), 0
    skip = done_before(given.report, at, ("stream", "seed"), "agreed")
    for seed in range(given.first, given.first + given.seeds):
        for stream in given.stream or sorted(STREAMS):
            if (stream, seed) in skip:
                continue
            row = run(stream, seed, at)
            differing += not row["agreed"]
            tell(row, given.report)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
