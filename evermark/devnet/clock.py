"""The chain's clock: it rules a devnet. It starts anywhere and may run faster than real time."""

import time


class DevnetClock:
    """chain time = origin + (monotonic time since start) * speed, in seconds."""

    def __init__(self, origin: float, speed: float) -> None:
        self.speed = speed
        self._origin = origin
        self._started = time.monotonic()

    def now(self) -> float:
        """Chain time in unix seconds."""
        return self._origin + (time.monotonic() - self._started) * self.speed

    def jump_to(self, moment: float) -> None:
        """Set chain time forward to `moment`; never backward."""
        self._origin += max(0.0, moment - self.now())
