"""The import law, the purity of the engine and the protocol, and the text that no committed file may hold.

Every rule reads source code with `ast`; nothing of ours is imported.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("evermark", "sequencer", "keeper")

# Clocks, randomness, I/O and concurrency: with any of these a replay could differ from the first run.
IMPURE_MODULES = {
    "asyncio",
    "concurrent",
    "datetime",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
}
INEXACT_MODULES = {"cmath", "decimal", "fractions", "random", "statistics", "time"}
# Built-in functions that reach outside, or whose answers differ between two runs.
IMPURE_CALLS = {"open", "print", "input", "hash", "id", "exec", "eval", "__import__"}

# Files of evermark/protocol that may break a purity rule: path -> reason. The engine has no such list.
PROTOCOL_EXEMPT: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute: `from a import b` gives `a.b`, as `b` may be a module."""

    importer: str
    name: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.name}"


def test_protocol_imports_nothing_of_ours():
    """`evermark.protocol` knows only itself: everybody can speak the language without the house."""
    forbid("evermark.protocol", lambda name: is_ours(name) and not within(name, "evermark.protocol"))


def test_engine_imports_only_the_protocol_and_pure_modules():
    """`sequencer.engine` imports the protocol, itself, msgspec, the names of native integers, and of the standard library what is
    pure."""
    forbid("sequencer.engine", is_forbidden_in_engine)


def is_forbidden_in_engine(name: str) -> bool:
    if within(name, "evermark.protocol", "sequencer.engine", "msgspec", "mypy_extensions"):
        return False
    top = name.split(".")[0]
    return top not in sys.stdlib_module_names or top in IMPURE_MODULES | INEXACT_MODULES


@pytest.mark.parametrize("package", ["keeper", "evermark.client"])
def test_keepers_and_clients_never_import_the_sequencer(package):
    """Whoever stands outside the exchange uses what the exchange publishes."""
    forbid(package, lambda name: within(name, "sequencer"))


def test_shared_code_imports_neither_sequencer_nor_keeper():
    """Only the command line, which starts everything, knows everything."""
    allowed = "evermark.cli"
    forbid("evermark", lambda name: within(name, "sequencer", "keeper"), except_for=(allowed,))


def test_nothing_imports_a_gateway():
    """The gateway is the untrusted edge: only `sequencer.app`, which puts the parts together, may know it."""
    allowed = ("sequencer.app", "sequencer.gateway")
    for package in OURS:
        forbid(package, lambda name: within(name, "sequencer.gateway"), except_for=allowed)


def test_reference_models_import_nothing_of_ours():
    """They are the second opinion: what they share with the code they judge, they cannot judge."""
    assert list(modules("tests.reference"))
    forbid("tests.reference", is_ours)


def test_engine_is_exact_and_pure():
    """No float, no true division, no clock, no randomness, no I/O in the engine."""
    assert_pure("sequencer/engine", exempt={}, calls=IMPURE_CALLS | {"float"})


def test_protocol_is_exact():
    """The formulas that money depends on are integer arithmetic."""
    assert_pure("evermark/protocol", exempt=PROTOCOL_EXEMPT, calls={"float"})


def test_every_exemption_is_still_needed():
    for path in PROTOCOL_EXEMPT:
        assert list(impurities(ROOT / path, {"float"})), f"{path} needs no exemption any more"


def test_only_ci_names_what_lies_beside_the_repository():
    """A clone works alone; CI's script finds recorded data beside it."""
    refuse_text(re.escape("../" + "shared"), except_for=(".ci/run",))


def test_no_file_names_a_package_registry():
    """Where packages come from is each machine's own setting."""
    hosts = [
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("yarnpkg", "com"),
        ("debian", "org"), ("crates", "io"), ("golang", "org"), ("anaconda", "org"), ("rubygems", "org"),
    ]  # fmt: skip
    refuse_text("|".join(rf"\b{name}\.{domain}\b" for name, domain in hosts))


def test_no_file_names_a_path_of_one_machine():
    refuse_text(r"(?<![\w.~-])/(?:work/|root/|home/\w+/)")


