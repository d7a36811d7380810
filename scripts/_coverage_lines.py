"""coverage.py's plugin for Vyper: titanoboa's, but of an `if` and a `for` only the line that decides counts, not the block below.

titanoboa reports the range of lines of whatever syntax node ran; a block's node spans its body, so a body that never ran
would count.
"""

import atexit
import os
from types import FrameType
from typing import Any

import _coverage_branches
from boa.coverage import TitanoboaPlugin, TitanoboaTracer
from boa.environment import Env


class LineTracer(TitanoboaTracer):
    """Names the lines of one node that ran."""

    def line_number_range(self, frame: FrameType) -> tuple[int, int]:
        first, last = super().line_number_range(frame)
        if first < 0:
            return first, last
        return _coverage_branches.lines_of(frame.f_locals["node"])


class LinePlugin(TitanoboaPlugin):
    """titanoboa's plugin with the tracer above."""

    def file_tracer(self, filename: str) -> LineTracer | None:
        return LineTracer() if filename.endswith("boa/environment.py") else None


def coverage_init(registry: Any, _options: Any) -> None:
    """Called by coverage.py."""
    plugin = LinePlugin({})
    registry.add_file_tracer(plugin)
    registry.add_configurer(plugin)
    Env._coverage_enabled = True
    if "EVERMARK_BRANCHES" in os.environ:
        _coverage_branches.install(Env)
        atexit.register(_coverage_branches.save)
