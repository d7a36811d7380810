"""An event loop whose time is virtual and whose order is decided by nothing but the program and its seed.

Waiting costs no wall time: when nothing is ready, the clock jumps to the next timer. Work for an executor
runs on the loop's own thread, after a latency that the simulation chooses, and its result arrives after another one:
whoever asked for it may be gone before either.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Stalled(AssertionError):
    """Nothing is ready and no timer is set: the simulated program waits for something that never comes."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits by moving the loop's clock instead of the machine's."""

    loop: "SimulatedLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled("simulation: everything waits and nothing will wake it")
        self.loop.virtual_s += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`run_simulated` makes and closes one."""

    def __init__(self, executor_latency_s: Callable[[], float]) -> None:
        self.virtual_s = 0.0
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self._executor_latency_s = executor_latency_s
        # Timers of one tick run in the order of their times, not of the heap's accidents.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual_s

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """The call happens later; whoever awaits it hears of it later still."""
        future: asyncio.Future[Any] = self.create_future()
        self.call_later(self._executor_latency_s(), self._work, future, func, args)
        return future

    def _work(self, future: "asyncio.Future[Any]", func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            outcome, error = func(*args), None
        except Exception as raised:
            outcome, error = None, raised
        self.call_later(self._executor_latency_s(), _deliver, future, outcome, error)


def _deliver(future: "asyncio.Future[Any]", outcome: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome)


def run_simulated(main: Coroutine[Any, Any, Any], executor_latency_s: Callable[[], float]) -> Any:
    """Run `main` to its end in virtual time."""
    loop = SimulatedLoop(executor_latency_s)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_cancel_all(loop))
        loop.close()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    rest = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task(loop)]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
