"""Uses the compiled engine where there is one: the same sources, built by mypyc into build/engine-TAG.

The tag hashes every source that goes in, so that a build is used for exactly the files it was made from, and an
edit brings plain Python back at once. `EVERMARK_PURE=1` keeps plain Python in any case.
"""

import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("evermark/protocol", "sequencer/engine")
FORMAT = b"1"  # raise it when the way of building changes


class CompiledFinder(MetaPathFinder):
    """Finds the modules of one build, and nothing else."""

    def __init__(self, build: Path) -> None:
        suffix = EXTENSION_SUFFIXES[0]
        self.files = {
            ".".join(file.relative_to(build).parts)[: -len(suffix)]: file
            for file in build.rglob("*" + suffix)
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The extension module of that name, None when the build has none."""
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def sources() -> list[Path]:
    """Every file that a build depends on, in a fixed order."""
    return [file for package in PACKAGES for file in sorted((ROOT / package).glob("*.py"))]


def build_folder() -> Path:
    """Where the build of the present sources for this interpreter lies, or would lie."""
    digest = sha256(FORMAT + EXTENSION_SUFFIXES[0].encode() + sys.version.encode())
    for file in sources():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return ROOT / "build" / f"engine-{digest.hexdigest()[:16]}"


def install() -> None:
    """Let imports find the build of the present sources. Nothing happens without one."""
    if os.environ.get("EVERMARK_PURE") == "1" or not (ROOT / "build").is_dir():
        return
    folder = build_folder()
    if folder.is_dir():
        sys.meta_path.insert(0, CompiledFinder(folder))
