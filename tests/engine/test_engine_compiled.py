"""The compiled engine is the same engine: same state hashes, same events, and used only for the sources it was made of.

Runs where the engine is compiled: `EVERMARK_PURE=0 scripts/test tests/engine`, as CI does after the plain tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sequencer.engine.apply
from evermark import compiled
from evermark.compile_engine import modules

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PURE = os.environ.get("EVERMARK_PURE") == "1"

needs_build = pytest.mark.skipif(
    PURE, reason="plain Python was asked for; EVERMARK_PURE=0 runs this compiled"
)


def run(code: str, *arguments: str, pure: str) -> str:
    environment = {**os.environ, "EVERMARK_PURE": pure, "PYTHONPATH": f"{ROOT}:{HERE}"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout


def test_these_tests_run_the_engine_that_was_asked_for():
    """EVERMARK_PURE=1 is plain Python; otherwise a run that claims to test the compiled engine has one."""
    built = sequencer.engine.apply.__file__.endswith(".so")
    assert built is not PURE


STREAM = """
import sys
from hashlib import sha256

import msgspec

from seeded_stream import stream
from sequencer.engine import apply as door
from sequencer.engine.snapshot import state_hash
from sequencer.engine.state import EngineState

state, told = EngineState(), sha256()
for sequence, (command, stamp_ms) in enumerate(stream(int(sys.argv[1]), 300).log, 1):
    for event in door.apply(state, command, sequence, stamp_ms):
        told.update(msgspec.json.encode(event))
    if sequence % 25 == 0:
        told.update(state_hash(state))
print(told.hexdigest(), state_hash(state).hex())
"""


@needs_build
@pytest.mark.safety("G01", "sequencer")
@pytest.mark.parametrize("seed", ["11", "12", "13"])
def test_compiled_and_plain_give_the_same_events_and_hashes(seed):
    """Every event's bytes and every 25th state hash of a seeded stream agree."""
    assert run(STREAM, seed, pure="0") == run(STREAM, seed, pure="1")


@needs_build
def test_every_module_with_rules_is_compiled():
    """Only modules that define messages or enumerations stay interpreted."""
    suffix_less = {
        str(file.relative_to(compiled.build_folder())).split(".")[0]
        for file in compiled.build_folder().rglob("*.so")
        if "__mypyc" not in file.name
    }
    assert suffix_less == {str(file.relative_to(ROOT))[: -len(".py")] for file in modules()}
    assert {"sequencer/engine/matching", "evermark/protocol/margin"} <= suffix_less


def test_a_changed_source_is_never_served_by_an_old_build(tmp_path, monkeypatch):
    """The folder's name follows every source, so an edit brings plain Python back."""
    for package in compiled.PACKAGES:
        (tmp_path / package).mkdir(parents=True)
    rule = tmp_path / compiled.PACKAGES[0] / "rule.py"
    rule.write_text("LIMIT = 1\n")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    before = compiled.build_folder()
    assert compiled.build_folder() == before
    rule.write_text("LIMIT = 2\n")
    assert compiled.build_folder() != before


def test_the_finder_knows_its_build_and_nothing_else(tmp_path):
    """It answers for the modules in the folder, by their dotted names."""
    suffix = compiled.EXTENSION_SUFFIXES[0]
    file = tmp_path / "sequencer" / "engine" / ("matching" + suffix)
    file.parent.mkdir(parents=True)
    file.touch()
    finder = compiled.CompiledFinder(tmp_path)
    spec = finder.find_spec("sequencer.engine.matching")
    assert spec is not None
    assert spec.origin == str(file)
    assert finder.find_spec("sequencer.engine.risk") is None


def test_without_a_compiler_one_line_says_so(tmp_path):
    """The build is refused with what is missing, and the exit code tells it; nothing is written."""
    code = (
        "import sys; from pathlib import Path; from evermark import compile_engine as c;"
        "c.build_folder = lambda: Path(sys.argv[1]) / 'engine-0'; c.shutil.which = lambda name: None;"
        "sys.exit(0 if c.main() == 1 else 1)"
    )
    environment = {**os.environ, "EVERMARK_PURE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert "plain Python" in done.stderr
    assert "there is no C compiler" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
