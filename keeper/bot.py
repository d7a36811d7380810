"""The loop of every keeper role: collect -> decide -> execute -> learn.

A collector waits until there is something to decide on and gathers it; a strategy decides without any I/O or
clock; an executor acts. Trouble from outside is noted and waited out; a bug ends the process, whose restart
loses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from evermark.client.errors import EvermarkError
from evermark.status import RoleStatus
from keeper.actions import Outcome
from keeper.sources.quotes import SourceUnavailable

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

Observation = TypeVar("Observation")
Observed_co = TypeVar("Observed_co", covariant=True)
Observed_contra = TypeVar("Observed_contra", contravariant=True)
Action = TypeVar("Action")
Action_contra = TypeVar("Action_contra", contravariant=True)

log = structlog.get_logger("keeper")


class Collector(Protocol[Observed_co]):
    """Waits for the next moment of its role and gathers what the decision needs."""

    async def collect(self) -> Observed_co:
        """The next observation.

        May raise EvermarkError or SourceUnavailable; it is called again after a pause.
        """


class Strategy(Protocol[Observed_contra, Action]):
    """Pure decisions; its memory changes only through these two calls."""

    def decide(self, observation: Observed_contra) -> Sequence[Action]:
        """What to do now."""

    def learn(self, action: Action, outcome: Outcome) -> None:
        """How an action ended."""


class Executor(Protocol[Action_contra]):
    """Signs, sends, stores."""

    async def execute(self, action: Action_contra) -> Outcome:
        """Do it; refusals and silence are outcomes, not exceptions."""


async def run_bot(
    collector: Collector[Observation],
    strategy: Strategy[Observation, Action],
    executor: Executor[Action],
    status: RoleStatus,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run one role until cancelled."""
    pause = FIRST_PAUSE_S
    while True:
        try:
            observation = await collector.collect()
        except (EvermarkError, SourceUnavailable) as error:
            status.failed(str(error))
            log.warning("cannot observe", role=status.role, reason=str(error)[:300])
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            continue
        pause = FIRST_PAUSE_S
        for action in strategy.decide(observation):
            outcome = await executor.execute(action)
            strategy.learn(action, outcome)
            if outcome.accepted:
                status.acted(outcome.text)
            elif outcome.text:
                status.failed(outcome.text)
                log.warning("not accepted", role=status.role, reason=outcome.text[:300])
        status.looked()
