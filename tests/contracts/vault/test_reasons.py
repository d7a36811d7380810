"""The texts of the vault's refusals: each number has its own, which is what the source calls it."""

import re

import boa
import pytest
from builders import CONTRACTS, deployer

# What a reason's text is, where it is not its name in the source.
SAID_OTHERWISE = {
    "NOT_THE_FUNDS_PAIR": "not the fund's pair",
    "POST_ONLY_WOULD_TAKE": "post-only would take",
    "NOT_THE_BUILDER": "not the builder's account",
    "TOO_LATE_FOR_IT": "late, so only order fills",
    "MARKET_CLOSED": "market closed to trades",
}


@pytest.fixture(scope="module")
def reasons():
    with boa.env.anchor():
        yield deployer("Reasons").deploy()


def numbers() -> dict[str, int]:
    source = (CONTRACTS / "modules" / "reasons.vy").read_text(encoding="utf-8")
    return {
        name: int(code)
        for name, code in re.findall(r"^([A-Z_0-9]+): constant\(uint256\) = (\d+)", source, re.M)
    }


def test_every_number_has_its_text(reasons) -> None:
    """Also the ones that other contracts spell themselves, so that a number never shows as another's text."""
    known = numbers()
    assert len(known) > 60
    for name, code in known.items():
        if name == "PAYABLE_AT":
            continue
        text = SAID_OTHERWISE.get(name, name.lower().replace("_", " "))
        assert reasons.reason(code) == f"vault: {text}"


def test_a_time_is_part_of_its_reason(reasons) -> None:
    """The claim's due date, in seconds."""
    assert reasons.reason(61 | 1_800_000_123 << 8) == "vault: payable at 1800000123"
    assert reasons.reason(61) == "vault: payable at 0"


def test_a_number_that_is_nobodys_is_still_a_refusal(reasons) -> None:
    """Nothing reverts without a reason."""
    for code in (0, 64, 69, 71, 255, 2**256 - 1 - 255):
        assert reasons.reason(code) == "vault: refused"
