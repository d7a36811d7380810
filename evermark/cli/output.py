"""What commands print: tables for people, one JSON value for scripts. Results go to stdout."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

WIDEST = 500  # columns; no table of ours needs as many

stdout = Console()
stderr = Console(stderr=True)


def say(text: str) -> None:
    """One plain line for the person at the keyboard, on stderr."""
    stderr.print(text, highlight=False, soft_wrap=True, markup=False)


def logs_aside() -> None:
    """What a command's parts log goes to stderr, and only warnings do: stdout is for its result."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    print(json.dumps(value, default=_plain), flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns align right unless their name starts with `<`."""
    made = Table(title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        left = column.startswith("<")
        made.add_column(column.lstrip("<"), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `table(...)` on stdout, whole: a narrow terminal wraps its lines, nothing is cut off."""
    made = table(title, columns, rows)
    width = max(stdout.width, Console(width=WIDEST).measure(made).maximum)
    Console(width=width, soft_wrap=True).print(made)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr while the block runs, where that is a terminal; call with (what, done, in all)."""
    tasks: dict[str, TaskID] = {}
    with Progress(console=stderr, disable=not stderr.is_terminal) as bars:

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield update


def print_fields(fields: dict[str, str]) -> None:
    """Name and value, one pair a line."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


def _plain(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
