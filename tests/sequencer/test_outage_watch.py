"""The watch over outages of the chain: told at the first block that shows one, over when a confirmed block says so."""

import asyncio
from contextlib import suppress

import pytest

from sequencer import outages
from sequencer.engine.commands import AnyCommand, ChainRestarted
from sequencer.engine.events import Event
from sequencer.outages import OutageWatch
from sequencer.settlement.errors import Unreachable


class Oracle:
    """What the newest and the confirmed block say."""

    def __init__(self, *, feed: bool = True) -> None:
        self.feed = feed
        self.newest = self.confirmed = False
        self.asked = 0
        self.away = 0

    async def has_uptime_feed(self) -> bool:
        return self.feed

    async def restarted(self) -> tuple[bool, bool, int]:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise Unreachable("no node")
        return self.newest, self.confirmed, 7


class Engine:
    def __init__(self) -> None:
        self.restarted = False
        self.told: list[ChainRestarted] = []

    async def submit(self, command: AnyCommand) -> list[Event]:
        assert isinstance(command, ChainRestarted)
        self.restarted = command.restarted
        self.told.append(command)
        return []


def watch(oracle: Oracle, engine: Engine) -> OutageWatch:
    return OutageWatch(oracle, engine.submit, lambda: engine.restarted)


@pytest.mark.safety("A09", "contract")
async def test_an_outage_is_told_at_once_and_its_end_when_it_is_confirmed() -> None:
    """Between two changes nothing is journaled."""
    oracle, engine = Oracle(), Engine()
    line = watch(oracle, engine)
    seen = []
    for newest, confirmed in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (0, 0)):
        oracle.newest, oracle.confirmed = bool(newest), bool(confirmed)
        await line.step()
        seen.append(engine.restarted)
    assert seen == [False, True, True, True, False, False]
    assert engine.told == [
        ChainRestarted(restarted=True, block_number=7),
        ChainRestarted(restarted=False, block_number=7),
    ]


@pytest.mark.parametrize(("feed", "told"), [(True, 1), (False, 0)])
async def test_only_a_chain_with_a_feed_is_watched(
    monkeypatch: pytest.MonkeyPatch, feed: bool, told: int
) -> None:
    """A node that is away for a while is asked again; without a feed nobody is asked."""
    monkeypatch.setattr(outages, "POLL_S", 0)
    oracle, engine = Oracle(feed=feed), Engine()
    oracle.newest, oracle.away = True, 2
    running = asyncio.ensure_future(watch(oracle, engine).run())
    for _ in range(2_000):
        await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(engine.told) == told
    assert (oracle.asked > 2) == feed
