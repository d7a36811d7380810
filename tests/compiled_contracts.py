"""Contracts for titanoboa, compiled once a process: a compilation takes seconds, and its data are never freed."""

import gc
from functools import cache
from pathlib import Path
from typing import Any

import boa
from boa.contracts.vyper.vyper_contract import VyperContract
from vyper.codegen import core
from vyper.compiler.phases import CompilerData
from vyper.compiler.settings import anchor_settings
from vyper.ir import compile_ir

from sequencer.garbage import without_collector
from tests import fast_evm

fast_evm.use()

CONTRACTS = Path(__file__).resolve().parent.parent / "contracts"

FREE_LABELS = 1_000_000  # more than any contract has
# Contract name -> a source file that stands in for ours: tests and mutants plant their errors so.
replaced: dict[str, Path] = {}


def deployer(name: str, *mocks: Path) -> Any:
    """The contract of this name in contracts/, else in one of the folders of mocks; its `deploy` makes one."""
    if name in replaced:
        return compiled(replaced[name])
    return compiled(next(path for folder in (CONTRACTS, *mocks) if (path := folder / f"{name}.vy").exists()))


@cache
def compiled(path: Path) -> Any:
    """A source file, by its absolute path. The collector rests meanwhile, which saves a quarter of the time; what the
    compiler left behind is taken out of its rounds, which would otherwise hold up every test that runs a sequencer here."""
    with without_collector():
        contract = boa.load_partial(str(path))
        contract.compiler_data.bytecode  # noqa: B018 (compiled when it is asked for)
    gc.freeze()
    return contract


def deployment_source_map(data: CompilerData) -> Any:
    """Where the lines of a constructor lie in its code. titanoboa assembles the contract for that each time it is deployed,
    which would be a third of what such tests take, though it comes to the same each time."""
    if "deployment_source_map" not in vars(data):
        with anchor_settings(data.settings):
            _, vars(data)["deployment_source_map"] = compile_ir.assembly_to_evm(data.assembly)
    return vars(data)["deployment_source_map"]


VyperContract._deployment_source_map = property(lambda self: deployment_source_map(self.compiler_data))


def evaluate(contract: Any, statement: str) -> Any:
    """Runs a statement inside of a deployed contract. It is compiled together with the contract's own code, and the compiler
    counts its labels from nought for each source file: from here on it counts where that code has none."""
    core._label = FREE_LABELS
    return contract.eval(statement)
