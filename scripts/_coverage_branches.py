"""Branches of Vyper contracts, from the program counters that titanoboa keeps: of every `if`, `and` and `or` each jump must have
been taken and not taken, and every `assert` must have failed once (that it also passed shows in the lines behind it).

A jump belongs to the syntax node that the compiler's source map names at its JUMPI. The checks that the compiler adds (bounds,
overflow, calldata) are no branches of the source and are left out, as are loops. Lines that no code belongs to (constants,
variables that begin as zero, a bare return) are told too: they are no gaps.
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import vyper.ast as vy_ast

ROOT = Path(__file__).resolve().parents[1]
JUMPI, PUSH1, PUSH32 = 0x57, 0x60, 0x7F
TAKEN, NOT_TAKEN, FAILED = "jumped", "went on", "failed"

# (file, line, column, kind, number of the jump in its node)
Key = tuple[str, int, int, str, int]
seen: set[tuple[Key, str]] = set()
known: dict[str, dict[int, Key]] = {}  # contract -> program counter of a jump -> what it decides
asserts: dict[str, set[Key]] = {}
coded: dict[str, set[int]] = {}  # file -> lines that code belongs to


def key_of(node: Any, number: int) -> Key:
    path = Path(node.module_node.resolved_path).resolve()
    file = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
    return file, node.lineno, node.col_offset, type(node).__name__, number


def learn(name: str, compiled: Any) -> dict[int, Key]:
    """The jumps of a contract's code that an `if`, `and` or `or` of its source decides; and its assertions."""
    code, nodes = compiled.bytecode_runtime, compiled.source_map["pc_raw_ast_map"]
    for node in nodes.values():
        first, last = lines_of(node)
        coded.setdefault(key_of(node, 0)[0], set()).update(range(first, last + 1))
    jumps: dict[int, Key] = {}
    counted: dict[tuple, int] = {}
    counter = 0
    while counter < len(code):
        operation, node = code[counter], nodes.get(counter)
        if operation == JUMPI and isinstance(node, vy_ast.If | vy_ast.BoolOp | vy_ast.IfExp):
            first = key_of(node, 0)
            counted[first] = counted.get(first, -1) + 1
            jumps[counter] = key_of(node, counted[first])
        counter += 1 + (operation - PUSH1 + 1 if PUSH1 <= operation <= PUSH32 else 0)
    known[name] = jumps
    asserts[name] = {key_of(at, 0) for node in nodes.values() if (at := assertion(node)) is not None}
    return jumps


def assertion(node: Any) -> Any | None:
    """The assertion with a reason that a node is, or is part of."""
    at = node if isinstance(node, vy_ast.Assert) else node.get_ancestor(vy_ast.Assert)
    return at if at is not None and at.msg is not None else None


def record(computation: Any, contract: Any) -> None:
    """What one call decided, without the calls that it made."""
    compiled = getattr(contract, "compiler_data", None)
    if compiled is None:
        return
    name = str(compiled.contract_path)
    jumps = known[name] if name in known else learn(name, compiled)
    trace = computation.code._trace
    for at, then in itertools.pairwise(trace):
        if at in jumps:
            seen.add((jumps[at], NOT_TAKEN if then == at + 1 else TAKEN))
    if computation.is_error:
        nodes = compiled.source_map["pc_raw_ast_map"]
        last = next((nodes[at] for at in reversed(trace) if at in nodes), None)
        failed = assertion(last) if last is not None else None
        if failed is not None:
            seen.add((key_of(failed, 0), FAILED))


def gaps() -> tuple[list[dict[str, Any]], int]:
    """Every way that a decision of the contracts that ran never went, and how many ways there are."""
    wanted = {(key, way) for jumps in known.values() for key in jumps.values() for way in (TAKEN, NOT_TAKEN)}
    wanted |= {(key, FAILED) for keys in asserts.values() for key in keys}
    wanted = {
        (key, way) for key, way in wanted if key[0].startswith("contracts/")
    }  # not those that a test planted
    missing = sorted(wanted - seen)
    return [
        {"file": key[0], "line": key[1], "kind": key[3], "jump": key[4], "never": way} for key, way in missing
    ], len(wanted)


def lines_of(node: Any) -> tuple[int, int]:
    """First and last line of what ran when a node ran; of a block only the line that decides."""
    if isinstance(node, vy_ast.If):
        return node.lineno, node.test.end_lineno
    if isinstance(node, vy_ast.For | vy_ast.FunctionDef):
        return node.lineno, node.lineno
    return node.lineno, node.end_lineno or node.lineno


def install(environment: type) -> None:
    """Has titanoboa's environment tell of every call, and writes what was seen when the process ends."""
    lines_too = environment._trace_computation

    def trace(self: Any, computation: Any, contract: Any = None) -> None:
        record(computation, contract)
        lines_too(self, computation, contract)

    environment._trace_computation = trace


def save() -> None:
    """Writes the file that EVERMARK_BRANCHES names."""
    if not known:
        return  # a command of coverage.py that runs no test
    missing, wanted = gaps()
    lines = {file: sorted(numbers) for file, numbers in coded.items()}
    told = {"of": wanted, "missing": missing, "coded": lines}
    Path(os.environ["EVERMARK_BRANCHES"]).write_text(json.dumps(told))
