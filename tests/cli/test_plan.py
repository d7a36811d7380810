"""`evermark up`: defaults and refusals, decided before anything starts."""

import socket
from pathlib import Path

import pytest

from evermark.cli import plan
from evermark.cli.errors import CliError


def test_prices_are_simulated_unless_tapes_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without EVERMARK_TAPES: sim. With it: the tape. A directory may be named instead."""
    monkeypatch.delenv(plan.TAPES_VARIABLE, raising=False)
    assert plan.choose_prices("") == ("sim", "")
    assert plan.choose_prices("live") == ("live", "")
    assert plan.choose_prices(f"tape:{tmp_path}") == ("tape", str(tmp_path))
    with pytest.raises(CliError, match="set EVERMARK_TAPES"):
        plan.choose_prices("tape")
    monkeypatch.setenv(plan.TAPES_VARIABLE, str(tmp_path))
    assert plan.choose_prices("") == ("tape", str(tmp_path))
    assert plan.choose_prices("sim") == ("sim", "")


@pytest.mark.parametrize("text", ["tap", "sim:x", "live:kraken", "tape:/no/such/place"])
def test_other_prices_are_refused(text: str) -> None:
    """The refusal names the option."""
    with pytest.raises(CliError, match="--prices"):
        plan.choose_prices(text)


def test_speed_and_start_follow_the_prices() -> None:
    """A recorded day starts at its own time and runs fast; live prices have one time and one speed."""
    assert plan.choose_speed("sim", 0.0) == 1.0
    assert plan.choose_speed("tape", 0.0) == plan.TAPE_SPEED
    assert plan.choose_speed("tape", 2.0) == 2.0
    assert plan.choose_start("tape", "") == 1_760_129_400
    assert plan.choose_start("sim", "2025-10-10T21:00:00Z") == 1_760_130_000
    with pytest.raises(CliError, match="no other speed than 1"):
        plan.choose_speed("live", 2.0)
    with pytest.raises(CliError, match="live prices start now"):
        plan.choose_start("live", "2025-10-10T21:00:00Z")
    with pytest.raises(CliError, match="1000 is not between"):
        plan.choose_speed("sim", 1000.0)


def test_a_taken_port_is_refused_with_its_option() -> None:
    """Port 0 finds a free one; one that somebody listens on is named before anything starts."""
    free = plan.choose_port(0, "--port")
    assert 0 < free < 65536
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CliError, match=f"port {port} is in use.*--port"):
            plan.choose_port(port, "--port")
