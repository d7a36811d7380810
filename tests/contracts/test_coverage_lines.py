"""scripts/coverage counts no line that did not run: a block's own node names the line that decides, not what lies below it."""

import sys
from pathlib import Path

import vyper.ast as vy_ast
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
    from _coverage_lines import lines_of

    tree = parse_to_ast(SOURCE)
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.If)] == [(5, 6)]
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.For)] == [(10, 10)]
    assert [lines_of(node) for node in tree.get_descendants(vy_ast.AugAssign)] == [(11, 13)]
