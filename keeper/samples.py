"""Funding samples on disk, one line each, a file an hour: a keeper that restarts goes on with its hour."""

from pathlib import Path

import msgspec

from evermark.protocol.funding import HOUR_S
from keeper.funding import Sample

KEPT_HOURS = 48  # published or not, the samples behind a signed commitment can be shown for two days


class SampleStore:
    """Appends to and restores from `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, sample: Sample) -> None:
        """Add one sample to its hour's file and drop files that are too old."""
        hour = sample.time_s // HOUR_S
        path = self._path(hour)
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(msgspec.json.encode(sample) + b"\n")
        if is_new:
            self._prune(hour)

    def load(self, now_s: int) -> tuple[Sample, ...]:
        """Samples of this hour and the one before. A line that was cut short by a crash is left out."""
        hour = now_s // HOUR_S
        found = []
        for path in (self._path(hour - 1), self._path(hour)):
            content = path.read_bytes() if path.exists() else b""
            if content and not content.endswith(b"\n"):
                with path.open("ab") as file:
                    file.write(b"\n")  # so that the next sample starts a line of its own
            for line in content.splitlines():
                try:
                    found.append(msgspec.json.decode(line, type=Sample))
                except msgspec.DecodeError:
                    continue
        return tuple(found)

    def _path(self, hour: int) -> Path:
        return self._directory / f"premiums-{hour}.jsonl"

    def _prune(self, hour: int) -> None:
        for path in self._directory.glob("premiums-*.jsonl"):
            number = path.stem.removeprefix("premiums-")
            if number.isdigit() and int(number) < hour - KEPT_HOURS:
                path.unlink(missing_ok=True)
