"""Outflow limits: how fast withdrawals become payable; the mirror of contracts/modules/outflow.vy.

Nothing is refused: what is above a limit is payable later. Two levels rise with each claim and drain by one limit an hour, or
a day; a claim is payable once both have drained to their limits again.
"""

from typing import Final, NamedTuple

from evermark.protocol.units import MAX_COLLATERAL, USDC, ceil_div

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
HOUR_SHARE: Final = 100  # of all deposits a hundredth may leave within an hour
DAY_SHARE: Final = 10  # and a tenth within a day
HOUR_FLOOR: Final = 100_000 * USDC  # whatever the deposits are
DAY_FLOOR: Final = 1_000_000 * USDC
MAX_DELAY_S: Final = 7 * DAY_S


class Outflow(NamedTuple):
    """Quote units of the two levels, and when the newest claim was made, in unix seconds."""

    hour: int = 0
    day: int = 0
    at: int = 0


def after_claim(outflow: Outflow, deposits: int, amount: int, now: int) -> tuple[Outflow, int]:
    """Count a claim of `amount`, made at `now` when collateral and funding pool came to `deposits`.

    Returns the new levels and from when on the claim is payable: 0 for at once.
    """
    at = max(now, outflow.at)
    whole = min(max(deposits, 0), MAX_COLLATERAL)
    hour_limit, day_limit = max(HOUR_FLOOR, whole // HOUR_SHARE), max(DAY_FLOOR, whole // DAY_SHARE)
    hour, wait_hour_s = _flow(outflow.hour, hour_limit, at - outflow.at, HOUR_S, amount)
    day, wait_day_s = _flow(outflow.day, day_limit, at - outflow.at, DAY_S, amount)
    wait_s = max(wait_hour_s, wait_day_s)
    return Outflow(hour, day, at), now + wait_s if wait_s else 0


def _flow(level: int, limit: int, elapsed_s: int, period_s: int, amount: int) -> tuple[int, int]:
    """The level after a claim, at most what drains within seven days, and how long until it has drained to the limit."""
    kept = level - min(level, elapsed_s * limit // period_s)
    after = min(kept + amount, limit + limit * MAX_DELAY_S // period_s)
    return after, max(0, ceil_div((after - limit) * period_s, limit))
