"""The symbolic checks run outside of CI; what they check must at least be there: each harness compiles against the modules."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "_symbolic.py"
spec = importlib.util.spec_from_file_location("symbolic_layout", SCRIPT)
layout = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layout)


@pytest.mark.parametrize("path", sorted(layout.HARNESSES.glob("*.vy")), ids=lambda path: path.stem)
def test_a_harness_compiles_and_has_checks(path):
    names = layout.artifact(path)["methodIdentifiers"]
    assert names
    assert all(name.startswith("check_") for name in names)


def test_the_harnesses_that_go_to_the_integer_solver_exist():
    assert {path.stem for path in layout.HARNESSES.glob("*.vy")} >= layout.AS_INTEGERS
