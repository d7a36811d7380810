# pragma version 0.4.3
"""
@title outflow
@license Apache-2.0
@notice How fast withdrawals become payable; the mirror of `evermark/protocol/outflow.py`. Nothing is refused: what is above a limit
        is payable later.
@dev Two levels rise with each claim and drain by one limit an hour, or a day. The limits are constants, so nobody can raise them.
"""

from . import door
from . import ledger
from . import units

HOUR_SHARE: constant(uint256) = 100  # of all deposits a hundredth may leave within an hour
DAY_SHARE: constant(uint256) = 10  # and a tenth within a day
HOUR_FLOOR: constant(uint256) = 100_000 * units.USDC  # whatever the deposits are
DAY_FLOOR: constant(uint256) = 1_000_000 * units.USDC
HOUR_S: constant(uint256) = 3_600
MAX_DELAY_S: constant(uint256) = 604_800  # seven days

# Word OUTFLOW: time of the newest claim u40, the hour's level u104, the day's level u104.
HOUR_LEVEL: constant(uint256) = 40
DAY_LEVEL: constant(uint256) = 144


@internal
def payable_at(vault: door.IVault, amount: uint256, now: uint256) -> uint256:
    """
    @dev Counts a claim of `amount`, which leaves the deposits. Returns from when on it is payable, 0 for at once.
    """
    deposits: int256 = units.signed(door.word(vault, ledger.DEPOSITS), 128)
    word: uint256 = door.word(vault, ledger.OUTFLOW)
    at: uint256 = max(now, word & units.U40)
    elapsed: uint256 = at - (word & units.U40)
    hour: uint256 = 0
    day: uint256 = 0
    wait_hour_s: uint256 = 0
    wait_day_s: uint256 = 0
    whole: uint256 = convert(min(max(deposits, 0), units.MAX_COLLATERAL), uint256)
    hour, wait_hour_s = self._flow(
        word >> HOUR_LEVEL & units.U104, max(HOUR_FLOOR, whole // HOUR_SHARE), elapsed, HOUR_S, amount
    )
    day, wait_day_s = self._flow(
        word >> DAY_LEVEL, max(DAY_FLOOR, whole // DAY_SHARE), elapsed, units.DAY_S, amount
    )
    door.write(vault, ledger.DEPOSITS, units.bits(deposits - convert(amount, int256)) & units.U128)
    door.write(vault, ledger.OUTFLOW, at | hour << HOUR_LEVEL | day << DAY_LEVEL)
    wait_s: uint256 = max(wait_hour_s, wait_day_s)
    if wait_s == 0:
        return 0
    return now + wait_s


@pure
@internal
def _flow(level: uint256, limit: uint256, elapsed: uint256, period_s: uint256, amount: uint256) -> (uint256, uint256):
    """
    @dev The level after a claim, at most what drains within seven days, and how long until it has drained to the limit.
    """
    kept: uint256 = level - min(level, elapsed * limit // period_s)
    after: uint256 = min(kept + amount, limit + limit * MAX_DELAY_S // period_s)
    if after <= limit:
        return after, 0
    return after, ((after - limit) * period_s + limit - 1) // limit
