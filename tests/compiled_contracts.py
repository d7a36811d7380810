"""Contracts for titanoboa, compiled once a process: a compilation takes seconds, and its data are never freed."""

import gc
from functools import cache
from pathlib import Path
from typing import Any

import boa
from vyper.codegen import core

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


def evaluate(contract: Any, statement: str) -> Any:
    """Runs a statement inside of a deployed contract. It is compiled together with the contract's own code, and the compiler
    counts its labels from nought for each source file: from here on it counts where that code has none."""
    core._label = FREE_LABELS
    return contract.eval(statement)
