"""Exchanges that end with the test that started them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running_exchange import RunningExchange


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningExchange]]:
    """Start exchanges that end with the test."""
    running: list[RunningExchange] = []

    def make(*options: str, directory: Path | None = None) -> RunningExchange:
        exchange = RunningExchange(directory or tmp_path / f"exchange-{len(running)}", *options)
        running.append(exchange)
        return exchange

    yield make
    for exchange in running:
        exchange.stop()
