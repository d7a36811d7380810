"""Small rooms: every source file under 400 lines, every function under 70 (40 is what the style aims at)."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A screen holds 40 lines; past 70 nobody sees a function whole. A file of 400 lines is read in one sitting.
FILE_LINES = 400
FUNCTION_LINES = 70

# Files that may be longer: path -> reason. A contract, say, whose code must share one address.
LONGER: dict[str, str] = {
    "contracts/MarginVault.vy": "external functions and events stand in the deployed contract's own file",
    "contracts/Clerk.vy": "one contract: its sections share the batch's context and the signed types of all actions",
    "contracts/Inbox.vy": "one contract: external functions for every kind of entry, over one queue",
    "sequencer/engine/events.py": "every event of the engine, for their one union",
    "contracts/PriceOracle.vy": "one contract: rounds, funding and the end of a market share quorums and a market's terms",
    "contracts/Governor.vy": "one contract: proposals, pauses and delistings share its roles and its storage",
    "tests/contracts/vault/builders.py": "one world for all vault tests: parties, rounds and the batch builder",
}

SKIPPED = {"node_modules", "build", "dist", "__pycache__"}


def sources(*suffixes: str) -> Iterator[Path]:
    """The files of these kinds, tracked or not, without environments, packages and hidden folders."""
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED and name[0] != ".")
        for name in sorted(names):
            if name.endswith(suffixes):
                yield Path(folder, name)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_are_short():
    counts = {relative(file): line_count(file) for file in sources(".py", ".vy", ".vyi")}
    long = [
        f"{path}: {count} lines"
        for path, count in counts.items()
        if count >= FILE_LINES and path not in LONGER
    ]
    assert not long, f"files of {FILE_LINES} lines and more:\n" + "\n".join(long)


def test_functions_are_short():
    long = [found for file in sources(".py") for found in long_functions(file)]
    assert not long, f"functions of {FUNCTION_LINES} lines and more:\n" + "\n".join(long)


def test_every_exception_is_still_needed():
    for path, reason in LONGER.items():
        assert reason.strip(), f"{path} is listed as longer without a reason"
        assert line_count(ROOT / path) >= FILE_LINES, f"{path} is short again: take it off the list"


def long_functions(file: Path) -> Iterator[str]:
    """Functions counted from `def` to the last line, decorators left out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count >= FUNCTION_LINES:
                yield f"{relative(file)}:{node.lineno}: {node.name} has {count} lines"
