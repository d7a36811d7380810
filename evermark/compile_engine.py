"""`python -m evermark.compile_engine`: builds the engine and the protocol's rules with mypyc, from the sources as they are.

Says nothing when there is nothing to do. Whatever stands in the way is named in one line, and the exit code is 1;
the exchange then runs as plain Python. A build that failed is not tried again until a source changes.
"""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from evermark.compiled import ROOT, build_folder, sources

# mypyc cannot make native classes of these; modules that define some stay interpreted.
INTERPRETED_BASES = ("msgspec.Struct", "enum.", "Command", "Event")
KEPT_BUILDS = 2  # the newest ones; a process that still runs may use the one before


def main() -> int:
    """Build once; 0 when a build of the present sources is there at the end."""
    if os.environ.get("EVERMARK_PURE") == "1":
        return 0
    folder = build_folder()
    failed = folder.with_suffix(".failed")
    if folder.is_dir():
        return 0
    problem = _missing() or (failed.read_text() if failed.is_file() else None)
    if problem is None:
        _say("compiling the engine (once for each version of it; half a minute)")
        folder.parent.mkdir(exist_ok=True)
        problem = _build(folder)
        if problem is not None:
            failed.write_text(problem)
    if problem is not None:
        _say(f"the engine runs as plain Python, several times slower: {problem}")
        return 1
    return 0


def modules() -> list[Path]:
    """The sources that are compiled: all but those that define messages or enumerations."""
    return [file for file in sources() if file.name != "__init__.py" and not _defines_messages(file)]


def _defines_messages(file: Path) -> bool:
    bases = (
        ast.unparse(base)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    )
    return any(base.startswith(INTERPRETED_BASES) for base in bases)


def _missing() -> str | None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}; on Debian: gcc)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return "Python's C headers are not installed (Python.h; on Debian: python3-dev)"
    return None if find_spec("mypyc") else "mypyc is not installed"


def _build(folder: Path) -> str | None:
    """Compile beside the final place and move the result there; what went wrong, or None."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".engine-") as work:
        log = folder.with_suffix(".log")
        with log.open("w") as out:
            names = [str(file.relative_to(ROOT)) for file in modules()]
            command = [sys.executable, "-c", _BUILD, work, *names]
            environment = {**os.environ, "EVERMARK_PURE": "1"}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=out, check=False)
        if done.returncode != 0:
            return f"compiling it failed, see {log.relative_to(ROOT)}"
        try:
            Path(work, "lib").rename(folder)
        except OSError:  # another process was faster
            return None if folder.is_dir() else f"{folder.relative_to(ROOT)} cannot be written"
    log.unlink()
    builds = sorted(folder.parent.glob("engine-*"), key=lambda path: path.stat().st_mtime)
    for old in [path for path in builds if path.is_dir()][:-KEPT_BUILDS]:
        shutil.rmtree(old, ignore_errors=True)
    return None


# Runs in its own process: mypyc and setuptools write to the terminal and change global state.
_BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

work, *files = sys.argv[1:]
options = ["--cache-dir", work + "/cache", *files]
extensions = mypycify(options, opt_level="3", debug_level="0", target_dir=work + "/c")
command = build_ext(Distribution({"name": "evermark-engine", "ext_modules": extensions}))
command.build_lib, command.build_temp = work + "/lib", work + "/objects"
command.ensure_finalized()
command.run()
"""


def _say(text: str) -> None:
    print(f"evermark: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
