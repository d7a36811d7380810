"""Invariants 1 to 4, 9 and 10 under attack: by sequencer, keeper, governor, many accounts, a racing owner, the token."""

import hunting
import pytest
from hostile_governor import HostileGovernor
from hostile_group import ManyAccounts
from hostile_keepers import HostileKeepers
from hostile_machines import HostileSequencer, HostileToken, RacingOwner

TestHostileSequencer = hunting.case(HostileSequencer, runs=10)
for _id in ("F02", "B26", "D05", "D07"):
    TestHostileSequencer = pytest.mark.safety(_id, "contract")(TestHostileSequencer)

TestHostileKeepers = pytest.mark.safety("A03", "contract")(hunting.case(HostileKeepers))

TestManyAccounts = pytest.mark.safety("B10", "contract")(hunting.case(ManyAccounts, runs=3))

TestRacingOwner = pytest.mark.safety("E16", "contract")(hunting.case(RacingOwner))

TestHostileToken = hunting.case(HostileToken)
for _id in ("E14", "E15", "E17"):
    TestHostileToken = pytest.mark.safety(_id, "contract")(TestHostileToken)

TestHostileGovernor = hunting.case(HostileGovernor, runs=2)
for _id in ("F01", "F03", "F04"):
    TestHostileGovernor = pytest.mark.safety(_id, "contract")(TestHostileGovernor)
