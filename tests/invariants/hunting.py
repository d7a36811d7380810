"""How long the attackers search, and how a failure is told so that one command repeats it.

CI searches a little and always the same; HYPOTHESIS_PROFILE=nightly runs 1,024 games of 32 steps for each attacker, during which
pytest must not lose patience (`--timeout 0`); `scripts/hunt` searches under seeds that it names, and shrinks what it finds.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings

NIGHTLY_RUNS, NIGHTLY_DEPTH = 1_024, 32
CI_RUNS, CI_DEPTH = 16, 32
IS_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def limits(runs: int, depth: int, shrinks: bool = False, **more: Any) -> settings:
    """No deadline: a step's time says nothing on a shared machine. Shrinking takes minutes: only where somebody waits for it."""
    phases = [Phase.explicit, Phase.generate] + ([Phase.shrink] if shrinks else [])
    return settings(
        max_examples=runs,
        stateful_step_count=depth,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def case(machine: Any, runs: int = CI_RUNS) -> Any:
    """The machine as a test of pytest; `runs` in CI."""
    test = machine.TestCase
    if IS_NIGHTLY:
        test.settings = limits(NIGHTLY_RUNS, NIGHTLY_DEPTH)
    else:
        test.settings = limits(runs, CI_DEPTH, derandomize=True)
    return test


def machines() -> dict[str, Any]:
    """Every attacker by name."""
    from hostile_governor import HostileGovernor
    from hostile_group import ManyAccounts
    from hostile_keepers import HostileKeepers
    from hostile_machines import HostileSequencer, HostileToken, RacingOwner

    found = (HostileSequencer, HostileKeepers, HostileGovernor, ManyAccounts, RacingOwner, HostileToken)
    return {machine.__name__: machine for machine in found}
