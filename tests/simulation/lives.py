"""The sequencer's lives: it is killed, its disk fills up, it goes on as a zombie beside its successor, a standby takes over."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

from sequencer.engine.commands import Genesis
from sequencer.journal import JournalRefused
from tests.simulation.disk import FINE, FULL, LATE, LOST_ANSWER, LOST_WRITE, TWICE, Disk
from tests.simulation.node import SimulatedChain
from tests.simulation.process import Process, SimulatedCore, SnapshotShelf

FATES = {FINE: 95.4, LOST_ANSWER: 1.5, LOST_WRITE: 1.5, LATE: 0.5, TWICE: 1, FULL: 0.1}
LIFE_S = 60  # on average
LONG_LIFE_S = 900  # the same while nothing can settle: a start replays everything
STANDBY = 0.4  # share of lives beside which a standby follows
ZOMBIE = 0.3  # share of lives without an error that end so
SILENT = 0.5  # the same where a standby takes over
HANGS = 0.7  # share of those lives at whose end the journal answers no more
LONGEST_ZOMBIE_S = 60.0
LAST_WORDS_S = 2.0  # for how long it goes on so


class Lives:
    """`live()` until cancelled; `process` is the one that works, None between two."""

    def __init__(
        self,
        rng: Random,
        disk: Disk,
        genesis: Genesis,
        chain: SimulatedChain,
        now_ms: Callable[[], int],
        directory: Path,
    ) -> None:
        self.disk = disk
        self.process: Process | None = None
        self.zombies: list[Process] = []
        self.buried: list[Process] = []
        self.deaths = self.takeovers = self.failovers = 0
        self._rng, self._genesis, self._chain, self._now_ms = rng, genesis, chain, now_ms
        self._directory = directory
        self._machines: dict[SimulatedCore, int] = {}  # whose history is in which directory
        self._shelves: dict[int, SnapshotShelf] = {}
        self._standing_by: set[SimulatedCore] = set()

    async def live(self) -> None:
        """Start, die, start again."""
        leader = await self._start()
        while True:
            self.process = leader
            await self._bury()
            standby = self._stand_by() if self._faulty() and self._rng.random() < STANDBY else None
            error = await self._life(leader)
            if standby is not None and error is None and self._rng.random() < HANGS:
                error = await self._last_words(leader)
            self.process = None
            if standby is None:
                await self._end(leader, error, ZOMBIE)
                leader = await self._start()
            else:
                leader.fall_silent()
                await self._end(leader, error, SILENT)
                leader = await self._taken_over(standby)

    async def kill_all(self) -> None:
        """At the end of a run."""
        for process in [*self.zombies, *([self.process] if self.process else [])]:
            await process.kill()
        for core in self._standing_by:
            await core.drop()

    async def _life(self, process: Process) -> BaseException | None:
        """Until it ends by itself, or has lived for long enough; its error, if that is not a bug."""
        left_s = self._chain.faults.until_s - asyncio.get_running_loop().time()
        away = self._chain.away_until_s > asyncio.get_running_loop().time() + LONG_LIFE_S / 2
        mean_s = LONG_LIFE_S if away else LIFE_S
        life_s = min(self._rng.expovariate(1 / mean_s), left_s) if left_s > 0 else 10.0**9
        try:
            await asyncio.wait_for(process.ended.wait(), life_s)
        except TimeoutError:
            pass
        return _no_bug(process)

    async def _last_words(self, leader: Process) -> BaseException | None:
        """What it sent last arrives just before its successor owns the journal, or never."""
        leader.hang()
        try:
            await asyncio.wait_for(leader.ended.wait(), LAST_WORDS_S)
        except TimeoutError:
            pass
        return _no_bug(leader)

    async def _end(self, process: Process, error: BaseException | None, zombie: float) -> None:
        if error is None and self._rng.random() < zombie:
            self.takeovers += 1  # it is only frozen out: it goes on working until the journal fences it
            self.zombies.append(process)
            return
        self.deaths += 1
        await process.kill()
        self._machines.pop(process.core)
        await asyncio.sleep(self._rng.uniform(0.1, 4))

    async def _bury(self) -> None:
        """A part of a zombie has ended, for it was fenced: so does the process."""
        for process in [one for one in self.zombies if one.ended.is_set()]:
            await process.kill()
            self._machines.pop(process.core)
            self.zombies.remove(process)
            self.buried.append(process)

    async def _start(self) -> Process:
        """A supervisor tries until it works."""
        while True:
            try:
                core = self._core(standby=False)
            except JournalRefused:  # the very first record did not make it
                await asyncio.sleep(1)
                continue
            try:
                await core.check_chain(self._chain)
                return Process(core, self._chain, self._now_s, taken_over=False)
            except JournalRefused:
                await self._drop(core)
                await asyncio.sleep(5)

    def _stand_by(self) -> "asyncio.Task[Process]":
        core = self._core(standby=True)
        self._standing_by.add(core)

        async def turn() -> Process:
            await core.turn()
            await core.check_chain(self._chain)
            self._standing_by.discard(core)
            return Process(core, self._chain, self._now_s, taken_over=True)

        return asyncio.ensure_future(turn())

    async def _taken_over(self, standby: "asyncio.Task[Process]") -> Process:
        """The standby's turn comes by itself; but not while a silent leader still writes, which dies then."""
        await asyncio.wait({standby}, timeout=LONGEST_ZOMBIE_S)
        if not standby.done():
            for zombie in self.zombies:
                zombie.ended.set()
            await self._bury()
        try:
            process = await standby
        except JournalRefused:  # the chain tells another story: a supervisor starts it again
            for core in list(self._standing_by):
                await self._drop(core)
            return await self._start()
        self.failovers += 1
        return process

    async def _drop(self, core: SimulatedCore) -> None:
        self._standing_by.discard(core)
        self._machines.pop(core)
        await core.drop()

    def _core(self, *, standby: bool) -> SimulatedCore:
        machine = min(set(range(len(self._machines) + 1)) - set(self._machines.values()))
        directory = self._directory / str(machine)
        shelf = self._shelves.setdefault(machine, SnapshotShelf())
        about = self.disk, self._fate, self._genesis, self._now_ms, directory, shelf
        core = SimulatedCore(*about, standby=standby)
        self._machines[core] = machine
        return core

    def _fate(self) -> str:
        if not self._faulty():
            return FINE
        return self._rng.choices(list(FATES), list(FATES.values()))[0]

    def _faulty(self) -> bool:
        return asyncio.get_running_loop().time() < self._chain.faults.until_s

    def _now_s(self) -> int:
        return self._now_ms() // 1000


def _no_bug(process: Process) -> BaseException | None:
    """What ended it. Raises what no fault explains."""
    if process.error is not None and not isinstance(process.error, JournalRefused):
        raise process.error
    return process.error
