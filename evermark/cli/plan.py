"""What `evermark up` was asked for, with every default decided and everything refused that cannot work."""

import os
import socket
import time
from pathlib import Path

import msgspec

from evermark.cli.errors import CliError
from evermark.cli.rundir import RunFacts
from evermark.cli.units import format_time, parse_time

TAPES_VARIABLE = "EVERMARK_TAPES"
# Ten minutes before the fall of the recorded day; the first funding hour ends on the way.
TAPE_START = "2025-10-10T20:50:00Z"
TAPE_SPEED = 5.0
MOST_SPEED = 20.0  # a settled price may be 120 s old: at this speed the chain has six wall seconds to settle
SIM_SEED = 20_251_010


class UpPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Ports are decided: nobody listens on them."""

    prices: str  # sim, tape or live
    tapes: str  # directory, for prices "tape"
    speed: float
    start_s: int  # chain time of a fresh chain's first block
    seed: int
    state: Path | None
    gateway_port: int
    chain_port: int
    actors: bool
    synthetic: bool
    seconds: float  # 0: until stopped
    as_json: bool
    min_fills: int

    @property
    def gateway_url(self) -> str:
        """Where the gateway will listen."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def rpc_url(self) -> str:
        """Where the chain will listen."""
        return f"http://127.0.0.1:{self.chain_port}"


def resume(plan: UpPlan, facts: RunFacts, start: str) -> UpPlan:
    """The plan to go on with an earlier run: its prices must be the same, its seed and start are."""
    if plan.prices != facts.prices:
        raise CliError(f"--state: this exchange runs on {facts.prices} prices, not on {plan.prices}")
    if start:
        raise CliError(f"--start: this exchange began at {format_time(facts.start_s)}")
    return msgspec.structs.replace(plan, seed=facts.seed, start_s=facts.start_s)


def choose_prices(text: str) -> tuple[str, str]:
    """`sim`, `live`, `tape`, `tape:DIR` or nothing -> (kind, directory of tapes)."""
    recorded = os.environ.get(TAPES_VARIABLE, "")
    kind, _, directory = (text or ("tape" if recorded else "sim")).partition(":")
    if kind not in ("sim", "tape", "live") or (directory and kind != "tape"):
        raise CliError(f"--prices: {text!r} is not sim, live, tape or tape:DIR")
    if kind != "tape":
        return kind, ""
    directory = directory or recorded
    if not directory:
        raise CliError(f"--prices tape: name a directory, tape:DIR, or set {TAPES_VARIABLE}")
    if not Path(directory).is_dir():
        raise CliError(f"--prices tape: no directory {directory}")
    return kind, str(Path(directory).resolve())


def choose_speed(kind: str, speed: float) -> float:
    """The asked speed within bounds; by default recorded days run fast, all else as the machine's clock."""
    chosen = speed or (TAPE_SPEED if kind == "tape" else 1.0)
    if not 0.1 <= chosen <= MOST_SPEED:
        raise CliError(f"--speed: {chosen:g} is not between 0.1 and {MOST_SPEED:g}")
    if kind == "live" and chosen != 1.0:
        raise CliError("--speed: live prices have no other speed than 1")
    return chosen


def choose_start(kind: str, start: str) -> int:
    """Chain time of the first block: as asked, or the recorded day's, or now."""
    if start and kind == "live":
        raise CliError("--start: live prices start now")
    if start or kind == "tape":
        return parse_time(start or TAPE_START)
    return int(time.time())


def choose_port(port: int, option: str) -> int:
    """A free port for 0, else `port` itself; refuses one that is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise CliError(
                f"port {port} is in use, perhaps by another exchange; choose with {option}"
            ) from None
        return int(probe.getsockname()[1])
