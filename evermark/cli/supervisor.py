"""Keeps the processes of one exchange alive, starts them in order and stops them in the reverse one."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from evermark.cli.children import Child, Service
from evermark.cli.errors import CliError
from evermark.cli.rundir import RunDirectory

NOTICES = 6  # how many the screen keeps
POLL_S = 0.1


class Supervisor:
    """The children by name, in the order of their start."""

    def __init__(self, run: RunDirectory, echo: Callable[[str], None]) -> None:
        self.run = run
        self.children: dict[str, Child] = {}
        self.notices: deque[str] = deque(maxlen=NOTICES)
        self._echo = echo

    def notice(self, text: str) -> None:
        """Something that the person should see: on the screen, and on stderr where there is no screen."""
        self.notices.append(f"{time.strftime('%H:%M:%S')} {text}")
        self._echo(text)

    def start(self, name: str, *arguments: str, lasting: bool = True) -> Child:
        """Start `evermark ARGUMENTS` under `name` and keep it alive."""
        service = Service(name=name, arguments=arguments, log=self.run.log(name), lasting=lasting)
        child = self.children[name] = Child(service, self.notice)
        child.start()
        return child

    async def ready(
        self, child: Child, probe: Callable[[], Awaitable[bool]], what: str, timeout_s: float
    ) -> None:
        """Wait until `probe` holds. A first start that ends instead is a refusal; its log says why."""
        deadline = time.monotonic() + timeout_s
        while not await probe():
            if child.last_exit:
                raise CliError(f"{child.service.name} ended ({child.last_exit}):\n{child.log_tail()}")
            if time.monotonic() > deadline:
                raise CliError(
                    f"{what} not within {timeout_s:.0f} s; log: {child.service.log}\n{child.log_tail()}"
                )
            await asyncio.sleep(POLL_S)

    async def stop(self, *names: str) -> None:
        """Stop these children at the same time; unknown names are none."""
        await asyncio.gather(*(self.children[name].stop() for name in names if name in self.children))

    async def stop_all(self, *stages: tuple[str, ...]) -> None:
        """Stop stage after stage, then whatever no stage named."""
        for stage in stages:
            await self.stop(*stage)
        await self.stop(*self.children)
