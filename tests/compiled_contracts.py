"""Contracts for titanoboa, compiled once a process: a compilation takes seconds, and its data are never freed."""

import gc
from functools import cache
from pathlib import Path
from typing import Any

import boa

CONTRACTS = Path(__file__).resolve().parent.parent / "contracts"


def deployer(name: str, *mocks: Path) -> Any:
    """The contract of this name in contracts/, else in one of the folders of mocks; `deploy` makes one."""
    folders = (CONTRACTS, *mocks)
    return compiled(next(path for folder in folders if (path := folder / f"{name}.vy").exists()))


@cache
def compiled(path: Path) -> Any:
    """A source file, by its absolute path. What the compiler left behind is taken out of the collector's rounds, which
    would otherwise hold up every test that runs a sequencer in this process."""
    contract = boa.load_partial(str(path))
    gc.freeze()
    return contract
