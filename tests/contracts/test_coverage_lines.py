"""scripts/coverage counts no line that did not run, and no way that a decision did not go."""

import sys
from pathlib import Path

import boa
import pytest
import vyper.ast as vy_ast
from eth_hash.auto import keccak
from vyper.ast.parse import parse_to_ast

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

SOURCE = """
@external
def f(x: uint256) -> uint256:
    total: uint256 = 0
    if (
        x > 1
    ):
        total = 1
        total = 2
    for i: uint256 in range(3):
        total += (
            i
        )
    return total
"""


def test_a_blocks_body_counts_only_when_it_ran() -> None:
    """A statement over several lines counts with all of them."""
    from _coverage_branches import lines_of

    tree = parse_to_ast(SOURCE)
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.If)] == [(5, 6)]
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.For)] == [(10, 10)]
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.AugAssign)] == [(11, 13)]


BRANCHES = """
@external
def f(x: uint256) -> uint256:
    assert x < 9, "too large"
    if x > 1 and x < 5:
        return 1
    return 0
"""


def test_each_way_of_a_decision_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call after the other: what is missing shrinks to nothing, and never without the call that goes the way."""
    import _coverage_branches as branches

    for name in ("seen", "known", "asserts"):
        monkeypatch.setattr(branches, name, type(getattr(branches, name))())
    with boa.swap_env(boa.Env()):
        path = Path(branches.ROOT) / "contracts" / "f.vy"  # where only contracts count; nothing is written
        contract = boa.loads(BRANCHES, filename=str(path))
        missing = []
        for argument in (0, 6, 3, 9):
            call = keccak(b"f(uint256)")[:4] + argument.to_bytes(32, "big")
            branches.record(boa.env.execute_code(contract.address, data=call), contract)
            missing.append(len(branches.gaps()[0]))
    ways = branches.gaps()[1]
    assert ways == 5, "the jump of `and` and that of `if`, two ways each, and the assertion"
    assert missing == sorted(missing, reverse=True)
    assert missing[-1] == 0
    assert missing[-2] == 1
