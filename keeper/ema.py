"""Moving average of irregular samples in integers: num = num*exp(-t/150) + x*t, den = den*exp(-t/150) + t.

exp(-1/150) is a 24-digit constant, and exp(-t/150) its power by repeated squaring in the same fixed point;
the error stays below 1e-20 of the result. The same inputs give the same average on every machine.
"""

SCALE = 10**24
DECAY_1S = 993_355_506_255_034_415_369_414  # floor(exp(-1/150) * SCALE)
FORGOTTEN_S = 150 * 56  # exp(-56) < SCALE's last digit: nothing older is left


def decay(seconds: int) -> int:
    """exp(-seconds/150) scaled by SCALE, rounded down at each step; `seconds` >= 0."""
    if seconds > FORGOTTEN_S:
        return 0
    result, base = SCALE, DECAY_1S
    while seconds:
        if seconds & 1:
            result = result * base // SCALE
        base = base * base // SCALE
        seconds >>= 1
    return result


class Ema:
    """The average with a time constant of 150 s; a sample counts for the seconds since the one before."""

    __slots__ = ("_den", "_last_s", "_num")

    def __init__(self) -> None:
        self._num = self._den = 0
        self._last_s: int | None = None

    def add(self, value: int, now_s: int) -> None:
        """Take `value` as what held since the previous sample (one second for the first).

        Older times are ignored.
        """
        elapsed = 1 if self._last_s is None else now_s - self._last_s
        if elapsed <= 0:
            return
        factor = decay(elapsed)
        self._num = _scaled(self._num, factor) + value * elapsed * SCALE
        self._den = _scaled(self._den, factor) + elapsed * SCALE
        self._last_s = now_s

    def value(self, now_s: int, max_age_s: int) -> int | None:
        """The average, floored; None without a sample within `max_age_s`, and what is so old is forgotten."""
        if self._last_s is None:
            return None
        if now_s - self._last_s > max_age_s:
            self._num, self._den, self._last_s = 0, 0, None
            return None
        return self._num // self._den


def _scaled(value: int, factor: int) -> int:
    """value * factor / SCALE, rounded toward zero so that both signs decay alike."""
    product = abs(value) * factor // SCALE
    return product if value >= 0 else -product
