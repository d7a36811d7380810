"""Gas of settlement against the committed snapshot. Gas is deterministic, so a change is either meant, and then
`scripts/bench gas --write` renews the snapshot, or a regression."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = json.loads((ROOT / "tests" / "contracts" / "gas_snapshot.json").read_text())
CASES = ("M1", "M2", "M3", "M4", "M5", "M6")
# Addresses of a deployment decide a few bytes of each signature, and a zero byte costs 12 gas less.
TOLERANCE = 0.002


def test_snapshot_names_every_case_and_contract() -> None:
    """Six cases with gas and bytes a fill, and a deployed size below Ethereum's limit for each contract."""
    assert set(SNAPSHOT) == {*CASES, "code_size"}
    for case in CASES:
        assert set(SNAPSHOT[case]) == {"gas_per_fill", "bytes_per_fill"}
    assert all(size <= 24_576 for size in SNAPSHOT["code_size"].values())


def test_calldata_of_a_busy_batch_is_small() -> None:
    """At most 115 bytes a fill in M1."""
    assert SNAPSHOT["M1"]["bytes_per_fill"] <= 115


@pytest.mark.parametrize("case", ["M4", "M5"])
def test_gas_is_what_the_snapshot_says(case: str) -> None:
    """Measured again in a process of its own: sweeps and a single fill, which together run every line of the hot path."""
    command = [sys.executable, str(ROOT / "scripts" / "benches" / "gas.py"), case]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[case]
    expected = SNAPSHOT[case]["gas_per_fill"]
    assert measured["gas_per_fill"] == pytest.approx(expected, rel=TOLERANCE), "see scripts/bench gas --write"
    assert measured["bytes_per_fill"] == pytest.approx(SNAPSHOT[case]["bytes_per_fill"], rel=TOLERANCE)
