"""The committed artifacts are what the sources compile to, and every contract can be deployed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.safety("F10", "contract")
def test_artifacts_equal_a_fresh_compile_and_fit_the_size_limit():
    """`scripts/build_contracts.py --check` names nothing: same ABI and bytecode, runtime at most 24,576 bytes."""
    done = subprocess.run(
        [sys.executable, "scripts/build_contracts.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
