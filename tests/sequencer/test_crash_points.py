"""kill -9 at every write, sync and answer of a small exchange: each point is tried, none is left to luck."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fast_directory import fast_directory

RUNS = Path(__file__).with_name("crash_runs.py")
PLACES = {
    "journal: transaction begun",
    "journal: records written",
    "journal: committed",
    "journal: epoch written",
    "journal: epoch committed",
    "pipeline: durable",
    "pipeline: applied",
    "pipeline: acknowledged",
    "history: rows written",
    "history: committed",
    "snapshot: draft opened",
    "snapshot: written",
    "snapshot: on the disk",
    "snapshot: named",
    "snapshot: older one removed",
}


@pytest.mark.safety("G02", "sequencer")
@pytest.mark.safety("G08", "sequencer")
def test_kill_at_every_point_loses_nothing_acknowledged() -> None:
    """Every acknowledged order is in the journal once, a start finds the state of a full replay, and trading goes on."""
    with fast_directory() as directory:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, RUNS, directory], env=environment, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout.splitlines()[-1])) == PLACES
