"""What the whole exchange looks like at one moment, from chain, gateway and the roles' status files."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec

from evermark.cli import chain
from evermark.cli.errors import CliError
from evermark.cli.gateway import Gateway


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """One look. `status` is GET /v1/status, None while nobody answers; `roles` the status files by name."""

    block: int | None
    chain_time_s: int | None
    status: dict[str, Any] | None
    commands_per_s: float
    roles: dict[str, dict[str, Any]]


class Observer:
    """Takes overviews of one exchange and remembers what rates need."""

    def __init__(self, gateway: Gateway, rpc_url: str, status_directory: Path) -> None:
        self._gateway = gateway
        self._rpc_url = rpc_url
        self._directory = status_directory
        self._last: tuple[float, int] | None = None

    async def look(self) -> Overview:
        """One overview; what does not answer is None, never an error."""
        block = await chain.result_or_none(self._rpc_url, "eth_blockNumber")
        clock = await chain.result_or_none(self._rpc_url, "devnet_clock")
        try:
            status = await self._gateway.get("/v1/status")
        except CliError:
            status = None
        return Overview(
            block=int(block, 16) if isinstance(block, str) else None,
            chain_time_s=int(clock["chain_time"]) if isinstance(clock, dict) else None,
            status=status,
            commands_per_s=self._rate(status),
            roles=read_roles(self._directory),
        )

    def _rate(self, status: dict[str, Any] | None) -> float:
        if status is None:
            self._last = None
            return 0.0
        now, sequence = time.monotonic(), int(status["journal_sequence"])
        last, self._last = self._last, (now, sequence)
        if last is None or now <= last[0]:
            return 0.0
        return max(0.0, (sequence - last[1]) / (now - last[0]))


def read_roles(directory: Path) -> dict[str, dict[str, Any]]:
    """The status files of keepers and actors by name; what does not read is left out."""
    roles = {}
    for path in sorted(directory.glob("*.json")):
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(value, dict):
            roles[path.stem] = value
    return roles
