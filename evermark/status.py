"""What long-running keepers and actors share: a small status file, replaced every second, and stopping."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

WRITE_EVERY_S = 1.0
SILENT_S = 20.0  # without a look for this long a role is stuck


class RoleStatus:
    """One role's record. Times are wall seconds; `facts` is what the role wants shown."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.actions = 0
        self.errors = 0
        self.last_action = ""
        self.last_error = ""
        self.facts: dict[str, Any] = {}
        self._acted_at = self._failed_at = 0.0
        self._looked_at = time.time()

    def acted(self, text: str) -> None:
        """Something was done and accepted."""
        self.actions += 1
        self.last_action, self._acted_at = text, time.time()
        self._looked_at = self._acted_at

    def failed(self, text: str) -> None:
        """Something was refused or did not work."""
        self.errors += 1
        self.last_error, self._failed_at = text[:300], time.time()

    def looked(self) -> None:
        """The role is alive, whether or not there was anything to do."""
        self._looked_at = time.time()

    @property
    def health(self) -> str:
        """ok; degraded: its last attempt failed; stuck: no look for a while."""
        if time.time() - self._looked_at > SILENT_S:
            return "stuck"
        return "degraded" if self._failed_at > max(self._acted_at, self._looked_at) else "ok"

    def to_json(self) -> dict[str, Any]:
        """The record as the file shows it."""
        return {
            "health": self.health,
            "actions": self.actions,
            "errors": self.errors,
            "last_action": self.last_action,
            "last_action_at": round(self._acted_at, 3),
            "last_error": self.last_error,
            "last_error_at": round(self._failed_at, 3),
            **self.facts,
        }


class StatusFile:
    """The status of one process: {"name", "pid", "started_at", "written_at", "health", "roles": {...}}."""

    def __init__(self, path: Path | None, name: str) -> None:
        self._path = path
        self._name = name
        self._started_at = round(time.time(), 3)
        self.roles: dict[str, RoleStatus] = {}
        self.extra: Callable[[], dict[str, Any]] = dict

    def role(self, name: str) -> RoleStatus:
        """The record of a role, made on first use."""
        return self.roles.setdefault(name, RoleStatus(name))

    def to_json(self) -> dict[str, Any]:
        """What the next write will contain."""
        healths = [role.health for role in self.roles.values()] or ["starting"]
        worst = next((health for health in ("stuck", "degraded", "starting") if health in healths), "ok")
        return {
            "name": self._name,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "written_at": round(time.time(), 3),
            "health": worst,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            **self.extra(),
        }

    def write(self) -> None:
        """Replace the file, so that a reader never sees half of one."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(self.to_json()))
        os.replace(part, self._path)

    async def keep_writing(self) -> None:
        """Write every second until cancelled."""
        while True:
            self.write()
            await asyncio.sleep(WRITE_EVERY_S)


@contextlib.contextmanager
def stop_on_signals(task: "asyncio.Future[None]") -> Iterator[None]:
    """Cancel `task` on SIGTERM and SIGINT while the context lasts."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