# --- the rules of the rules


def test_the_rules_see_what_they_forbid(tmp_path):
    """Each way to write a forbidden import or an inexact number is recognised."""
    file = tmp_path / "bad.py"
    file.write_text(
        "from . import b\nfrom ..gateway import http as h\nimport time, os.path\n"
        "import_module('sequencer.app')\nx = 1.5\ny = 1 / 2\ny /= 3\nz = float(1)\n"
    )
    found = {i.name for i in imports_of(file, "sequencer.engine.bad")}
    assert found == {
        "sequencer.engine.b", "sequencer.gateway.http", "time", "os.path", "sequencer.app",
    }  # fmt: skip
    assert len(list(impurities(file, {"float"}))) == 5
    assert is_forbidden_in_engine("os.path")
    assert is_forbidden_in_engine("web3.Web3")
    assert not is_forbidden_in_engine("evermark.protocol.units")


# --- helpers


def forbid(package: str, is_forbidden: Callable[[str], bool], except_for: tuple[str, ...] = ()) -> None:
    """Fails on every import, in the modules of a package, of a name that is forbidden there."""
    broken = [
        str(found)
        for file, module in modules(package)
        if not within(module, *except_for)
        for found in imports_of(file, module)
        if is_forbidden(found.name)
    ]
    assert not broken, "import law broken:\n" + "\n".join(broken)


def assert_pure(folder: str, exempt: dict[str, str], calls: set[str]) -> None:
    broken = [
        found
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file.relative_to(ROOT).as_posix() not in exempt
        for found in impurities(file, calls)
    ]
    assert not broken, "not exact, or not pure:\n" + "\n".join(broken)


def impurities(file: Path, calls: set[str]) -> Iterator[str]:
    """Float literals, true divisions, calls of the given built-ins, imports of inexact modules."""
    for node in ast.walk(parse(file)):
        what = None
        match node:
            case ast.Constant(value=float() | complex()):
                what = f"float literal {node.value}"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                what = "true division; say // or mul_div_down, mul_div_up"
            case ast.Call(func=ast.Name(id=name)) if name in calls:
                what = f"{name}()"
        if what:
            yield f"{place(file, node)}: {what}"
    for found in imports_of(file, ""):
        if found.name.split(".")[0] in INEXACT_MODULES:
            yield f"{found.place}: imports {found.name}"


def modules(package: str) -> Iterator[tuple[Path, str]]:
    """The files of a package, or of a module, with their dotted names."""
    base = ROOT / package.replace(".", "/")
    for file in [base.with_suffix(".py"), *sorted(base.rglob("*.py"))]:
        if file.exists():
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield file, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path, module: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands: also in functions and under TYPE_CHECKING."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(parse(file)):
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                names = [f"{base}.{alias.name}" for alias in node.names]
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(function).split(".")[-1] in ("import_module", "__import__"):
                    names = [name]
        for name in names:
            yield Import(module, name, place(file, node))


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def place(file: Path, node: ast.AST) -> str:
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return f"{shown}:{getattr(node, 'lineno', 1)}"


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def is_ours(name: str) -> bool:
    return within(name, *OURS)


def refuse_text(pattern: str, except_for: tuple[str, ...] = ()) -> None:
    """Fails on every committed line that matches, in files of text other than the exempt ones."""
    forbidden = re.compile(pattern)
    broken = []
    for path in committed_files():
        content = (ROOT / path).read_bytes()
        if path in except_for or b"\0" in content[:8_000]:
            continue
        lines = content.decode("utf-8", "replace").splitlines()
        broken += [
            f"{path}:{n}: {match[0]}" for n, line in enumerate(lines, 1) if (match := forbidden.search(line))
        ]
    assert not broken, "text that no committed file may hold:\n" + "\n".join(broken)


def committed_files() -> list[str]:
    """What git has, or would take: tracked files and new ones that are not ignored."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git work tree: no list of committed files")
    return sorted({path for path in listed.split("\0") if path and (ROOT / path).is_file()})
