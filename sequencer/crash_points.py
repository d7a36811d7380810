"""Places where a test lets the process die, so that every one of them is tried and none is left to luck.

Each place that writes, syncs or answers calls `reached`. With EVERMARK_CRASH_POINT=17 the process gets SIGKILL when
it reaches a place for the seventeenth time; without the variable a call is one comparison.
"""

import os
import signal

VARIABLE = "EVERMARK_CRASH_POINT"

_left = int(os.environ.get(VARIABLE, "0"))


def reached(place: str) -> None:
    """Die here if this is the one. `place` is told on stderr."""
    if _left:
        _count(place)


def arm(number: int) -> None:
    """Die at the `number`-th place from now on; 0: nowhere. For a process that was forked for it."""
    global _left
    _left = number


def _count(place: str) -> None:
    global _left
    _left -= 1
    if not _left:
        os.write(2, f"crash point: {place}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
