"""Every place where a source file, Vyper or Python, can be mutated; found by tokens, so that strings and comments stay whole."""

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

# operator name -> what becomes of a token
SWAPS = {
    "arithmetic": {"+": "-", "-": "+", "*": "//", "//": "*"},
    "comparison": {"<": ">=", ">": "<=", "<=": ">", ">=": "<", "==": "!=", "!=": "=="},
    "boundary": {"<": "<=", ">": ">=", "<=": "<", ">=": ">"},
    "bits": {">>": "<<", "<<": ">>", "&": "|", "|": "&"},
    "logic": {"and": "or", "or": "and", "True": "False", "False": "True"},
    "named arithmetic": {
        "unsafe_add": "unsafe_sub",
        "unsafe_sub": "unsafe_add",
        "unsafe_mul": "unsafe_div",
        "min": "max",
        "max": "min",
        "floor_div": "ceil_div",
        "ceil_div": "floor_div",
        "mul_div_down": "mul_div_up",
        "mul_div_up": "mul_div_down",
    },
}
CHECK = re.compile(r"^(assert |raise |(reasons|units)\.fail\(|self\._check|self\.check|extcall |self\._only)")
# What is no code that runs: declarations of types, imports, pragmas, sizes of arrays and bounds of loops.
SKIPPED = re.compile(
    r"^(#|import |from |implements|uses:|initializes|event |struct |interface |@|def |class |\w+: indexed)"
)


@dataclass(frozen=True)
class Mutant:
    """One change of one line."""

    file: str
    line: int
    column: int
    operator: str
    before: str  # the line as it was, without its indentation
    after: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}:{self.column}:{self.operator}:{self.after}"


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    text = (root / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    found: list[Mutant] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.OP, tokenize.NAME, tokenize.NUMBER):
            continue
        row, column = token.start
        line = lines[row - 1]
        if SKIPPED.match(line.strip()) or in_type(line, column):
            continue
        for operator, after in replacements(token.string, token.type):
            changed = line[:column] + after + line[column + len(token.string) :]
            found.append(Mutant(file, row, column, operator, line.strip(), changed.strip()))
    for row, line in enumerate(lines, 1):
        if CHECK.match(line.strip()) and balanced(line):
            found.append(Mutant(file, row, 0, "removed check", line.strip(), "pass"))
    return found


def replacements(token: str, kind: int) -> list[tuple[str, str]]:
    """(operator, new token) for every operator that knows the token."""
    found = [(operator, swaps[token]) for operator, swaps in SWAPS.items() if token in swaps]
    if kind == tokenize.NUMBER and re.fullmatch(r"[0-9_]+", token):
        number = int(token.replace("_", ""))
        found += [("constant", str(number + 1))] + ([("constant", str(number - 1))] if number else [])
    return found


def in_type(line: str, column: int) -> bool:
    """Whether a place lies in square brackets of a type, in a loop's bound, or before the colon of an annotation."""
    before = line[:column]
    opened = before.rfind("[")
    in_brackets = opened > before.rfind("]") and bool(
        re.search(r"(DynArray|String|Bytes|int256|HashMap|->)$", before[:opened])
    )
    declared = re.match(r"^\s*[\w.]+: [^=]*$", before)  # a variable's type
    return in_brackets or bool(declared) or bool(re.search(r"bound=[\w.]*$", before)) or "->" in before


def balanced(line: str) -> bool:
    return line.count("(") == line.count(")") and not line.rstrip().endswith(("\\", ","))


def apply(root: Path, mutant: Mutant) -> None:
    """Writes the mutant over the file of a copied tree."""
    path = root / mutant.file
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    line = lines[mutant.line - 1]
    indent = line[: len(line) - len(line.lstrip())]
    assert line.strip() == mutant.before, "the file has changed since"
    lines[mutant.line - 1] = indent + mutant.after + "\n"
    path.write_text("".join(lines), encoding="utf-8")
