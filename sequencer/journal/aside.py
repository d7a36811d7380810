"""The hash chain of a long journal, checked by a process of its own while a start goes on loading: `python -m
sequencer.journal.aside` with the journal's location on the standard input, which no list of processes shows."""

import subprocess
import sys
from types import TracebackType

import msgspec

from sequencer.journal.opening import SCHEMES, open_journal
from sequencer.journal.records import Journal, JournalRefused

LEAST_RECORDS = 100_000  # a shorter journal is checked sooner than another process has begun


class _Task(msgspec.Struct):
    location: str
    until: int


class ChainCheck:
    """`with ChainCheck(journal, until) as check`: begun at once; `check.wait` tells the outcome."""

    def __init__(self, journal: Journal, until: int, least_records: int = LEAST_RECORDS) -> None:
        """`until` may lie beyond the head: what is there is checked."""
        self._journal, self._until = journal, min(until, journal.head().sequence)
        self._process: subprocess.Popen[bytes] | None = None
        if self._until >= least_records:
            command = [sys.executable, "-m", "sequencer.journal.aside"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self._process.stdin is not None:
                self._process.stdin.write(msgspec.json.encode(_Task(journal.location, self._until)))
                self._process.stdin.close()

    def wait(self, until: int) -> None:
        """Return once records 1 to `until` are known to be whole. Raises JournalRefused at the first that is not."""
        if self._process is not None and self._process.stdout is not None and until <= self._until:
            answer = self._process.stdout.read()
            code = self._process.wait()
            if code == 1 and answer:
                raise JournalRefused(answer.decode())
            if code == 0:
                return
        self._journal.check_chain(until)  # there was no other process, or it did not get as far as an answer

    def __enter__(self) -> "ChainCheck":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def main() -> int:
    """0: whole; 1: not, and why on the standard output."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    try:
        # A node of PostgreSQL that only reads may be behind.
        journal = open_journal(task.location, read_only=not task.location.startswith(SCHEMES))
        try:
            journal.check_chain(task.until)
        finally:
            journal.close()
    except JournalRefused as refused:
        sys.stdout.write(str(refused))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
