"""Streaming reader of one trade tape (.csv or .csv.gz), row by row, in time order.

Columns by name: exchange, symbol, timestamp, local_timestamp, id, side, price, amount; times in microseconds,
`side` the taker's. A bad row is named with file and line, counted and left out; a damaged file raises
TapeError.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from evermark.protocol.orders import Side

COLUMNS = ("exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount")
KEPT_COMPLAINTS = 20  # sentences kept for a person to read; all bad rows are counted
MAX_TIME_US = 2**53
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE]-[0-9]{1,2})?", re.ASCII)
_TIME = re.compile(r"[0-9]{1,16}", re.ASCII)
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}


class TapeError(ValueError):
    """The file cannot be read as a tape at all; the message names file and line."""


class Trade(NamedTuple):
    """One print of a venue. `time_us` never falls within a tape; `price` and `amount` are exact."""

    time_us: int
    side: Side  # the taker's
    price: Decimal
    amount: Decimal
    trade_id: str


class TapeReader:
    """Iterates the trades with start_us <= time < end_us of one file; may be iterated again from the start.

    A row whose time falls behind its predecessor's takes the predecessor's time and is counted in
    `late_rows`.
    """

    def __init__(self, path: Path, *, start_us: int = 0, end_us: int = MAX_TIME_US) -> None:
        self.path = path
        self.start_us = start_us
        self.end_us = end_us
        self.bad_rows = 0
        self.late_rows = 0
        self.complaints: list[str] = []

    def __iter__(self) -> Iterator[Trade]:
        self.bad_rows = self.late_rows = 0
        self.complaints = []
        with _open_text(self.path) as text:
            rows = csv.reader(text)
            try:
                yield from self._trades(rows)
            except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
                raise TapeError(f"{self.path}:{rows.line_num + 1}: {error}") from error

    def _trades(self, rows: Iterator[list[str]]) -> Iterator[Trade]:
        at = _column_places(next(rows, []), self.path)
        last_us = 0
        for line, row in enumerate(rows, start=2):
            stamp = row[at[0]] if len(row) == at[4] else ""
            if not _TIME.fullmatch(stamp):
                self._complain(line, f"{len(row)} fields, time {stamp[:40]!r}")
                continue
            time_us = int(stamp)
            if time_us < self.start_us:
                continue
            if time_us < last_us:
                self.late_rows += 1
                time_us = last_us
            if time_us >= self.end_us:
                return
            trade = self._trade(line, row, at, time_us)
            if trade is not None:
                last_us = time_us
                yield trade

    def _trade(self, line: int, row: list[str], at: tuple[int, ...], time_us: int) -> Trade | None:
        side, price, amount = row[at[1]], row[at[2]], row[at[3]]
        if side not in _SIDES:
            self._complain(line, f"side {side[:40]!r}")
        elif not _NUMBER.fullmatch(price) or not (exact := Decimal(price)):
            self._complain(line, f"price {price[:40]!r}")
        elif not _NUMBER.fullmatch(amount) or not (size := Decimal(amount)):
            self._complain(line, f"amount {amount[:40]!r}")
        else:
            return Trade(time_us, _SIDES[side], exact, size, row[at[5]])
        return None

    def _complain(self, line: int, what: str) -> None:
        self.bad_rows += 1
        if len(self.complaints) < KEPT_COMPLAINTS:
            self.complaints.append(f"{self.path}:{line}: {what}")


def _open_text(path: Path) -> io.TextIOBase:
    """The file as text, whichever of the two forms it has. Raises TapeError when it cannot be opened."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="ascii", newline="")
        return path.open(encoding="ascii", newline="")
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error


def _column_places(header: list[str], path: Path) -> tuple[int, ...]:
    """Places of (timestamp, side, price, amount), the number of columns, and the place of id."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise TapeError(f"{path}:1: no column {', '.join(missing)}")
    places = [header.index(name) for name in ("timestamp", "side", "price", "amount")]
    return (*places, len(header), header.index("id"))
